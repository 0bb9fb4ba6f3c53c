"""``recovery snapshot take|list|prune``."""

from __future__ import annotations

import time
from typing import Any

import click

from recovery.cli.options import json_option, shared, take
from recovery.cli.output import say, show_json


@click.group("snapshot")
def command() -> None:
    """Make, list and prune images.

    \b
    recovery snapshot take
    recovery snapshot prune --keep 2 --yes
    """


@command.command("take")
@shared
@json_option
def take_image(as_json: bool, **rest: Any) -> int:
    """Make an image of the newest command, beside a running engine or without one.

    \b
    recovery snapshot take --journal sqlite:till.db --snapshots dir:till-snapshots
    """
    from recovery import open_journal
    from recovery.images import open_catalog, redo_image

    found = take(rest)
    with open_journal(found.journal, stream=found.stream) as journal:
        catalog = open_catalog(found.snapshots, found.stream)
        assert catalog is not None
        header = redo_image(journal, catalog, engine=found.engine, app_dir=found.app_dir, report=_report)
    name = catalog.name_of(header.command_id, header.chain)
    show_json({"command_id": header.command_id, "name": name}) if as_json else click.echo(name)
    return 0


@command.command("list")
@shared
@json_option
def list_images(as_json: bool, **rest: Any) -> int:
    """List the images, oldest first; only their headers are read.

    \b
    recovery snapshot list --json
    """
    from recovery import open_journal
    from recovery.images import open_catalog

    found = take(rest)
    with open_journal(found.journal, stream=found.stream) as journal:
        catalog = open_catalog(found.snapshots, found.stream)
        assert catalog is not None
        images = catalog.images(journal.identity.journal_id)
    if as_json:
        documents = [
            {"command_id": image.command_id, "name": image.name, "bytes": image.bytes, "state": image.state}
            | ({"reason": image.reason} if image.reason else {})
            for image in images
        ]
        show_json({"images": documents})
    else:
        for image in images:
            click.echo(f"{image.command_id} {image.state} {image.bytes} bytes {image.name} {image.reason}".rstrip())
    return 0


@command.command("prune")
@shared
@click.option("--keep", type=click.IntRange(1), default=3, show_default=True, help="How many verified images stay.")
@click.option("--older-than", type=click.IntRange(0), default=0, metavar="SECONDS", help="Younger ones stay too.")
@click.option("--yes", is_flag=True, help="Delete; without it, what would go is only shown.")
@json_option
def prune_images(keep: int, older_than: int, yes: bool, as_json: bool, **rest: Any) -> int:
    """Show the images that are not needed, and delete them with --yes.

    \b
    recovery snapshot prune --keep 2 --yes
    """
    from recovery import open_journal
    from recovery.images import open_catalog
    from snapshots.retention import Retention

    found = take(rest)
    with open_journal(found.journal, stream=found.stream) as journal:
        catalog = open_catalog(found.snapshots, found.stream)
        assert catalog is not None
        images = catalog.expendable(
            journal,
            Retention(keep, older_than),
            journal_id=journal.identity.journal_id,
            now_ms=time.time_ns() // 1_000_000,
            report=_report,
        )
        if yes:
            catalog.delete(images)
    if as_json:
        show_json({"deleted": yes, "images": [{"command_id": i.command_id, "name": i.name} for i in images]})
        return 0
    for image in images:
        click.echo(f"{'deleted' if yes else 'would delete'} {image.name}")
    if not yes:
        say("nothing was deleted; say --yes to do it" if images else "there is nothing to delete")
    return 0


def _report(step: Any) -> None:
    say(f"image {step.command_id} is not used: {step.reason}")
