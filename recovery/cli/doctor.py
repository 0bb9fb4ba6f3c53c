"""``recovery doctor``: environment, versions, settings, durability, shadowed imports."""

from __future__ import annotations

from typing import Any

import click

from recovery.cli.options import json_option, shared, take
from recovery.cli.output import show_json


@click.command("doctor", short_help="What a bug report needs.")
@shared
@json_option
def command(as_json: bool, **rest: Any) -> int:
    """Print what a bug report needs; exits 3 when something is wrong.

    \b
    recovery doctor --json
    """
    from recovery.doctor import doctor

    document = doctor(take(rest))
    if as_json:
        show_json(document)
    else:
        for name, value in document.items():
            if isinstance(value, dict):
                click.echo(f"{name}:")
                for inner, part in value.items():
                    text = f"{part['value'] or '-'}  ({part['from']})" if isinstance(part, dict) else part
                    click.echo(f"  {inner}: {text}")
            else:
                click.echo(f"{name}: {value if value != [] else 'none'}")
    return 3 if document["problems"] else 0
