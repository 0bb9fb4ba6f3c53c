"""Engines without tables whose capture does not hold all, or gives back another kind of thing than it took."""

from __future__ import annotations

import functools
import heapq
import itertools
import json
import random
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, ClassVar

from recovery import Command, Context
from zoology.bases import VENUES, PlainBook
from zoology.specimen import FEED, Act, specimen

of_capture = functools.partial(
    specimen, flow=FEED, cause="restore hole", factor="restore point", restarts=(320,), images=(150, 250)
)


@of_capture("a field that is not captured")
class FieldNotCaptured(PlainBook):
    def __init__(self) -> None:
        super().__init__()
        self.created = 0

    def answer(self, context: Context, command: Command) -> Any:
        self.created += command.type == "created"
        return self.created


@of_capture("a random generator with a seed, whose state is not captured")
class SeededGenerator(PlainBook):
    def __init__(self) -> None:
        super().__init__()
        self.generator = random.Random(7)

    def answer(self, context: Context, command: Command) -> Any:
        return self.generator.getrandbits(16)


@of_capture("an iterator over its venues, whose place is not captured")
class IteratorNotCaptured(PlainBook):
    def __init__(self) -> None:
        super().__init__()
        self.turns: Iterator[str] = itertools.cycle(VENUES)

    def answer(self, context: Context, command: Command) -> Any:
        return next(self.turns)


@of_capture("keys that are int, and text after a restore from JSON")
class KeysDrift(PlainBook):
    def capture(self) -> Any:
        return json.dumps({"orders": self.orders, "changes": self.changes})

    def restore(self, value: Any) -> None:
        found = json.loads(value)
        self.orders, self.changes = found["orders"], found["changes"]


@of_capture("a tuple that is a list after a restore from JSON")
class TupleDrift(PlainBook):
    def __init__(self) -> None:
        super().__init__()
        self.best: Any = (0, 0)

    def answer(self, context: Context, command: Command) -> Any:
        seen = self.best
        if command.type == "created":
            self.best = (command.data["cents"], command.data["order_id"])
        return seen

    def capture(self) -> Any:
        return json.dumps([super().capture(), self.best])

    def restore(self, value: Any) -> None:
        book, self.best = json.loads(value)
        super().restore(book)


@of_capture("an int that is a float after a restore")
class FloatDrift(PlainBook):
    def __init__(self) -> None:
        super().__init__()
        self.volume: Any = 0

    def answer(self, context: Context, command: Command) -> Any:
        self.volume += command.data.get("satoshi", 0)
        return self.volume

    def capture(self) -> Any:
        return {**super().capture(), "volume": str(self.volume)}

    def restore(self, value: Any) -> None:
        super().restore(value)
        self.volume = float(value["volume"])


@of_capture("a bool that is an int after a restore")
class BoolDrift(PlainBook):
    def __init__(self) -> None:
        super().__init__()
        self.open: Any = True

    def answer(self, context: Context, command: Command) -> Any:
        return self.open

    def capture(self) -> Any:
        return {**super().capture(), "open": int(self.open)}

    def restore(self, value: Any) -> None:
        super().restore(value)
        self.open = value["open"]


@of_capture("a Decimal that went through a float")
class DecimalThroughFloat(PlainBook):
    def __init__(self) -> None:
        super().__init__()
        self.value = Decimal(0)

    def answer(self, context: Context, command: Command) -> Any:
        data = command.data
        self.value += Decimal(data.get("satoshi", 0)) * data.get("cents", 0) / 10**10
        return self.value

    def capture(self) -> Any:
        return {**super().capture(), "value": float(self.value)}

    def restore(self, value: Any) -> None:
        super().restore(value)
        self.value = Decimal(value["value"])


@of_capture("a heap whose ties are broken by arrival, and arrival is not captured")
class HeapArrival(PlainBook):
    def __init__(self) -> None:
        super().__init__()
        self.arrivals = itertools.count()
        self.queue: list[Any] = []

    def answer(self, context: Context, command: Command) -> Any:
        if command.type == "created":
            heapq.heappush(self.queue, (0, next(self.arrivals), command.data["order_id"]))
        if len(self.queue) > 5 and context.command_id % 3 == 0:
            return heapq.heappop(self.queue)[2]
        return 0

    def capture(self) -> Any:
        # By id instead of by arrival: what was first is no longer.
        return {**super().capture(), "queue": sorted((order_id for _, _, order_id in self.queue), reverse=True)}

    def restore(self, value: Any) -> None:
        super().restore(value)
        self.queue = [(0, next(self.arrivals), order_id) for order_id in value["queue"]]


@of_capture("answers with the oldest key of a dict, whose order the capture loses")
class DictOrderLost(PlainBook):
    def answer(self, context: Context, command: Command) -> Any:
        return next(iter(self.orders), None)

    def capture(self) -> Any:
        return {"orders": sorted(([i, *o] for i, o in self.orders.items()), reverse=True), "changes": self.changes}


@of_capture("gives the capture it gave before, though rows in it have changed since")
class StaleCapture(PlainBook):
    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Any] = {}

    def capture(self) -> Any:
        # Made anew only now and then, though what it holds is another after each command.
        if self.kept.get("at") != self.changes // 16:
            self.kept = {"at": self.changes // 16, "value": json.dumps(super().capture())}
        return self.kept["value"]

    def restore(self, value: Any) -> None:
        super().restore(json.loads(value))
        self.kept = {}

    def answer(self, context: Context, command: Command) -> Any:
        return sum(order[2] for order in self.orders.values())


@specimen(
    "all engines of the process share one dict, which a rebuilt one finds as the failed one left it",
    flow=FEED,
    cause=("restore hole", "hidden state"),
    factor=("restore point", "process"),
    acts=(Act("fail", (200, 300)),),
    images=(150,),
)
class SharedByAll(PlainBook):
    seen: ClassVar[dict[str, int]] = {}

    def apply(self, context: Context, command: Command) -> Any:
        self.seen[command.type] = self.seen.get(command.type, 0) + 1
        return super().apply(context, command)

    def answer(self, context: Context, command: Command) -> Any:
        return self.seen["created"]


@specimen(
    "a capture that tidies up what the next answer is made of; the images have been pruned since",
    flow=FEED,
    cause="hidden state",
    images=(130, 260),
    digest_every=50,
    replay=("--snapshots", "dir:pruned"),
)
class CaptureWrites(PlainBook):
    def __init__(self) -> None:
        super().__init__()
        self.recent: list[int] = []

    def answer(self, context: Context, command: Command) -> Any:
        self.recent.append(command.data["order_id"])
        return len(self.recent)

    def capture(self) -> Any:
        self.recent.clear()
        return super().capture()


@specimen(
    "a field that is not captured, and a replay that begins at an image",
    flow=FEED,
    cause="restore hole",
    factor="restore point",
    images=(150, 250),
    after=250,
)
class CursorNotCaptured(PlainBook):
    def __init__(self) -> None:
        super().__init__()
        self.cursor = 0

    def answer(self, context: Context, command: Command) -> Any:
        self.cursor = (self.cursor + 1) % 7
        return list(self.orders)[self.cursor : self.cursor + 1]
