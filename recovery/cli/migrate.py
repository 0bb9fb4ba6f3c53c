"""``recovery migrate``: the schema of the store."""

from __future__ import annotations

from typing import Any, NamedTuple

import click

from recovery.cli.options import json_option, shared, take
from recovery.cli.output import show_json


@click.command("migrate", short_help="Bring a journal's schema up to this release.")
@shared
@click.option("--sql", is_flag=True, help="Print the statements and change nothing.")
@click.option("--check", is_flag=True, help="Change nothing; exit 3 when the schema is behind.")
@json_option
def command(sql: bool, check: bool, as_json: bool, **rest: Any) -> int:
    """Bring the schema of an existing journal up to this release; in PostgreSQL, of the images' database, and of the one that
    the journal is shipped to, too.

    \b
    recovery migrate --check --journal sqlite:till.db
    recovery migrate --journal postgresql://till@db/till
    """
    from journal.redaction import redacted
    from journal.urls import is_server, journal_schema, journal_schema_sql, migrate_journal

    found = take(rest)
    if sql:
        click.echo(journal_schema_sql(found.journal), nl=False)
        return 0
    look = journal_schema if check else migrate_journal
    places = dict.fromkeys([found.journal, *filter(is_server, (found.snapshots, found.ship_to))])
    schemas = [Schema(redacted(url), *look(url)) for url in places]
    behind = check and any(schema.found != schema.wanted for schema in schemas)
    if as_json:
        journal = schemas[0]
        document = {"found": journal.found, "wanted": journal.wanted, "behind": behind}
        show_json(document | {"schemas": [schema._asdict() for schema in schemas]})
    else:
        for schema in schemas:
            click.echo(schema.said(check))
    return 3 if behind else 0


class Schema(NamedTuple):
    """The schema at one place: the version that was found, and the one this release wants; 0 and 0 where there is none."""

    location: str
    found: int
    wanted: int

    def said(self, check: bool) -> str:
        """What there is to say of it."""
        if not self.wanted:
            return f"{self.location} has no schema to migrate"
        if self.found == self.wanted:
            return f"{self.location}: the schema is at version {self.wanted}"
        if check:
            return (
                f"{self.location}: the schema is at version {self.found}, and this release wants {self.wanted}: "
                "run recovery migrate"
            )
        return f"{self.location}: the schema is brought from version {self.found} to {self.wanted}"
