"""``recovery backfill``: fill the tables of projections from recorded history."""

from __future__ import annotations

from typing import Any

import click

from recovery.cli.options import json_option, projection_option, quiet_option, shared, take
from recovery.cli.output import progress, show_json


@click.command("backfill", short_help="Fill projections' tables from history.")
@shared
@projection_option
@click.option("--anew", is_flag=True, help="Drop the projections' tables first, and fill them from the beginning.")
@json_option
@quiet_option
def command(projection: tuple[str, ...], anew: bool, as_json: bool, quiet: bool, **rest: Any) -> int:
    """Fill the tables of projections from where they stand to the end of the journal.

    The journal is held meanwhile: no engine may be running on it.  A page at a time is written, each exactly once, so it may be
    stopped anywhere and run again.  Then open the engine with the projections.

    \b
    recovery backfill --journal sqlite:exchange.db \\
        --projection recovery.examples.fills_and_balances:FillsAndBalances
    """
    from contextlib import closing

    from journal.backfill import backfill, clear
    from journal.errors import UsageError
    from journal.urls import open_reader, open_writer
    from recovery.loading import load_projections

    found = take(rest)
    projections = load_projections(projection, app_dir=found.app_dir)
    if not projections:
        raise UsageError("no projection is named", hint="say --projection MODULE:ATTR")
    # For read first: a journal that is not there is not to be made.
    open_reader(found.journal).close()
    filled = []
    with closing(open_writer(found.journal, stream=found.stream)) as store:
        for one in projections:
            if anew:
                clear(store, found.stream, one)
            with progress(one.name, quiet=quiet) as draw:
                filled.append(backfill(store, found.stream, one, report=draw))
    if as_json:
        show_json(
            {"projections": [{"name": done.name, "after": done.after, "command_id": done.until} for done in filled]}
        )
    else:
        for done in filled:
            click.echo(f"{done.name}: {done.until - done.after} commands, now at command {done.until}")
    return 0
