"""What verbs print: data on stdout, progress and prose on stderr, one JSON document with ``--json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from journal.errors import RecoveryError
from recovery.report import SCHEMA_VERSION

CELL_MAX: Final = 200


def show_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout, its schema version first."""
    click.echo(json.dumps({"schema_version": SCHEMA_VERSION} | document, ensure_ascii=False))


def show_error(error: RecoveryError, *, as_json: bool) -> None:
    """One line for the error and one for the way on, on stderr; with ``--json`` a document on stdout too."""
    if as_json:
        show_json({"error": error_document(error)})
    click.secho(f"recovery: error: {error}", fg="red", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)


def error_document(error: RecoveryError) -> dict[str, str]:
    """An error as JSON."""
    return {"kind": type(error).__name__, "message": str(error), "hint": error.hint}


def say(line: str, *, quiet: bool = False) -> None:
    """A line of prose on stderr."""
    if not quiet:
        click.echo(line, err=True)


@contextmanager
def progress(label: str, *, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A function of (done, all) that draws a line on a terminal's stderr, and nothing elsewhere."""
    shown = sys.stderr.isatty() and not quiet

    def draw(done: int, everything: int) -> None:
        if shown:
            click.echo(f"\r{label} {done}/{everything}", nl=False, err=True)

    yield draw
    if shown:
        click.echo("\r\x1b[K", nl=False, err=True)


def cut(value: Any) -> str:
    """A value as JSON text of bearable length."""
    from recovery.json_values import to_json
    from recovery.plain_text import visible

    text = visible(json.dumps(to_json(value), ensure_ascii=False))
    return text if len(text) <= CELL_MAX else text[: CELL_MAX - 1] + "…"
