"""``recovery diff A B``: how the state differs between two points."""

from __future__ import annotations

from typing import Any

import click

from recovery.cli.options import json_option, shared, take
from recovery.cli.output import cut, show_json


@click.command("diff", short_help="The rows that differ between two points.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@shared
@json_option
def command(a: str, b: str, as_json: bool, **rest: Any) -> int:
    """Show the rows that differ between the states after A and B, each a command id or a time.

    \b
    recovery diff 4710 4711
    recovery diff 2026-11-23T03:00:00Z 2026-11-23T04:00:00Z --json
    """
    from recovery import open_journal
    from recovery.history import differences, rows_at
    from recovery.images import open_catalog
    from recovery.json_values import to_json
    from recovery.moments import command_at

    found = take(rest)
    with open_journal(found.journal, stream=found.stream) as journal:
        catalog = open_catalog(found.snapshots, found.stream)
        first, second = command_at(journal, a), command_at(journal, b)
        before, after = rows_at(journal, catalog, first), rows_at(journal, catalog, second)
    rows = differences(before, after)
    if as_json:
        document = []
        for row in rows:
            sides = {"a": row.before, "b": row.after}
            shown = {side: to_json(value) for side, value in sides.items() if value is not None}
            document.append({"table": row.table, "key": to_json(row.key), **shown})
        show_json({"a": first, "b": second, "rows": document})
        return 0
    for row in rows:
        sign = "+" if row.before is None else "-" if row.after is None else "~"
        ends = [cut(value) for value in (row.before, row.after) if value is not None]
        click.echo(f"{sign} {row.table} {cut(row.key)} {' -> '.join(ends)}")
    return 0
