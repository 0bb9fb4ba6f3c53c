"""The ``Connection`` of the SQLite store over apsw, whose VFS lets a test put another disk under SQLite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw

from journal.stores.sqlite_connection import SqliteFailure

_FLAGS = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE


class ApswConnection:
    """A connection in autocommit mode to the file of a URI, on the disk of the VFS of this name, else on the machine's."""

    def __init__(self, uri: str, vfs: str | None = None) -> None:
        try:
            self._db = apsw.Connection(uri, flags=_FLAGS, vfs=vfs)
        except Exception as error:
            raise _failure(error) from error

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return bool(self._db.in_transaction)

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return all of its rows."""
        try:
            return list(self._db.execute(sql, tuple(parameters)))
        except Exception as error:
            raise _failure(error) from error

    def executemany(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Run one statement for each row of parameters."""
        try:
            list(self._db.executemany(sql, rows))
        except Exception as error:
            raise _failure(error) from error

    def close(self) -> None:
        """Let the file go."""
        try:
            self._db.close()
        except Exception as error:
            raise _failure(error) from error


def _failure(error: Exception) -> SqliteFailure:
    code = getattr(error, "result", None)
    if code is None:
        # Not SQLite's but the module's: a number or a value too large to bind, or a text that is not UTF-8.
        code = apsw.SQLITE_CORRUPT if isinstance(error, UnicodeError) else apsw.SQLITE_TOOBIG
    return SqliteFailure(code, f"{type(error).__name__}: {error}")
