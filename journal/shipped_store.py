"""ShippedStore: a local journal with another one behind it, together one store.

Reads are local.  The target owns the epoch: it is recorded there first, so that whoever takes the target over fences us.

**ack="both"**: a batch is appended to the target, and when that is durable, here.  In this order, because what the target
refuses is then nowhere, and goes on; what only the target has is written here by the next opening (reconciliation.py).  Where
the local append fails after the target's was done, the store is poisoned: opening again finds the commands recorded.  Where
the outcome at the target is unknown, a new epoch makes it known, and what is found there is written here.

**ack="local"**: a batch is appended here, and shipped behind the acknowledgement (shipper.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

from journal.errors import EvidenceAhead, OutcomeUnknown, RecoveryError, UsageError, WriterFenced, WriterPoisoned
from journal.files import kill_point
from journal.reconciliation import Reconciled, reconcile
from journal.records import Entry, Epoch
from journal.shipper import Shipper
from journal.store import JournalStore

BOTH: Final = "both"
LOCAL: Final = "local"


class ShippedStore(JournalStore):
    """``local`` and ``target``, both held for write and of one history.  Made by ``open``."""

    def __init__(
        self, local: JournalStore, target: JournalStore, stream: str, *, ack: str, reconciled: Reconciled
    ) -> None:
        self.location = local.location
        self.durable = local.durable and target.durable
        self.ack = ack
        self.target = target
        self.reconciled = reconciled
        self._local = local
        # As found at opening: whoever asks for a status must not wait for a server that is away.
        self._target_settings = {f"target_{name}": value for name, value in target.settings().items()}
        self._stream = stream
        self._pid = os.getpid()
        self._doubt: dict[str, list[Entry]] = {}
        self._refusal: RecoveryError | None = None
        self._closed = False
        self.shipper: Shipper | None = None
        if ack == LOCAL:
            self.shipper = Shipper(local, target, stream, shipped=reconciled.head.command_id)

    @classmethod
    def open(cls, local: JournalStore, target: JournalStore, stream: str, *, ack: str, engine: str) -> ShippedStore:
        """Make both one (reconciliation.py).  Where that refuses, both are as they were, and still the caller's."""
        if ack not in (BOTH, LOCAL):
            raise UsageError(f'ack is {ack!r}; it is "both" or "local"')
        return cls(local, target, stream, ack=ack, reconciled=reconcile(local, target, stream, engine=engine))

    # Reading

    def identity(self, stream: str) -> bytes | None:
        """The stream's identity, or None."""
        return self._local.identity(stream)

    def epochs(self, stream: str) -> list[tuple[int, bytes]]:
        """All epochs by number."""
        return self._local.epochs(stream)

    def start(self, stream: str) -> Entry | None:
        """The entry up to which the stream is not kept here."""
        return self._local.start(stream)

    def last(self, stream: str) -> Entry | None:
        """The last entry, or None."""
        return self._local.last(stream)

    def page(self, stream: str, after: int, until: int) -> list[Entry]:
        """The entries with ``after < command_id <= until``."""
        return self._local.page(stream, after, until)

    def newest(self, stream: str, limit: int) -> list[Entry]:
        """The last entries."""
        return self._local.newest(stream, limit)

    def find(self, stream: str, request_keys: Sequence[bytes]) -> list[Entry]:
        """The entries with these request keys.  A writer that was fenced answers nobody."""
        if self.shipper is not None:
            self.shipper.confirm()
        return self._local.find(stream, request_keys)

    def request_keys(self, stream: str, since_ms: int) -> Iterator[bytes]:
        """The request keys of entries received at or after a time."""
        return self._local.request_keys(stream, since_ms)

    def make_durable(self) -> None:
        """What was read here is durable here."""
        self._local.make_durable()

    def settings(self) -> dict[str, str]:
        """Those of both, the target's, as they were at opening, under names of their own."""
        return self._local.settings() | {"ack": self.ack} | self._target_settings

    def check(self) -> None:
        """Look at the local one's structure; the target's is checked by its own URL."""
        self._local.check()

    def shipped(self, stream: str) -> int:
        """The last command that both have, durably: what may be shown to others."""
        if self.shipper is not None:
            return self.shipper.shipped
        last = self._local.last(stream)
        return 0 if last is None else last.command_id

    # Writing

    def require_hold(self, stream: str) -> None:
        """Raise WriterFenced where another has taken the target over."""
        self._require_sound()
        self.target.require_hold(stream)
        self._local.require_hold(stream)

    def create(self, stream: str, identity: bytes) -> None:
        """Begin a stream, in the target first."""
        self._require_own(stream)
        self.target.create(stream, identity)
        kill_point("ship.created")
        self._local.create(stream, identity)

    def append_epoch(self, stream: str, number: int, document: bytes) -> None:
        """Record an epoch, in the target first; then what was in doubt is known.  With ack="local", once, at opening."""
        self._require_own(stream)
        if self.shipper is not None and self.shipper.started:
            raise UsageError("what is shipped behind the receipts has one epoch for as long as it is open")
        try:
            self.target.append_epoch(stream, number, document)
        except WriterFenced:
            self._settle(stream)
            raise
        kill_point("ship.epoch")
        self._local.append_epoch(stream, number, document)
        self._settle(stream)
        if self.shipper is not None:
            self.shipper.start(Epoch.unpack(document, f"epoch {number}"))

    def append(self, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        """Write entries that follow the last one.  See the head of this file."""
        if not entries:
            return
        self._require_own(stream)
        if self.shipper is None:
            self._append_both(stream, epoch, entries)
            return
        self.shipper.confirm()
        self._local.append(stream, epoch, entries)
        self.shipper.offer(entries)
        self._confirm_written(entries)

    def _confirm_written(self, entries: Sequence[Entry]) -> None:
        """Once more, behind the append: whoever was stopped meanwhile, for however long, must not acknowledge."""
        assert self.shipper is not None
        try:
            self.shipper.confirm()
        except WriterFenced as fenced:
            raise WriterPoisoned(
                f"commands {entries[0].command_id} to {entries[-1].command_id} are written here and may be nowhere else: "
                f"{fenced}",
                position=entries[0].command_id,
                hint="open again: they are shipped then, or listed where the target went on without them",
            ) from fenced
        except RecoveryError:
            return  # they are durable here, which is what a receipt says; the next append is refused

    def _append_both(self, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        kill_point("ship.before")
        try:
            self.target.append(stream, epoch, entries)
        except OutcomeUnknown:
            self._doubt[stream] = list(entries)
            raise
        kill_point("ship.after")
        self._append_here(stream, epoch, entries)

    def _append_here(self, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        try:
            self._local.append(stream, epoch, entries)
        except RecoveryError as error:
            self._refusal = WriterPoisoned(
                f"{self.target.location} has commands {entries[0].command_id} to {entries[-1].command_id}, and "
                f"{self.location} has not: {error}",
                position=entries[0].command_id,
                hint="mend that and open again: the local journal is filled from the target",
            )
            raise self._refusal from error

    def _settle(self, stream: str) -> None:
        """Write here what was in doubt and is found in the target, behind whose new epoch nothing is on its way."""
        entries = self._doubt.pop(stream, None)
        if entries is None:
            return
        before = entries[0].command_id - 1
        found = {
            entry.command_id: entry.chain for entry in self.target.page(stream, before - 1, entries[-1].command_id)
        }
        head = self._local.last(stream)
        if head is not None and found.get(before) != head.chain:
            raise EvidenceAhead(
                f"this command was acknowledged, and {self.target.location} has lost it",
                position=before,
                hint="open again: what is here is shipped once more",
            )
        if found.get(entries[-1].command_id) == entries[-1].chain:
            self._append_here(stream, len(self._local.epochs(stream)), entries)

    def _require_own(self, stream: str) -> None:
        self._require_sound()
        if self.shipper is not None and stream != self._stream:
            raise UsageError(f"{self.location} was opened to ship stream {self._stream!r}, not {stream!r}")

    def _require_sound(self) -> None:
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)

    def close(self) -> None:
        """Ship what waits, as far as that can be done soon; then let both go.  Twice is once."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        try:
            if self.shipper is not None:
                self.shipper.close()
        finally:
            try:
                self.target.close()
            finally:
                self._local.close()
