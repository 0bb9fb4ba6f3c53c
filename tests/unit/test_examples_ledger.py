"""The example ledger: balance by currency, limits, reversal, and nothing rounded."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery import Command, Receipt, Runtime, UsageError
from recovery.examples.ledger import Ledger
from recovery.testing import check_engine, trial

OPENING = [
    Command("define_currency", {"currency": "EUR", "places": 2}),
    Command("define_currency", {"currency": "JPY", "places": 0}),
    Command("open_account", {"account": "world:eur", "currency": "EUR", "floor": None}),
    Command("open_account", {"account": "world:jpy", "currency": "JPY", "floor": None}),
    Command("open_account", {"account": "ada", "currency": "EUR"}),
    Command("open_account", {"account": "bob", "currency": "EUR", "floor": Decimal(-50)}),
    Command("open_account", {"account": "bob:jpy", "currency": "JPY"}),
]


def ask(ledger: Runtime, type: str, **data: Any) -> Receipt:
    return ledger.execute(Command(type, data))


def opened(ledger: Runtime) -> None:
    for command in OPENING:
        ledger.execute(command).raise_for_rejection()


def post(ledger: Runtime, **legs: str) -> Receipt:
    """Legs by account, with __ for the colon."""
    amounts = {account.replace("__", ":"): Decimal(amount) for account, amount in legs.items()}
    return ask(ledger, "post", legs=amounts)


def balances(ledger: Runtime) -> dict[str, str]:
    return {name: str(account.balance) for name, account in ledger.engine.accounts.items()}


def code(receipt: Receipt) -> str | None:
    return receipt.rejection and receipt.rejection.code


def test_an_entry_moves_money_in_several_currencies_at_once() -> None:
    with trial(Ledger) as ledger:
        opened(ledger)
        receipt = post(ledger, world__eur="-10", bob="6.5", ada="3.50", world__jpy="-800", bob__jpy="800")
        assert receipt.response == {"entry": 8}
        assert balances(ledger) == {
            "ada": "3.50",
            "bob": "6.50",
            "bob:jpy": "800",
            "world:eur": "-10.00",
            "world:jpy": "-800",
        }
        assert [event.key for event in receipt.events] == ["ada", "bob", "bob:jpy", "world:eur", "world:jpy"]
        assert receipt.events[1].data == {"account": "bob", "amount": Decimal("6.50"), "balance": Decimal("6.50")}
        assert ledger.query(Ledger.trial_balance) == {"EUR": Decimal(0), "JPY": Decimal(0)}
        assert ledger.query(lambda engine: engine.accounts_in("EUR")) == ["ada", "bob", "world:eur"]


@pytest.mark.parametrize(
    ("legs", "expected"),
    [
        ({"world:eur": "-10", "ada": "9.99"}, "unbalanced"),
        ({"world:eur": "-10", "bob:jpy": "10"}, "unbalanced"),
        ({}, "empty"),
        ({"world:eur": "-0.001", "ada": "0.001"}, "bad_amount"),
        ({"world:jpy": "-0.5", "bob:jpy": "0.5"}, "bad_amount"),
        ({"world:eur": "0", "ada": "0"}, "bad_amount"),
        ({"world:eur": "-1E+27", "ada": "1E+27"}, "bad_amount"),
        ({"world:eur": "-1", "eve": "1"}, "unknown_account"),
        ({"ada": "-0.01", "world:eur": "0.01"}, "overdraft"),
        ({"bob": "-50.01", "world:eur": "50.01"}, "overdraft"),
    ],
)
def test_what_does_not_add_up_or_is_not_there_is_rejected_whole(legs: dict[str, str], expected: str) -> None:
    with trial(Ledger) as ledger:
        opened(ledger)
        amounts = {account: Decimal(amount) for account, amount in legs.items()}
        receipt = ask(ledger, "post", legs=amounts)
        assert code(receipt) == expected
        assert receipt.events == []
        assert set(balances(ledger).values()) == {"0.00", "0"}
        assert len(ledger.engine.entries) == 0


def test_a_sum_beyond_28_digits_is_rejected_and_not_rounded() -> None:
    with trial(Ledger) as ledger:
        opened(ledger)
        most = "9" * 26 + ".99"
        assert code(post(ledger, world__eur=f"-{most}", ada=most)) is None
        assert code(post(ledger, world__eur="-0.01", ada="0.01")) == "bad_amount"
        assert ledger.engine.accounts["ada"].balance == Decimal(most)


def test_zeros_at_the_end_of_an_amount_do_not_matter() -> None:
    with trial(Ledger) as ledger:
        opened(ledger)
        post(ledger, world__eur="-1.5000", ada="1.5")
        assert [str(amount) for _, amount in ledger.engine.entries[8].legs] == ["1.50", "-1.50"]


def test_an_overdraft_goes_down_to_its_limit_and_shows_among_the_overdrawn() -> None:
    with trial(Ledger) as ledger:
        opened(ledger)
        post(ledger, bob="-50", ada="50")
        assert balances(ledger)["bob"] == "-50.00"
        assert ledger.query(lambda engine: list(engine.overdrawn)) == ["bob"]
        post(ledger, bob="50", ada="-50")
        assert ledger.query(lambda engine: list(engine.overdrawn)) == []
        assert str(ledger.engine.accounts["bob"].balance) == "0.00"


def test_a_reversal_takes_an_entry_back_once_within_the_limits() -> None:
    with trial(Ledger) as ledger:
        opened(ledger)
        paid_in = post(ledger, world__eur="-10", ada="10").response["entry"]
        spent = post(ledger, ada="-4", bob="4").response["entry"]
        assert code(ask(ledger, "reverse", entry=paid_in)) == "overdraft"
        back = ask(ledger, "reverse", entry=spent, memo="by mistake").response["entry"]
        assert balances(ledger)["ada"] == "10.00"
        entries = ledger.engine.entries
        assert (entries[spent].reversed_by, entries[back].reverses, entries[back].memo) == (back, spent, "by mistake")
        assert code(ask(ledger, "reverse", entry=spent)) == "already_reversed"
        assert code(ask(ledger, "reverse", entry=back)) == "is_reversal"
        assert code(ask(ledger, "reverse", entry=999)) == "unknown_entry"
        assert code(ask(ledger, "reverse", entry=paid_in)) is None
        assert balances(ledger)["ada"] == "0.00"


@pytest.mark.parametrize(
    ("type", "data", "expected"),
    [
        ("define_currency", {"currency": "EUR", "places": 2}, "currency_exists"),
        ("define_currency", {"currency": "XAU", "places": 19}, "bad_places"),
        ("open_account", {"account": "ada", "currency": "EUR"}, "account_exists"),
        ("open_account", {"account": "eve", "currency": "XAU"}, "unknown_currency"),
        ("open_account", {"account": "eve", "currency": "EUR", "floor": Decimal(1)}, "bad_floor"),
        ("open_account", {"account": "eve", "currency": "EUR", "floor": Decimal("-0.001")}, "bad_amount"),
    ],
)
def test_accounts_and_currencies_are_opened_once_and_sensibly(type: str, data: dict[str, Any], expected: str) -> None:
    with trial(Ledger) as ledger:
        opened(ledger)
        assert code(ask(ledger, type, **data)) == expected


def test_a_leg_that_is_no_decimal_is_the_callers_mistake() -> None:
    with trial(Ledger) as ledger:
        opened(ledger)
        with pytest.raises(UsageError, match="a leg is an account's name and a Decimal"):
            ask(ledger, "post", legs={"ada": 1, "world:eur": -1})
        with pytest.raises(UsageError, match="a leg is an account's name and a Decimal"):
            ask(ledger, "post", legs={"ada": Decimal(1), 7: Decimal(-1)})
        assert ledger.head.command_id == len(OPENING)


cents = st.integers(-8000, 8000)
moves = st.lists(
    st.tuples(st.just("post"), st.dictionaries(st.sampled_from(["ada", "bob", "world:eur"]), cents, max_size=3))
    | st.tuples(st.just("balanced"), st.tuples(st.sampled_from(["ada", "bob"]), cents))
    | st.tuples(st.just("reverse"), st.integers(1, 20)),
    max_size=20,
)


@given(moves)
@settings(max_examples=60, deadline=None)
def test_the_ledger_does_as_plain_dicts_of_cents_do(asked: list[tuple[str, Any]]) -> None:
    floors = {"ada": 0, "bob": -5000}
    model = {"ada": 0, "bob": 0, "world:eur": 0}
    posted: dict[int, dict[str, int]] = {}
    closed: set[int] = set()

    def book(legs: dict[str, int]) -> bool:
        after = {name: model[name] + amount for name, amount in legs.items()}
        fits = all(after[name] >= floors.get(name, -(10**9)) for name, amount in legs.items() if amount < 0)
        if not legs or sum(legs.values()) != 0 or 0 in legs.values() or not fits:
            return False
        model.update(after)
        return True

    with trial(Ledger) as ledger:
        opened(ledger)
        for what, given_value in asked:
            if what == "reverse":
                entry = given_value + len(OPENING)
                legs = {name: -amount for name, amount in posted.get(entry, {}).items()}
                receipt = ask(ledger, "reverse", entry=entry)
                accepted = entry not in closed and book(legs)
                if accepted:
                    closed |= {entry, receipt.command_id}
            else:
                legs = given_value
                if what == "balanced":
                    name, amount = given_value
                    legs = {name: amount, "world:eur": -amount}
                receipt = ask(ledger, "post", legs={name: Decimal(amount).scaleb(-2) for name, amount in legs.items()})
                accepted = book(legs)
                if accepted:
                    posted[receipt.command_id] = legs
            assert (receipt.rejection is None) == accepted
            assert {name: int(ledger.engine.accounts[name].balance * 100) for name in model} == model
            assert ledger.engine.trial_balance() == {"EUR": 0, "JPY": 0}


def test_the_ledger_is_deterministic_and_undoable() -> None:
    legs = {"world:eur": Decimal(-10), "ada": Decimal(4), "bob": Decimal(6)}
    check_engine(
        Ledger,
        [
            *OPENING,
            Command("post", {"legs": legs}),
            Command("post", {"legs": {"ada": Decimal(-9), "bob": Decimal(9)}}),
            Command("reverse", {"entry": 8}),
        ],
    )
