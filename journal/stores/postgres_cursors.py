"""Cursors in the journal's own PostgreSQL database: one row each (stores/sql/postgresql/0003_cursors.sql).

A hold is a number in the row, which every hold counts up; what is written under an older number writes nothing.  A holder whose
session lives is not replaced (postgres_hold.py says how that is found out).  A cursor is written by one statement, which may be
sent twice: after a lost connection it says the same again.  An old session that wakes up later can only put a cursor back to
where it was before, and then messages come twice; never can one run ahead of what was delivered.
"""

from __future__ import annotations

import time
from typing import Final

from journal.cursors import CursorHold, CursorStore
from journal.errors import JournalInUse, WriterFenced
from journal.files import kill_point
from journal.postgres_connection import Db, Link, parse
from journal.stores.postgres_hold import Holder, card, is_alive

_NAMES: Final = "SELECT name FROM engine_cursors WHERE stream = %s AND document IS NOT NULL ORDER BY name"
_READ: Final = "SELECT document FROM engine_cursors WHERE stream = %s AND name = %s"
_BEGIN: Final = "INSERT INTO engine_cursors (stream, name) VALUES (%s, %s) ON CONFLICT (stream, name) DO NOTHING"
_HOLDER: Final = """\
SELECT claim, holder_host, holder_pid, holder_since_ms, backend_pid, backend_start
FROM engine_cursors WHERE stream = %s AND name = %s"""
_TAKE: Final = """\
UPDATE engine_cursors SET claim = %(claim)s, holder_host = %(host)s, holder_pid = %(pid)s, holder_since_ms = %(since)s,
backend_pid = %(backend)s, backend_start = %(start)s
WHERE stream = %(stream)s AND name = %(name)s AND claim = %(from)s"""
_WRITE: Final = "UPDATE engine_cursors SET document = %s WHERE stream = %s AND name = %s AND claim = %s"
_REMOVE: Final = "UPDATE engine_cursors SET document = NULL WHERE stream = %s AND name = %s AND claim = %s"
_RELEASE: Final = """\
UPDATE engine_cursors SET holder_host = NULL, holder_pid = NULL, holder_since_ms = NULL, backend_pid = NULL,
backend_start = NULL WHERE stream = %s AND name = %s AND claim = %s"""


class PostgresCursors(CursorStore):
    """The cursors in one database.  Each hold has a connection of its own, which is how it is seen to live."""

    def __init__(self, url: str) -> None:
        self._place = parse(url)
        self.location = self._place.location
        self._link = Link(self._place)

    def names(self, stream: str) -> list[str]:
        """The rows of this stream."""
        return [name for (name,) in self._link.run(lambda db: db.execute(_NAMES, (stream,)).fetchall())]

    def read(self, stream: str, name: str) -> bytes | None:
        """The row's document."""
        return _document(self._link, stream, name)

    def hold(self, stream: str, name: str) -> CursorHold:
        """Count the row's claim up."""
        link = Link(self._place)
        try:
            link.open()
            return PostgresHold(link, stream, name)
        except BaseException:
            link.close()
            raise

    def close(self) -> None:
        """End the session."""
        self._link.close()


class PostgresHold(CursorHold):
    """The hold on one row."""

    def __init__(self, link: Link, stream: str, name: str) -> None:
        self._link = link
        self._key = (stream, name)
        self._since_ms = time.time_ns() // 1_000_000
        self._claim = link.run(self._take)
        self._released = False
        link.restored = self._restore

    def read(self) -> bytes | None:
        """The row's document."""
        return _document(self._link, *self._key)

    def write(self, document: bytes) -> None:
        """Replace the document."""
        kill_point("cursor.before")
        self._change(_WRITE, document)
        kill_point("cursor.after")

    def remove(self) -> None:
        """The row stays, for its claim; it counts as absent."""
        self._change(_REMOVE)

    def release(self) -> None:
        """Say that nobody holds it, and end the session."""
        if not self._released:
            self._released = True
            self._link.close(self._let_go)

    def _let_go(self, db: Db) -> None:
        db.execute(_RELEASE, (*self._key, self._claim))

    def _take(self, db: Db) -> int:
        db.execute(_BEGIN, self._key)
        holder = self._holder(db)
        if holder.host is not None and is_alive(db, holder):
            raise self._in_use(holder)
        if not self._claimed(db, holder.claim, holder.claim + 1):
            raise self._in_use(self._holder(db))
        return holder.claim + 1

    def _restore(self, db: Db) -> None:
        """On a new connection: the row must name this session, or we would not be seen to live."""
        if not self._claimed(db, self._claim, self._claim):
            raise self._fenced(db)

    def _claimed(self, db: Db, before: int, claim: int) -> bool:
        stream, name = self._key
        said = {"claim": claim, "from": before, "stream": stream, "name": name, **card(db, self._since_ms)}
        return db.execute(_TAKE, said).rowcount == 1

    def _change(self, statement: str, *values: object) -> None:
        def change(db: Db) -> None:
            if db.execute(statement.encode(), (*values, *self._key, self._claim)).rowcount != 1:
                raise self._fenced(db)

        self._link.run(change)

    def _holder(self, db: Db) -> Holder:
        row = db.execute(_HOLDER, self._key).fetchone()
        return Holder(0, None, None, None, None, None) if row is None else Holder(*row)

    def _in_use(self, holder: Holder) -> JournalInUse:
        by = "another process" if holder.host is None else str(holder)
        return JournalInUse(
            f"outbox {self._key[1]!r} of {self._link.place.location} is being delivered by {by}",
            hint=f"one consumer of {self._key[1]!r} at a time: stop that one, or deliver under another --name",
        )

    def _fenced(self, db: Db) -> WriterFenced:
        holder = self._holder(db)
        by = "another consumer, which has ended since" if holder.host is None else str(holder)
        return WriterFenced(f"outbox {self._key[1]!r} was taken over by {by}", hint="this consumer may end")


def _document(link: Link, stream: str, name: str) -> bytes | None:
    row = link.run(lambda db: db.execute(_READ, (stream, name)).fetchone())
    return None if row is None or row[0] is None else bytes(row[0])
