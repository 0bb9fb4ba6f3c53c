"""``recovery status``: head, newest image, tail, estimated recovery time, durability."""

from __future__ import annotations

from typing import Any

import click

from recovery.cli.options import json_option, shared, take
from recovery.cli.output import show_json


@click.command("status", short_help="Where the journal and its images stand.")
@shared
@click.option("--check", is_flag=True, help="Exit 3 when not healthy.")
@json_option
def command(check: bool, as_json: bool, **rest: Any) -> int:
    """Show where the journal and its images stand; a running engine is not disturbed.

    \b
    recovery status --check --journal sqlite:till.db --snapshots dir:till-snapshots
    recovery status --check --journal wal:till --ship-to postgresql://app@db/till
    """
    from recovery import open_journal
    from recovery.images import open_catalog
    from recovery.outboxes import cursors_beside
    from recovery.status import journal_status

    found = take(rest)
    with open_journal(found.journal, stream=found.stream) as journal:
        catalog = open_catalog(found.snapshots, found.stream)
        assert catalog is not None
        cursors = cursors_beside(found.ship_to or found.journal)
        document = journal_status(journal, catalog, cursors, ship_to=found.ship_to)
    if as_json:
        show_json(document)
    else:
        click.echo(f"{document['engine']}: {'healthy' if document['healthy'] else 'not healthy'}")
        click.echo(f"  head: command {document['head']['command_id']}")
        click.echo(
            f"  newest image: command {document['snapshot']['command_id']}, {document['tail']} commands behind the head"
        )
        click.echo(f"  estimated recovery: {document['estimated_recovery_seconds']} s")
        for outbox in document["outboxes"]:
            click.echo(
                f"  outbox {outbox['name']}: after command {outbox['command_id']}, {outbox['commands_behind']} commands "
                f"and {outbox['seconds_behind']} s behind"
            )
        if "commands_behind" in (shipping := document.get("shipping", {})):
            click.echo(
                f"  shipped to {shipping['location']}: command {shipping['command_id']}, {shipping['commands_behind']} "
                f"commands and {shipping['seconds_behind']} s behind"
            )
        for one in document["projections"]:
            click.echo(f"  projection {one['name']}: command {one['command_id']}, {one['behind']} behind the head")
        for name, value in document["durability"].items():
            click.echo(f"  {name}: {value}")
        for problem in document["problems"]:
            click.echo(f"  problem: {problem}")
    return 3 if check and not document["healthy"] else 0
