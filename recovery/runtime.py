"""Runtime: an engine at work.  Cold start, then commands, each durable before it is acknowledged.

One thread owns the engine and the journal.  It takes what waits, finds what was recorded before, applies the rest in order of
submission, appends once, and only then answers (``journal.committer``).  Whatever the store refuses is undone, so that the
engine always stands where the journal does.
"""

from __future__ import annotations

import concurrent.futures
import decimal
import logging
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from journal.committer import Committer
from journal.delivery import Message
from journal.errors import (
    DivergenceError,
    OutcomeUnknown,
    ProjectionFailed,
    RecoveryError,
    StoreUnavailable,
    UnavailableError,
    UsageError,
    WriterPoisoned,
)
from journal.event_detail import EventDetail
from journal.files import kill_point
from journal.outbox import Outbox
from journal.projections import Projection
from journal.recorder import refuse_conflict
from journal.records import Command, Entry, Head, Receipt, Transition
from journal.store import JournalStore
from recovery.choices import check_choices
from recovery.cold_start import ColdStart, Opened, open_engine
from recovery.guarding.guard import attach_guard, check_mode
from recovery.heavy import HeavyMode
from recovery.imaging import Imager
from recovery.isolation import Work, isolate, refuse, take_back
from recovery.loading import EngineArgument
from recovery.meter import Meter
from recovery.observer import Teller
from recovery.outboxes import Outboxes
from recovery.settings import settled
from recovery.shipping import ShipTo
from recovery.spot_check import SpotCheck
from recovery.status import runtime_status
from recovery.stepper import Asked, TableStepper, pinned_decimals
from recovery.submissions import (
    UNSTAMPED,
    Commands,
    Outcome,
    Query,
    Recorded,
    Single,
    Snapshot,
    encoded,
    receipt_of,
    taken,
)
from snapshots.store import SnapshotStore

if TYPE_CHECKING:
    from recovery.determinism import Guard

T = TypeVar("T")

QUEUE_MAX: Final = 10_000
BATCH_MAX: Final = 1_000
BATCH_BYTES_MAX: Final = 16 * 2**20
DEDUP_WINDOW_S: Final = 86_400
SPOT_CHECK_ROWS: Final = 2

logger = logging.getLogger("recovery")


class Runtime:
    """An engine with its journal and its images.  Made by ``Runtime.open``; thread-safe."""

    def __init__(
        self,
        opened: Opened,
        imager: Imager,
        *,
        queue_max: int,
        batch_max: int,
        skew_max_ms: int,
        heavy: bool,
        guard: Guard | None,
    ):
        self._opened = opened
        self._stepper = opened.stepper
        self._recorder = opened.recorder
        self._imager = imager
        self._skew_max_ms = skew_max_ms
        self._batch_max = batch_max
        self._heavy = HeavyMode(opened.stepper, opened.factory) if heavy else None
        self._guard = guard
        self._failure: RecoveryError | None = None
        self._closed = False
        self._unflushed: list[Work] = []
        self._unflushed_bytes = 0
        self._outboxes = Outboxes(opened.journal_url, opened.journal, opened.cursors, opened.tell)
        self._meter = Meter(opened)
        self._shipping = opened.shipping
        self._spot_check = SpotCheck(opened.stepper.state) if isinstance(opened.stepper, TableStepper) else None
        self._committer: Committer[Commands | Query] = Committer(
            self._process, name=f"recovery-{self._stepper.name}", queue_max=queue_max, batch_max=batch_max
        )
        self._committer.start()
        # Nothing is asked: it lets the runtime's thread find that the shipper has stopped.
        self._shipping.watch(
            shipped=self._outboxes.wake, failed=lambda: self._committer.put(Query(lambda engine: None))
        )

    @classmethod
    def open(
        cls,
        engine: EngineArgument,
        *,
        journal: str | JournalStore | None = None,
        snapshots: str | SnapshotStore | None = None,
        stream: str | None = None,
        snapshot_every: int = 10_000,
        snapshot_seconds: float | None = None,
        keep: int = 3,
        replay: str = "execute",
        durable: bool = True,
        events: str = "full",
        critical_events: Iterable[str] = (),
        changes: str = "rows",
        projections: Iterable[Projection | type[Projection]] = (),
        dedup_window: int = DEDUP_WINDOW_S,
        ship_to: str | None = None,
        ack: str = "both",
        queue_max: int = QUEUE_MAX,
        batch_max: int = BATCH_MAX,
        clock_skew_max_ms: int = 1000,
        digest_every: int = 1000,
        seed: int | None = None,
        heavy: bool = False,
        guard: str = "off",
        accept_loss: bool = False,
        takeover: bool = False,
        observer: object | None = None,
    ) -> Runtime:
        """Cold-start an engine and go to work.

        ``engine`` is a class, a factory or ``"module:attr"``.  ``journal`` and ``snapshots`` are URLs or opened stores; what is
        None comes from the environment, the TOML file, or the defaults (recovery/settings.py).  ``snapshot_every`` commands
        (0: never), or ``snapshot_seconds``, an image is made; ``keep`` are kept.  ``replay`` is "execute" or "redo": how the tail
        after the newest image is replayed.  ``durable=False`` allows a journal that does not survive a power cut.
        ``events`` and ``critical_events``: what is kept of events (journal/event_detail.py).  ``projections`` write tables of
        yours in the journal's transaction (journal/projections.py).  ``changes="none"`` records no rows.  ``seed``, ``changes``,
        ``digest_every`` and ``dedup_window`` (seconds) are fixed when the journal is created.  ``heavy`` captures, restores and
        compares after each command.  ``guard`` "warn" or "strict" looks for what would not be the same on a replay
        (recovery/determinism.py).  ``takeover`` replaces a writer that lives, where the store can.  ``observer`` is told what
        happens (recovery/observer.py).  ``ship_to`` and ``ack``: a journal behind this one (docs/shipping.md).

        Raises JournalInUse, EngineMismatch, ProjectionBehind, CorruptionError, DivergenceError; nothing is changed then.
        """
        check_mode(guard)
        check_choices(replay, changes, (snapshot_every, keep, queue_max, batch_max, digest_every, dedup_window))
        found = settled(journal, snapshots, stream, ship_to)
        opened = open_engine(
            engine,
            journal=found.journal if journal is None or isinstance(journal, str) else journal,
            snapshots=found.snapshots if snapshots is None or isinstance(snapshots, str) else snapshots,
            stream=found.stream,
            app_dir=found.app_dir,
            replay=replay,
            durable=durable,
            changes=changes,
            dedup_window_s=dedup_window,
            digest_every=digest_every,
            seed=seed,
            accept_loss=accept_loss,
            takeover=takeover,
            detail=EventDetail.of(events, critical_events),
            projections=projections,
            tell=Teller(observer),
            ship_to=ShipTo.of(found.ship_to, ack),
        )
        imager = _imager(opened, every=snapshot_every, seconds=snapshot_seconds, keep=keep)
        limits = {"queue_max": queue_max, "batch_max": batch_max, "skew_max_ms": clock_skew_max_ms}
        return cls(opened, imager, heavy=heavy, guard=attach_guard(opened.stepper, guard), **limits)

    # For callers, on any thread

    @property
    def cold_start(self) -> ColdStart:
        """What opening did: what was loaded, replayed, checked and skipped, and how long it took."""
        return self._opened.report

    @property
    def engine(self) -> Any:
        """The engine itself, for tests; ``query`` is the safe way to read it."""
        return self._stepper.engine

    @property
    def head(self) -> Head:
        """The last durable command."""
        return self._recorder.head

    def submit(self, command: Command) -> concurrent.futures.Future[Receipt]:
        """Accept a command; the future gives its receipt once it is durable.  Never blocks: Overloaded when the queue is full.

        The future raises what ``apply`` raised, or RecoveryError; it cannot be cancelled.
        """
        unit = Single(encoded(command))
        self._check_open()
        self._committer.submit(unit)
        return unit.receipt

    def execute(self, command: Command) -> Receipt:
        """Run a command and wait until it is durable."""
        unit = Single(encoded(command))
        self._put(unit)
        return unit.receipt.result()

    def execute_many(self, commands: Iterable[Command]) -> Iterator[Receipt | Exception]:
        """Run any number of commands, grouped; one outcome for each, in order: its receipt, or the exception.

        Takes up to ``2 * batch_max`` commands from the iterable ahead of the outcomes it has given.  What the iterable raises,
        and what makes the runtime accept no more, is raised after the outcomes of all that was accepted.
        """
        waiting: list[Commands] = []
        source = iter(commands)
        stopped: Exception | None = None
        while stopped is None:
            chunk, stopped = taken(source, self._batch_max)
            if not chunk:
                break
            try:
                waiting.append(self._send(chunk))
            except RecoveryError as error:
                stopped = error
            if len(waiting) > 1:
                yield from map(receipt_of, waiting.pop(0).future.result())
        for unit in waiting:
            yield from map(receipt_of, unit.future.result())
        if stopped is not None:
            raise stopped

    def _send(self, chunk: list[Asked | Exception]) -> Commands:
        unit = Commands(chunk)
        self._put(unit)
        return unit

    def query(self, run: Callable[[Any], T]) -> T:
        """``run(engine)`` between commands; returns when all it saw is durable.  A write in it is a UsageError."""
        result: T = self._ask(Query(run))
        return result

    def _ask(self, unit: Query) -> Any:
        self._put(unit)
        return unit.future.result()

    def snapshot(self) -> int:
        """Make an image of the durable state now; the command id it stands at."""
        command_id: int = self._ask(Snapshot(lambda engine: self._imager.capture()))
        return command_id

    def outbox(
        self,
        name: str,
        *,
        deliver: Callable[[Message], object] | None = None,
        deliver_batch: Callable[[list[Message]], object] | None = None,
        after: int = 0,
    ) -> Outbox:
        """Deliver events from now until ``close``, on a thread of their own, woken by each commit (journal/outbox.py)."""
        self._check_open()
        return self._outboxes.add(
            name,
            deliver=deliver,
            deliver_batch=deliver_batch,
            after=after,
            published_up_to=lambda: self._shipping.published(self.head),
        )

    def status(self) -> dict[str, Any]:
        """The document of ``recovery status --json``, as seen from inside."""
        parts = (self._opened, self._imager, self._outboxes, self._meter)
        document = runtime_status(*parts, waiting=self._committer.waiting, failure=self._failure)
        return document if self._guard is None else document | {"guard": self._guard.to_dict()}

    def close(self, *, timeout_s: float | None = None, snapshot: bool = True) -> None:
        """Finish what was accepted, take a last image unless told not to, and let the journal go.  Twice is once.

        UnavailableError where the queue was not worked off in time: nothing more is accepted, and it may be called again.
        """
        if self._closed:
            return
        self._refuse_own_thread()
        if not self._committer.close(timeout_s):
            raise UnavailableError(f"the queue was not worked off within {timeout_s} s; the journal is still held")
        self._closed = True
        try:
            if snapshot and self._failure is None and self._imager.behind(self._recorder.head):
                self._last_image()
        finally:
            self._outboxes.close()
            if self._guard is not None:
                self._guard.close()
            self._imager.close()
            self._recorder.store.close()

    def _last_image(self) -> None:
        # The runtime's thread has ended with nothing left to do, so the engine is the caller's.
        try:
            with decimal.localcontext(pinned_decimals()):
                self._imager.capture()
        except RecoveryError as error:
            # The journal holds everything; a missing image costs the next cold start time, and is said.
            logger.warning("no last image was made: %s", error)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _put(self, unit: Commands | Query) -> None:
        self._refuse_own_thread()
        self._check_open()
        self._committer.put(unit)

    def _refuse_own_thread(self) -> None:
        if self._committer.on_thread:
            raise UsageError(
                "called on the runtime's thread, while a command is applied or answered: it would wait for itself",
                hint="in apply, read the tables; in a future's callback, use submit, or another thread",
            )

    def _check_open(self) -> None:
        if self._failure is not None:
            # One error for all who come: its traceback must not grow with each.
            raise self._failure.with_traceback(None)
        if self._closed:
            raise UnavailableError("the runtime is closed", hint="open a new one")

    # On the runtime's thread

    def _process(self, units: list[Commands | Query]) -> None:
        with decimal.localcontext(pinned_decimals()):
            try:
                self._work(units)
            except RecoveryError as error:
                self._fail(error)
            except BaseException as error:  # a defect of ours: stop, rather than go on in a state nobody has proved
                logger.exception("the runtime stopped")
                self._fail(_stopped(error))
        for unit in units:
            self._deliver(unit)

    def _work(self, units: list[Commands | Query]) -> None:
        if self._failure is not None:
            raise self._failure
        self._shipping.require_sound()
        self._meter.tell("queued", self._committer.waiting)
        keys = [
            asked.request_key
            for unit in units
            if isinstance(unit, Commands)
            for asked in unit.asked
            if isinstance(asked, Asked)
        ]
        try:
            recorded = self._recorder.recorded(keys)
        except StoreUnavailable as error:
            # Nothing was applied, and the store goes on.
            recorded = {}
            for unit in units:
                if isinstance(unit, Commands):
                    unit.refuse(error)
        for unit in units:
            if isinstance(unit, Snapshot):
                self._flush_or_undo(recorded)
            if isinstance(unit, Query):
                self._run_query(unit)
                continue
            for asked in unit.asked:
                if isinstance(asked, Exception):
                    unit.outcomes.append(asked)
                    continue
                outcome = self._apply(asked, recorded)
                self._unflushed.append((unit, len(unit.outcomes)))
                unit.outcomes.append(outcome)
                if self._recorder.sealed >= self._batch_max or self._unflushed_bytes >= BATCH_BYTES_MAX:
                    self._flush_or_undo(recorded)
        self._flush_or_undo(recorded)

    def _apply(self, asked: Asked, recorded: dict[bytes, Entry]) -> Outcome:
        recorder, stepper = self._recorder, self._stepper
        before = recorder.tip.command_id
        try:
            known = recorded.get(asked.request_key)
            if known is not None:
                refuse_conflict(known, asked.type, asked.data_bytes)
                return Recorded(known, True)
            given_ms = None if asked.received_at_ms == UNSTAMPED else asked.received_at_ms
            asked = asked._replace(received_at_ms=recorder.stamp(given_ms, self._skew_max_ms))
            if self._heavy is not None:
                self._heavy.before()
            step = stepper.step(asked, before + 1, stepper.logic_version)
        except DivergenceError:
            raise
        except StopIteration as error:  # which no generator and no asyncio future can pass on
            outcome = RuntimeError("apply raised StopIteration")
            outcome.__cause__ = error
            return outcome
        except Exception as error:  # what apply raises is its caller's; the step has left no trace
            return error
        try:
            if self._heavy is not None:
                self._heavy.after(step)
            kept = step if recorder.identity.changes == "rows" else step._replace(changes_bytes=None)
            entry = recorder.seal(Transition._make((*asked, *kept)))
        except RecoveryError as error:
            stepper.undo_to(before)
            return error
        if self._spot_check is not None:
            self._spot_check.note(step.changes_bytes)
        recorded[asked.request_key] = entry
        self._unflushed_bytes += len(entry.data_bytes) + len(entry.result_bytes) + len(entry.events_bytes)
        return Recorded(entry, False)

    def _again(self, item: Work, recorded: dict[bytes, Entry]) -> None:
        if isinstance(item, Query):
            item.error = None
            self._run_query(item)
            return
        unit, at = item
        asked = unit.asked[at]
        assert isinstance(asked, Asked)
        unit.outcomes[at] = self._apply(asked, recorded)
        self._unflushed.append(item)

    def _run_query(self, unit: Query) -> None:
        if self._recorder.sealed:
            self._unflushed.append(unit)
        unit.ran = True
        try:
            with decimal.localcontext():  # what a query sets there is its own
                unit.result = unit.run(self._stepper.engine)
        except Exception as error:  # the query's own, for its caller
            unit.error = error
            if isinstance(unit, Snapshot) and isinstance(error, DivergenceError):
                raise

    def _flush_or_undo(self, recorded: dict[bytes, Entry]) -> None:
        work = self._unflushed
        try:
            if not self._flushed(recorded):
                isolate(work, lambda item: self._again(item, recorded), lambda: self._flushed(recorded))
        except StoreUnavailable as error:
            self._take_back(error, recorded)

    def _flushed(self, recorded: dict[bytes, Entry]) -> bool:
        try:
            self._flush()
        except ProjectionFailed as error:
            self._take_back(error, recorded)
            return False
        return True

    def _take_back(self, error: Exception, recorded: dict[bytes, Entry]) -> None:
        """Nothing was written: everything since the head is taken back, and the store goes on."""
        self._meter.refused(error)
        head = self._recorder.head.command_id
        self._stepper.undo_to(head)
        take_back(self._unflushed, error, head=head, recorded=recorded)
        self._recorder.abandon()
        self._forget_batch()

    def _flush(self) -> None:
        if self._recorder.sealed:
            self._meter.commit(self._recorder)
            self._stepper.settle(self._recorder.head.command_id)
            self._outboxes.wake()
        self._forget_batch()
        self._imager.tick(self._recorder.head)
        if self._spot_check is not None:
            self._spot_check.run(SPOT_CHECK_ROWS)

    def _forget_batch(self) -> None:
        self._unflushed = []
        self._unflushed_bytes = 0

    def _fail(self, error: RecoveryError) -> None:
        """Stop for good.  What was applied and not acknowledged may or may not be recorded, unless the writer was fenced."""
        if self._failure is None:
            logger.error("the runtime stopped: %s", error)
            self._meter.stopped(error)
            self._opened.keep_evidence(error)
        self._failure = error
        outcome: Exception = error
        if isinstance(error, WriterPoisoned | OutcomeUnknown):
            outcome = OutcomeUnknown(
                f"the journal's writer failed before it could say whether this command is recorded: {error}",
                hint="open a new runtime and send the same command again, with the same request id",
            )
            outcome.__cause__ = error
        for item in self._unflushed:
            found = None if isinstance(item, Query) else item[0].outcomes[item[1]]
            if found is None or (
                isinstance(found, Recorded) and found.entry.command_id > self._recorder.head.command_id
            ):
                refuse([item], outcome)
        self._forget_batch()

    def _deliver(self, unit: Commands | Query) -> None:
        kill_point("receipt.before")
        if isinstance(unit, Commands):
            failure = self._failure or UnavailableError("the runtime stopped")
            unit.outcomes += [failure] * (len(unit.asked) - len(unit.outcomes))
            self._meter.outcomes(unit)
        elif not unit.ran:
            unit.error = self._failure
        try:
            unit.deliver()
        except BaseException:  # a callback's SystemExit: its thread is ours, and everyone else's
            logger.exception("a future's callback failed")


def _imager(opened: Opened, *, every: int, seconds: float | None, keep: int) -> Imager:
    newest = opened.report.image
    return Imager(
        opened.imaging_place,
        every=every,
        seconds=seconds,
        keep=keep,
        newest=newest,
        tell=opened.tell,
        shipping=opened.shipping,
    )


def _stopped(error: BaseException) -> WriterPoisoned:
    return WriterPoisoned(
        f"the runtime stopped: {type(error).__name__}: {error}",
        hint="open a new one: the journal holds all that was acknowledged",
    )
