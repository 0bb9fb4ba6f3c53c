"""``recovery replay``: rebuild, and check every digest, response and event on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from recovery.cli.emitting import emit, emit_pytest_option, evidence_options, keep
from recovery.cli.options import (
    explain_option,
    guard_option,
    json_option,
    quiet_option,
    range_options,
    require_engine,
    shared,
    take,
)
from recovery.cli.output import progress, say, show_json
from recovery.cli.publishing import publish, report_options, standing_images

if TYPE_CHECKING:
    from recovery.report import Report
    from recovery.settings import Settings


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
@click.option(
    "--perturb",
    is_flag=True,
    help="Replay under other hash seeds, zones, locales, clocks, threads, … too.",
)
@explain_option
@click.option("--strict", is_flag=True, help="Anything not checked exits 5.")
@click.option("--jobs", type=click.IntRange(1), default=1, metavar="N", help="Replay in N processes.  [default: 1]")
@click.option("--executor", metavar="dask:ADDRESS", help="Replay on the workers of this Dask scheduler.")
@click.option("--git-bisect", is_flag=True, help="For `git bisect run`: what cannot be judged (2 to 5) exits 125.")
@guard_option
@report_options
@emit_pytest_option
@evidence_options
@json_option
@quiet_option
def command(
    verify: bool,
    strict: bool,
    html: str | None,
    junit_xml: str | None,
    emit_pytest: str | None,
    evidence: str | None,
    redact: str,
    as_json: bool,
    quiet: bool,
    git_bisect: bool,
    **asked: Any,
) -> int:
    """Replay the journal with this code and say whether it is the same, command by command.

    \b
    recovery replay --engine shop.engine:Till --journal sqlite:till.db
    recovery replay --after 40000 --until 50000 --json
    recovery replay --jobs 4 --keep-going
    recovery replay --guard warn
    recovery replay --strict --html replay.html --junit-xml replay.xml
    recovery replay --perturb
    git bisect run recovery replay --git-bisect
    recovery replay --emit-pytest tests/test_divergence.py
    """
    found = take(asked)
    explain = asked["perturb"] or (asked["explain_s"] > 0 and not git_bisect)
    report = _replayed(found, asked, compare=verify, explain=explain, quiet=quiet)
    document = report.to_dict()
    if as_json:
        show_json(document)
    else:
        click.echo(str(report))
    keep(report, found, evidence, redact, quiet=quiet)
    emit(emit_pytest, next(iter(report.divergences), None), found, quiet=quiet)
    if not report.commands and verify:
        say("there was nothing to verify: the range holds no command", quiet=quiet)
    publish(document, title="recovery replay", html=html, junit_xml=junit_xml, images=lambda: standing_images(found))
    return report.exit_code(strict=strict) if verify else 0


def _replayed(found: Settings, asked: dict[str, Any], *, compare: bool, explain: bool, quiet: bool) -> Report:
    """Replay what was asked for."""
    from journal.errors import UsageError
    from recovery import open_journal
    from recovery.moments import command_at, until_at
    from recovery.verification import verify

    engine = require_engine(found)
    start = asked.pop("start")
    if start is not None and start != "genesis" and not start.isdecimal():
        raise UsageError(f"--from {start!r} is neither genesis nor a command id")
    with open_journal(found.journal, stream=found.stream) as journal:
        asked["after"], asked["until"] = command_at(journal, asked["after"]), until_at(journal, asked["until"])
    with progress("replayed", quiet=quiet) as draw:
        return verify(
            engine,
            found.journal,
            found.snapshots,
            stream=found.stream,
            start=None if start is None else 0 if start == "genesis" else int(start),
            compare=compare,
            explain=explain,
            app_dir=found.app_dir,
            progress=draw,
            **asked,
        )
