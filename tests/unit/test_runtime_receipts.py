"""What a caller gets: receipts that come from the record, once for each request, whatever caller and engine do meanwhile."""

from __future__ import annotations

import decimal
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from recovery import (
    Command,
    Context,
    Reject,
    RequestConflict,
    Runtime,
    Table,
    TableEngine,
    UsageError,
    ValueRefused,
    command,
    open_journal,
    verify,
)
from tests.engines import Account, Till
from tests.places import new_place

NOW_MS = 1_700_000_000_000


class Echo(TableEngine):
    """Answers, and does, what it is told, and meddles with what it was given."""

    name = "echo"
    kept = Table(str, str)

    def apply(self, context: Context, command: Command) -> Any:
        if command.type == "meddle":
            command.data["list"].append("engine")
            context.emit("Meddled", command.data)
            return command.data
        if command.type == "gate":
            started, go_on = GATES[command.data]
            started.set()
            assert go_on.wait(30)
        if command.type == "keep":
            # Answers with, and tells of, an object of its own that every later command changes.
            LIVE.append(command.data)
            context.emit("Kept", LIVE)
            return LIVE
        if command.type == "answer":
            return ANSWERS[command.data]()
        if command.type == "event":
            self.kept["written"] = "before the event"
            context.emit("Odd", ANSWERS[command.data]())
        if command.type == "divide":
            return decimal.Decimal(1) / decimal.Decimal(3)
        if command.type == "draw":
            return [context.random.random(), context.random.getrandbits(64), context.new_uuid(), context.now_ms]
        return None


LIVE: list[int] = []
GATES: dict[str, tuple[threading.Event, threading.Event]] = {}
ANSWERS: dict[str, Any] = {
    "a set": lambda: {1},
    "nan": lambda: float("nan"),
    "a surrogate": lambda: "\ud800",
    "a subclass": lambda: type("Name", (str,), {})("x"),
    "an object": object,
    "too large": lambda: bytes(17 * 2**20),
}


@pytest.fixture
def place() -> str:
    return f"memory:{new_place()}"


@pytest.fixture
def till(place: str) -> Iterator[Runtime]:
    with Runtime.open(Till, journal=place, snapshots="memory:") as till:
        yield till


@pytest.fixture
def echo() -> Iterator[Runtime]:
    with Runtime.open(Echo, journal="memory:", snapshots="memory:") as echo:
        yield echo


def deposit(number: str, cents: int, request_id: str | None = None, at_ms: int | None = None) -> Command:
    return Command("deposit", {"number": number, "cents": cents}, request_id=request_id, received_at_ms=at_ms)


# From the record


def test_the_receipt_is_what_was_recorded(till: Runtime, place: str) -> None:
    receipt = till.execute(deposit("ada", 5))
    (entry,) = open_journal(place).read()
    assert (receipt.command_id, receipt.response, receipt.duplicate) == (1, {"cents": 5}, False)
    assert receipt.events == entry.events
    assert (receipt.events[0].type, receipt.events[0].key) == ("BalanceChanged", "ada")


def test_caller_and_engine_each_have_a_copy_of_their_own(echo: Runtime) -> None:
    data = {"list": ["caller"]}
    future = echo.submit(Command("meddle", data, request_id="one"))
    data["list"].append("too late")
    first = future.result()
    assert first.response == {"list": ["caller", "engine"]}
    first.response["list"].append("the caller again")
    again = echo.execute(Command("meddle", {"list": ["caller"]}, request_id="one"))
    assert again.response == again.events[0].data == {"list": ["caller", "engine"]}


def test_what_an_engine_does_to_its_answer_later_changes_no_record(echo: Runtime) -> None:
    LIVE.clear()
    for outcome in echo.execute_many([Command("keep", n, request_id=f"keep {n}") for n in (1, 2, 3)]):
        assert outcome.response == outcome.events[0].data == list(range(1, outcome.command_id + 1))  # type: ignore[union-attr]
    assert echo.execute(Command("keep", 1, request_id="keep 1")).response == [1]


def test_a_duplicate_gets_the_first_receipt_in_flight_and_later(echo: Runtime) -> None:
    started, go_on = GATES["flight"] = (threading.Event(), threading.Event())
    first = echo.submit(Command("gate", "flight"))
    assert started.wait(30)
    waiting = [echo.submit(Command("draw", None, request_id="twice")) for _ in range(3)]
    go_on.set()
    receipts = [future.result() for future in [first, *waiting]]
    assert [receipt.command_id for receipt in receipts] == [1, 2, 2, 2]
    assert [receipt.duplicate for receipt in receipts] == [False, False, True, True]
    later = echo.execute(Command("draw", None, request_id="twice"))
    assert later == receipts[2]
    assert later.response == receipts[1].response


def test_a_retry_after_a_restart_changes_nothing(place: str) -> None:
    with Runtime.open(Till, journal=place, snapshots="memory:") as till:
        first = till.execute(deposit("ada", 5, "r"))
        refused = till.execute(deposit("ada", -50, "s"))
    with Runtime.open(Till, journal=place, snapshots="memory:") as till:
        assert till.execute(deposit("ada", 5, "r")) == first._replace(duplicate=True)
        assert till.execute(deposit("ada", -50, "s")) == refused._replace(duplicate=True)
        assert till.head.command_id == 2
        assert till.engine.accounts["ada"] == Account("ada", 5)


@pytest.mark.parametrize(
    "other", [Command("deposit", {"number": "ada", "cents": 6}, request_id="r"), Command("close", {}, request_id="r")]
)
def test_the_same_request_id_with_something_else_is_a_conflict(till: Runtime, other: Command) -> None:
    till.execute(deposit("ada", 5, "r"))
    with pytest.raises(RequestConflict) as conflict:
        till.execute(other)
    assert conflict.value.position == 1
    assert till.head.command_id == 1
    with pytest.raises(RequestConflict):
        till.submit(deposit("ada", 7, "r")).result()


def test_a_conflict_is_one_after_a_restart_too(place: str) -> None:
    with Runtime.open(Till, journal=place, snapshots="memory:") as till:
        till.execute(deposit("ada", 5, "r"))
    with Runtime.open(Till, journal=place, snapshots="memory:") as till:
        with pytest.raises(RequestConflict, match="other data"):
            till.execute(deposit("ada", 6, "r"))
        assert till.engine.accounts["ada"].cents == 5


def test_conflicts_within_one_batch(till: Runtime) -> None:
    outcomes = list(till.execute_many([deposit("ada", 5, "r"), deposit("ada", 6, "r"), deposit("ada", 5, "r")]))
    assert isinstance(outcomes[1], RequestConflict)
    assert outcomes[2] == outcomes[0]._replace(duplicate=True)  # type: ignore[union-attr]


def test_a_later_clock_in_a_retry_is_no_conflict(till: Runtime, place: str) -> None:
    first = till.execute(deposit("ada", 5, "r", NOW_MS))
    assert till.execute(deposit("ada", 5, "r", NOW_MS + 999)) == first._replace(duplicate=True)
    (entry,) = open_journal(place).read()
    assert entry.received_at_ms == NOW_MS


# Rejections and failures


def test_a_rejection_is_recorded_and_its_events_are_dropped(till: Runtime, place: str) -> None:
    receipt = till.execute(deposit("ada", -5, "r"))
    assert receipt.response is None
    assert receipt.events == []
    assert receipt.rejection is not None
    assert (receipt.rejection.code, receipt.rejection.message) == ("insufficient", "ada holds 0")
    with pytest.raises(Reject) as reject:
        receipt.raise_for_rejection()
    assert reject.value.code == "insufficient"
    assert till.execute(deposit("ada", 5)).raise_for_rejection().response == {"cents": 5}
    assert [entry.rejected for entry in open_journal(place).read()] == [True, False]


def test_an_exception_leaves_no_trace_and_reaches_its_caller(till: Runtime) -> None:
    for number, cents in (("ada", 5), ("bob", 9)):
        till.execute(deposit(number, cents))
    before, digest = list(till.engine.accounts.items()), till.head
    with pytest.raises(RuntimeError, match="half way through"):
        till.execute(Command("half_way", {"number": "eve"}, request_id="h"))
    assert list(till.engine.accounts.items()) == before
    assert list(till.engine.by_wealth) == ["bob", "ada"]
    assert till.engine.deposits.value == 2
    assert till.head == digest
    # Not recorded, so its id is free for another try.
    assert till.execute(deposit("eve", 1, "h")).command_id == 3


def test_a_failure_in_a_batch_harms_no_neighbour(till: Runtime) -> None:
    commands = [deposit("ada", 1), Command("half_way", {"number": "ada"}), deposit("ada", 2), Command("nothing", {})]
    first, failed, second, unknown = till.execute_many([*commands])
    assert isinstance(failed, RuntimeError)
    assert isinstance(unknown, UsageError)
    assert (first.command_id, second.command_id) == (1, 2)  # type: ignore[union-attr]
    assert till.engine.accounts["ada"].cents == 3


@pytest.mark.parametrize("type", ["answer", "event"])
@pytest.mark.parametrize("what", ANSWERS)
def test_what_cannot_be_stored_fails_the_command(echo: Runtime, type: str, what: str) -> None:
    with pytest.raises(ValueRefused):
        echo.execute(Command(type, what))
    assert echo.head.command_id == 0
    assert len(echo.engine.kept) == 0
    assert echo.execute(Command("nothing", None)).command_id == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"number": "ada"}, "lacks cents"),
        ({"number": "ada", "cents": 1, "extra": 2}, "no field 'extra'"),
        ({"number": "ada", "cents": "1"}, "cents is '1', a str, not int"),
        ({"number": "ada", "cents": True}, "cents is True, a bool, not int"),
        ({"number": "ada", "cents": 1.0}, "cents is 1.0, a float, not int"),
        (["ada", 1], "data is a list"),
        (None, "data is a NoneType"),
    ],
)
def test_fields_are_checked_before_anything_is_recorded(till: Runtime, data: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        till.execute(Command("deposit", data))
    assert till.head.command_id == 0


def test_data_that_is_not_plain_is_refused_with_its_path(till: Runtime) -> None:
    for send in (till.execute, till.submit):
        with pytest.raises(ValueRefused, match=r"\['a'\]\[1\]"):
            send(Command("deposit", {"a": [1, {2}]}))
    refused, fine = till.execute_many([Command("deposit", {"a": {2}}), deposit("ada", 1)])
    assert isinstance(refused, ValueRefused)
    assert fine.command_id == 1  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="not a Command"):
        till.execute({"type": "deposit"})  # type: ignore[arg-type]


def test_types_that_begin_with_a_dollar_are_ours() -> None:
    with pytest.raises(UsageError, match="reserved"):
        Command("$upgrade", {})


# Many


def test_execute_many_takes_bounded_memory_of_an_endless_iterable(place: str) -> None:
    taken = itertools.count()

    def endless() -> Iterator[Command]:
        while True:
            next(taken)
            yield deposit("ada", 1)

    with Runtime.open(Till, journal=place, snapshots="memory:", batch_max=10) as till:
        outcomes = till.execute_many(endless())
        receipts = list(itertools.islice(outcomes, 35))
        assert [receipt.command_id for receipt in receipts] == list(range(1, 36))  # type: ignore[union-attr]
        assert next(taken) <= 35 + 2 * 10
        outcomes.close()  # type: ignore[attr-defined]
    assert verify(Till, open_journal(place)).verdict == "verified"


# What apply may know


def test_draws_and_times_are_the_same_on_replay(place: str) -> None:
    with Runtime.open(Echo, journal=place, snapshots="memory:", seed=3) as echo:
        drawn = [echo.execute(Command("draw", None, received_at_ms=NOW_MS)).response for _ in range(3)]
    assert len({str(each) for each in drawn}) == 3
    assert [each[3] for each in drawn] == [NOW_MS] * 3
    assert all(each[2].version == 4 for each in drawn)
    assert verify(Echo, open_journal(place)).verdict == "verified"
    with Runtime.open(Echo, journal="memory:", snapshots="memory:", seed=3) as twin:
        assert [twin.execute(Command("draw", None, received_at_ms=NOW_MS)).response for _ in range(3)] == drawn


def test_the_hosts_decimal_context_is_not_the_engines(place: str) -> None:
    with decimal.localcontext(decimal.Context(prec=3)), Runtime.open(Echo, journal=place, snapshots="memory:") as echo:
        receipt = echo.execute(Command("divide", None))
        assert receipt.response == decimal.Decimal("0." + "3" * 28)
        assert verify(Echo, open_journal(place)).verdict == "verified"


class Upper(TableEngine):
    """Two methods of one name in base and subclass."""

    name = "upper"
    kept = Table(str, int)

    @command
    def put(self, context: Context, key: str, value: int = 7, note: str | None = None) -> int:
        self.kept[key] = value
        return value


def test_fields_may_have_defaults_and_be_optional() -> None:
    with Runtime.open(Upper, journal="memory:", snapshots="memory:") as upper:
        assert upper.execute(Command("put", {"key": "a"})).response == 7
        assert upper.execute(Command("put", {"key": "a", "value": 1, "note": None})).response == 1
        with pytest.raises(UsageError, match="note is 3, a int, not str or NoneType"):
            upper.execute(Command("put", {"key": "a", "note": 3}))
