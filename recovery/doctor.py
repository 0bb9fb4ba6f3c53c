"""doctor(): what this machine and this call come to, for a bug report."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any, Final

from journal.errors import RecoveryError
from journal.urls import driver_notes, open_reader, redacted
from recovery.settings import DEFAULTS, VARIABLES, Settings, configured
from recovery.shadowing import shadowed
from recovery.version import VERSION

LIBRARIES: Final = ("click", "msgpack", "msgspec", "psycopg", "sortedcontainers", "xxhash", "zstandard")


def doctor(found: Settings) -> dict[str, Any]:
    """Versions, settings with where each came from, durability of the journal and of the one it is shipped to, what is wrong."""
    problems = [f"{name} is imported from {path}, which is not this project's" for name, path in shadowed().items()]
    document: dict[str, Any] = {
        "recovery": VERSION,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "hash_seed": os.environ.get("PYTHONHASHSEED", "random"),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "drivers": driver_notes(),
        "settings": _sources(found),
    }
    for url, said, failed in ((found.journal, "durability", "journal"), (found.ship_to, "shipped_to", "shipped_to")):
        if not url:
            continue
        try:
            store = open_reader(url)
            try:
                document[said] = store.settings()
            finally:
                store.close()
        except RecoveryError as error:
            document[failed] = str(error)
    return document | {"problems": problems}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _sources(found: Settings) -> dict[str, dict[str, str]]:
    file = configured()
    sources = {}
    for name, value in found._asdict().items():
        if os.environ.get(VARIABLES[name]) == value:
            source = VARIABLES[name]
        elif file.get(name) == value:
            source = "TOML file"
        else:
            source = "default" if value == DEFAULTS[name] else "command line"
        sources[name] = {"value": redacted(value), "from": source}
    return sources
