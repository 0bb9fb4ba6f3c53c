"""A projection of the till that refuses some commands, in both ways, and what it should hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from journal.journal import Journal
from journal.records import Entry
from journal.store import JournalStore, SqlJournalStore
from recovery import Projection
from tests.engines import Account

CENTS_MAX = 100
BANNED = "banned"


class Totals(Projection):
    """The cents of each account, at most ``CENTS_MAX``, and each change of them; no account may be called ``BANNED``."""

    name = "totals"
    tables = ("totals", "moves")
    required_types = ("BalanceChanged", "Closed")

    def schema(self, dialect: str) -> Sequence[str]:
        return (
            f"CREATE TABLE totals (number TEXT PRIMARY KEY, cents BIGINT NOT NULL CHECK (cents <= {CENTS_MAX}))",
            "CREATE TABLE moves (command_id BIGINT PRIMARY KEY, number TEXT NOT NULL, delta BIGINT NOT NULL)",
        )

    def statements(self, entry: Entry) -> Iterator[tuple[str, tuple[object, ...]]]:
        for event in entry.events:
            if event.type == "Closed":
                yield "DELETE FROM totals WHERE number = ?", event.data
                continue
            number, delta = event.data["number"], event.data["delta"]
            if number == BANNED:
                raise LookupError("there is no such account")
            yield "INSERT INTO moves (command_id, number, delta) VALUES (?, ?, ?)", (entry.command_id, number, delta)
            yield (
                "INSERT INTO totals (number, cents) VALUES (?, ?) "
                "ON CONFLICT (number) DO UPDATE SET cents = totals.cents + excluded.cents",
                (number, delta),
            )


def totals_in(store: JournalStore) -> dict[str, int]:
    """What the table holds."""
    assert isinstance(store, SqlJournalStore)
    return dict(store.query("SELECT number, cents FROM totals"))


def require_equal(store: JournalStore, accounts: Mapping[str, Account], command_id: int) -> None:
    """The tables hold what the engine's do, and each recorded event once; and the progress row says so."""
    assert isinstance(store, SqlJournalStore)
    assert totals_in(store) == {number: account.cents for number, account in accounts.items()}
    assert store.query("SELECT command_id, number, delta FROM moves ORDER BY command_id") == [
        (entry.command_id, event.data["number"], event.data["delta"])
        for entry in Journal(store).read()
        for event in entry.events
        if event.type == "BalanceChanged"
    ]
    assert store.query("SELECT name, command_id FROM projection_progress") == [("totals", command_id)]


def refused_by_model(accounts: dict[str, int], number: str, cents: int) -> str:
    """What becomes of a deposit, which is then made: "", "Reject", or the projection's refusal."""
    after = accounts.get(number, 0) + cents
    if after < 0:
        return "Reject"
    if number == BANNED or after > CENTS_MAX:
        return "ProjectionFailed"
    accounts[number] = after
    return ""
