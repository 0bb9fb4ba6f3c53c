"""(c) What a command costs with its digests as the table grows from 1 k to 1 M rows, on the same hot rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple

from rounds import Table, by_turns

from journal import digest, values
from journal.digest import StateDigest, TableDigest
from recovery import Context, TableEngine, command
from recovery import Table as Rows
from recovery.stepper import Asked, TableStepper

SIZES = (1_000, 100_000, 1_000_000)
HOT = 500
COMMANDS = 20_000


class Account(NamedTuple):
    """A row of usual size."""

    owner: str
    cents: int
    held: int


class Ledger(TableEngine):
    """One row changes with each command."""

    name = "ledger"
    accounts = Rows(int, Account)

    @command
    def add(self, context: Context, account: int, cents: int) -> int:
        """Add to one account."""
        old = self.accounts[account]
        self.accounts[account] = old._replace(cents=old.cents + cents)
        return old.cents + cents


def filled(size: int) -> TableStepper:
    """An engine with so many accounts."""
    stepper = TableStepper(Ledger(), 1)
    rows = [(f"owner {key}", key, 0) for key in range(size)]
    seed = digest.table_seed("accounts")
    total = sum(
        digest.row_hash(values.encode_bare(key) + values.encode_bare(row), seed) for key, row in enumerate(rows)
    )
    state = StateDigest(digest.TABLES, {"accounts": TableDigest(size, total % digest.MODULUS)}, b"")
    stepper.load(iter([("accounts", range(size), rows)]), state)
    return stepper


class Side:
    """One size, and where it is in its history."""

    def __init__(self, size: int) -> None:
        self.stepper = filled(size)
        self.command_id = 0

    def run(self, commands: int) -> float:
        """Microseconds a command."""
        asked = [
            Asked(bytes(16), "add", None, 0, values.encode({"account": number * 7 % HOT, "cents": number}))
            for number in range(commands)
        ]
        began = time.perf_counter()
        for each in asked:
            self.command_id += 1
            self.stepper.step(each, self.command_id, 1)
            self.stepper.settle(self.command_id)
        return (time.perf_counter() - began) / commands * 1e6


def tables(folder: str, *, rounds: int, quick: bool) -> Iterator[Table]:
    """One table."""
    sizes = (HOT, 2 * HOT) if quick else SIZES
    sides = {f"{size:,} rows": Side(size) for size in sizes}
    first, last = f"{sizes[0]:,} rows", f"{sizes[-1]:,} rows"
    figures = by_turns({name: lambda side=side: side.run(COMMANDS) for name, side in sides.items()}, rounds)  # type: ignore[misc]
    yield Table(
        "a command with its digests, by size of the table", "µs/command", figures, base=first, aims={last: "<= 1.15"}
    )
