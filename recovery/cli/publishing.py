"""The reports that a verb writes beside what it prints: ``--html``, ``--junit-xml``, and GitHub's where it runs in Actions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from journal.errors import UsageError
from recovery.cli.output import say
from recovery.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def report_options(function: F) -> F:
    """``--html`` and ``--junit-xml``."""
    function = click.option(
        "--junit-xml", metavar="P", type=click.Path(dir_okay=False), help="Write the result as JUnit XML too."
    )(function)
    return click.option(
        "--html", metavar="P", type=click.Path(dir_okay=False), help="Write the result as one self-contained page too."
    )(function)


def publish(
    document: Mapping[str, Any],
    *,
    title: str,
    html: str | None,
    junit_xml: str | None,
    images: Callable[[], Iterable[int]] = tuple,
) -> None:
    """Write what was asked for.  ``images`` gives the commands at which images stand, for the page's timeline."""
    if html is not None:
        from recovery.reports.page import html_page

        _write(html, html_page(document, images=images(), title=title).encode())
    if junit_xml is not None:
        from recovery.reports import junit

        _write(junit_xml, junit.junit_xml(document, name=title))
    from recovery.reports import github

    if github.in_actions():
        for line in github.error_lines(document):
            say(line)
        try:
            github.write_summary(document)
        except OSError as error:
            say(f"the step summary was not written: {error}")


def standing_images(found: Settings) -> list[int]:
    """The commands at which images of the journal stand; none where the place cannot be read: they are only drawn."""
    from journal.errors import RecoveryError
    from recovery import open_journal
    from recovery.images import open_catalog

    try:
        with open_journal(found.journal, stream=found.stream) as journal:
            catalog = open_catalog(found.snapshots, found.stream)
            assert catalog is not None
            return [image.command_id for image in catalog.images(journal.identity.journal_id)]
    except RecoveryError:
        return []


def _write(path: str, data: bytes) -> None:
    # Whole or not at all: a page cut in the middle would pass for the result.
    partial = f"{path}.{os.getpid()}.part"
    try:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with open(partial, "wb") as file:
            file.write(data)
        os.replace(partial, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", hint="name another path") from error
    finally:
        if os.path.exists(partial):
            os.unlink(partial)
