"""Small engines that the tests share."""

from __future__ import annotations

from typing import Any, NamedTuple

from recovery import Cell, Command, Context, Index, Reject, Table, TableEngine, command


class Account(NamedTuple):
    owner: str
    cents: int


class Till(TableEngine):
    """The example of the README."""

    name = "till"

    accounts = Table(str, Account)
    deposits = Cell(int, 0)
    by_wealth = Index(accounts, key=lambda number, account: (-account.cents, number))

    @command
    def deposit(self, context: Context, number: str, cents: int) -> dict[str, int]:
        old = self.accounts.get(number, Account(number, 0))
        if old.cents + cents < 0:
            context.emit("Refused", {"number": number})
            raise Reject("insufficient", f"{number} holds {old.cents}")
        self.accounts[number] = old._replace(cents=old.cents + cents)
        self.deposits.value += 1
        context.emit("BalanceChanged", {"number": number, "delta": cents}, key=number)
        return {"cents": old.cents + cents}

    @command
    def close_account(self, context: Context, number: str) -> None:
        if number not in self.accounts:
            raise Reject("unknown", number)
        del self.accounts[number]
        context.emit("Closed", (number,), sequence=context.command_id)

    @command
    def half_way(self, context: Context, number: str) -> None:
        """Changes rows and then fails."""
        for other in list(self.accounts):
            del self.accounts[other]
        self.accounts[number] = Account(number, 1)
        self.deposits.value = -1
        raise RuntimeError("half way through")

    @command
    def draw(self, context: Context, number: str) -> int:
        """A lottery: what is drawn is the same on every replay."""
        won = context.random.getrandbits(16)
        self.accounts[number] = Account(str(context.new_uuid()), won)
        return won


class Counter:
    """An engine without tables."""

    name = "counter"

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self.log: list[tuple[str, int]] = []

    def apply(self, context: Context, command: Command) -> Any:
        name, by = command.data["name"], command.data.get("by", 1)
        if command.type == "reject":
            raise Reject("refused", name)
        self.totals[name] = self.totals.get(name, 0) + by
        if command.type == "fail":
            raise RuntimeError("half way through")
        self.log.append((name, by))
        context.emit("Counted", {"name": name}, key=name)
        return self.totals[name]

    def capture(self) -> Any:
        return {"totals": self.totals, "log": self.log}

    def restore(self, value: Any) -> None:
        self.totals = value["totals"]
        self.log = value["log"]
