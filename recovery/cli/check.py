"""``recovery check``: bytes, chains and digest arithmetic of a journal and its images."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from journal.errors import UsageError
from recovery.cli.options import json_option, quiet_option, shared, take
from recovery.cli.output import progress, show_json


@click.command("check", short_help="Check every byte; needs no engine.")
@shared
@click.option("--repair", "repairs", is_flag=True, help="First cut a torn tail of a wal: journal, keeping a copy.")
@click.option("--yes", is_flag=True, help="Repair without asking.")
@json_option
@quiet_option
def command(repairs: bool, yes: bool, as_json: bool, quiet: bool, **rest: Any) -> int:
    """Check every byte; needs no engine.  Exits 4 where something is damaged, and says what is the last good command.

    A batch that power cut short in a wal: journal was never acknowledged.  --repair cuts it, as the next writer would, and
    keeps a copy beside it; nothing else is ever repaired.

    \b
    recovery check --journal sqlite:till.db --snapshots dir:till-snapshots
    recovery check --journal wal:till --repair
    recovery check --journal wal:till --ship-to postgresql://app@db/till

    With --ship-to it also says whether one of the two journals is the beginning of the other; the bytes of the other are
    checked under its own URL.
    """
    from recovery import open_journal
    from recovery.check import check
    from recovery.images import open_catalog
    from recovery.outboxes import cursors_beside
    from recovery.repair import repair

    found = take(rest)
    copy = repair(found.journal, found.snapshots, found.stream, _agreed(yes)) if repairs else None
    if copy is not None and not quiet:
        click.echo(f"cut what was torn; a copy is {copy}", err=True)
    with open_journal(found.journal, stream=found.stream) as journal, progress("checked", quiet=quiet) as draw:
        journal.identity  # noqa: B018 - raises where there is no such stream
        report = check(
            journal,
            open_catalog(found.snapshots, found.stream),
            draw,
            cursors=cursors_beside(found.ship_to or found.journal),
            ship_to=found.ship_to,
        )
    if as_json:
        show_json(report.to_dict() | ({} if copy is None else {"repaired": copy}))
        return report.exit_code
    click.echo(
        f"{report.to_dict()['verdict']}: {report.commands} commands, the last good one {report.last_good}; {report.images} images"
    )
    for line in report.damage:
        click.echo(f"  {line}")
    return report.exit_code


def _agreed(yes: bool) -> Callable[[str], bool]:
    """Whether to cut what is described: said beforehand, or asked on a terminal."""

    def agreed(description: str) -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise UsageError(f"{description}; nobody is there to ask", hint="say --yes to cut it, keeping a copy")
        return click.confirm(f"{description}.  Cut it, and keep a copy?", err=True)

    return agreed
