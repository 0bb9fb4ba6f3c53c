"""What a command leaves behind when it does not count: nothing, or a runtime that stops rather than go on half undone."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from recovery import (
    Cell,
    Command,
    Context,
    DivergenceError,
    Index,
    Reject,
    Runtime,
    Table,
    TableEngine,
    UsageError,
    open_journal,
    verify,
)
from tests.engines import Account, Counter, Till
from tests.places import new_place


class Tally(TableEngine):
    """Keeps a sum beside its rows, and writes before it refuses."""

    name = "tally"
    rows = Table(str, int)
    count = Cell(int, 0)
    by_value = Index(rows, key=lambda key, value: -value)
    broken: ClassVar[bool] = False

    def rebuild(self) -> None:
        if Tally.broken:
            raise LookupError("nothing to derive from")
        self.total = {"sum": sum(self.rows.values())}

    def apply(self, context: Context, command: Command) -> Any:
        key, value = command.data
        self.rows[key] = value
        self.count.value += 1
        self.total["sum"] = sum(self.rows.values())
        context.emit("Written", key)
        if command.type == "reject":
            raise Reject(*REJECTS[value])
        if command.type == "fail":
            raise RuntimeError("half way through")
        return self.total["sum"]


REJECTS: dict[int, tuple[Any, ...]] = {
    0: ("no",),
    1: ("",),
    2: (b"no",),
    3: ("no", 7),
    4: ("x" * 256,),
    5: ("no", "\ud800"),
}


@pytest.fixture
def where() -> dict[str, Any]:
    Tally.broken = False
    name = new_place()
    return {"journal": f"memory:{name}", "snapshots": f"memory:{name}"}


def put(key: str, value: int, type: str = "put") -> Command:
    return Command(type, (key, value))


def test_rows_written_before_a_reject_are_put_back_and_what_is_derived_too(where: dict[str, Any]) -> None:
    with Runtime.open(Tally, **where) as tally:
        tally.execute(put("a", 5))
        receipt = tally.execute(put("a", 0, "reject"))
        assert (receipt.command_id, receipt.rejection, receipt.events) == (2, ("no", ""), [])
        assert (dict(tally.engine.rows), tally.engine.count.value, list(tally.engine.by_value)) == ({"a": 5}, 1, ["a"])
        assert tally.engine.total == {"sum": 5}
        assert tally.execute(put("b", 1)).response == 6
    rejected = next(open_journal(where["journal"]).read(after=1))
    assert (rejected.rejected, rejected.changes) == (True, [])
    assert rejected.pre_digest == rejected.post_digest
    assert verify(Tally, open_journal(where["journal"])).verdict == "verified"


@pytest.mark.parametrize("which", range(1, 6))
def test_a_reject_that_cannot_be_recorded_is_a_failure(where: dict[str, Any], which: int) -> None:
    with Runtime.open(Tally, **where) as tally:
        with pytest.raises(UsageError):
            tally.execute(put("a", which, "reject"))
        assert (tally.head.command_id, len(tally.engine.rows), tally.engine.total) == (0, 0, {"sum": 0})


@pytest.mark.parametrize(
    "event",
    [
        {"type": ""},
        {"type": 7},
        {"type": "a\0b"},
        {"type": "é" * 128},
        {"type": "A", "key": 7},
        {"type": "A", "key": "é" * 128},
        {"type": "A", "key": "a\0b"},
        {"type": "A", "key": "\ud800"},
        {"type": "A", "sequence": 1.0},
        {"type": "A", "sequence": True},
        {"type": "A", "sequence": 2**63},
    ],
)
def test_an_event_that_no_store_could_index_is_a_failure(event: dict[str, Any]) -> None:
    class Emits(TableEngine):
        name = "emits"
        rows = Table(str, int)

        def apply(self, context: Context, command: Command) -> None:
            self.rows["a"] = 1
            context.emit(data=None, **event)

    with Runtime.open(Emits, journal="memory:", snapshots="memory:") as emits:
        with pytest.raises(UsageError):
            emits.execute(Command("emit", None))
        assert (emits.head.command_id, len(emits.engine.rows)) == (0, 0)


def test_what_is_derived_and_cannot_be_derived_again_stops_the_runtime(where: dict[str, Any]) -> None:
    """A sum that still counts a row which was put back would be answered to the next caller."""
    with Runtime.open(Tally, **where) as tally:
        tally.execute(put("a", 5))
        Tally.broken = True
        with pytest.raises(DivergenceError, match=r"rebuild\(\) failed .* nothing to derive from") as stopped:
            tally.execute(put("a", 6, "fail"))
        assert "open again" in stopped.value.hint
        Tally.broken = False
        with pytest.raises(DivergenceError):
            tally.execute(put("b", 1))
    with Runtime.open(Tally, **where) as tally:
        assert tally.execute(put("b", 1)).response == 6


class Moody:
    """An engine without tables that, once told to, does not do again what it did before."""

    name = "moody"
    moody: ClassVar[str] = ""

    def __init__(self) -> None:
        if Moody.moody == "make":
            raise LookupError("not to be made")
        self.kept: dict[str, int] = {}

    def apply(self, context: Context, command: Command) -> Any:
        if command.type == "fail":
            self.kept.clear()
            Moody.moody = command.data
            raise RuntimeError("half way through")
        if Moody.moody == "apply":
            raise LookupError("not again")
        self.kept[command.data] = context.command_id
        return len(self.kept)

    def capture(self) -> Any:
        return self.kept

    def restore(self, value: Any) -> None:
        if Moody.moody == "restore":
            raise LookupError("not to be restored")
        self.kept = value


@pytest.mark.parametrize("mood", ["make", "restore", "apply"])
def test_an_engine_that_cannot_be_made_again_stops_the_runtime(where: dict[str, Any], mood: str) -> None:
    """Else the next command would be applied to an engine that is half of what the journal says."""
    Moody.moody = ""
    with Runtime.open(Moody, **where) as moody:
        for key in "abc":
            moody.execute(Command("put", key))
        first, failed, after = [Command("put", "d"), Command("fail", mood), Command("put", "e")]
        outcomes = list(moody.execute_many([first, failed, after]))
        assert all(isinstance(outcome, DivergenceError) for outcome in outcomes)
        assert "could not be made again as of command 4: LookupError" in str(outcomes[1])
        Moody.moody = ""
        with pytest.raises(DivergenceError):
            moody.execute(Command("put", "f"))
    with Runtime.open(Moody, **where) as moody:
        assert moody.execute(first).response == 4


def test_heavy_mode_names_a_restore_that_raises() -> None:
    class Other(TableEngine):
        name = "other"
        rows = Table(str, int)
        made: ClassVar[list[int]] = []

        def rebuild(self) -> None:
            if self.rows:
                raise KeyError("never restored before")

        def apply(self, context: Context, command: Command) -> None:
            self.rows["a"] = 1

    with Runtime.open(Other, journal="memory:", snapshots="memory:", heavy=True) as other:
        with pytest.raises(DivergenceError, match="cannot be captured and restored: KeyError") as found:
            other.execute(Command("put", None))
        assert "declare what apply depends on" in found.value.hint
        assert other.head.command_id == 0


def test_heavy_mode_finds_a_row_changed_behind_our_back_at_the_next_command() -> None:
    with Runtime.open(Till, journal="memory:", snapshots="memory:", heavy=True) as till:
        for number in ("ada", "bob"):
            till.execute(Command("deposit", {"number": number, "cents": 5}))
        till.engine.accounts._rows["ada"] = Account("ada", 6)
        with pytest.raises(DivergenceError, match="digest is not the same"):
            till.execute(Command("deposit", {"number": "bob", "cents": 5}))
        assert till.head.command_id == 2


def test_a_seed_and_what_else_is_fixed_stay_as_the_journal_was_made(where: dict[str, Any]) -> None:
    first = {"seed": 3, "changes": "none", "dedup_window": 60}
    with Runtime.open(Till, **where, **first) as till:
        drawn = till.execute(Command("draw", {"number": "ada"})).response
    with Runtime.open(Till, **where, seed=4, changes="rows", dedup_window=70) as till:
        till.execute(Command("draw", {"number": "ada"}))
        assert till.status()["journal"]["dedup_window_s"] == 60
    assert open_journal(where["journal"]).identity.seed == 3
    assert [entry.changes_bytes for entry in open_journal(where["journal"]).read()] == [None, None]
    with Runtime.open(Till, journal="memory:", snapshots="memory:", seed=3) as twin:
        assert twin.execute(Command("draw", {"number": "ada"})).response == drawn
    for seed in (-1, 2**64):
        with pytest.raises(UsageError, match="seed"):
            Runtime.open(Till, journal="memory:", snapshots="memory:", seed=seed)


def test_an_engine_with_tables_and_one_without_do_not_take_each_others_journal(where: dict[str, Any]) -> None:
    class Tabled(TableEngine):
        name = "counter"

    with Runtime.open(Counter, **where) as counter:
        counter.execute(Command("count", {"name": "a"}))
    with pytest.raises(UsageError, match="has tables, but the journal was made by an engine without"):
        Runtime.open(Tabled, **where)
    Runtime.open(Counter, **where).close()
