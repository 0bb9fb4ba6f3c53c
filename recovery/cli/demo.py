"""``recovery demo``: the whole story on real order flow."""

from __future__ import annotations

import os
import tempfile
from contextlib import nullcontext
from typing import Any

import click

from recovery.cli.options import json_option, quiet_option
from recovery.cli.output import progress, say, show_json


@click.command("demo", short_help="Run, kill, recover, prove: on real order flow.")
@click.option(
    "--workload", metavar="bitstamp|generated|FILE", help="The order flow.  [default: bitstamp where installed]"
)
@click.option("--commands", type=click.IntRange(100), metavar="N", help="Only the first N commands.")
@click.option("--dir", "folder", metavar="DIR", help="Keep the files there.  [default: a temporary folder, removed]")
@click.option("--journal", metavar="URL", help="Another journal, which must be new.  [default: sqlite in the folder]")
@json_option
@quiet_option
def command(
    workload: str | None, commands: int | None, folder: str | None, journal: str | None, as_json: bool, quiet: bool
) -> int:
    """Run an engine on real order flow, kill it with SIGKILL, and let it prove that it came back the same.

    \b
    recovery demo
    recovery demo --workload generated --commands 20000 --dir demo-files
    """
    from journal.urls import redacted
    from recovery.demo.story import Story

    place: Any = tempfile.TemporaryDirectory(prefix="recovery-demo-") if folder is None else nullcontext(folder)
    with place as path, progress("acknowledged", quiet=quiet or as_json) as draw:
        os.makedirs(path, exist_ok=True)
        journal = journal or f"sqlite:{path}/journal.db"
        story = Story(
            workload,
            commands,
            journal,
            f"dir:{path}/snapshots",
            say=(lambda line: say(line, quiet=quiet)) if as_json else click.echo,
            progress=draw,
        )
        outcome = story.tell()
    if folder is None and outcome.divergence is not None:
        outcome.divergence["reproduce"] = ""  # its files are gone with the temporary folder
    if as_json:
        show_json(outcome.to_dict())
        return outcome.exit_code
    click.echo("")
    click.echo(_timeline(outcome.kills, outcome.commands))
    click.echo(
        f"{'all right' if outcome.right else 'NOT right'}: {outcome.commands:,} commands, {len(outcome.kills)} kills, "
        f"{outcome.lost} lost, {outcome.doubled} doubled, in {outcome.seconds:.1f} s"
    )
    if folder is not None:
        click.echo(f"the files are in {folder}: try `recovery log --journal {redacted(journal)} --until 5`")
    return outcome.exit_code


def _timeline(kills: list[int], commands: int, width: int = 60) -> str:
    """``|----x-----x---|``: where in the stream the engine was killed."""
    line = ["-"] * width
    for kill in kills:
        line[min(width - 1, kill * width // commands)] = "x"
    return f"command 1 |{''.join(line)}| {commands:,}   (x: kill -9)"
