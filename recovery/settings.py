"""The settings that the command line and ``Runtime.open`` share: environment, then a TOML file, then the default.

The file is ``recovery.toml`` in the working directory, else ``[tool.recovery]`` of its ``pyproject.toml``; keys are ``engine``,
``app_dir``, ``journal``, ``snapshots``, ``stream``, ``ship_to``.  A ``ship_to`` found there is of the journal named there: where
the call names another, that one is not shipped unless the call says so too.
"""

from __future__ import annotations

import os
import tomllib
from typing import Final, NamedTuple

from journal.errors import UsageError

VARIABLES: Final = {
    "engine": "RECOVERY_ENGINE",
    "app_dir": "RECOVERY_APP_DIR",
    "journal": "RECOVERY_JOURNAL",
    "snapshots": "RECOVERY_SNAPSHOTS",
    "stream": "RECOVERY_STREAM",
    "ship_to": "RECOVERY_SHIP_TO",
}
DEFAULTS: Final = {
    "engine": "",
    "app_dir": ".",
    "journal": "sqlite:.recovery/journal.db",
    "snapshots": "dir:.recovery/snapshots",
    "stream": "main",
    "ship_to": "",
}


class Settings(NamedTuple):
    """Where things are."""

    engine: str
    app_dir: str
    journal: str
    snapshots: str
    stream: str
    ship_to: str


def configured(folder: str = ".") -> dict[str, str]:
    """What the TOML file says; nothing where there is none.  UsageError where it cannot be read or has a key we do not know."""
    for name, path in (("recovery.toml", ()), ("pyproject.toml", ("tool", "recovery"))):
        file_name = os.path.join(folder, name)
        if not os.path.isfile(file_name):
            continue
        try:
            with open(file_name, "rb") as file:
                table = tomllib.load(file)
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"{file_name} cannot be read: {error}") from error
        for key in path:
            table = table.get(key, {})
        if table:
            return _checked(table, file_name)
    return {}


def _checked(table: dict[str, object], file_name: str) -> dict[str, str]:
    checked = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in DEFAULTS or not isinstance(value, str):
            # Not the value, which may be a URL with a password under a misspelt name.
            raise UsageError(f"{file_name}: {key} is no setting, or no text; text settings are {', '.join(DEFAULTS)}")
        checked[name] = value
    return checked


def settings(**given: str | None) -> Settings:
    """Each setting from what is given, else its environment variable, the TOML file, the default."""
    file = configured()
    found = {}
    for name, default in DEFAULTS.items():
        found[name] = given.get(name) or os.environ.get(VARIABLES[name]) or file.get(name) or default
    usual = os.environ.get(VARIABLES["journal"]) or file.get("journal") or DEFAULTS["journal"]
    if found["journal"] != usual:
        found["ship_to"] = given.get("ship_to") or ""
    if found["journal"].startswith("file:"):
        # An exported history carries its images; those of the journal it was taken from are only used when asked for.
        found["snapshots"] = given.get("snapshots") or found["journal"]
    elif not (given.get("snapshots") or os.environ.get(VARIABLES["snapshots"]) or file.get("snapshots")):
        # Images of a journal that goes with the process would outlive it, as evidence of a loss that is none.
        found["snapshots"] = "memory:" if found["journal"].startswith("memory:") else found["snapshots"]
    return Settings(**found)


def settled(journal: object, snapshots: object, stream: str | None, ship_to: str | None) -> Settings:
    """``settings`` for a call that may name an opened store instead of a URL."""
    found = settings(
        journal=journal if isinstance(journal, str) else None,
        snapshots=snapshots if isinstance(snapshots, str) else None,
        stream=stream,
        ship_to=ship_to,
    )
    # What is configured is of the journal that is configured, and not of a store that was opened elsewhere.
    return found if journal is None or isinstance(journal, str) else found._replace(ship_to=ship_to or "")
