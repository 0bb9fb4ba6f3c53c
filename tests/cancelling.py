"""Engines whose difference shows at two commands and is gone in between and after: nothing about it is monotone."""

from __future__ import annotations

import os
from typing import Any

from recovery import Cell, Command, Context, TableEngine, command
from tests.engines import Account, Till


class Straight(TableEngine):
    """Adds."""

    name = "cancelling"
    total = Cell(int, 0)

    @command
    def add(self, context: Context, by: int) -> None:
        """Add to the total."""
        self.total.value += by + self.bent(context.command_id)

    def bent(self, command_id: int) -> int:
        """What is added besides."""
        return 0


class There(Straight):
    """Adds one too much at 11, one too little at 13, and at 31 one too much for good."""

    def bent(self, command_id: int) -> int:
        """What is added besides."""
        return {11: 1, 13: -1, 31: 1}.get(command_id, 0)


class Listed:
    """The same without tables: its state is compared at every so many commands alone."""

    name = "listed"

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}

    def apply(self, context: Context, command: Command) -> str:
        """Add, and say nothing of it."""
        name = command.data["name"]
        self.totals[name] = self.totals.get(name, 0) + command.data["by"] + self.bent(context.command_id)
        return "done"

    def bent(self, command_id: int) -> int:
        """What is added besides."""
        return 0

    def capture(self) -> dict[str, dict[str, int]]:
        """The totals."""
        return {"totals": self.totals}

    def restore(self, value: dict[str, dict[str, int]]) -> None:
        """Take them back."""
        self.totals = value["totals"]


class BentListed(Listed):
    """One too much where the environment says."""

    def bent(self, command_id: int) -> int:
        """What is added besides."""
        return int(command_id == int(os.environ["BENT_AT"]))


class BentTill(Till):
    """Wrong where the environment says, in the way it says."""

    def apply(self, context: Context, command: Command) -> Any:
        """Apply, and do what is wrong."""
        bent = context.command_id == int(os.environ["BENT_AT"]) and os.environ["BENT"]
        if bent == "raise":
            raise LookupError("a bug")
        response = super().apply(context, command)
        if bent == "row":
            self.accounts["b"] = Account("somebody", 99)
        elif bent == "event":
            context.emit("More", 1)
        return "otherwise" if bent == "response" else response


class SetOrder(Straight):
    """Answers in the order of a set."""

    @command
    def names(self, context: Context) -> str:
        """A word of which the hash seed decides the order."""
        return " ".join({"ada", "bob", "cyd", "dan", "eve", "fay", "gus"})
