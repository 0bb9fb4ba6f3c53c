"""Connection: all that the SQLite store asks of a driver, so that another one, and another disk under it, runs the same SQL."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Protocol

from journal.errors import StoreUnavailable


class SqliteFailure(Exception):
    """What a driver's exception says.  ``code`` is SQLite's primary result code; the driver's exception is ``__cause__``."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code & 0xFF


class Connection(Protocol):
    """A connection in autocommit mode, usable from any thread, one at a time.  Every error is a SqliteFailure."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return all of its rows."""

    def executemany(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Run one statement for each row of parameters."""

    def close(self) -> None:
        """Let the file go."""


class StandardConnection:
    """``Connection`` over the standard library's ``sqlite3``."""

    def __init__(self, uri: str) -> None:
        self._pid = os.getpid()
        try:
            self._db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise _standard_failure(error) from error

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._db.in_transaction

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return all of its rows."""
        try:
            return self._db.execute(sql, parameters).fetchall()
        except (sqlite3.Error, OverflowError) as error:
            raise _standard_failure(error) from error

    def executemany(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Run one statement for each row of parameters."""
        try:
            self._db.executemany(sql, rows)
        except (sqlite3.Error, OverflowError) as error:
            raise _standard_failure(error) from error

    def close(self) -> None:
        """Let the file go."""
        try:
            self._db.close()
        except sqlite3.Error as error:
            raise _standard_failure(error) from error

    def __del__(self) -> None:
        """Who only reads may leave closing to the collector.  A forked child must not close its parent's connection."""
        if hasattr(self, "_db") and os.getpid() == self._pid:
            with suppress(sqlite3.Error):
                self._db.close()


def _standard_failure(error: Exception) -> SqliteFailure:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # Without SQLite's code it is the module's own complaint: a value too large to bind, or a text that is not UTF-8.
        code = sqlite3.SQLITE_TOOBIG if isinstance(error, OverflowError) else sqlite3.SQLITE_CORRUPT
    return SqliteFailure(code, f"{getattr(error, 'sqlite_errorname', type(error).__name__)}: {error}")


def sync_wal(path: str) -> None:
    """Make durable what a database's -wal holds, whoever wrote it.  StoreUnavailable."""
    try:
        handle = os.open(f"{os.path.realpath(path)}-wal", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except FileNotFoundError:  # its last writer closed, and then all is in the database, synced
        return
    except OSError as error:
        raise StoreUnavailable(
            f"the -wal of {path} cannot be synced: {error.strerror}", hint="check the disk and the file's permissions"
        ) from error
