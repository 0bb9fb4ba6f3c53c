"""PostgresCursor: the statements of projections within the PostgreSQL store's own transaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn

import psycopg

from journal.errors import ProjectionFailed
from journal.postgres_connection import Db, PostgresPlace
from journal.sql import postgresql_form
from journal.store import SqlCursor

_REFUSED: Final = frozenset({"0A", "21", "22", "23", "27", "2F", "39", "42", "44", "P0"})
"""Classes of SQLSTATE that are about the statement and its values, not about the server."""

_PIPELINED_BYTES_MAX: Final = 2**18
"""A pipeline sends before it reads: much more than the sockets' buffers hold, and both sides could wait for each other."""


class PostgresCursor:
    """``SqlCursor`` over a cursor of psycopg."""

    dialect = "postgresql"

    def __init__(self, cursor: psycopg.Cursor[Any], place: PostgresPlace) -> None:
        self._cursor = cursor
        self._place = place

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return all of its rows."""
        try:
            # Without parameters psycopg takes the text as it is.
            self._cursor.execute(*_given(sql, parameters))
            return self._cursor.fetchall() if self._cursor.description else []
        except psycopg.Error as error:
            self._refuse(error)

    def executemany(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Run one statement for each row of parameters."""
        if sum(map(_size, rows)) > _PIPELINED_BYTES_MAX:
            for parameters in rows:
                self.execute(sql, parameters)
            return
        try:
            self._cursor.executemany(postgresql_form(sql).encode(), rows)
        except psycopg.Error as error:
            self._refuse(error)

    def check_deferred(self) -> None:
        """Deferred constraints and triggers: at COMMIT, nobody could say any more whether it was done."""
        self.execute("SET CONSTRAINTS ALL IMMEDIATE")

    def _refuse(self, error: psycopg.Error) -> NoReturn:
        state = error.sqlstate or ""
        # Without a state it is the driver's own complaint: a value it cannot write, where the connection still stands.
        about_values = isinstance(error, psycopg.ProgrammingError | psycopg.DataError) and not state
        if state[:2] not in _REFUSED and not about_values:
            raise error
        text = error.diag.message_primary or str(error)
        raise ProjectionFailed(self._place.hidden(f"{type(error).__name__}: {text}")) from error


def carry_out(db: Db, place: PostgresPlace, work: Callable[[SqlCursor], None]) -> None:
    """Do this work in the transaction that is open."""
    with db.cursor() as cursor:
        work(PostgresCursor(cursor, place))


def _given(sql: str, parameters: Sequence[object]) -> tuple[Any, ...]:
    return (postgresql_form(sql).encode(), parameters) if parameters else (sql.encode(),)


def _size(parameters: Sequence[object]) -> int:
    return 32 * len(parameters) + sum(len(value) for value in parameters if isinstance(value, str | bytes))
