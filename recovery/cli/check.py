"""``recovery check``: bytes, chains and digest arithmetic of a journal and its images."""

from __future__ import annotations

from typing import Any

import click

from recovery.cli.options import json_option, quiet_option, shared, take
from recovery.cli.output import progress, show_json


@click.command("check", short_help="Check every byte; needs no engine.")
@shared
@json_option
@quiet_option
def command(as_json: bool, quiet: bool, **rest: Any) -> int:
    """Check every byte; needs no engine.  Exits 4 where something is damaged, and says what is the last good command.

    \b
    recovery check --journal sqlite:till.db --snapshots dir:till-snapshots
    """
    from recovery import open_journal
    from recovery.check import check
    from recovery.images import open_catalog
    from recovery.outboxes import cursors_beside

    found = take(rest)
    with open_journal(found.journal, stream=found.stream) as journal, progress("checked", quiet=quiet) as draw:
        journal.identity  # noqa: B018 - raises where there is no such stream
        report = check(
            journal, open_catalog(found.snapshots, found.stream), draw, cursors=cursors_beside(found.journal)
        )
    if as_json:
        show_json(report.to_dict())
        return report.exit_code
    click.echo(
        f"{report.to_dict()['verdict']}: {report.commands} commands, the last good one {report.last_good}; {report.images} images"
    )
    for line in report.damage:
        click.echo(f"  {line}")
    return report.exit_code
