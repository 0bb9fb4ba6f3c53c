"""Recorder: the one writer of a stream.  All policy of writing is here, none in a store.

It gives command ids, links the chain, seals entries, remembers what is sealed and not yet durable, finds what was recorded
before, and stamps time.  ``seal`` places a transition; ``commit`` makes all that was sealed durable, or says why not.

**Unknown outcome.**  Where the store cannot say whether an append was done, a new epoch is recorded first: from then on nothing
of the old one can still be on its way.  Then the end is read.  What is there is acknowledged.  What is not there is known not
to be written, so it is sealed again under the new epoch and appended: its callers need not know that a server was started anew.
An end below what was acknowledged is loss, and is said.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from typing import Final

from journal import digest
from journal.errors import (
    ClockAhead,
    EvidenceAhead,
    OutcomeUnknown,
    RecoveryError,
    RequestConflict,
    UsageError,
    ValueRefused,
    WriterFenced,
)
from journal.event_detail import FULL, EventDetail
from journal.journal import Journal
from journal.projections import Projector
from journal.records import (
    ENTRY_BYTES_MAX,
    Entry,
    Epoch,
    Head,
    JournalIdentity,
    Transition,
    checksum,
    next_chain,
    part_hashes,
)
from journal.store import JournalStore

_FIND_MAX: Final = 500
_RESOLUTIONS_MAX: Final = 3


class Recorder:
    """Writes one stream of a store that was opened for write.  Used by one thread."""

    def __init__(
        self, store: JournalStore, stream: str, identity: JournalIdentity, *, detail: EventDetail = FULL
    ) -> None:
        self.store = store
        self.stream = stream
        self.identity = identity
        self.detail = detail
        self.projector = Projector((), stream)
        self.epoch = 0
        self._opened_as: Epoch | None = None
        self.head: Head = Journal(store, stream).head()
        self._tip = self.head
        self._sealed: list[Entry] = []

    @classmethod
    def open(cls, store: JournalStore, stream: str, wanted: JournalIdentity, *, detail: EventDetail = FULL) -> Recorder:
        """Open the stream, creating it as ``wanted`` where it is new.  UsageError where it belongs to another engine."""
        journal = Journal(store, stream)
        if not journal.exists:
            store.create(stream, wanted.pack())
            return cls(store, stream, wanted, detail=detail)
        return cls(store, stream, journal.identity, detail=detail)

    def begin_epoch(self, epoch: Epoch) -> None:
        """Record who writes from now on, durably, before anything else is written."""
        self.store.append_epoch(self.stream, epoch.number, epoch.pack())
        self.epoch = epoch.number
        self._opened_as = epoch

    @property
    def tip(self) -> Head:
        """The last sealed entry's head: the durable head, or beyond it."""
        return self._tip

    @property
    def sealed(self) -> int:
        """How many entries are sealed and not yet durable."""
        return len(self._sealed)

    def recorded(self, request_keys: Iterable[bytes]) -> dict[bytes, Entry]:
        """The durable entries of these request keys: one batched lookup in the store."""
        keys = list(dict.fromkeys(request_keys))
        found: dict[bytes, Entry] = {}
        if self.head.command_id == 0:
            return found
        for at in range(0, len(keys), _FIND_MAX):
            for entry in self.store.find(self.stream, keys[at : at + _FIND_MAX]):
                entry.verify()
                found[entry.request_key] = entry
        return found

    def stamp(self, received_at_ms: int | None, skew_max_ms: int) -> int:
        """The time to record: the caller's or now, never before the head's; ClockAhead where the caller's is too far off."""
        now_ms = time.time_ns() // 1_000_000
        if received_at_ms is None:
            return max(now_ms, self._tip.received_at_ms)
        if received_at_ms > now_ms + skew_max_ms:
            raise ClockAhead(
                f"received_at_ms is {received_at_ms - now_ms} ms ahead of this machine's clock; {skew_max_ms} ms are allowed",
                expected=f"at most {now_ms + skew_max_ms}",
                found=received_at_ms,
                hint="check the clocks, or raise clock_skew_max_ms",
            )
        return max(received_at_ms, self._tip.received_at_ms)

    def seal(self, step: Transition) -> Entry:
        """Place a transition after the tip.  Not durable, and not to be shown to anyone, until ``commit``."""
        tip = self._tip
        size = len(step.data_bytes) + len(step.result_bytes) + len(step.events_bytes) + len(step.changes_bytes or b"")
        if size > ENTRY_BYTES_MAX:
            raise ValueRefused(f"the command's record is {size} bytes; at most {ENTRY_BYTES_MAX} can be stored")
        # A journal that begins from an empty state has no entry to take the first digest from.
        pre = tip.post_digest_bytes
        if tip.command_id == 0 and not self.identity.digest_every:
            pre = digest.EMPTY
        hashes = part_hashes(*step[:9])
        chain = next_chain(tip.chain, hashes, pre, step.post_digest_bytes)
        # After the hashes: the chain is of what was emitted, whatever of it is kept.
        events_bytes = self.detail.kept(step.events_bytes)
        fields = (
            tip.command_id + 1,
            step.request_key,
            step.type,
            step.entity_id,
            step.received_at_ms,
            step.data_bytes,
            step.rejected,
            step.result_bytes,
            events_bytes,
            step.changes_bytes,
            pre,
            step.post_digest_bytes,
            chain,
            hashes,
            events_bytes != step.events_bytes,
            self.epoch,
            step.duration_ns,
            time.time_ns() // 1_000_000,
        )
        entry = Entry(*fields, checksum(*fields))
        self.projector.prepare(entry)
        self._sealed.append(entry)
        self._tip = Head(entry.command_id, entry.post_digest_bytes, chain, entry.received_at_ms)
        return entry

    def commit(self) -> list[Entry]:
        """Make all sealed entries durable, at once, and give them as they are recorded.

        Raises what the store's contract names; then nothing was acknowledged.  OutcomeUnknown only where it could not be
        made known.
        """
        if not self._sealed:
            return []
        try:
            self.store.append(self.stream, self.epoch, self._sealed)
        except OutcomeUnknown as unknown:
            self._resolve(unknown)
        entries, self._sealed = self._sealed, []
        self.head = self._tip
        self.projector.forget()
        return entries

    def _resolve(self, unknown: OutcomeUnknown) -> None:
        """Make an unknown outcome known, and what was sealed durable.  See the head of this file."""
        for _ in range(_RESOLUTIONS_MAX):
            try:
                fenced = self._renew_epoch()
                if self._is_there():
                    return
            except RecoveryError as error:
                if isinstance(error, EvidenceAhead):
                    raise
                raise _still_unknown(unknown, error) from error
            if fenced is not None:
                raise fenced
            self._sealed = [_sealed_under(self.epoch, entry) for entry in self._sealed]
            try:
                self.store.append(self.stream, self.epoch, self._sealed)
                return
            except OutcomeUnknown as again:
                unknown = again
        raise unknown

    def _renew_epoch(self) -> WriterFenced | None:
        """Record a new epoch; the error where another writer has done so, after which nothing of ours is on its way either."""
        assert self._opened_as is not None, "an append without an epoch is refused"
        epoch = self._opened_as._replace(
            number=self.epoch + 1,
            opened_at_ms=time.time_ns() // 1_000_000,
            head=self.head.command_id,
            accepted_loss=None,
        )
        try:
            self.begin_epoch(epoch)
        except WriterFenced as fenced:
            return fenced
        return None

    def _is_there(self) -> bool:
        """Whether the sealed entries are recorded; else none of them is.  EvidenceAhead where acknowledged ones are not."""
        found = self.store.page(self.stream, self.head.command_id - 1, self._tip.command_id)
        chains = {entry.command_id: entry.chain for entry in found}
        if self.head.command_id and chains.get(self.head.command_id) != self.head.chain:
            end = self.store.last(self.stream)
            raise EvidenceAhead(
                f"this command was acknowledged, and the journal ends at command {0 if end is None else end.command_id}: "
                "its end was lost",
                position=self.head.command_id,
                hint="restore the journal, or fail over to where it is whole; to go on without: --accept-loss",
            )
        # An append is whole or not at all, so its last entry speaks for it; another writer's has another chain.
        return chains.get(self._tip.command_id) == self._tip.chain

    def abandon(self) -> None:
        """Forget what is sealed: the store refused it."""
        self._tip = self.head
        self._sealed = []
        self.projector.forget()


def _sealed_under(epoch: int, entry: Entry) -> Entry:
    """The same entry under another epoch, which is outside its chain."""
    fields = entry._replace(epoch=epoch)[:-1]
    return Entry(*fields, checksum(*fields))


def _still_unknown(unknown: OutcomeUnknown, error: RecoveryError) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"{unknown.message}; and that could not be found out: {error}", position=unknown.position, hint=unknown.hint
    )


def refuse_conflict(entry: Entry, type: str, data_bytes: bytes) -> None:
    """Raise RequestConflict unless ``entry`` records a command of this type and data."""
    if entry.type != type or entry.data_bytes != data_bytes:
        what = "data" if entry.type == type else f"type {entry.type!r}"
        raise RequestConflict(
            f"request {entry.request_id} is recorded already with other {what}",
            position=entry.command_id,
            hint="send another command under another request id",
        )


def new_identity(
    *, stream: str, engine: str, seed: int | None, digest_every: int, changes: str, dedup_window_s: int
) -> JournalIdentity:
    """The identity of a journal about to be created; ``seed`` None draws one of 64 bits."""
    journal_id = uuid.uuid4()
    if seed is None:
        seed = uuid.uuid4().int >> 64
    if not 0 <= seed < 2**64:
        raise UsageError(f"seed is {seed}; it is an int from 0 to 2**64 - 1")
    return JournalIdentity(
        journal_id, stream, engine, seed, digest_every, changes, dedup_window_s, time.time_ns() // 1_000_000
    )
