"""Makes an image alongside the journal: what is committed is redone over the newest image, and published.

Needs no engine, and no process of its own: who runs it, and where, is for the caller.  Memory grows with the keys
changed since the newest image, not with the state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from journal import digest
from journal.errors import CorruptionError, StoreUnavailable, UsageError
from journal.records import Entry, JournalIdentity
from snapshots.catalog import Candidate, Catalog, Report
from snapshots.image import ImageHeader, Rows, write_image
from snapshots.redo import merge, net_changes
from snapshots.store import JournalView


class _BadBase(Exception):
    """The base could not be read; set apart from what the journal's own record raises."""

    def __init__(self, error: CorruptionError | StoreUnavailable) -> None:
        super().__init__(error)
        self.error = error


def make_image(
    journal: JournalView,
    catalog: Catalog,
    *,
    identity: JournalIdentity,
    state_version: int,
    logic_version: int,
    schema: bytes,
    command_id: int,
    created_at_ms: int,
    report: Report,
) -> ImageHeader:
    """Publish the image of the state after ``command_id``, which the journal holds, and give its header.

    Where there is one already, it is proven and its header given.  A bad image among the bases is quarantined and
    reported, and the next older taken, in the end the beginning.  UsageError where the command cannot be redone;
    CorruptionError where the journal's record does not add up.
    """
    entry = _redoable(journal, command_id)
    header = ImageHeader(
        journal_id=identity.journal_id,
        stream=identity.stream,
        engine=identity.engine,
        state_version=state_version,
        logic_version=logic_version,
        schema=schema,
        command_id=command_id,
        chain=entry.chain,
        received_at_ms=entry.received_at_ms,
        post_digest_bytes=entry.post_digest_bytes or digest.EMPTY,
        kind="tables",
        base="genesis",
        created_at_ms=created_at_ms,
    )
    candidates = catalog.newest(
        journal, journal_id=identity.journal_id, engine=identity.engine, at_or_before=command_id, report=report
    )
    for candidate in candidates:
        try:
            if candidate.header.command_id == command_id:
                _prove(_rows(candidate))
                return candidate.header
            made = header._replace(base=candidate.name)
            _publish(journal, catalog, made, candidate.header, _rows(candidate))
            return made
        except _BadBase as bad:
            if isinstance(bad.error, CorruptionError):
                candidate.reject(bad.error)
            else:
                candidate.pass_over(bad.error)
    _publish(journal, catalog, header, None, ())
    return header


def _redoable(journal: JournalView, command_id: int) -> Entry:
    entry = journal.entry(command_id)
    if entry is None:
        raise UsageError("the journal holds no such command, so there is no state after it", position=command_id)
    post = entry.post_digest
    if post is None or post.algorithm != digest.TABLES or entry.changes_bytes is None:
        raise UsageError(
            "the state cannot be redone: the command was recorded without tables or without changes",
            position=command_id,
            hint="an image of such an engine is captured by its runtime",
        )
    return entry


def _publish(
    journal: JournalView, catalog: Catalog, header: ImageHeader, base: ImageHeader | None, rows: Iterable[Rows]
) -> None:
    after, digest_bytes = (0, digest.EMPTY) if base is None else (base.command_id, base.post_digest_bytes)
    entries = journal.entries_after(after, header.command_id)
    changes = net_changes(entries, after=after, digest_bytes=digest_bytes)
    catalog.publish(journal, header, write_image(header, merge(rows, changes)))


def _rows(candidate: Candidate) -> Iterator[Rows]:
    try:
        with candidate.open() as reader:
            yield from reader.rows()
    except (CorruptionError, StoreUnavailable) as error:
        raise _BadBase(error) from error


def _prove(rows: Iterable[Rows]) -> None:
    for _ in rows:
        pass
