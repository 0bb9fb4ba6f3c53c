"""One engine for each way in which state escapes its image; each answers with what it should have kept."""

from __future__ import annotations

import contextvars
import functools
import itertools
import json
import threading
from collections.abc import Iterator
from typing import Any, ClassVar

from recovery import Command, Context, Reject, Table, TableEngine
from tests.engines import Counter

SEEN: list[str] = []
TOTAL = 0


class FieldNotCaptured(Counter):
    """Answers with a count that ``capture`` forgets."""

    def __init__(self) -> None:
        super().__init__()
        self.answered = 0

    def apply(self, context: Context, command: Command) -> Any:
        self.answered += 1
        return super().apply(context, command), self.answered


class FieldNeverUsed(FieldNotCaptured):
    """Forgets the same count, and no answer shows it."""

    def apply(self, context: Context, command: Command) -> Any:
        return super().apply(context, command)[0]


class SharedByAll(Counter):
    """All instances share one dict."""

    shared: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.totals = self.shared

    def restore(self, value: Any) -> None:
        self.totals.clear()
        self.totals.update(value["totals"])
        self.log = value["log"]


class KeyDrift(Counter):
    """Its keys are ints until they have been through JSON."""

    def apply(self, context: Context, command: Command) -> Any:
        seats = self.totals
        number: Any = len(command.data["name"])
        seats[number] = seats.get(number, 0) + 1
        return seats[number]

    def capture(self) -> Any:
        return json.dumps(self.totals, sort_keys=True)

    def restore(self, value: Any) -> None:
        self.totals = json.loads(value)


class ModuleList(TableEngine):
    """Counts in a list of its module."""

    name = "module-list"
    rows = Table(str, int)

    def apply(self, context: Context, command: Command) -> Any:
        SEEN.append(command.data["name"])
        return len(SEEN)


class ModuleNumber(ModuleList):
    """Counts in a number of its module."""

    def apply(self, context: Context, command: Command) -> Any:
        global TOTAL
        TOTAL += 1
        return TOTAL


class ClassAttribute(ModuleList):
    """Counts in a class attribute."""

    count: ClassVar[int] = 0

    def apply(self, context: Context, command: Command) -> Any:
        ClassAttribute.count += 1
        return self.count


def counting() -> Any:
    calls = 0

    def count() -> int:
        nonlocal calls
        calls += 1
        return calls

    return count


count_calls = counting()


class InClosure(ModuleList):
    """Counts in what a closure holds."""

    def apply(self, context: Context, command: Command) -> Any:
        return count_calls()


class InDefault(ModuleList):
    """Counts in a default argument."""

    def apply(self, context: Context, command: Command, seen: list[int] = []) -> Any:  # noqa: B006 - the defect under test
        seen.append(1)
        return len(seen)


@functools.lru_cache(maxsize=2)
def looked_up(name: str) -> list[int]:
    return []


class InCache(ModuleList):
    """Counts in what a cached function gave away."""

    def apply(self, context: Context, command: Command) -> Any:
        looked_up("all").append(1)
        return len(looked_up("all"))


STEPS: contextvars.ContextVar[int] = contextvars.ContextVar("STEPS", default=0)


class InContext(ModuleList):
    """Counts in a context variable."""

    def apply(self, context: Context, command: Command) -> Any:
        STEPS.set(STEPS.get() + 1)
        return STEPS.get()


LOCAL = threading.local()


class InThread(ModuleList):
    """Counts in a thread local."""

    def apply(self, context: Context, command: Command) -> Any:
        LOCAL.count = getattr(LOCAL, "count", 0) + 1
        return LOCAL.count


class HoldsLock(Counter):
    """Holds an object that nothing can look into; no harm in it."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def made_here() -> Any:
    """An engine whose class nobody else can reach."""

    class Local(Counter):
        def apply(self, context: Context, command: Command) -> Any:
            return list({"ada", command.data["name"]})

    return Local()


class MemoCache(Counter):
    """Remembers an answer that has since become another."""

    def __init__(self) -> None:
        super().__init__()
        self.memo: dict[str, int] = {}

    def apply(self, context: Context, command: Command) -> Any:
        super().apply(context, command)
        return self.memo.setdefault(command.data["name"], self.totals[command.data["name"]])


class SoundMemo(MemoCache):
    """Remembers what never changes."""

    def apply(self, context: Context, command: Command) -> Any:
        Counter.apply(self, context, command)
        return self.memo.setdefault(command.data["name"], len(command.data["name"]))


class Generating(Counter):
    """Numbers come from a generator, which stands where it stands."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: Iterator[int] = (number * number for number in itertools.count())

    def apply(self, context: Context, command: Command) -> Any:
        return next(self.numbers)


class PartialReject(Counter):
    """Counts, then refuses."""

    def apply(self, context: Context, command: Command) -> Any:
        if command.data["name"] == "bo":
            self.log.append(("refused", 1))
            raise Reject("no")
        return super().apply(context, command)


class InAttribute(ModuleList):
    """Keeps a list beside its tables."""

    def __init__(self) -> None:
        self.beside: list[int] = []

    def apply(self, context: Context, command: Command) -> Any:
        self.beside.append(1)
        return len(self.beside)


class InsertionOrder(Counter):
    """Answers with the first key of a dict, whose order no image keeps."""

    def apply(self, context: Context, command: Command) -> Any:
        super().apply(context, command)
        return next(iter(self.totals))


class OwnDigest(Counter):
    """Its bytes hold an unsorted dump and a change counter; its digest is of what counts."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def apply(self, context: Context, command: Command) -> Any:
        self.changes += 1
        return super().apply(context, command)

    def capture(self) -> Any:
        return json.dumps({"totals": self.totals, "changes": self.changes})

    def restore(self, value: Any) -> None:
        self.totals = dict(sorted(json.loads(value)["totals"].items()))
        self.log, self.changes = [], 0

    def digest(self) -> bytes:
        return repr(sorted(self.totals.items())).encode()[-64:]
