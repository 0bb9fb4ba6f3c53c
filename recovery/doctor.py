"""doctor(): what this machine and this call come to, for a bug report."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sqlite3
import sys
from typing import Any, Final

from journal.errors import RecoveryError
from journal.urls import open_reader, redacted
from recovery.settings import DEFAULTS, VARIABLES, Settings, configured
from recovery.shadowing import shadowed
from recovery.version import VERSION

LIBRARIES: Final = ("click", "msgpack", "msgspec", "psycopg", "sortedcontainers", "xxhash", "zstandard")
FIXED_SQLITE: Final = (3, 51, 3)
BACKPORTED: Final = ((3, 44, 6), (3, 50, 7))


def doctor(found: Settings) -> dict[str, Any]:
    """Versions, settings with where each came from, durability of the journal there is, and what is wrong."""
    problems = [f"{name} is imported from {path}, which is not this project's" for name, path in shadowed().items()]
    document: dict[str, Any] = {
        "recovery": VERSION,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "hash_seed": os.environ.get("PYTHONHASHSEED", "random"),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "sqlite": sqlite3.sqlite_version,
        "sqlite_note": _sqlite_note(sqlite3.sqlite_version_info),
        "settings": _sources(found),
    }
    try:
        with_store = open_reader(found.journal)
        try:
            document["durability"] = with_store.settings()
        finally:
            with_store.close()
    except RecoveryError as error:
        document["journal"] = str(error)
    return document | {"problems": problems}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _sqlite_note(version: tuple[int, ...]) -> str:
    fixed = version >= FIXED_SQLITE or any(version[:2] == back[:2] and version >= back for back in BACKPORTED)
    if fixed:
        return "has the fix of the WAL-reset bug"
    return "has the WAL-reset bug: safe with this project's single writer; let no other program write or checkpoint the file"


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
