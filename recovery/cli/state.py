"""``recovery state``: the state as it was after a command."""

from __future__ import annotations

from typing import Any

import click

from recovery.cli.options import json_option, shared, take
from recovery.cli.output import cut, show_json


@click.command("state", short_help="The rows as they were at a command or time.")
@shared
@click.option("--at", metavar="N|TIME", required=True, help="After which command, or as of which time.")
@click.option("--table", metavar="T", help="Only this table.")
@click.option("--key", metavar="K", help="Only this row of the table: JSON, tagged as in output, or text.")
@json_option
def command(at: str, table: str | None, key: str | None, as_json: bool, **rest: Any) -> int:
    """Show the rows as they were, from images and recorded changes; no engine is needed where there are tables.

    \b
    recovery state --at 4710 --table accounts --key ada
    recovery state --at 2026-11-23T03:00:00Z --json
    """
    from journal import values
    from journal.errors import UsageError
    from recovery import open_journal
    from recovery.history import captured_at, rows_at
    from recovery.images import open_catalog
    from recovery.json_values import parse_key, to_json
    from recovery.moments import command_at

    found = take(rest)
    if key is not None and table is None:
        raise UsageError("--key needs --table: keys belong to a table")
    with open_journal(found.journal, stream=found.stream) as journal:
        command_id = command_at(journal, at)
        catalog = open_catalog(found.snapshots, found.stream)
        if journal.identity.digest_every and found.engine:
            value = captured_at(journal, catalog, command_id, found.engine, app_dir=found.app_dir)
            show_json({"command_id": command_id, "value": to_json(value)}) if as_json else click.echo(cut(value))
            return 0
        rows = rows_at(journal, catalog, command_id, tables=None if table is None else frozenset([table]))
    wanted = None if key is None else values.encode_bare(parse_key(key))
    shown = {
        name: [(values.decode_bare(k), values.decode_bare(r)) for k, r in found_rows.items() if wanted in (None, k)]
        for name, found_rows in rows.items()
    }
    if as_json:
        tables = {name: [{"key": to_json(k), "row": to_json(r)} for k, r in pairs] for name, pairs in shown.items()}
        show_json({"command_id": command_id, "tables": tables})
    else:
        for name, pairs in shown.items():
            for one, row in pairs:
                click.echo(f"{name} {cut(one)} {cut(row)}")
    return 0
