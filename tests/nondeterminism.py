"""Small engines, each with one thing its outcomes depend on that no command holds; and some with none."""

from __future__ import annotations

import decimal
import functools
import itertools
import locale
import os
import random
import threading
import time
import uuid
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from recovery import Cell, Command, Context, Table, TableEngine

WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")


class _Engine(TableEngine):
    """Writes what ``odd`` gives at the commands of type "odd", and counts."""

    count = Cell(int, 0)
    notes = Table(int, str)

    def apply(self, context: Context, command: Command) -> str:
        self.count.value += 1
        if command.type == "odd":
            self.notes[context.command_id] = self.odd(context)
        return "fine"

    def odd(self, context: Context) -> str:
        return "nothing odd"


class Clean(_Engine):
    name = "clean"

    def odd(self, context: Context) -> str:
        return f"{context.now_ms} {context.random.random()} {context.new_uuid()} {sorted(set(WORDS))}"


class SetOrder(_Engine):
    name = "set order"

    def odd(self, context: Context) -> str:
        return " ".join(set(WORDS))


class TimeZone(_Engine):
    name = "time zone"

    def odd(self, context: Context) -> str:
        return time.strftime("%H:%M", time.localtime(context.now_ms // 1000))


class Locale(_Engine):
    name = "locale"

    def odd(self, context: Context) -> str:
        return str(locale.setlocale(locale.LC_CTYPE, ""))


class LocaleVariable(_Engine):
    name = "locale variable"

    def odd(self, context: Context) -> str:
        return os.environ.get("LC_TIME", "none")


class Clock(_Engine):
    name = "clock"

    def odd(self, context: Context) -> str:
        # Well before the next day of any test, well after the time of any command.
        return "late" if datetime.now().timestamp() > context.now_ms / 1000 + 30 * 86400 else "early"


class Ids(_Engine):
    name = "ids"

    def odd(self, context: Context) -> str:
        things = [[word] for word in WORDS]
        return " ".join(word for (word,) in sorted(things, key=id))


class _Thing:
    def __init__(self, word: str) -> None:
        self.word = word


class SetOfObjects(_Engine):
    name = "set of objects"

    def odd(self, context: Context) -> str:
        return " ".join(thing.word for thing in {_Thing(word) for word in WORDS})


_numbers = itertools.count()


class ModuleCounter(_Engine):
    name = "module counter"

    def odd(self, context: Context) -> str:
        return str(next(_numbers))


@functools.cache
def _cached_at(word: str) -> list[int]:
    return []


class MemoCache(_Engine):
    name = "memo cache"

    def odd(self, context: Context) -> str:
        # The first command that asks decides what all later ones hear.
        held = _cached_at("once")
        held or held.append(context.command_id)
        return str(held[0])


class Instance(_Engine):
    """What it keeps beside its tables is gone after a restore."""

    name = "instance"
    seen: list[int]

    def __init__(self) -> None:
        self.seen = []
        super().__init__()

    def odd(self, context: Context) -> str:
        self.seen.append(context.command_id)
        return str(len(self.seen))


class DefaultDecimals(_Engine):
    name = "default decimals"

    def odd(self, context: Context) -> str:
        with ThreadPoolExecutor(1) as pool:
            return str(pool.submit(lambda: decimal.Decimal(1) / 3).result())


class Variable(_Engine):
    name = "variable"

    def odd(self, context: Context) -> str:
        return os.environ.get("SHOP_FEE", "none")


class File(_Engine):
    name = "file"

    def odd(self, context: Context) -> str:
        path = Path("fee.txt")
        return path.read_text() if path.exists() else "none"


class Random(_Engine):
    name = "random"

    def odd(self, context: Context) -> str:
        return "high" if random.random() > 0.5 else "low"


class Rarely(_Engine):
    name = "rarely"

    def odd(self, context: Context) -> str:
        return "looked at" if random.random() < 0.07 else "passed"


class Uuid(_Engine):
    name = "uuid"

    def odd(self, context: Context) -> str:
        return str(uuid.uuid4())


_local = threading.local()
_local.word = "main"


class ThreadLocal(_Engine):
    name = "thread local"

    def odd(self, context: Context) -> str:
        return getattr(_local, "word", "none")


class Collected(_Engine):
    """A cycle is alive until the collector comes by."""

    name = "collected"
    last: ClassVar[Any] = None

    def odd(self, context: Context) -> str:
        word = "alive" if Collected.last is not None and Collected.last() is not None else "dead"
        return word if context.command_id > 1 else "first"

    def apply(self, context: Context, command: Command) -> str:
        answer = super().apply(context, command)
        cycle = _Thing("cycle")
        cycle.__dict__["me"] = cycle
        Collected.last = weakref.ref(cycle)
        return answer


class Asserting(_Engine):
    name = "asserting"

    def odd(self, context: Context) -> str:
        return "debug" if __debug__ else "optimized"


class ProcessId(_Engine):
    name = "process id"

    def odd(self, context: Context) -> str:
        return str(os.getpid())


class Unsteady(_Engine):
    name = "unsteady"

    def odd(self, context: Context) -> str:
        with open("/dev/urandom", "rb") as chance:
            return chance.read(8).hex()


class Counting:
    """No tables; what it counts in ``hidden`` is not captured."""

    name = "counting"

    def __init__(self) -> None:
        self.total = 0
        self.hidden = 0

    def apply(self, context: Context, command: Command) -> int:
        self.total += 1
        self.hidden += 1
        return self.hidden

    def capture(self) -> Any:
        return self.total

    def restore(self, value: Any) -> None:
        self.total = value


class Setty:
    """No tables; the order of a set."""

    name = "setty"

    def __init__(self) -> None:
        self.said: list[str] = []

    def apply(self, context: Context, command: Command) -> str:
        if command.type == "odd":
            self.said = list(set(WORDS))
        return "fine"

    def capture(self) -> Any:
        return self.said

    def restore(self, value: Any) -> None:
        self.said = value


class Plain:
    """No tables, and nothing odd."""

    name = "plain"

    def __init__(self) -> None:
        self.total = 0

    def apply(self, context: Context, command: Command) -> int:
        self.total += len(command.type)
        return self.total

    def capture(self) -> Any:
        return self.total

    def restore(self, value: Any) -> None:
        self.total = value


class Many(_Engine):
    """A command of the name of each of these engines is odd as it is."""

    name = "many"
    kinds: ClassVar[dict[str, type[_Engine]]] = {
        kind.__name__: kind
        for kind in (
            *(SetOrder, TimeZone, Locale, LocaleVariable, Clock, DefaultDecimals, Variable, File, Random, Uuid),
            *(ThreadLocal, Asserting, ProcessId, Clean),
        )
    }

    def apply(self, context: Context, command: Command) -> str:
        kind: Any = self.kinds[command.type]
        self.notes[context.command_id] = kind.odd(self, context)
        return "fine"
