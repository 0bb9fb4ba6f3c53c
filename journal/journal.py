"""Journal: the record of one stream, read.  Every entry is checked against the one before it as it goes by.

Writing is ``Recorder``'s (journal/recorder.py): the two are two classes, so that nothing that reads can write.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import Final

from journal import digest, framing
from journal.errors import BrokenChain, CorruptionError, EvidenceAhead, Gap, StoreUnavailable, Trimmed
from journal.records import Entry, Epoch, Head, JournalIdentity, Summary, next_chain, request_key
from journal.store import JournalStore

PAGE_ENTRIES: Final = 500
TYPES_MAX: Final = 3
START: Final = Head(0, None, digest.CHAIN_START, 0)

_CHECK: Final = "run: recovery check"


class Journal:
    """One stream of a store.  All positions are command ids; 0 is before the first."""

    def __init__(self, store: JournalStore, stream: str = "main") -> None:
        self.store = store
        self.stream = stream

    @property
    def identity(self) -> JournalIdentity:
        """What this journal is.  StoreUnavailable where the stream was never created."""
        found = self.store.identity(self.stream)
        if found is None:
            raise StoreUnavailable(
                f"{self.store.location} holds no stream {self.stream!r}",
                hint="check --journal and --stream; a runtime creates the stream when it is first opened",
            )
        where = f"identity of stream {self.stream!r}"
        identity = JournalIdentity.unpack(found, where)
        if identity.stream != self.stream:
            raise CorruptionError(
                "it is of another stream",
                position=where,
                expected=self.stream,
                found=identity.stream,
                hint="restore a copy",
            )
        return identity

    @property
    def exists(self) -> bool:
        """Whether the stream was ever created."""
        return self.store.identity(self.stream) is not None

    def epochs(self) -> list[Epoch]:
        """Every opening for write, by number.  Gap where one is missing: an entry says which wrote it."""
        # The entry first: who reads while another begins an epoch may then see one epoch more, never one less.
        last = self.store.last(self.stream)
        epochs = []
        for number, (stored_as, document) in enumerate(self.store.epochs(self.stream), 1):
            where = f"epoch {stored_as}"
            epoch = Epoch.unpack(document, where)
            if stored_as != number or epoch.number != number:
                raise Gap(
                    "it is not where it was written", position=where, expected=number, found=epoch.number, hint=_CHECK
                )
            epochs.append(epoch)
        if last is not None and last.epoch > len(epochs):
            raise Gap("it is missing", position=f"epoch {last.epoch}", hint=_CHECK)
        return epochs

    def require_end(self) -> None:
        """Raise EvidenceAhead where the journal ends before the command at which it was last opened for write."""
        epochs = self.epochs()
        end = self.head().command_id
        if epochs and epochs[-1].head > end:
            raise EvidenceAhead(
                f"epoch {epochs[-1].number} began after it, and the journal ends at command {end}: the journal lost its end",
                position=epochs[-1].head,
                hint="restore the journal, or go on without what was lost: --accept-loss",
            )

    def start(self) -> Head:
        """Where the journal begins: command 0, or the command after which it is kept."""
        anchor = self.store.start(self.stream)
        if anchor is None:
            return START
        anchor.verify()
        return anchor.head

    def head(self) -> Head:
        """Where the journal ends; command 0 for an empty one."""
        last = self.store.last(self.stream)
        if last is None:
            return START
        last.verify()
        return last.head

    def entry(self, command_id: int) -> Entry | None:
        """The entry of one command, its checksum checked; None where there is none."""
        found = self.store.page(self.stream, command_id - 1, command_id)
        if not found:
            return None
        found[0].verify()
        return found[0]

    def read(self, after: int | None = None, until: int | None = None) -> Iterator[Entry]:
        """The entries with ``after < command_id <= until``, in order, in constant memory; by default all that are kept.

        Raises CorruptionError with the command id where an entry is missing, damaged, or does not continue the one
        before it; Trimmed where ``after`` lies before what is kept.
        """
        start = self.start()
        if after is None:
            after = start.command_id
        elif after < start.command_id:
            raise Trimmed(
                f"the commands up to {start.command_id} are not kept in {self.store.location}",
                position=after + 1,
                hint=f"begin at an image at command {start.command_id} or after it, or say --after {start.command_id}",
            )
        end = self.store.last(self.stream)
        last = 0 if end is None else end.command_id
        last = last if until is None else min(last, until)
        previous = start if after == start.command_id else self._before(after, last)
        at = after
        while at < last:
            page = self.store.page(self.stream, at, min(at + PAGE_ENTRIES, last))
            if not page:
                raise Gap("the entry is missing", position=at + 1, hint=_CHECK)
            for entry in page:
                check_continues(previous, entry)
                previous = entry.head
                yield entry
            at = page[-1].command_id

    def entries_after(self, command_id: int, until: int) -> Iterator[Entry]:
        """``read``, by the name under which snapshots ask for it."""
        return self.read(command_id, until)

    def _before(self, after: int, last: int) -> Head:
        if after >= last:
            return START
        entry = self.entry(after)
        if entry is None:
            raise Gap("the entry is missing", position=after, hint=_CHECK)
        return entry.head

    def get(self, request_id: uuid.UUID | str) -> Entry | None:
        """The full record of a request; None where there is none."""
        found = self.store.find(self.stream, [request_key(request_id).bytes])
        for entry in found:
            entry.verify()
        return found[0] if found else None

    def __contains__(self, request_id: uuid.UUID | str) -> bool:
        return bool(self.store.find(self.stream, [request_key(request_id).bytes]))

    def request_ids(self, since_ms: int = 0) -> Iterator[uuid.UUID]:
        """The request ids of commands received at or after a time, milliseconds since 1970; in no order."""
        return (uuid.UUID(bytes=key) for key in self.store.request_keys(self.stream, since_ms))

    def recent(self, limit: int = 20) -> list[Summary]:
        """The newest commands, newest first, each with how many events it emitted and the first of their types.

        One query of the store, whatever ``limit`` is; for the whole of a history there is ``read``.
        """
        entries = self.store.newest(self.stream, limit)
        for entry in entries[:1]:
            entry.verify()
            if len(entries) < limit:
                check_continues(self.start(), entry)
        for before, entry in itertools.pairwise(entries):
            check_continues(before.head, entry)
        return [_summary(entry) for entry in reversed(entries)]

    def close(self) -> None:
        """Let the store go."""
        self.store.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _summary(entry: Entry) -> Summary:
    types = [frame.type for frame in framing.event_frames(entry.events_bytes)]
    return Summary(
        entry.command_id,
        entry.request_id,
        entry.type,
        entry.entity_id,
        entry.received_at_ms,
        entry.rejected,
        len(types),
        tuple(dict.fromkeys(types))[:TYPES_MAX],
        entry.events_reduced,
    )


def check_continues(previous: Head, entry: Entry) -> None:
    """Raise CorruptionError unless ``entry`` is whole and follows ``previous``."""
    if entry.command_id != previous.command_id + 1:
        raise Gap(
            f"the entry is missing; the next there is {entry.command_id}",
            position=previous.command_id + 1,
            hint=_CHECK,
        )
    entry.verify()
    chain = next_chain(previous.chain, entry.part_hashes, entry.pre_digest_bytes, entry.post_digest_bytes)
    if chain != entry.chain:
        raise BrokenChain(
            "the entry does not continue the chain",
            position=entry.command_id,
            expected=chain.hex(),
            found=entry.chain.hex(),
            hint=_CHECK,
        )
    if previous.command_id and entry.pre_digest_bytes != previous.post_digest_bytes:
        raise BrokenChain(
            "the digest before the command is not the digest after the one before it",
            position=entry.command_id,
            expected=digest.root_of(previous.post_digest_bytes).hex(),
            found=digest.root_of(entry.pre_digest_bytes).hex(),
            hint=_CHECK,
        )
