"""A recorded engine with a big state, for the benchmarks that need one: one table of accounts, keyed by text or by number."""

from __future__ import annotations

import os
from typing import NamedTuple

from recovery import Command, Context, Runtime, Table, TableEngine, command

PER_COMMAND = 1_000


class Account(NamedTuple):
    """A row of usual size."""

    owner: str
    cents: int
    held: int


class _Big(TableEngine):
    def _put(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.accounts[self.key(number)] = Account(f"owner {number}", number * 100, 0)  # type: ignore[attr-defined]

    @command
    def fill(self, context: Context, first: int, count: int) -> None:
        """Put this many accounts."""
        self._put(first, count)


class ByText(_Big):
    """Accounts with keys such as ``account-0004711``."""

    name = "by_text"
    accounts = Table(str, Account)

    def key(self, number: int) -> str:
        """The key of an account."""
        return f"account-{number:07}"


class ByNumber(_Big):
    """Accounts with numbers for keys."""

    name = "by_number"
    accounts = Table(int, Account)

    def key(self, number: int) -> int:
        """The key of an account."""
        return number


ENGINES: dict[str, type[_Big]] = {"str keys": ByText, "int keys": ByNumber}


def places(folder: str, engine_type: type[TableEngine]) -> dict[str, str]:
    """Where its journal and images are."""
    return {
        "journal": f"sqlite:{os.path.join(folder, engine_type.name)}.db",
        "snapshots": f"dir:{os.path.join(folder, engine_type.name)}-images",
    }


def record(folder: str, engine_type: type[TableEngine], rows: int) -> None:
    """Fill it, and leave a journal with an image at its end."""
    with Runtime.open(engine_type, snapshot_every=0, **places(folder, engine_type)) as runtime:
        commands = (
            Command("fill", {"first": first, "count": min(PER_COMMAND, rows - first)})
            for first in range(0, rows, PER_COMMAND)
        )
        for outcome in runtime.execute_many(commands):
            if isinstance(outcome, Exception):
                raise outcome
