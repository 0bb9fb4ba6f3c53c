"""The fills and balances of ``exchange:Exchange`` as SQL tables: an example of a projection.

A fill is an event of a trade, once for each side; a balance is the engine's own row of an account, from the rows that a command
is recorded to have changed.  The statements are the same on SQLite and PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from journal.records import Entry
from recovery import Projection

_FILLS: Final = """
CREATE TABLE fills (
    command_id   BIGINT NOT NULL,
    event        INTEGER NOT NULL,
    account      TEXT NOT NULL,
    order_id     BIGINT NOT NULL,
    side         INTEGER NOT NULL,
    price        BIGINT NOT NULL,
    quantity     BIGINT NOT NULL,
    PRIMARY KEY (command_id, event)
)"""
_FILLS_BY_ACCOUNT: Final = "CREATE INDEX fills_by_account ON fills (account, command_id)"
_BALANCES: Final = """
CREATE TABLE balances (
    account      TEXT PRIMARY KEY,
    cash         BIGINT NOT NULL,
    cash_held    BIGINT NOT NULL,
    lots         BIGINT NOT NULL,
    lots_held    BIGINT NOT NULL
)"""
_FILL: Final = (
    "INSERT INTO fills (command_id, event, account, order_id, side, price, quantity) VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_BALANCE: Final = (
    "INSERT INTO balances (account, cash, cash_held, lots, lots_held) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (account) DO UPDATE SET "
    "cash = excluded.cash, cash_held = excluded.cash_held, lots = excluded.lots, lots_held = excluded.lots_held"
)
_CLOSED: Final = "DELETE FROM balances WHERE account = ?"


class FillsAndBalances(Projection):
    """Every fill, numbered by its command and its place there; every account as it is now."""

    name = "fills_and_balances"
    tables = ("fills", "balances")
    required_types = ("Filled",)
    requires_changes = True

    def schema(self, dialect: str) -> Sequence[str]:
        """Both tables, and fills by account."""
        return (_FILLS, _FILLS_BY_ACCOUNT, _BALANCES)

    def statements(self, entry: Entry) -> Iterator[tuple[str, tuple[object, ...]]]:
        """The fills among an entry's events, then the accounts among its changes."""
        for number, event in enumerate(entry.events):
            if event.type == "Filled":
                fill = event.data
                yield (
                    _FILL,
                    (
                        entry.command_id,
                        number,
                        event.key,
                        fill["order_id"],
                        fill["side"],
                        fill["price"],
                        fill["quantity"],
                    ),
                )
        for change in entry.changes or ():
            if change.table == "accounts":
                yield (_CLOSED, (change.key,)) if change.deleted else (_BALANCE, (change.key, *change.row))
