"""Outbox: the events of a stream handed to somebody else, in order, at least once, from a durable cursor.

Each message carries ``(command_id, index)``: the same event has the same pair whenever it is delivered, so who must not act on
it twice can tell.  After an accepted loss (``--accept-loss``) command ids are given again; ``epoch`` tells the new from the lost.

What is handed out has been made durable before (5.9 of the design: never ahead), up to ``published_up_to()``.  The cursor moves
only after the delivery returned, whole commands at a time: a crash between the two delivers again, and never leaves out.  A
cursor beyond the journal's end, or on another history than the journal's, proves that the journal lost its end.

A consumer that raises is asked again after a while, longer each time; then the outbox stops, and the cursor says why.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from journal.cursors import Cursor, CursorStore, check_name
from journal.delivery import Consumer, Delivered, Delivery, Message, place_of
from journal.errors import DeliveryFailed, RecoveryError, StoreUnavailable, UsageError
from journal.journal import Journal
from journal.patience import ATTEMPTS_MAX, BACKOFF_MAX_S, Patience, Stopped, reason
from journal.urls import open_cursors, open_reader

BATCH_MAX: Final = 500
POLL_MAX_S: Final = 1.0
_POLL_MIN_S: Final = 0.02

logger = logging.getLogger("recovery")


class Outbox:
    """The deliverer of one named cursor.  ``run_once`` delivers what there is; ``run`` goes on until ``stop``.

    ``deliver(message)`` or ``deliver_batch(messages)`` returns when the messages are accepted, and raises when they are not.
    A batch holds whole commands, and at most ``batch_max`` messages unless one command alone has more.  ``after`` is where a
    cursor begins that is not there yet.  ``published_up_to()`` is the last command that may be handed out, known to be durable;
    None: whatever can be read, made durable first.
    ``on_delivered`` and ``on_failed`` are told, on the thread that delivers, of each move and of what ended ``start``'s thread.
    """

    def __init__(
        self,
        journal: str | Journal,
        *,
        name: str,
        deliver: Callable[[Message], object] | None = None,
        deliver_batch: Callable[[list[Message]], object] | None = None,
        stream: str = "main",
        cursors: CursorStore | None = None,
        after: int = 0,
        published_up_to: Callable[[], int] | None = None,
        batch_max: int = BATCH_MAX,
        attempts_max: int = ATTEMPTS_MAX,
        backoff_max_s: float = BACKOFF_MAX_S,
        poll_max_s: float = POLL_MAX_S,
        on_delivered: Callable[[Delivered], None] | None = None,
        on_failed: Callable[[str, RecoveryError], None] | None = None,
    ) -> None:
        check_name(name)
        if (deliver is None) == (deliver_batch is None):
            raise UsageError("an outbox delivers either one message at a time (deliver) or many (deliver_batch)")
        if batch_max < 1 or attempts_max < 1 or after < 0:
            raise UsageError("batch_max and attempts_max are at least 1, and after is at least 0")
        if cursors is None:
            if not isinstance(journal, str):
                raise UsageError(
                    "an outbox of an opened journal must be told where its cursor lies", hint="say cursors="
                )
            cursors = open_cursors(journal)
        self.name = name
        self.failure: RecoveryError | None = None
        """Why the thread of ``start`` ended by itself."""
        self._owned = isinstance(journal, str)
        self._journal = Journal(open_reader(journal), stream) if isinstance(journal, str) else journal
        self._cursors = cursors
        self._consumer = Consumer(deliver, deliver_batch)
        self._after = after
        self._bound = published_up_to
        self._batch_max = batch_max
        self._poll_max_s = poll_max_s
        self._on_delivered = on_delivered
        self._on_failed = on_failed
        self._patience = Patience(f"outbox {name}", attempts_max=attempts_max, backoff_max_s=backoff_max_s)
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None

    # For callers, on any thread

    def run_once(self) -> int:
        """Deliver all that is published by now, unless stopped; how many messages that was.

        Raises DeliveryFailed where the consumer refuses too often, JournalInUse where another consumer has this cursor,
        EvidenceAhead and CorruptionError where journal or cursor are not what they were.
        """
        with self._turn, self._held() as delivery:
            with suppress(Stopped):
                delivery.run_to(self._published())
            return delivery.delivered

    def run(self) -> None:
        """Deliver until ``stop``; raises what ``run_once`` does."""
        with self._turn, self._held() as delivery, suppress(Stopped):
            pause_s = _POLL_MIN_S
            while True:
                passed = delivery.run_to(self._published())
                pause_s = _POLL_MIN_S if passed else min(2 * pause_s, self._poll_max_s)
                self._patience.pause(pause_s)

    def start(self) -> None:
        """``run`` on a thread of its own.  Where it ends by itself, ``failure`` says why."""
        self._thread = threading.Thread(target=self._run_and_tell, name=f"recovery-outbox-{self.name}", daemon=True)
        self._thread.start()

    @property
    def state(self) -> str:
        """ "idle", "running", "retrying" or "failed"; for ``status``."""
        if self.failure is not None:
            return "failed"
        if self._patience.retrying:
            return "retrying"
        return "running" if self._thread is not None and self._thread.is_alive() else "idle"

    @property
    def trouble(self) -> str:
        """What stopped it, or what the last attempt met; empty while nothing is wrong."""
        return self._patience.retrying if self.failure is None else str(self.failure)

    def wake(self) -> None:
        """There is something new: look at once."""
        self._patience.wake()

    def stop(self) -> None:
        """Deliver nothing more than what is being delivered, and return when that is done."""
        self._patience.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def close(self) -> None:
        """``stop``, and let the journal go if it was opened here.  Twice is once."""
        self.stop()
        if self._owned:
            self._journal.close()
            self._cursors.close()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    # On the thread that delivers

    def _run_and_tell(self) -> None:
        try:
            self.run()
        except RecoveryError as error:
            self.failure = error
            logger.error("outbox %s stopped: %s", self.name, error)
        except BaseException as error:  # a defect, ours or the consumer's: what is not delivered stays where it is
            self.failure = DeliveryFailed(reason(error))
            logger.exception("outbox %s stopped", self.name)
        if self.failure is not None and self._on_failed is not None:
            self._on_failed(self.name, self.failure)

    @contextmanager
    def _held(self) -> Iterator[Delivery]:
        """The cursor, held and proven against the journal; why it stopped is written to it."""
        hold = self._patience.retried(lambda: self._cursors.hold(self._journal.stream, self.name), StoreUnavailable)
        try:
            stored = hold.read()
            delivery = Delivery(
                self._journal,
                hold,
                None if stored is None else Cursor.unpack(stored, place_of(self.name)),
                name=self.name,
                after=self._after,
                consumer=self._consumer,
                batch_max=self._batch_max,
                patience=self._patience,
                on_delivered=self._on_delivered,
            )
            try:
                yield delivery
                delivery.save()
            except RecoveryError as error:
                with suppress(RecoveryError):  # what stopped it counts, not that it cannot be noted
                    delivery.save(failure=reason(error))
                raise
        finally:
            hold.release()

    def _published(self) -> int:
        """The last command whose events may be handed out."""
        return self._patience.retried(self._bound or self._durable_end, StoreUnavailable)

    def _durable_end(self) -> int:
        end = self._journal.head().command_id
        self._journal.store.make_durable()
        return end
