"""Shipper: with ``ack="local"``, writes to the target what is durable here, in order, on a thread of its own.

Where it stands is the target's own head, and no second cursor: it is read at opening and after an unknown outcome.  Entries
wait in memory up to ``QUEUE_BYTES_MAX``; what is beyond is read from the local journal again, so that a target that is away for
long costs no memory and holds nobody up.  Only the lag grows.

**Trouble.**  A target that cannot be reached is tried again, after longer and longer pauses, for as long as it takes.  An
append of unknown outcome is resolved by a new epoch in the target, then its head (5.8 of the design).

**The fence.**  Whoever takes the target over fences this writer.  It asks at least every ``POLL_S``; and nothing is
acknowledged when the last answer is older than ``LEASE_S`` (a process that was stopped and woken) before the target was asked
again.  One that cannot be reached within ``ANSWER_S`` is given up for another ``LEASE_S``: that is the risk of ``ack="local"``.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from journal.errors import (
    EvidenceAhead,
    OutcomeUnknown,
    RecoveryError,
    StoreUnavailable,
    UnavailableError,
    WriterFenced,
    WriterPoisoned,
)
from journal.files import kill_point
from journal.journal import START
from journal.patience import reason
from journal.reconciliation import BATCH_BYTES, BATCH_ENTRIES
from journal.records import Entry, Epoch
from journal.store import JournalStore

QUEUE_BYTES_MAX: Final = 64 * 2**20
POLL_S: Final = 1.0
LEASE_S: Final = 5.0
ANSWER_S: Final = 2.0
DRAIN_S: Final = 10.0
_PAUSE_MIN_S: Final = 0.05
_PAUSE_MAX_S: Final = 2.0

# One that goes on while the machine sleeps, where there is one.
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

logger = logging.getLogger("recovery")


class Shipper:
    """Ships one stream.  ``offer`` and ``confirm`` are called by the writer, everything else on any thread.

    ``on_shipped`` and ``on_failed`` are called on the shipper's thread: after each move, and once when it stopped for good.
    """

    def __init__(self, local: JournalStore, target: JournalStore, stream: str, *, shipped: int) -> None:
        self.failure: RecoveryError | None = None
        self.last_error = ""
        self.on_shipped: Callable[[], None] = lambda: None
        self.on_failed: Callable[[], None] = lambda: None
        self._local = local
        self._target = target
        self._stream = stream
        self._shipped = self._known = shipped
        self._bytes_known = self._bytes_shipped = 0
        self._waiting: deque[Entry] = deque()
        self._waiting_bytes = 0
        self._epoch: Epoch | None = None
        self._in_doubt = False
        self._asked_at_s = self._answered_at_s = _now_s()
        self._give_up_at_s: float | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="recovery-shipper", daemon=True)

    def start(self, epoch: Epoch) -> None:
        """Begin, as the writer of this epoch, which is recorded in both."""
        self._epoch = epoch
        self._answered_at_s = _now_s()
        self._thread.start()

    @property
    def started(self) -> bool:
        """Whether it began."""
        return self._epoch is not None

    # For the writer

    def offer(self, entries: Sequence[Entry]) -> None:
        """These are durable here."""
        size = sum(entry.size for entry in entries)
        with self._changed:
            self._known = entries[-1].command_id
            self._bytes_known += size
            if self._waiting_bytes + size > QUEUE_BYTES_MAX:
                self._waiting.clear()  # read again from the local journal, when their turn comes
                self._waiting_bytes = 0
            else:
                self._waiting.extend(entries)
                self._waiting_bytes += size
            self._changed.notify_all()

    def confirm(self) -> None:
        """Raise what stopped it; ask the target first where it has not been heard of for long.  See the head of this file."""
        now_s = _now_s()
        if self.failure is None and now_s - self._answered_at_s > LEASE_S:
            with self._changed:
                self._asked_at_s = now_s
                self._changed.notify_all()
                self._changed.wait_for(lambda: self.failure is not None or self._answered_at_s >= now_s, ANSWER_S)
                if self._answered_at_s < now_s:
                    self._answered_at_s = now_s
        if self.failure is not None:
            raise self.failure.with_traceback(None)

    # For everybody

    @property
    def shipped(self) -> int:
        """The last command that the target has, durably."""
        return self._shipped

    def wait_for(self, command_id: int, timeout_s: float) -> bool:
        """Wait until a command is shipped; False, at once where there is trouble, if it is not."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._shipped >= command_id or bool(self.last_error) or self.failure is not None, timeout_s
            )
            return self._shipped >= command_id

    def to_dict(self) -> dict[str, Any]:
        """How it stands, as JSON can hold it."""
        with self._changed:
            state = "failed" if self.failure else "retrying" if self.last_error else "running"
            document: dict[str, Any] = {"state": state, "bytes_behind": self._bytes_known - self._bytes_shipped}
            said = str(self.failure) if self.failure else self.last_error
            return document | ({"last_error": said} if said else {})

    def close(self) -> None:
        """Ship what waits, for at most ``DRAIN_S``, or until that fails once; then end."""
        with self._changed:
            self._give_up_at_s = _now_s() + DRAIN_S
            self._changed.notify_all()
        if self.started:
            self._thread.join()
        if self._shipped < self._known and self.failure is None:
            logger.warning(
                "commands %d to %d are not in %s yet; the next opening ships them",
                self._shipped + 1,
                self._known,
                self._target.location,
            )

    # On its thread

    def _run(self) -> None:
        pause_s = _PAUSE_MIN_S
        try:
            while self._wait():
                asked_at_s = _now_s()
                try:
                    self._once()
                    error = ""
                except OutcomeUnknown as unknown:
                    self._in_doubt = True
                    error = reason(unknown)
                except StoreUnavailable as unavailable:
                    error = reason(unavailable)
                self._answered(asked_at_s, error)
                if error and self._give_up_at_s is not None:
                    return
                if error:
                    self._pause(pause_s)
                pause_s = min(2 * pause_s, _PAUSE_MAX_S) if error else _PAUSE_MIN_S
        except RecoveryError as error:
            self._fail(error)
        except BaseException as error:  # a defect of ours: nothing more is acknowledged
            logger.exception("the shipper stopped")
            self._fail(WriterPoisoned(f"the shipper stopped: {reason(error)}", hint="open again"))

    def _wait(self) -> bool:
        """Wait until there is something to do; False where it is time to end."""
        with self._changed:
            self._changed.wait_for(
                lambda: (
                    self._shipped < self._known
                    or self._give_up_at_s is not None
                    or self._asked_at_s > self._answered_at_s
                ),
                POLL_S,
            )
            if self._give_up_at_s is None:
                return True
            return self._shipped < self._known and _now_s() < self._give_up_at_s

    def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; who closes, or asks, has it made at once."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._give_up_at_s is not None or self._asked_at_s > self._answered_at_s, seconds
            )

    def _once(self) -> None:
        if self._in_doubt:
            self._resolve()
        batch = self._next()
        if not batch:
            self._target.require_hold(self._stream)
            return
        assert self._epoch is not None
        kill_point("ship.before")
        self._target.append(self._stream, self._epoch.number, batch)
        kill_point("ship.after")
        self._move_to(batch[-1].command_id, sum(entry.size for entry in batch))

    def _next(self) -> list[Entry]:
        """The entries after the last one shipped, as many as one append should take."""
        batch: list[Entry] = []
        size = 0
        with self._changed:
            waiting, known = self._waiting, self._known
            while waiting and waiting[0].command_id <= self._shipped:
                self._waiting_bytes -= waiting.popleft().size
            if waiting and waiting[0].command_id == self._shipped + 1:
                while waiting and len(batch) < BATCH_ENTRIES and size < BATCH_BYTES:
                    batch.append(waiting.popleft())
                    size += batch[-1].size
                self._waiting_bytes -= size
                return batch
        page = self._local.page(self._stream, self._shipped, min(known, self._shipped + BATCH_ENTRIES))
        for entry in page:
            if size >= BATCH_BYTES:
                break
            entry.verify()
            batch.append(entry)
            size += entry.size
        return batch

    def _resolve(self) -> None:
        """After an append of unknown outcome: a new epoch, behind which nothing is on its way; then where the target ends."""
        assert self._epoch is not None
        renewed = self._epoch._replace(
            number=self._epoch.number + 1,
            opened_at_ms=time.time_ns() // 1_000_000,
            head=self._shipped,
            accepted_loss=None,
        )
        self._target.append_epoch(self._stream, renewed.number, renewed.pack())
        self._epoch = renewed
        last = self._target.last(self._stream)
        head = START if last is None else last.head
        if head.command_id < self._shipped:
            raise EvidenceAhead(
                f"{self._target.location} had this command, and ends at command {head.command_id}: it lost its end",
                position=self._shipped,
                hint="open again: what is here is shipped once more",
            )
        mine = self._local.page(self._stream, head.command_id - 1, head.command_id)
        if head.command_id and (not mine or mine[0].chain != head.chain):
            raise WriterFenced(
                f"{self._target.location} was written by another, to command {head.command_id}", hint="open again"
            )
        self._in_doubt = False
        gone = self._local.page(self._stream, self._shipped, head.command_id)
        self._move_to(head.command_id, sum(entry.size for entry in gone))

    def _move_to(self, command_id: int, size: int) -> None:
        with self._changed:
            self._shipped = command_id
            self._bytes_shipped += size
            self._changed.notify_all()
        self.on_shipped()

    def _answered(self, asked_at_s: float, error: str) -> None:
        if error and not self.last_error:
            logger.warning("shipping to %s waits: %s", self._target.location, error)
        with self._changed:
            self.last_error = error
            # Unless the writer gave up waiting meanwhile.
            self._answered_at_s = max(self._answered_at_s, asked_at_s)
            self._changed.notify_all()

    def _fail(self, error: RecoveryError) -> None:
        with self._changed:
            self.failure = error
            self._changed.notify_all()
        logger.error("nothing more is shipped to %s: %s", self._target.location, error)
        with suppress(UnavailableError):  # it is being closed
            self.on_failed()


def _now_s() -> float:
    return time.clock_gettime(_CLOCK)
