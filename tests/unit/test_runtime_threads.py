"""Who may wait for whom: callbacks on the runtime's thread, batches that a query or a snapshot lies in, closing in time."""

from __future__ import annotations

import asyncio
import decimal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from journal.records import Entry
from journal.stores.memory import MemoryStore
from recovery import (
    Command,
    Context,
    DivergenceError,
    NothingVerified,
    OutcomeUnknown,
    Receipt,
    RecoveryError,
    Runtime,
    StoreUnavailable,
    Table,
    TableEngine,
    UnavailableError,
    UsageError,
    WriterPoisoned,
    open_journal,
    open_snapshots,
    verify,
)
from tests.engines import Account, Till
from tests.places import new_place

TIMEOUT_S = 30


class Held(TableEngine):
    """Its command ``hold`` waits to be let go, so that what is submitted meanwhile makes one batch."""

    name = "held"
    rows = Table(int, int)
    started = threading.Event()
    go_on = threading.Event()

    def apply(self, context: Context, command: Command) -> Any:
        if command.type == "hold":
            self.started.set()
            assert self.go_on.wait(TIMEOUT_S)
        if command.type == "run":
            return RUN[0]()
        if command.type == "third":
            return decimal.Decimal(1) / decimal.Decimal(3)
        if command.type == "refuse_while":
            assert 7 not in self.rows, "seven is there"
        self.rows[command.data] = command.data
        return len(self.rows)


RUN: list[Callable[[], Any]] = [lambda: None]


class Watched(MemoryStore):
    """Counts appends and lookups, and fails the next one as it is told to."""

    appends = 0
    at_append: RecoveryError | None = None
    at_find: RecoveryError | None = None

    def append(self, stream: str, epoch: int, entries: Any) -> None:
        self.appends += 1
        trouble, self.at_append = self.at_append, None
        if trouble is not None:
            raise trouble
        super().append(stream, epoch, entries)

    def find(self, stream: str, request_keys: Any) -> list[Entry]:
        trouble, self.at_find = self.at_find, None
        if trouble is not None:
            raise trouble
        return super().find(stream, request_keys)


class Batch:
    """A runtime that is held in command 1, and a store that can be made to fail in the batch that gathers behind it."""

    def __init__(self) -> None:
        self.name = new_place()
        store = Watched.open_for_write(self.name)
        assert isinstance(store, Watched)
        self.store = store
        self.runtime = Runtime.open(Held, journal=store, snapshots=f"memory:{self.name}", durable=False)
        self._threads: list[threading.Thread] = []
        Held.started.clear()
        Held.go_on.clear()
        self.held = self.runtime.submit(Command("hold", 1))
        assert Held.started.wait(TIMEOUT_S)

    def meanwhile(self, call: Callable[[], Any]) -> list[Any]:
        """Make a call that waits, on another thread; what it gave or raised comes in the list."""
        outcome: list[Any] = []
        queued = len(self.runtime._committer._units)

        def run() -> None:
            try:
                outcome.append(call())
            except Exception as error:
                outcome.append(error)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()
        while len(self.runtime._committer._units) == queued:
            assert self._threads[-1].is_alive()
            time.sleep(0.001)
        return outcome

    def let_go(self, *, at_append: RecoveryError | None = None) -> None:
        """End command 1, fail the append of the batch behind it, and wait for every call made meanwhile."""

        def first_is_done(future: Any) -> None:
            self.store.at_append = at_append

        self.held.add_done_callback(first_is_done)
        Held.go_on.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S)


@pytest.fixture
def batch() -> Iterator[Batch]:
    batch = Batch()
    yield batch
    Held.go_on.set()
    batch.runtime.close()


@pytest.fixture
def held() -> Iterator[Runtime]:
    Held.go_on.set()
    with Runtime.open(Held, journal="memory:", snapshots="memory:") as held:
        yield held


def nothing(engine: Any) -> None:
    """Look at nothing: whoever asks this waits for what was submitted before."""


def put(number: int) -> Command:
    return Command("put", number, request_id=f"put {number}")


# The runtime's own thread


WAITING: dict[str, Callable[[Runtime], Any]] = {
    "execute": lambda runtime: runtime.execute(put(9)),
    "execute_many": lambda runtime: list(runtime.execute_many([put(9)])),
    "query": lambda runtime: runtime.query(nothing),
    "snapshot": lambda runtime: runtime.snapshot(),
    "close": lambda runtime: runtime.close(),
}


@pytest.mark.parametrize("call", WAITING)
def test_what_would_wait_for_itself_is_refused_in_apply_and_in_a_callback(held: Runtime, call: str) -> None:
    RUN[0] = lambda: WAITING[call](held)
    with pytest.raises(UsageError, match="would wait for itself"):
        held.execute(Command("run", None))
    seen: list[Any] = []

    def callback(future: Any) -> None:
        with pytest.raises(UsageError, match="would wait for itself") as refused:
            WAITING[call](held)
        seen.append(refused.value.hint)

    asked = threading.Event()
    RUN[0] = lambda: asked.wait(TIMEOUT_S)  # so that the callback is there before the result
    future = held.submit(Command("run", None))
    future.add_done_callback(callback)
    asked.set()
    held.query(nothing)
    assert "submit" in seen[0]
    assert held.execute(put(9)).response == 1


def test_a_callback_may_submit(held: Runtime) -> None:
    asked = threading.Event()
    RUN[0] = lambda: asked.wait(TIMEOUT_S)
    more: list[Any] = []
    future = held.submit(Command("run", None))
    future.add_done_callback(lambda done: more.append(held.submit(put(2))))
    asked.set()
    future.result(TIMEOUT_S)
    held.query(nothing)
    assert more[0].result(TIMEOUT_S).command_id == 2


def test_a_callback_that_exits_ends_nothing(held: Runtime) -> None:
    asked = threading.Event()
    RUN[0] = lambda: asked.wait(TIMEOUT_S)
    future = held.submit(Command("run", None))
    future.add_done_callback(lambda done: sys.exit(3))
    asked.set()
    assert future.result(TIMEOUT_S).command_id == 1
    assert held.submit(put(2)).result(TIMEOUT_S).command_id == 2


def test_stop_iteration_out_of_apply_reaches_a_coroutine(held: Runtime) -> None:
    RUN[0] = lambda: next(iter(()))

    async def client() -> None:
        with pytest.raises(RuntimeError, match="apply raised StopIteration") as raised:
            await asyncio.wait_for(asyncio.wrap_future(held.submit(Command("run", None))), TIMEOUT_S)
        assert isinstance(raised.value.__cause__, StopIteration)

    asyncio.run(client())
    assert held.head.command_id == 0


def test_an_engine_that_exits_stops_the_runtime_and_nobody_waits_for_ever(batch: Batch) -> None:
    RUN[0] = lambda: sys.exit(1)
    future, after = batch.runtime.submit(Command("run", None)), batch.runtime.submit(put(3))
    batch.let_go()
    for each in (future, after):
        with pytest.raises(WriterPoisoned, match="SystemExit") as stopped:
            each.result(TIMEOUT_S)
        assert "open a new one" in stopped.value.hint
    assert [entry.data for entry in open_journal(f"memory:{batch.name}").read()] == [1]


# A batch that is refused


def test_a_query_in_a_refused_batch_gives_nothing_that_is_not_durable(batch: Batch) -> None:
    future = batch.runtime.submit(put(7))
    seen = batch.meanwhile(lambda: batch.runtime.query(lambda engine: list(engine.rows)))
    batch.let_go(at_append=StoreUnavailable("the disk is full"))
    assert isinstance(seen[0], StoreUnavailable)
    with pytest.raises(StoreUnavailable):
        future.result(TIMEOUT_S)
    assert batch.runtime.query(lambda engine: list(engine.rows)) == [1]


def test_an_exception_in_a_refused_batch_may_come_of_a_state_that_never_was(batch: Batch) -> None:
    seven = batch.runtime.submit(put(7))
    judged = batch.runtime.submit(Command("refuse_while", 8))
    conflict = batch.runtime.submit(Command("put", 9, request_id="put 7"))
    batch.let_go(at_append=StoreUnavailable("the disk is full"))
    for future in (seven, judged, conflict):
        with pytest.raises(StoreUnavailable):
            future.result(TIMEOUT_S)
    assert batch.runtime.execute(Command("refuse_while", 8)).response == 2


def test_a_snapshot_in_a_refused_batch_is_of_the_durable_state(batch: Batch) -> None:
    future = batch.runtime.submit(put(7))
    taken = batch.meanwhile(batch.runtime.snapshot)
    batch.let_go(at_append=StoreUnavailable("the disk is full"))
    with pytest.raises(StoreUnavailable):
        future.result(TIMEOUT_S)
    assert taken == [1]
    assert [image.command_id for image in open_snapshots(f"memory:{batch.name}").images()] == [1]


def test_a_snapshot_never_writes_a_failed_batch_again(batch: Batch) -> None:
    """After a write that failed nothing is sent a second time: no receipt could be believed."""
    future = batch.runtime.submit(put(7))
    taken = batch.meanwhile(batch.runtime.snapshot)
    batch.let_go(at_append=WriterPoisoned("the disk went away"))
    with pytest.raises(OutcomeUnknown, match="went away"):
        future.result(TIMEOUT_S)
    assert isinstance(taken[0], WriterPoisoned)
    assert batch.store.appends == 2
    with pytest.raises(WriterPoisoned):
        batch.runtime.execute(put(8))


def test_a_snapshot_waits_until_an_unknown_outcome_is_made_known(batch: Batch) -> None:
    future = batch.runtime.submit(put(7))
    taken = batch.meanwhile(batch.runtime.snapshot)
    batch.let_go(at_append=OutcomeUnknown("the server went away"))
    assert future.result(TIMEOUT_S).command_id == 2
    assert taken == [2]
    assert [epoch.number for epoch in open_journal(f"memory:{batch.name}").epochs()] == [1, 2]


def test_a_lookup_that_is_refused_applies_nothing_and_the_runtime_goes_on(batch: Batch) -> None:
    batch.held.add_done_callback(lambda done: setattr(batch.store, "at_find", StoreUnavailable("not now")))
    future = batch.runtime.submit(put(7))
    outcomes = batch.meanwhile(lambda: list(batch.runtime.execute_many([Command("put", {1}), put(8)])))
    batch.let_go()
    with pytest.raises(StoreUnavailable, match="not now"):
        future.result(TIMEOUT_S)
    assert [type(outcome).__name__ for outcome in outcomes[0]] == ["ValueRefused", "StoreUnavailable"]
    assert batch.store.appends == 1
    assert batch.runtime.execute(put(7)).duplicate is False


def test_what_a_query_does_to_the_decimal_context_is_its_own(batch: Batch) -> None:
    def rough(engine: Any) -> None:
        decimal.getcontext().prec = 3

    asked = batch.meanwhile(lambda: batch.runtime.query(rough))
    future = batch.runtime.submit(Command("third", None))
    batch.let_go()
    assert asked == [None]
    assert future.result(TIMEOUT_S).response == decimal.Decimal("0." + "3" * 28)


def test_what_a_command_does_to_the_decimal_context_ends_with_it(held: Runtime) -> None:
    RUN[0] = lambda: setattr(decimal.getcontext(), "prec", 3)
    _, third = held.execute_many([Command("run", None), Command("third", None)])
    assert isinstance(third, Receipt)
    assert third.response == decimal.Decimal("0." + "3" * 28)


# Many


def test_outcomes_come_before_what_the_iterable_raised() -> None:
    def source() -> Iterator[Command]:
        yield from map(put, range(5))
        raise LookupError("the source broke")

    Held.go_on.set()
    with Runtime.open(Held, journal="memory:", snapshots="memory:", batch_max=2) as held:
        outcomes = held.execute_many(source())
        assert [next(outcomes).command_id for _ in range(5)] == [1, 2, 3, 4, 5]  # type: ignore[union-attr]
        with pytest.raises(LookupError, match="the source broke"):
            next(outcomes)
        assert held.head.command_id == 5


def test_outcomes_of_what_was_accepted_come_before_the_failure_of_the_runtime() -> None:
    store = Watched.open_for_write(new_place())
    assert isinstance(store, Watched)

    def source() -> Iterator[Command]:
        yield from map(put, range(4))
        held.query(nothing)
        store.at_append = WriterPoisoned("the disk went away")
        yield put(4)
        yield put(5)
        with pytest.raises(WriterPoisoned):
            for _ in range(1000):
                held.query(nothing)
        yield put(6)

    Held.go_on.set()
    with Runtime.open(Held, journal=store, snapshots="memory:", durable=False, batch_max=2) as held:
        outcomes = []
        with pytest.raises(WriterPoisoned, match="the disk went away"):
            for outcome in held.execute_many(source()):
                outcomes.append(outcome)
        assert [type(outcome) for outcome in outcomes] == [Receipt] * 4 + [OutcomeUnknown] * 2


@pytest.mark.parametrize("make", [list, tuple, iter, dict.fromkeys])
def test_any_iterable_will_do(held: Runtime, make: Callable[[Any], Any]) -> None:
    receipts = list(held.execute_many(make([put(1), put(2), put(1)])))
    assert [receipt.command_id for receipt in receipts] == [1, 2, 1][: len(receipts)]  # type: ignore[union-attr]
    assert list(held.execute_many([])) == []


# Closing


def test_closing_in_time_is_in_time_even_when_an_image_is_due(batch: Batch) -> None:
    batch.let_go()
    batch.runtime.execute(put(2))
    Held.started.clear()
    Held.go_on.clear()
    future = batch.runtime.submit(Command("hold", 3))
    assert Held.started.wait(TIMEOUT_S)
    with pytest.raises(UnavailableError, match="not worked off"):
        batch.runtime.close(timeout_s=0.01)
    with pytest.raises(UnavailableError, match="closed"):
        batch.runtime.execute(put(4))
    Held.go_on.set()
    batch.runtime.close()
    assert future.result(TIMEOUT_S).command_id == 3


def test_the_last_image_is_of_the_last_command(batch: Batch) -> None:
    for number in range(2, 40):
        batch.runtime.submit(put(number))
    Held.go_on.set()
    batch.runtime.close()
    assert [image.command_id for image in open_snapshots(f"memory:{batch.name}").images()] == [39]
    with Runtime.open(Held, journal=f"memory:{batch.name}", snapshots=f"memory:{batch.name}") as held:
        assert (held.cold_start.image, held.cold_start.replayed) == (39, 0)
        held.execute(put(40))
        held.close(snapshot=False)
        held.close()
    assert [image.command_id for image in open_snapshots(f"memory:{batch.name}").images()] == [39]


def test_an_image_of_nothing_is_refused(held: Runtime) -> None:
    with pytest.raises(NothingVerified, match="empty"):
        held.snapshot()
    assert held.execute(put(1)).command_id == 1


def test_a_failed_runtime_does_not_grow_with_those_who_try_again() -> None:
    store = Watched.open_for_write(new_place())
    assert isinstance(store, Watched)
    Held.go_on.set()
    with Runtime.open(Held, journal=store, snapshots="memory:", durable=False) as held:
        store.at_append = WriterPoisoned("the disk went away")
        with pytest.raises(OutcomeUnknown):
            held.execute(put(1))
        depths = []
        for _ in range(5):
            with pytest.raises(WriterPoisoned) as failed:
                held.execute(put(1))
            depths.append(len(failed.traceback))
        assert len(set(depths)) == 1


# Images of a state that no command made


def test_an_image_of_rows_that_no_command_made_stops_the_runtime() -> None:
    for due in (False, True):
        name = new_place()
        with Runtime.open(
            Till, journal=f"memory:{name}", snapshots=f"memory:{name}", snapshot_every=45 if due else 0
        ) as till:
            for number in range(40):
                till.execute(Command("deposit", {"number": f"n{number:02}", "cents": 1}))
            till.engine.accounts._rows["n01"] = Account("eve", 1_000_000)
            with pytest.raises(DivergenceError, match="no image was made of it"):
                for _ in range(6 if due else 0):
                    till.execute(Command("deposit", {"number": "n39", "cents": 1}))
                till.snapshot()
            with pytest.raises(DivergenceError):
                till.execute(Command("deposit", {"number": "n39", "cents": 1}))
            assert "no image was made of it" in str(till.status()["problems"])
        assert open_snapshots(f"memory:{name}").images() == []
        assert verify(Till, open_journal(f"memory:{name}")).verdict == "verified"
