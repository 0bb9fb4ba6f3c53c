"""``recovery replay``: rebuild, and check every digest, response and event on the way."""

from __future__ import annotations

from typing import Any

import click

from recovery.cli.options import guard_option, json_option, quiet_option, range_options, require_engine, shared, take
from recovery.cli.output import progress, say, show_json


@click.command("replay", short_help="Replay history with this code and compare all.")
@shared
@range_options
@click.option(
    "--from", "start", metavar="genesis|N", help="The image the replay starts from.  [default: newest before --after]"
)
@click.option("--verify/--no-verify", default=True, help="Compare with the record (the default), or only rebuild.")
@click.option(
    "--mode", type=click.Choice(["execute", "redo"]), default="execute", help="Run the commands, or write the rows."
)
@click.option("--keep-going", is_flag=True, help="Go on after a divergence, from that command's recorded rows.")
@click.option("--strict", is_flag=True, help="Anything not checked exits 5.")
@guard_option
@json_option
@quiet_option
def command(
    after: str | None,
    until: str | None,
    start: str | None,
    verify: bool,
    mode: str,
    keep_going: bool,
    strict: bool,
    guard: str,
    **rest: Any,
) -> int:
    """Replay the journal with this code and say whether it is the same, command by command.

    \b
    recovery replay --engine shop.engine:Till --journal sqlite:till.db
    recovery replay --after 40000 --until 50000 --json
    recovery replay --guard warn
    """
    from journal.errors import UsageError
    from recovery import open_journal
    from recovery.moments import command_at, until_at
    from recovery.verification import verify as run

    as_json, quiet = rest.pop("as_json"), rest.pop("quiet")
    found = take(rest)
    engine = require_engine(found)
    if start is not None and start != "genesis" and not start.isdecimal():
        raise UsageError(f"--from {start!r} is neither genesis nor a command id")
    with open_journal(found.journal, stream=found.stream) as journal:
        first, last = command_at(journal, after), until_at(journal, until)
    with progress("replayed", quiet=quiet) as draw:
        report = run(
            engine,
            found.journal,
            found.snapshots,
            stream=found.stream,
            after=first,
            until=last,
            start=None if start is None else 0 if start == "genesis" else int(start),
            mode=mode,
            keep_going=keep_going,
            compare=verify,
            app_dir=found.app_dir,
            guard=guard,
            progress=draw,
        )
    if as_json:
        show_json(report.to_dict())
    else:
        click.echo(str(report))
    if not report.commands and verify:
        say("there was nothing to verify: the range holds no command", quiet=quiet)
    return report.exit_code(strict=strict) if verify else 0
