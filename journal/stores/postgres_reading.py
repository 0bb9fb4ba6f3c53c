"""Reading entries from PostgreSQL: a page is one prepared SELECT, and the next page is fetched while this one is looked at.

No transaction outlives a page.
"""

from __future__ import annotations

import concurrent.futures
from collections.abc import Sequence
from typing import Any, Final

import psycopg

from journal.errors import CorruptionError
from journal.postgres_connection import Db, Link, PostgresPlace, setting
from journal.records import Entry, unchecked_entry

KEYS_PAGE: Final = 10_000

_RANGE: Final = "FROM engine_journal WHERE stream = {} AND command_id > {} AND command_id <= {}"
# In the order of an Entry's fields.  As bytes: the driver would make an object of each UUID.
_COLUMNS: Final = ", ".join("uuid_send(request_key)" if name == "request_key" else name for name in Entry._fields)
_SELECT: Final = f"SELECT {_COLUMNS} FROM engine_journal WHERE stream = %s"
_PAGE: Final = f"{_SELECT} AND command_id > %s AND command_id <= %s ORDER BY command_id".encode()
_NEWEST: Final = f"{_SELECT} ORDER BY command_id DESC LIMIT %s".encode()
_FIND: Final = f"{_SELECT} AND request_key = ANY(%s::uuid[])".encode()


def page(db: Db, stream: str, after: int, until: int) -> list[Entry]:
    """The entries with ``after < command_id <= until``, by command id."""
    with db.cursor(binary=True) as cursor:
        return _entries(cursor.execute(_PAGE, (stream, after, until), prepare=True).fetchall())


def _entries(rows: list[tuple[Any, ...]]) -> list[Entry]:
    return list(map(unchecked_entry, rows))


def newest(db: Db, stream: str, limit: int) -> list[Entry]:
    """The entries with the greatest command ids, the greatest first."""
    with db.cursor(binary=True) as cursor:
        return _entries(cursor.execute(_NEWEST, (stream, limit)).fetchall())


def waits_for_standbys(db: Db) -> bool:
    """Whether this is a primary whose commits wait for another server."""
    return bool(setting(db, "synchronous_standby_names")) and setting(db, "in_hot_standby") != "on"


def found(db: Db, stream: str, request_keys: Sequence[bytes]) -> list[Entry]:
    """The entries with these request keys; what the index gives is compared with what was asked."""
    wanted = set(request_keys)
    with db.cursor(binary=True) as cursor:
        entries = _entries(cursor.execute(_FIND, (stream, [key.hex() for key in wanted])).fetchall())
    for entry in entries:
        if entry.request_key not in wanted:
            # An index that lies is worse than none: a command could be applied twice.
            raise CorruptionError(
                "the index of requests does not match the entries", position=entry.command_id, hint="restore a copy"
            )
    return entries


def keys_since(db: Db, stream: str, after: int, since_ms: int) -> tuple[list[bytes], int]:
    """The request keys of one range after a command id that were received at or after a time, and where the range ends."""
    query = f"SELECT request_key {_RANGE.format('%s', '%s', '%s')} AND received_at_ms >= %s"
    until = after + KEYS_PAGE
    with db.cursor(binary=True) as cursor:
        rows = cursor.execute(query.encode(), (stream, after, until, since_ms)).fetchall()
    return [key.bytes for (key,) in rows], until


class PageAhead:
    """Fetches the page after the one last given, over a connection of its own.

    One that is not full is not used: the journal may have grown since.
    """

    def __init__(self, place: PostgresPlace) -> None:
        self._link = Link(place)
        self._thread: concurrent.futures.ThreadPoolExecutor | None = None
        self._page: tuple[str, int, int, concurrent.futures.Future[list[Entry]]] | None = None
        self._at = ("", -1)

    def take(self, stream: str, after: int, until: int) -> list[Entry] | None:
        """The page, if it was fetched ahead and is whole."""
        page, self._page = self._page, None
        if page is None or page[:2] != (stream, after) or page[2] < until:
            return None
        try:
            entries = page[3].result()[: until - after]
        except psycopg.Error:
            return None  # asked again, the usual way says what is the matter
        return entries if len(entries) == until - after and entries[-1].command_id == until else None

    def given(self, stream: str, after: int, until: int) -> None:
        """Note that a whole page was given; from the second in a row on, the next is fetched."""
        follows, self._at = self._at == (stream, after), (stream, until)
        if not follows:
            return
        if self._thread is None:
            self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="recovery-page")
        end = until + (until - after)
        self._page = (stream, until, end, self._thread.submit(self._fetch, stream, until, end))

    def _fetch(self, stream: str, after: int, until: int) -> list[Entry]:
        return page(self._link.db(), stream, after, until)

    def stop(self) -> None:
        """Forget what was fetched, and end the connection and the thread."""
        self._page, self._at = None, ("", -1)
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None
        self._link.close()


def streams(db: Db) -> list[str]:
    """The names of all streams."""
    return [name for (name,) in db.execute("SELECT stream FROM engine_streams ORDER BY stream")]


def check_index(db: Db, stream: str) -> None:
    """Look up every request in the unique index, a range at a time.

    CorruptionError where the lookup does not give the row that the request stands in.
    """
    query = f"""\
SELECT count(*), count(*) FILTER (WHERE other.command_id = entry.command_id)
FROM (SELECT stream, command_id, request_key {_RANGE.format("%s", "%s", "%s")}) AS entry
LEFT JOIN LATERAL (
    SELECT by_request.command_id FROM engine_journal AS by_request
    WHERE by_request.stream = entry.stream AND by_request.request_key = entry.request_key OFFSET 0
) AS other ON true"""
    row = db.execute("SELECT coalesce(max(command_id), 0) FROM engine_journal WHERE stream = %s", (stream,)).fetchone()
    end = 0 if row is None else int(row[0])
    for after in range(0, end, KEYS_PAGE):
        with db.transaction():
            db.execute("SET LOCAL enable_seqscan TO off")
            counted = db.execute(query.encode(), (stream, after, after + KEYS_PAGE)).fetchone()
        if counted is not None and counted[0] != counted[1]:
            raise CorruptionError(
                f"{counted[0] - counted[1]} requests of commands {after + 1} to {min(after + KEYS_PAGE, end)} "
                "are not in the index of requests",
                position=after + 1,
                hint="REINDEX TABLE engine_journal, or restore a copy",
            )
