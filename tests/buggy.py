"""Engines with bugs at chosen commands, and engines whose images do not hold all: what other processes load by name."""

from __future__ import annotations

import os
import signal
from typing import Any

from recovery import Cell, Command, Context, TableEngine
from tests.engines import Account, Counter, Till

BUGS: dict[int, str] = {}
"""What goes wrong, by command; nothing while a history is recorded."""


class BuggyTill(Till):
    """The till, bent where BUGS says."""

    def apply(self, context: Context, command: Command) -> Any:
        """Apply, and do what is wrong."""
        bug = BUGS.get(context.command_id, "")
        if bug == "raise":
            raise LookupError("a bug")
        response = super().apply(context, command)
        if bug == "row":
            self.accounts["b"] = Account("somebody", 99)
        elif bug == "event":
            context.emit("More", 1)
        return "otherwise" if bug == "response" else response


class BuggyCounter(Counter):
    """The engine without tables, bent where BUGS says."""

    def apply(self, context: Context, command: Command) -> Any:
        """Apply, and do what is wrong."""
        bug = BUGS.get(context.command_id, "")
        if bug == "raise":
            raise LookupError("a bug")
        response = super().apply(context, command)
        if bug == "row":
            self.totals["z"] = self.totals.get("z", 0) + 100
        elif bug == "event":
            context.emit("More", 1)
        return "otherwise" if bug == "response" else response


class Forgetful(TableEngine):
    """Counts its commands in a table and, beside it, in an attribute that no restore brings back."""

    name = "forgetful"
    last = Cell(int, 0)

    def __init__(self) -> None:
        self.seen: list[int] = []

    def apply(self, context: Context, command: Command) -> int:
        """Answer with how many commands there were, as far as is remembered."""
        self.seen.append(context.command_id)
        self.last.value = context.command_id
        return len(self.seen)


class Mortal(Till):
    """Kills the process that replays a certain command: always, or only the first time a file's path is there."""

    def apply(self, context: Context, command: Command) -> Any:
        """Apply, or die."""
        marker = os.environ.get("MORTAL_MARKER")
        if marker is not None and context.command_id == int(os.environ["MORTAL_AT"]):
            if os.environ.get("MORTAL_ALWAYS"):
                os.kill(os.getpid(), signal.SIGKILL)
            if os.path.exists(marker):
                os.unlink(marker)
                os.kill(os.getpid(), signal.SIGKILL)
        return super().apply(context, command)
