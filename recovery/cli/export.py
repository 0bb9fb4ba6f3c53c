"""``recovery export FILE``: a journal, or a part of it, as one file."""

from __future__ import annotations

from typing import Any

import click

from recovery.cli.options import json_option, quiet_option, range_options, shared, take
from recovery.cli.output import say, show_json


@click.command("export", short_help="Write the history, or a part of it, to one file.")
@click.argument("path", metavar="FILE")
@shared
@range_options
@click.option(
    "--with-image/--no-image",
    default=True,
    show_default=True,
    help="Give a part the image it is replayed from.",
)
@click.option("--image-every", type=click.IntRange(1), metavar="N", help="An image every N commands too: segments.")
@click.option("--redact", metavar="MODULE:ATTR", default="", help="A function of (what, value) that replaces payloads.")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@json_option
@quiet_option
def command(
    path: str,
    after: str | None,
    until: str | None,
    with_image: bool,
    image_every: int | None,
    redact: str,
    force: bool,
    as_json: bool,
    quiet: bool,
    **rest: Any,
) -> int:
    """Write the history, or a part of it, to FILE: compressed, chained, whole or not at all.

    Read it in place with --journal file:FILE, let pytest collect it, or make a journal of it: recovery import.

    \b
    recovery export till.journal --journal sqlite:till.db
    recovery export part.journal --after 40000 --until 50000 --image-every 1000
    """
    from recovery import open_journal
    from recovery.exporting import export_history
    from recovery.images import open_catalog
    from recovery.moments import command_at, until_at
    from recovery.redaction import redactor

    found = take(rest)
    with open_journal(found.journal, stream=found.stream) as journal:
        exported = export_history(
            journal,
            open_catalog(found.snapshots, found.stream),
            path,
            after=command_at(journal, after),
            until=until_at(journal, until),
            with_image=with_image,
            image_every=image_every or 0,
            engine=found.engine,
            app_dir=found.app_dir,
            redact=redactor(redact),
            over=force,
            report=lambda step: say(f"image {step.command_id} is not used: {step.reason}", quiet=quiet),
        )
    if as_json:
        show_json(exported.to_dict())
    else:
        images = f", images at {', '.join(map(str, exported.images))}" if exported.images else ""
        click.echo(
            f"{path}: {exported.engine}, {exported.commands} commands from {exported.after + 1} to {exported.last}{images}, "
            f"{exported.bytes} bytes"
            if exported.commands
            else f"{path}: {exported.engine}, no commands{images}"
        )
    return 0
