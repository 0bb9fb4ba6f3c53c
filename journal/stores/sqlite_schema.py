"""The schema of ``sqlite:``: stores/sql/sqlite/*.sql, applied in order, and what a file says of how far it has come.

``PRAGMA user_version`` is the number of the last script applied, and ``PRAGMA application_id`` marks the file as ours.
"""

from __future__ import annotations

from importlib import resources
from typing import Final

from journal.errors import NewerSchema, UsageError
from journal.stores.sqlite_connection import Connection

APPLICATION_ID: Final = int.from_bytes(b"ERJ1", "big")


def migrations() -> list[str]:
    """The scripts of the schema, in order; the first makes version 1."""
    folder = resources.files("journal.stores") / "sql" / "sqlite"
    scripts = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [script.read_text(encoding="utf-8") for script in scripts]


def schema_sql() -> str:
    """The SQL that makes the schema."""
    return "\n".join(migrations())


def schema_version(db: Connection, location: str) -> int:
    """The file's schema version; 0 for an empty file.  NewerSchema, or UsageError where the file is not a journal."""
    ((ours,),) = db.execute("PRAGMA application_id")
    ((version,),) = db.execute("PRAGMA user_version")
    if ours != APPLICATION_ID:
        ((tables,),) = db.execute("SELECT count(*) FROM sqlite_master")
        if ours or version or tables:
            raise UsageError(f"{location} is an SQLite file, but not a journal", hint="name another path")
        return 0
    if version > len(migrations()):
        raise NewerSchema(
            f"{location} was laid out by a newer release",
            expected=f"at most version {len(migrations())}",
            found=f"version {version}",
            hint="upgrade engine-recovery: pip install --upgrade engine-recovery",
        )
    return int(version)


def wal_reset_bug(version: str) -> str:
    """Whether this SQLite may damage a file that two connections write or checkpoint at once, in words."""
    numbers = tuple(map(int, version.split(".")))
    line = numbers[:2]
    if (
        numbers >= (3, 51, 3)
        or (line == (3, 50) and numbers >= (3, 50, 7))
        or (line == (3, 44) and numbers >= (3, 44, 6))
    ):
        return f"fixed in SQLite {version}"
    return f"present in SQLite {version} (fixed in 3.51.3); avoided: one connection alone writes and checkpoints"
