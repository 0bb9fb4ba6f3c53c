"""``recovery import FILE``: an exported history becomes a journal."""

from __future__ import annotations

from typing import Any

import click

from recovery.cli.options import json_option, shared, take
from recovery.cli.output import show_json


@click.command("import", short_help="Make a journal of an exported history.")
@click.argument("path", metavar="FILE")
@shared
@json_option
def command(path: str, as_json: bool, **rest: Any) -> int:
    """Make a journal of an exported history: the same one, with its identity, seed, epochs and chain.

    The journal, or its stream, must be new.  An import that was interrupted is finished by importing again.

    \b
    recovery import till.journal --journal sqlite:restored.db
    """
    from journal.errors import UsageError
    from journal.urls import open_history, open_writer
    from recovery.importing import import_history
    from recovery.settings import DEFAULTS

    found = take(rest)
    with open_history(path) as source:
        if found.stream not in (source.stream, DEFAULTS["stream"]):
            raise UsageError(
                f"{path} holds the stream {source.stream!r}, and it keeps its name", hint="leave out --stream"
            )
        target = open_writer(found.journal)
        try:
            imported = import_history(source, target)
        finally:
            target.close()
    if as_json:
        show_json(imported.to_dict())
    else:
        resumed = f", of which {imported.resumed_after} were there" if imported.resumed_after else ""
        click.echo(
            f"{imported.journal}: {imported.engine}, {imported.commands} commands{resumed}, chain {imported.chain}"
        )
    return 0
