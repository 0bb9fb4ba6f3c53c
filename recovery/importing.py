"""import_history(): an exported history becomes a journal again, the same one: identity, seed, epochs and chain are its.

The importing process records an epoch of its own before the first entry, which says where the history will end.  Until all
entries are there the journal ends before that, so that no runtime opens a half of it; importing again then goes on.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from journal.errors import BrokenChain, UsageError
from journal.journal import Journal
from journal.records import Entry, Epoch
from journal.store import JournalStore
from recovery.check import check_entry
from recovery.version import VERSION

IMPORTED: Final = "imported"
"""The code revision of an importing epoch: no entry carries it."""
BATCH_ENTRIES: Final = 1000
BATCH_BYTES: Final = 16 * 2**20


class Imported(NamedTuple):
    """What was written.  ``resumed_after``: the command up to which an earlier import had come; 0 for none."""

    journal: str
    engine: str
    stream: str
    commands: int
    chain: str
    resumed_after: int

    def to_dict(self) -> dict[str, Any]:
        """As in ``recovery import --json``."""
        return self._asdict()


def import_history(source: Journal, target: JournalStore) -> Imported:
    """Write all of ``source`` into a store opened for write.  Every entry is checked on its way.

    UsageError where the history is only a part or was redacted, or where the stream is there already; CorruptionError where
    the history is damaged: what was written until then is refused by every opening, and taken up by importing again.
    """
    identity = source.identity
    stream = identity.stream
    _require_importable(source)
    head = source.head()
    epochs = source.epochs()
    if target.identity(stream) is None:
        target.create(stream, identity.pack())
    else:
        _require_same(source, Journal(target, stream), epochs)
    there = target.epochs(stream)
    for epoch in epochs[len(there) :]:
        target.append_epoch(stream, epoch.number, epoch.pack())
    number = len(epochs) + 1
    if epochs and len(there) < number:
        target.append_epoch(stream, number, _own_epoch(epochs[-1], head.command_id).pack())
    begin = Journal(target, stream).head()
    for batch in _batches(source.read(begin.command_id, head.command_id)):
        target.append(stream, number, batch)
    found = Journal(target, stream).head()
    if found != head:
        raise BrokenChain(
            f"{target.location} does not hold what was written to it",
            position=found.command_id,
            expected=head.chain.hex(),
            found=found.chain.hex(),
        )
    return Imported(target.location, identity.engine, stream, head.command_id, head.chain.hex(), begin.command_id)


def _require_importable(source: Journal) -> None:
    start = source.start().command_id
    if start:
        raise UsageError(
            f"{source.store.location} is only the part after command {start}; a journal begins at command 1",
            hint=f"read it where it is: --journal {source.store.location}",
        )
    if source.store.redacted:
        raise UsageError(f"{source.store.location} is redacted: its payloads are not those that were recorded")


def _require_same(source: Journal, there: Journal, epochs: list[Epoch]) -> None:
    """Raise UsageError unless an import of this very history was interrupted there."""
    written, head, end = there.epochs(), there.head(), source.head()
    marks = [(mark.code_revision, mark.head) for mark in written[len(epochs) :]]
    same = there.store.identity(there.stream) == source.store.identity(source.stream)
    same = same and written[: len(epochs)] == epochs[: len(written)] and marks in ([], [(IMPORTED, end.command_id)])
    if same and head.command_id:
        entry = source.entry(head.command_id)
        same = entry is not None and entry.chain == head.chain
    if not same or (marks and head == end):
        raise UsageError(
            f"{there.store.location} holds a stream {there.stream!r} already",
            hint="import into a new journal: --journal URL",
        )


def _own_epoch(last: Epoch, head: int) -> Epoch:
    return last._replace(
        number=last.number + 1,
        code_revision=IMPORTED,
        python=platform.python_version(),
        library=VERSION,
        host=platform.node(),
        pid=os.getpid(),
        opened_at_ms=time.time_ns() // 1_000_000,
        head=head,
        accepted_loss=None,
    )


def _batches(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        check_entry(entry)
        batch.append(entry)
        size += entry.size
        if len(batch) >= BATCH_ENTRIES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
