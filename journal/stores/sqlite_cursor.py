"""SqliteCursor: the statements of projections within the SQLite store's own transaction.

SQLite has no columns for some values, which are stored as text: a Decimal as it is written, a UUID, a datetime in ISO 8601.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NoReturn
from uuid import UUID

from journal.errors import ProjectionFailed
from journal.stores.sqlite_connection import Connection, SqliteFailure

_REFUSED: Final = frozenset(
    {
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_TOOBIG,
    }
)
"""SQLite's answers that are about the statement, not about the disk."""

_AS_TEXT: Final[dict[type, Callable[[Any], str]]] = {Decimal: str, UUID: str, datetime: datetime.isoformat}


class SqliteCursor:
    """``SqlCursor`` over the connection that writes."""

    dialect = "sqlite"

    def __init__(self, db: Connection) -> None:
        self._db = db

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return all of its rows."""
        try:
            return self._db.execute(sql, bound(parameters))
        except SqliteFailure as failure:
            _refuse(failure)

    def executemany(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Run one statement for each row of parameters."""
        try:
            self._db.executemany(sql, list(map(bound, rows)))
        except SqliteFailure as failure:
            _refuse(failure)

    def check_deferred(self) -> None:
        """Nothing: foreign keys, all that SQLite can defer, are off unless they are turned on."""


def bound(parameters: Sequence[object]) -> tuple[object, ...]:
    """The parameters as SQLite holds them."""
    return tuple(_AS_TEXT[type(value)](value) if type(value) in _AS_TEXT else value for value in parameters)


def _refuse(failure: SqliteFailure) -> NoReturn:
    if failure.code not in _REFUSED:
        raise failure
    raise ProjectionFailed(str(failure)) from failure.__cause__
