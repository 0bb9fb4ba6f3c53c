"""Random batches with commands that a projection refuses: every outcome is that of running them one by one, against a model."""

from __future__ import annotations

import itertools
import tempfile
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from recovery import Command, ProjectionFailed, Receipt, Runtime, open_journal, verify
from recovery.examples.exchange import Exchange
from recovery.examples.fills_and_balances import FillsAndBalances
from recovery.submissions import Query, Single, encoded
from tests.engines import Till
from tests.projections import BANNED, CENTS_MAX, Totals, refused_by_model, require_equal

NUMBERS = st.sampled_from(["ada", "bob", BANNED])
CENTS = st.integers(-20, 60) | st.just(CENTS_MAX + 1)
STEPS = st.lists(
    st.tuples(st.just("deposit"), NUMBERS, CENTS)
    | st.tuples(st.just("again"), st.integers(0, 30), st.just(0))
    | st.tuples(st.just("query"), st.just(""), st.just(0)),
    max_size=14,
)


class Model:
    """One command after the other, each durable or refused before the next."""

    def __init__(self) -> None:
        self.cents: dict[str, int] = {}
        self.done: dict[str, tuple[Any, ...]] = {}

    def deposit(self, request_id: str, number: str, cents: int) -> tuple[Any, ...]:
        """What its caller gets: its id, response, rejection, whether it is a duplicate; or the refusal."""
        if request_id in self.done:
            return (*self.done[request_id], True)
        refused = refused_by_model(self.cents, number, cents)
        if refused == "ProjectionFailed":
            return (refused, len(self.done) + 1)
        response = None if refused else {"cents": self.cents[number]}
        self.done[request_id] = (len(self.done) + 1, response, refused == "Reject")
        return (*self.done[request_id], False)


def outcome_of(unit: Single) -> tuple[Any, ...]:
    """The same of a runtime."""
    failure = unit.receipt.exception(30)
    if failure is not None:
        assert isinstance(failure, ProjectionFailed), failure
        return ("ProjectionFailed", failure.position)
    receipt = unit.receipt.result()
    assert isinstance(receipt, Receipt)
    return (receipt.command_id, receipt.response, receipt.rejection is not None, receipt.duplicate)


@settings(max_examples=60)
@given(st.lists(STEPS, max_size=4), st.integers(1, 9))
def test_a_batch_comes_out_as_its_commands_one_by_one(
    batches: list[list[tuple[str, Any, int]]], batch_max: int
) -> None:
    model, numbers = Model(), itertools.count()
    asked: list[tuple[str, str, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:{folder}/journal.db"
        with Runtime.open(Till, journal=url, snapshots="memory:", projections=[Totals], batch_max=batch_max) as till:
            for steps in batches:
                units: list[tuple[Single | Query, Any]] = []
                for kind, first, cents in steps:
                    if kind == "query":
                        units.append((Query(lambda e: {k: a.cents for k, a in e.accounts.items()}), dict(model.cents)))
                        continue
                    if kind == "deposit":
                        asked.append((f"r{next(numbers)}", first, cents))
                    elif not asked:
                        continue
                    one = asked[-1] if kind == "deposit" else asked[first % len(asked)]
                    command = Command("deposit", {"number": one[1], "cents": one[2]}, request_id=one[0])
                    units.append((Single(encoded(command)), model.deposit(*one)))
                till._committer.put(Hold([unit for unit, _ in units], till))  # type: ignore[arg-type]
                for unit, expected in units:
                    assert (unit.future.result(30) if isinstance(unit, Query) else outcome_of(unit)) == expected
            accounts = till.query(lambda engine: dict(engine.accounts))
            assert {number: account.cents for number, account in accounts.items()} == model.cents
            require_equal(till._recorder.store, accounts, len(model.done))
        assert verify(Till, open_journal(url)).verdict in ("verified", "nothing")
        Runtime.open(Till, journal=url, snapshots="memory:", projections=[Totals]).close()


class Hold(Query):
    """A query that puts what it holds into the queue behind it while it runs, so that it is taken as one batch."""

    def __init__(self, units: list[Any], runtime: Runtime) -> None:
        def put(engine: Any) -> None:
            for unit in units:
                runtime._committer.put(unit)

        super().__init__(put)


ORDERS = st.lists(
    st.tuples(
        st.sampled_from(["new", "cancel", "modify", "deposit", "withdraw"]),
        st.integers(1, 12),
        st.integers(0, 1),
        st.integers(1, 6),
        st.integers(1, 9),
        st.sampled_from(["ada", "bob", "eve"]),
    ),
    max_size=60,
)


def asked_of(order: tuple[str, int, int, int, int, str]) -> Command:
    kind, order_id, side, price, quantity, owner = order
    if kind in ("deposit", "withdraw"):
        return Command(kind, {"account": owner, "cash": price * quantity, "lots": quantity})
    data: dict[str, Any] = {"order_id": order_id}
    if kind != "cancel":
        data |= {"price": price, "quantity": quantity}
    if kind == "new":
        data |= {"side": side, "owner": owner}
    return Command(kind, data)


@settings(max_examples=25)
@given(ORDERS)
def test_fills_and_balances_are_the_engines_own(orders: list[tuple[str, int, int, int, int, str]]) -> None:
    commands = [Command("deposit", {"account": name, "cash": 100, "lots": 20}) for name in ("ada", "bob", "eve")]
    commands += map(asked_of, orders)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:{folder}/journal.db"
        for _ in range(2):  # the second time, everything is a duplicate
            with Runtime.open(Exchange, journal=url, snapshots="memory:", projections=[FillsAndBalances]) as exchange:
                receipts = [one for one in exchange.execute_many(commands) if isinstance(one, Receipt)]
                assert len(receipts) == len(commands)
                require_same_tables(exchange, receipts)


def require_same_tables(exchange: Runtime, receipts: list[Receipt]) -> None:
    """Balances are the engine's accounts, and fills what the receipts told."""
    store: Any = exchange._recorder.store
    assert store.query("SELECT * FROM balances ORDER BY account") == [
        (name, *account) for name, account in exchange.query(lambda engine: list(engine.accounts.items()))
    ]
    assert store.query("SELECT * FROM fills ORDER BY command_id, event") == [
        (
            receipt.command_id,
            number,
            event.key,
            *(event.data[name] for name in ("order_id", "side", "price", "quantity")),
        )
        for receipt in receipts
        for number, event in enumerate(receipt.events)
    ]
