"""``--emit-pytest``, ``--evidence`` and ``--redact``, for the verbs that find a divergence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from recovery.cli.output import say

if TYPE_CHECKING:
    from recovery.divergence import Divergence
    from recovery.report import Report
    from recovery.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])


def emit_pytest_option(function: F) -> F:
    """``--emit-pytest``."""
    return click.option(
        "--emit-pytest",
        metavar="PATH",
        help="Write a test of the first divergence to PATH (.py), and the small history it runs beside it.",
    )(function)


def emit(
    path: str | None,
    first: Divergence | None,
    found: Settings,
    *,
    against: str = "",
    against_app_dir: str = "",
    quiet: bool = False,
) -> None:
    """Write the test of a divergence, where it was asked for and there is one."""
    if path is None or first is None:
        return
    from recovery.reducing.emitted_test import describe, emit_pytest

    shrunk = emit_pytest(
        path,
        engine=found.engine,
        journal=found.journal,
        snapshots=found.snapshots,
        command_id=first.command_id,
        stream=found.stream,
        app_dir=found.app_dir,
        against=against,
        against_app_dir=against_app_dir,
    )
    say(f"{path}: {describe(shrunk)}; its history is {shrunk.path}", quiet=quiet)


def evidence_options(function: F) -> F:
    """``--evidence`` and ``--redact``."""
    function = click.option(
        "--redact",
        metavar="MODULE:ATTR",
        default="",
        help="A function of (what, value) that replaces payloads in it.  [env: RECOVERY_REDACT]",
    )(function)
    return click.option(
        "--evidence",
        metavar="DIR|off",
        help="Where evidence of a divergence is kept.  [env: RECOVERY_EVIDENCE; default: .recovery/evidence]",
    )(function)


def keep(report: Report, found: Settings, folder: str | None, redact: str, *, quiet: bool = False) -> None:
    """Keep evidence of a report's first divergence, and say where."""
    if not report.divergences:
        return
    from recovery.evidence import keep_reported

    path = keep_reported(report, found, folder=folder, redact=redact)
    if path is not None:
        say(f"evidence: {path}", quiet=quiet)
