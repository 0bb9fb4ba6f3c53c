"""``recovery migrate``: the schema of the store."""

from __future__ import annotations

from typing import Any

import click

from recovery.cli.options import json_option, shared, take
from recovery.cli.output import show_json


@click.command("migrate", short_help="Bring a journal's schema up to this release.")
@shared
@click.option("--sql", is_flag=True, help="Print the statements and change nothing.")
@click.option("--check", is_flag=True, help="Change nothing; exit 3 when the schema is behind.")
@json_option
def command(sql: bool, check: bool, as_json: bool, **rest: Any) -> int:
    """Bring the schema of an existing journal up to this release; in PostgreSQL, of the images' database too.

    \b
    recovery migrate --check --journal sqlite:till.db
    recovery migrate --journal postgresql://till@db/till
    """
    from journal.urls import is_server, journal_schema, journal_schema_sql, migrate_journal

    found = take(rest)
    if sql:
        click.echo(journal_schema_sql(found.journal), nl=False)
        return 0
    look = journal_schema if check else migrate_journal
    before, wanted = look(found.journal)
    if is_server(found.snapshots) and found.snapshots != found.journal:
        # One schema serves both, so the older of the two is what there is to say.
        before = min(before, look(found.snapshots)[0])
    behind = check and before != wanted
    if as_json:
        show_json({"found": before, "wanted": wanted, "behind": behind})
    elif behind:
        click.echo(f"the schema is at version {before}, and this release wants {wanted}: run recovery migrate")
    else:
        moved = f"brought from version {before} to {wanted}" if before != wanted else f"at version {wanted}"
        click.echo(f"the schema is {moved}")
    return 3 if behind else 0
