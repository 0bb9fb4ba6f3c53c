"""The example exchange: priority, immediate-or-cancel, modify, and what accounts have set aside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery import Command, Receipt, Runtime, UsageError
from recovery.examples.exchange import ACCEPTED, BUY, CANCELLED, MODIFIED, SELL, TRADED, Account, Book, Exchange
from recovery.examples.generated import Generated
from recovery.testing import check_engine, trial


def ask(book: Runtime, type: str, **data: Any) -> Receipt:
    return book.execute(Command(type, data))


def new(book: Runtime, order_id: int, side: int, price: int, quantity: int, **more: Any) -> Any:
    data = {"order_id": order_id, "side": side, "price": price, "quantity": quantity, **more}
    return ask(book, "new", **data).raise_for_rejection().response


def open_orders(book: Runtime) -> dict[int, tuple[int, int, int]]:
    return {order_id: order[:3] for order_id, order in book.engine.orders.items()}


def test_trades_with_the_best_price_first_and_the_oldest_first_at_one_price() -> None:
    with trial(Book) as book:
        new(book, 1, SELL, 101, 5)
        new(book, 2, SELL, 100, 5)
        new(book, 9, SELL, 102, 5)
        new(book, 3, SELL, 100, 5)
        assert new(book, 7, BUY, 101, 13) == (
            (ACCEPTED, BUY, 7, 101, 13),
            (TRADED, 100, 5, 2, 7),
            (TRADED, 100, 5, 3, 7),
            (TRADED, 101, 3, 1, 7),
        )
        assert open_orders(book) == {1: (SELL, 101, 2), 9: (SELL, 102, 5)}


def test_a_partly_filled_maker_keeps_its_place() -> None:
    with trial(Book) as book:
        new(book, 5, BUY, 100, 5)
        new(book, 4, BUY, 100, 5)
        new(book, 6, SELL, 100, 1)
        assert new(book, 8, SELL, 99, 5)[1:] == ((TRADED, 100, 4, 5, 8), (TRADED, 100, 1, 4, 8))


def test_what_is_left_of_an_order_waits_but_of_an_ioc_is_cancelled() -> None:
    with trial(Book) as book:
        new(book, 1, SELL, 100, 2)
        assert new(book, 2, BUY, 100, 5, ioc=True) == (
            (ACCEPTED, BUY, 2, 100, 5),
            (TRADED, 100, 2, 1, 2),
            (CANCELLED, BUY, 2, 100),
        )
        new(book, 3, SELL, 100, 2)
        new(book, 4, BUY, 100, 5)
        assert open_orders(book) == {4: (BUY, 100, 3)}


def test_a_filled_ioc_is_not_cancelled_and_an_order_beyond_the_price_does_not_trade() -> None:
    with trial(Book) as book:
        new(book, 1, SELL, 100, 2)
        assert new(book, 2, BUY, 99, 2, ioc=True)[1:] == ((CANCELLED, BUY, 2, 99),)
        assert new(book, 3, BUY, 100, 2, ioc=True)[1:] == ((TRADED, 100, 2, 1, 3),)
        assert open_orders(book) == {}


def test_modify_loses_priority_even_when_nothing_changes() -> None:
    with trial(Book) as book:
        new(book, 1, SELL, 100, 5)
        new(book, 2, SELL, 100, 5)
        assert ask(book, "modify", order_id=1, price=100, quantity=5).response == ((MODIFIED, SELL, 1, 100, 5),)
        assert new(book, 3, BUY, 100, 5)[1:] == ((TRADED, 100, 5, 2, 3),)


def test_modify_may_trade_and_reports_itself_last() -> None:
    with trial(Book) as book:
        new(book, 1, SELL, 100, 5)
        new(book, 2, BUY, 90, 5)
        assert ask(book, "modify", order_id=2, price=100, quantity=7).response == (
            (TRADED, 100, 5, 1, 2),
            (MODIFIED, BUY, 2, 100, 7),
        )
        assert open_orders(book) == {2: (BUY, 100, 2)}
        new(book, 3, SELL, 101, 2)
        ask(book, "modify", order_id=2, price=101, quantity=2)
        assert open_orders(book) == {}


def test_cancel_takes_an_order_out() -> None:
    with trial(Book) as book:
        new(book, 1, SELL, 100, 5)
        assert ask(book, "cancel", order_id=1).response == ((CANCELLED, SELL, 1, 100),)
        assert new(book, 2, BUY, 100, 5) == ((ACCEPTED, BUY, 2, 100, 5),)


@pytest.mark.parametrize(
    ("type", "data", "code"),
    [
        ("cancel", {"order_id": 2}, "cancel_rejected"),
        ("modify", {"order_id": 2, "price": 1, "quantity": 1}, "modify_rejected"),
        ("modify", {"order_id": 1, "price": 0, "quantity": 1}, "bad_order"),
        ("new", {"order_id": 1, "side": BUY, "price": 1, "quantity": 1}, "duplicate_order"),
        ("new", {"order_id": 2, "side": 2, "price": 1, "quantity": 1}, "bad_order"),
        ("new", {"order_id": 2, "side": BUY, "price": 1, "quantity": 0}, "bad_order"),
    ],
)
def test_what_cannot_be_done_is_rejected(type: str, data: dict[str, int], code: str) -> None:
    with trial(Book) as book:
        new(book, 1, SELL, 100, 5)
        rejection = ask(book, type, **data).rejection
        assert rejection is not None
        assert rejection.code == code
        assert open_orders(book) == {1: (SELL, 100, 5)}


def test_a_missing_or_unknown_field_is_the_callers_mistake_and_not_recorded() -> None:
    with trial(Book) as book:
        with pytest.raises(UsageError, match="lacks order_id"):
            ask(book, "cancel")
        with pytest.raises(UsageError, match="has no field 'haste'"):
            ask(book, "cancel", order_id=1, haste=1)
        assert book.head.command_id == 0


small_orders = st.tuples(
    st.sampled_from(["new", "ioc", "cancel", "modify"]),
    st.integers(1, 6),
    st.integers(0, 1),
    st.integers(1, 4),
    st.integers(1, 4),
)


@given(st.lists(small_orders, max_size=30))
@settings(max_examples=60, deadline=None)
def test_the_book_does_as_a_plain_list_does(asked: list[tuple[str, int, int, int, int]]) -> None:
    """The model: every order in one list by arrival, searched from the front for the best price."""
    model: list[list[int]] = []

    def matched(taker: list[int]) -> list[tuple[int, ...]]:
        taker_id, side, price, _ = taker
        trades: list[tuple[int, ...]] = []
        while taker[3]:
            crossing = [o for o in model if o[1] != side and (o[2] <= price if side == BUY else o[2] >= price)]
            if not crossing:
                break
            best = (min if side == BUY else max)(order[2] for order in crossing)
            maker = next(order for order in crossing if order[2] == best)
            quantity = min(taker[3], maker[3])
            taker[3] -= quantity
            maker[3] -= quantity
            trades.append((TRADED, maker[2], quantity, maker[0], taker_id))
            if not maker[3]:
                model.remove(maker)
        return trades

    with trial(Book) as book:
        for type, order_id, side, price, quantity in asked:
            known = next((order for order in model if order[0] == order_id), None)
            if type in ("new", "ioc"):
                data = {"order_id": order_id, "side": side, "price": price, "quantity": quantity}
                receipt = ask(book, "new", **data, ioc=type == "ioc")
                assert (receipt.rejection is None) == (known is None)
                if known is None:
                    taker = [order_id, side, price, quantity]
                    expected: list[tuple[int, ...]] = [(ACCEPTED, side, order_id, price, quantity), *matched(taker)]
                    if taker[3] and type == "ioc":
                        expected.append((CANCELLED, side, order_id, price))
                    elif taker[3]:
                        model.append(taker)
                    assert receipt.response == tuple(expected)
            elif type == "cancel":
                receipt = ask(book, "cancel", order_id=order_id)
                assert (receipt.rejection is None) == (known is not None)
                if known:
                    model.remove(known)
            else:
                receipt = ask(book, "modify", order_id=order_id, price=price, quantity=quantity)
                assert (receipt.rejection is None) == (known is not None)
                if known:
                    model.remove(known)
                    taker = [order_id, known[1], price, quantity]
                    trades = matched(taker)
                    if taker[3]:
                        model.append(taker)
                    assert receipt.response == (*trades, (MODIFIED, known[1], order_id, price, quantity))
        assert open_orders(book) == {order_id: tuple(rest) for order_id, *rest in model}


# With accounts


def funded(exchange: Runtime) -> None:
    ask(exchange, "deposit", account="ada", cash=1000)
    ask(exchange, "deposit", account="bob", lots=10)


def test_a_bid_holds_its_limit_and_pays_the_makers_price() -> None:
    with trial(Exchange) as exchange:
        funded(exchange)
        new(exchange, 1, SELL, 90, 4, owner="bob")
        assert exchange.engine.accounts["bob"] == Account(0, 0, 10, 4)
        receipt = ask(exchange, "new", order_id=2, side=BUY, price=100, quantity=6, owner="ada")
        assert exchange.engine.accounts["ada"] == Account(1000 - 4 * 90, 2 * 100, 4, 0)
        assert exchange.engine.accounts["bob"] == Account(4 * 90, 0, 6, 0)
        assert [(event.type, event.key, event.data) for event in receipt.events] == [
            ("Filled", "bob", {"order_id": 1, "side": SELL, "price": 90, "quantity": 4}),
            ("Filled", "ada", {"order_id": 2, "side": BUY, "price": 90, "quantity": 4}),
        ]


def test_what_was_held_is_free_again_after_cancel_ioc_and_modify() -> None:
    with trial(Exchange) as exchange:
        funded(exchange)
        new(exchange, 1, BUY, 100, 10, owner="ada")
        assert exchange.engine.accounts["ada"] == Account(1000, 1000, 0, 0)
        assert ask(exchange, "modify", order_id=1, price=50, quantity=20).rejection is None
        assert exchange.engine.accounts["ada"] == Account(1000, 1000, 0, 0)
        ask(exchange, "modify", order_id=1, price=50, quantity=3)
        assert exchange.engine.accounts["ada"] == Account(1000, 150, 0, 0)
        ask(exchange, "cancel", order_id=1)
        assert exchange.engine.accounts["ada"] == Account(1000, 0, 0, 0)
        new(exchange, 2, SELL, 100, 10, owner="bob", ioc=True)
        assert exchange.engine.accounts["bob"] == Account(0, 0, 10, 0)


def test_orders_and_withdrawals_beyond_what_is_free_are_rejected() -> None:
    with trial(Exchange) as exchange:
        funded(exchange)
        new(exchange, 1, BUY, 100, 9, owner="ada")
        new(exchange, 2, SELL, 200, 9, owner="bob")
        before = dict(exchange.engine.accounts)
        order: dict[str, Any] = {"order_id": 3, "price": 101}
        refused: list[tuple[str, dict[str, Any], str]] = [
            ("new", {**order, "side": BUY, "quantity": 1, "owner": "ada"}, "insufficient_cash"),
            ("new", {**order, "side": SELL, "quantity": 2, "owner": "bob"}, "insufficient_lots"),
            ("new", {**order, "side": SELL, "quantity": 2, "owner": "eve"}, "unknown_account"),
            ("new", {**order, "side": SELL, "quantity": 2}, "unknown_account"),
            ("modify", {"order_id": 1, "price": 112, "quantity": 9}, "insufficient_cash"),
            ("withdraw", {"account": "ada", "cash": 101}, "insufficient_cash"),
            ("withdraw", {"account": "bob", "lots": 2}, "insufficient_lots"),
            ("withdraw", {"account": "eve"}, "unknown_account"),
            ("deposit", {"account": "ada", "cash": -1}, "bad_amount"),
            ("withdraw", {"account": "ada", "lots": -1}, "bad_amount"),
        ]
        for type, data, code in refused:
            rejection = ask(exchange, type, **data).rejection
            assert rejection is not None
            assert rejection.code == code
        assert dict(exchange.engine.accounts) == before
        assert open_orders(exchange) == {1: (BUY, 100, 9), 2: (SELL, 200, 9)}
        assert ask(exchange, "withdraw", account="ada", cash=100).response == {
            "cash": 900,
            "cash_held": 900,
            "lots": 0,
            "lots_held": 0,
        }


def test_trading_with_oneself_moves_nothing() -> None:
    with trial(Exchange) as exchange:
        ask(exchange, "deposit", account="ada", cash=1000, lots=10)
        new(exchange, 1, SELL, 90, 4, owner="ada")
        new(exchange, 2, BUY, 100, 4, owner="ada")
        assert exchange.engine.accounts["ada"] == Account(1000, 0, 10, 0)


def check_books(exchange: Exchange, cash: int, lots: int) -> None:
    """Nothing was made or lost, and what is set aside is what the open orders could cost."""
    held = {name: [0, 0] for name in exchange.accounts}
    for order in exchange.orders.values():
        held[order.owner][order.side] += order.quantity * (order.price if order.side == BUY else 1)
    assert {name: [a.cash_held, a.lots_held] for name, a in exchange.accounts.items()} == held
    assert all(0 <= a.cash_held <= a.cash and 0 <= a.lots_held <= a.lots for a in exchange.accounts.values())
    assert (sum(a.cash for a in exchange.accounts.values()), sum(a.lots for a in exchange.accounts.values())) == (
        cash,
        lots,
    )


def moved(commands: Iterable[Command], outcomes: Iterable[Receipt | Exception]) -> tuple[int, int]:
    cash = lots = 0
    for command, outcome in zip(commands, outcomes, strict=True):
        assert isinstance(outcome, Receipt)
        if command.type in ("deposit", "withdraw") and outcome.rejection is None:
            sign = 1 if command.type == "deposit" else -1
            cash += sign * command.data.get("cash", 0)
            lots += sign * command.data.get("lots", 0)
    return cash, lots


def test_generated_flow_conserves_cash_and_lots_and_holds_exactly() -> None:
    workload = Generated(5, commands=4000)
    with trial(Exchange) as exchange:
        cash, lots = moved(workload.commands(), exchange.execute_many(workload.commands()))
        check_books(exchange.engine, cash, lots)
        assert len(exchange.engine.orders) > 100


def test_the_exchange_is_deterministic_and_undoable() -> None:
    funds = [Command("deposit", {"account": name, "cash": 500, "lots": 5}) for name in ("ada", "bob")]
    trades = [
        Command(
            "new",
            {
                "order_id": number,
                "side": number % 2,
                "price": 100 + number % 3,
                "quantity": 2,
                "owner": ("ada", "bob")[number // 2 % 2],
            },
        )
        for number in range(1, 9)
    ]
    changes = [
        Command("modify", {"order_id": 3, "price": 99, "quantity": 1}),
        Command("cancel", {"order_id": 4}),
        Command("cancel", {"order_id": 99}),
    ]
    check_engine(Exchange, [*funds, *trades, *changes])
