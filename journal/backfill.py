"""Filling a projection's tables from the history of a journal, page by page, each exactly once.

A page is one transaction, and the projection's progress moves with it: filling may be stopped anywhere, and run again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import NamedTuple

from journal.errors import ProjectionFailed, UsageError
from journal.journal import PAGE_ENTRIES, Journal
from journal.projections import (
    PROGRESS_ENDED,
    Projection,
    Projector,
    begin,
    check_progress,
    check_rows,
    check_stream,
    progress_of,
    sql_store,
)
from journal.records import Entry
from journal.store import JournalStore, SqlCursor, SqlJournalStore


class Filled(NamedTuple):
    """What filling a projection did: the commands after ``after``, up to ``until``."""

    name: str
    after: int
    until: int


def clear(store: JournalStore, stream: str, one: Projection) -> None:
    """Drop a projection's tables and its progress, in one transaction."""
    database, found = sql_store(store), progress_of(store)
    if one.name in found:
        check_stream(one, found[one.name], stream)

    def drop(cursor: SqlCursor) -> None:
        for table in one.tables:
            cursor.execute(f"DROP TABLE IF EXISTS {table}")
        if found:
            cursor.execute(PROGRESS_ENDED, (one.name,))

    database.transact(drop)


def backfill(
    store: JournalStore, stream: str, one: Projection, *, report: Callable[[int, int], None] = lambda done, head: None
) -> Filled:
    """Fill a projection from where it stands to the journal's head.

    ``store`` is opened for write.  ``report(command_id, head)`` is called after each page.  UsageError where the history does
    not hold what the projection needs; ProjectionFailed names the command that it, or the database, refuses.
    """
    database, journal = sql_store(store), Journal(store, stream)
    check_rows(one, journal.identity)
    head = journal.head().command_id
    projector = Projector([one], stream)
    progress = progress_of(store).get(one.name)
    if progress is None:
        database.transact(lambda cursor: begin(cursor, [one], stream))
    else:
        check_progress(one, progress, stream, head)
    after = at = progress.command_id if progress else 0
    entries = journal.read(after, head)
    while page := list(islice(entries, PAGE_ENTRIES)):
        for entry in page:
            _check_events(one, entry)
        _write_page(database, projector, page)
        at = page[-1].command_id
        report(at, head)
    return Filled(one.name, after, at)


def _write_page(database: SqlJournalStore, projector: Projector, page: Sequence[Entry]) -> None:
    try:
        _write(database, projector, page)
    except ProjectionFailed:
        # One by one, up to the one that is refused, which is then named.
        for entry in page:
            _write(database, projector, [entry])


def _write(database: SqlJournalStore, projector: Projector, entries: Sequence[Entry]) -> None:
    try:
        for entry in entries:
            projector.prepare(entry)
        database.transact(lambda cursor: projector.project(cursor, entries))
    finally:
        projector.forget()


def _check_events(one: Projection, entry: Entry) -> None:
    if one.required_types and entry.events_reduced:
        raise UsageError(
            f"projection {one.name!r} needs every event, and of this command only some are kept",
            position=entry.command_id,
            hint='its history was recorded with events="summary" or "none"; it cannot be projected',
        )
