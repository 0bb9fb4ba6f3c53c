"""Tables against a plain model: rows, order, indexes and digest, whatever is written, rejected, raised, undone or restored."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from journal import digest, framing, values
from journal.errors import DivergenceError, UsageError, ValueRefused
from recovery import Cell, Context, Index, Reject, Table, TableEngine
from recovery.spot_check import SpotCheck
from recovery.state import Finished
from recovery.stepper import TableStepper
from recovery.table_engine import state_of


class Row(NamedTuple):
    group: str
    amount: int
    note: tuple[Any, ...]


class Model(TableEngine):
    """Runs whatever it is given; the test is the engine's logic."""

    name = "model"

    rows = Table(str, Row)
    pairs = Table(tuple[int, str], int)  # type: ignore[arg-type]
    count = Cell(int, 0)
    by_group = Index(rows, key=lambda key, row: (row.group, -row.amount))
    positive = Index(rows, key=lambda key, row: row.amount if row.amount > 0 else None)
    by_value = Index(pairs, key=lambda key, value: value)

    def apply(self, context: Context, command: Any) -> Any:
        return command(self)


keys = st.text("abcé\U0001f600", max_size=2)
pair_keys = st.tuples(st.integers(-3, 3), st.sampled_from("xy"))
rows = st.builds(
    Row,
    st.sampled_from(["", "g", "h"]),
    st.integers(-(2**65), 2**65) | st.integers(-2, 2),
    st.just(()) | st.tuples(st.floats(-1, 1)),
)
ops = st.lists(
    st.tuples(st.just("put"), keys, rows)
    | st.tuples(st.just("drop"), keys)
    | st.tuples(st.just("pair"), pair_keys, st.integers(-3, 3))
    | st.tuples(st.just("unpair"), pair_keys)
    | st.tuples(st.just("count"), st.integers(0, 2)),
    max_size=6,
)


def write(engine: Model, model: dict[str, dict[Any, Any]], op: tuple[Any, ...]) -> None:
    match op:
        case ("put", key, row):
            engine.rows[key] = model["rows"][key] = row
        case ("drop", key):
            if model["rows"].pop(key, None) is not None:
                del engine.rows[key]
        case ("pair", key, value):
            engine.pairs[key] = model["pairs"][key] = value
        case ("unpair", key):
            if engine.pairs.pop(key, None) is not None:
                del model["pairs"][key]
        case ("count", value):
            engine.count.value = value
            model["count"] = {(): value} if value else {}


def index_of(table: dict[Any, Any], key: Any) -> list[Any]:
    return [found[1] for found in sorted((key(k, r), k) for k, r in table.items() if key(k, r) is not None)]


class TableMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.engine = Model()
        self.state = state_of(self.engine)
        self.model: dict[str, dict[Any, Any]] = {"rows": {}, "pairs": {}, "count": {}}
        self.past: list[tuple[dict[str, dict[Any, Any]], Finished]] = []

    def copy(self) -> dict[str, dict[Any, Any]]:
        return {name: dict(table) for name, table in self.model.items()}

    def step(self, todo: list[tuple[Any, ...]]) -> Finished:
        self.state.begin()
        for op in todo:
            write(self.engine, self.model, op)
        return self.state.finish()

    @rule(todo=ops)
    def command(self, todo: list[tuple[Any, ...]]) -> None:
        before, pre = self.copy(), self.state.digest_bytes
        finished = self.step(todo)
        self.past.append((before, finished))
        self.check_arithmetic(pre, finished)
        changed = [(change.table, change.key) for change in framing.unpack_changes(finished.changes_bytes)]
        assert changed == sorted(
            (table, key)
            for table, model in self.model.items()
            for key in {*model, *before[table]}
            if repr(model.get(key)) != repr(before[table].get(key))
        )

    def check_arithmetic(self, pre: bytes, finished: Finished) -> None:
        sums = {name: list(table) for name, table in digest.StateDigest.unpack(pre).tables.items()}
        for change in framing.unpack_changes(finished.changes_bytes):
            total = sums.setdefault(change.table, [0, 0])
            seed = digest.table_seed(change.table)
            if change.old_hash is not None:
                total[0] -= 1
                total[1] -= change.old_hash
            if change.row_bytes is not None:
                total[0] += 1
                total[1] += digest.row_hash(change.key_bytes + change.row_bytes, seed)
        found = {name: digest.TableDigest(rows, total % digest.MODULUS) for name, (rows, total) in sums.items() if rows}
        assert found == digest.StateDigest.unpack(finished.digest_bytes).tables

    @rule(todo=ops)
    def rejected(self, todo: list[tuple[Any, ...]]) -> None:
        before = self.copy()
        self.state.begin()
        for op in todo:
            write(self.engine, self.model, op)
        self.state.rollback()
        self.model = before

    @rule(todo=ops, key=keys, bad=st.sampled_from([float("nan"), [1], {"a": 1}, {1}, object()]))
    def refused_row(self, todo: list[tuple[Any, ...]], key: str, bad: object) -> None:
        before = self.copy()
        self.state.begin()
        for op in todo:
            write(self.engine, self.model, op)
        self.engine.rows[key] = Row("g", 1, (bad,))
        with pytest.raises(ValueRefused):
            self.state.finish()
        self.state.rollback()
        self.model = before

    @rule(todo=ops, key=keys)
    def index_that_cannot_compare(self, todo: list[tuple[Any, ...]], key: str) -> None:
        before = self.copy()
        self.state.begin()
        for op in todo:
            write(self.engine, self.model, op)
        if any(other != key for other in self.model["rows"]):
            with pytest.raises(TypeError):
                self.engine.rows[key] = Row(3, 1, ())  # type: ignore[arg-type]
        self.state.rollback()
        self.model = before

    @rule(steps=st.integers(1, 3))
    def undo(self, steps: int) -> None:
        for _ in range(min(steps, len(self.past))):
            self.model, finished = self.past.pop()
            self.state.undo(finished.undo)

    @rule()
    def restore(self) -> None:
        blocks = [
            (name, [values.decode_bare(key) for key, _ in found], [values.decode_bare(row) for _, row in found])
            for name, found in ((name, list(pairs)) for name, pairs in self.state.rows())
        ]
        state_digest = digest.StateDigest.unpack(self.state.digest_bytes)
        self.engine = Model()
        self.state = state_of(self.engine)
        self.state.load(blocks, state_digest)
        self.past = []

    @rule(todo=ops)
    def redo(self, todo: list[tuple[Any, ...]]) -> None:
        before = self.copy()
        finished = self.step(todo)
        after, self.model = self.model, before
        self.state.undo(finished.undo)
        self.holds()
        redone = self.state.redo(framing.unpack_changes(finished.changes_bytes))
        assert redone.changes_bytes == finished.changes_bytes
        assert redone.digest_bytes == finished.digest_bytes
        self.model = after
        self.past.append((before, redone))

    @invariant()
    def holds(self) -> None:
        engine, model = self.engine, self.model
        assert list(engine.rows.items()) == sorted(model["rows"].items(), key=lambda item: item[0])
        assert list(engine.pairs.items()) == sorted(model["pairs"].items())
        assert list(reversed(engine.pairs)) == sorted(model["pairs"], reverse=True)
        assert engine.count.value == model["count"].get((), 0)
        assert list(engine.by_group) == index_of(model["rows"], lambda key, row: (row.group, -row.amount))
        assert list(engine.positive) == index_of(model["rows"], lambda key, row: row.amount if row.amount > 0 else None)
        assert list(engine.by_value) == index_of(model["pairs"], lambda key, value: value)
        self.index_queries()
        assert self.state.recomputed() == self.state.digest_bytes

    def index_queries(self) -> None:
        in_g = [key for key in self.engine.by_group if self.engine.rows[key].group == "g"]
        assert self.engine.by_group.first(("g",)) == (in_g[0] if in_g else None)
        assert self.engine.by_group.last(("g",)) == (in_g[-1] if in_g else None)
        everything = list(self.engine.by_value)
        assert self.engine.by_value.first() == (everything[0] if everything else None)
        assert self.engine.by_value.last() == (everything[-1] if everything else None)
        assert list(self.engine.by_value.range(-1, 2)) == [k for k in everything if -1 <= self.engine.pairs[k] < 2]
        assert list(self.engine.by_value.range(None, 0)) == [k for k in everything if self.engine.pairs[k] < 0]


TestTables = TableMachine.TestCase
TestTables.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def fresh() -> tuple[Model, TableStepper]:
    engine = Model()
    return engine, TableStepper(engine, seed=7)


def test_writes_outside_apply_are_refused() -> None:
    engine, _ = fresh()
    with pytest.raises(UsageError, match="outside apply"):
        engine.rows["a"] = Row("g", 1, ())
    with pytest.raises(UsageError, match="outside apply"):
        engine.count.value = 1
    with pytest.raises(UsageError, match="outside apply"):
        engine.count.value = 0
    with pytest.raises(UsageError, match="only declared"):
        Model.rows["a"] = Row("g", 1, ())


def test_stray_attributes_are_refused() -> None:
    engine, _ = fresh()
    with pytest.raises(UsageError, match="not declared"):
        engine.cache = {}  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="is declared"):
        engine.rows = {}  # type: ignore[assignment]
    with pytest.raises(UsageError, match="cannot be deleted"):
        del engine.rows


@pytest.mark.parametrize("key", [1, True, b"a", ("a",), None, 1.0])
def test_keys_have_exactly_the_declared_type(key: Any) -> None:
    engine, _ = fresh()
    state_of(engine).begin()
    with pytest.raises(ValueRefused, match="keys"):
        engine.rows[key] = Row("g", 1, ())
    for bad in [(1,), (True, "x"), ("x", 1), [1, "x"], (1, "x", 2)]:
        with pytest.raises((ValueRefused, TypeError)):
            engine.pairs[bad] = 1  # type: ignore[index]


def test_rows_have_exactly_the_declared_type() -> None:
    engine, _ = fresh()
    state_of(engine).begin()
    for bad in [("g", 1, ()), None, "g"]:
        with pytest.raises(ValueRefused, match="Row rows"):
            engine.rows["a"] = bad  # type: ignore[assignment]
    with pytest.raises(ValueRefused, match="int rows"):
        engine.pairs[1, "x"] = True


def test_an_iteration_that_changes_its_table_raises() -> None:
    engine, _ = fresh()
    state_of(engine).begin()
    for key in "abc":
        engine.rows[key] = Row("g", 1, ())
    with pytest.raises(RuntimeError, match="while it was iterated"):
        for key in engine.rows:
            del engine.rows[key]
    with pytest.raises(RuntimeError, match="while it was iterated"):
        for key in engine.by_group:
            engine.rows[key] = Row("h", 1, ())


def test_rebuild_runs_after_every_restore_and_rollback() -> None:
    class Cached(TableEngine):
        name = "cached"
        rows = Table(str, int)

        def rebuild(self) -> None:
            self.total = sum(self.rows.values())

        def apply(self, context: Context, command: Any) -> Any:
            self.rows[command.type] = command.data
            raise Reject("no")

    engine = Cached()
    stepper = TableStepper(engine, 1)
    assert engine.total == 0
    stepper.load(
        iter([("rows", ["a"], [5])]),
        digest.StateDigest.unpack(digest.pack_tables([digest.TableDigest(1, 0).pack("rows")])),
    )
    assert engine.total == 5
    with pytest.raises(UsageError):
        engine.total = 6


@pytest.mark.parametrize("seed", range(20))
def test_a_tampered_live_row_is_found_by_the_spot_check(seed: int) -> None:
    """Wherever the pass stands, and whatever commands do meanwhile; and without tampering nothing is ever found."""
    rng = random.Random(seed)
    engine, stepper = fresh()
    state = stepper.state
    check = SpotCheck(state)

    def one_command() -> None:
        state.begin()
        for _ in range(3):
            key = rng.choice("abcdefgh") + rng.choice("abcdefgh")
            if rng.random() < 0.3:
                engine.rows.pop(key, None)
            else:
                engine.rows[key] = Row("g", rng.randrange(9), ())
            engine.pairs[rng.randrange(9), "x"] = rng.randrange(3)
        check.note(state.finish().changes_bytes)
        check.run(2)

    for _ in range(300):
        one_command()
    victim = rng.choice(sorted(engine.rows))
    engine.rows._rows[victim] = Row("g", 1_000_000, ())
    with pytest.raises(DivergenceError, match="was changed by no command"):
        for _ in range(300):
            one_command()
