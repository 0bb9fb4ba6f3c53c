"""``recovery audit``: whether an image of the engine holds all that its answers depend on."""

from __future__ import annotations

from typing import Any

import click

from recovery.cli.options import json_option, quiet_option, require_engine, shared, take
from recovery.cli.output import progress, say, show_json


@click.command("audit", short_help="Try out whether images hold all of the state.")
@shared
@click.option("--until", metavar="N|TIME", help="The last command looked at.  [default: the newest]")
@click.option(
    "--sample",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="How many commands are looked at closely, and rows at each.",
)
@json_option
@quiet_option
def command(until: str | None, sample: int, as_json: bool, quiet: bool, **rest: Any) -> int:
    """Replay history under the determinism guard, from every image, and from states captured on the way; change each leaf of
    the state and look whether digest and image move; list state that no image can hold.  Only reads.

    Exits 1 with findings, 0 clean, 5 where there was no command to look at.

    \b
    recovery audit --engine shop.engine:Till --journal sqlite:till.db
    recovery audit --until 5000 --sample 100 --json
    """
    from recovery import open_journal
    from recovery.audit import audit
    from recovery.moments import until_at

    found = take(rest)
    engine = require_engine(found)
    with open_journal(found.journal, stream=found.stream) as journal:
        last = until_at(journal, until)
    with progress("audited", quiet=quiet) as draw:
        report = audit(
            engine,
            found.journal,
            found.snapshots,
            stream=found.stream,
            until=last,
            sample=sample,
            app_dir=found.app_dir,
            progress=draw,
        )
    show_json(report.to_dict()) if as_json else click.echo(str(report))
    if not report.commands:
        say("there was nothing to audit: the journal holds no command", quiet=quiet)
    return report.exit_code
