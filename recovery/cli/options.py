"""Options that verbs share, and the settings behind them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from journal.errors import UsageError
from recovery.settings import DEFAULTS, VARIABLES, Settings, settings

F = TypeVar("F", bound=Callable[..., Any])

HELP = {
    "engine": "The engine, as MODULE:ATTR: a class or a factory.",
    "app_dir": "Where the engine's module is looked for, last on the path.",
    "journal": "The journal: sqlite:PATH, wal:DIR, postgresql://USER@HOST/DATABASE; read only, file:PATH.",
    "snapshots": "Where images lie: dir:PATH, or postgresql://USER@HOST/DATABASE.",
    "stream": "The stream within the journal.",
    "ship_to": "The journal that a local one is shipped to: postgresql://USER@HOST/DATABASE, sqlite:PATH.",
}
METAVARS = {
    "engine": "MODULE:ATTR",
    "app_dir": "DIR",
    "journal": "URL",
    "snapshots": "URL",
    "stream": "NAME",
    "ship_to": "URL",
}


def shared(function: F) -> F:
    """The options that every verb has, whether it needs them or not, so that one set of them serves a whole session."""
    for name in reversed(DEFAULTS):
        default = f"; default: {DEFAULTS[name]}" if DEFAULTS[name] else ""
        function = click.option(
            f"--{name.replace('_', '-')}",
            metavar=METAVARS[name],
            help=f"{HELP[name]}  [env: {VARIABLES[name]}{default}]",
        )(function)
    return function


def take(given: dict[str, Any]) -> Settings:
    """Remove the shared options from a verb's arguments and settle them."""
    return settings(**{name: given.pop(name, None) for name in DEFAULTS})


def require_engine(found: Settings) -> str:
    """The engine's MODULE:ATTR, which nothing can stand in for."""
    if not found.engine:
        raise UsageError("no engine is named", hint="say --engine MODULE:ATTR, or set RECOVERY_ENGINE")
    return found.engine


def json_option(function: F) -> F:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")(function)


def quiet_option(function: F) -> F:
    """``-q``."""
    return click.option("-q", "--quiet", is_flag=True, help="No progress and no prose.")(function)


def range_options(function: F) -> F:
    """``--after`` and ``--until``: command ids or times."""
    function = click.option("--until", metavar="N|TIME", help="The last command looked at.  [default: the newest]")(
        function
    )
    return click.option(
        "--after", metavar="N|TIME", help="Only commands after this one.  [default: the first that is kept]"
    )(function)


def guard_option(function: F) -> F:
    """``--guard``."""
    return click.option(
        "--guard",
        type=click.Choice(["off", "warn", "strict"]),
        default="off",
        show_default=True,
        help="Look for what is not the same on a replay: clock, chance, files, the order of sets.",
    )(function)


def explain_option(function: F) -> F:
    """``--explain-s``."""
    return click.option(
        "--explain-s",
        type=click.FloatRange(0),
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to look into why it diverged; 0: not at all.",
    )(function)


def projection_option(function: F) -> F:
    """``--projection``, any number of times."""
    return click.option(
        "--projection", metavar="MODULE:ATTR", multiple=True, help="A projection, by its class; may be repeated."
    )(function)
