"""Clean engines, each careful about one thing that is easily got wrong: nothing may ever be said of them."""

from __future__ import annotations

import decimal
import functools
import heapq
import itertools
import json
import math
import threading
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from recovery import Command, Context, Reject, Table
from recovery.examples.exchange import Exchange
from recovery.examples.feed_book import FeedBook
from zoology.bases import DESKS, VENUES, FeeTaking, PlainBook, Tag, Tagging
from zoology.specimen import EXCHANGE, FEED, clean


@clean("the example as it is", flow=EXCHANGE)
class PlainExchange(Exchange):
    pass


@clean("the example as it is", flow=FEED)
class PlainFeedBook(FeedBook):
    pass


@clean("sets are sorted, counted, and asked for membership", flow=FEED)
class SortedSets(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        names = {*VENUES, command.data["side"]}
        return Tag(",".join(sorted(names)[:3]), len(names) + ("bid" in names))


@clean("chance, time and names come from the context", flow=FEED)
class FromContext(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        hour = datetime.fromtimestamp(context.now_ms / 1000, tz=UTC).hour
        return Tag(f"{context.new_uuid()} {context.random.random()}", hour)


@clean("Decimals, under the framework's own context, whatever the engine does to it", flow=EXCHANGE)
class DecimalFees(FeeTaking):
    def fee(self, context: Context, owner: str, volume: int) -> Any:
        decimal.getcontext().prec = 9
        return (Decimal(volume) / 7).quantize(Decimal("0.01"))


@clean("floats, added up in a fixed order", flow=EXCHANGE)
class FloatFees(FeeTaking):
    nothing = 0.0

    def fee(self, context: Context, owner: str, volume: int) -> Any:
        return math.fsum({0.1, 0.2, 0.3}) * volume + sum(len(desk) / 10 for desk in DESKS)


@functools.lru_cache(maxsize=8)
def _digits(number: int) -> int:
    return sum(map(int, str(number)))


@clean("a cache that is only a cache", flow=FEED)
class OnlyACache(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("digits", _digits(command.data["cents"]))


@clean("what is derived from the tables is derived again, just so", flow=FEED)
class RebuiltAlike(Tagging):
    def rebuild(self) -> None:
        """Orders by side, made anew."""
        self.per_side = Counter(order.side for order in self.orders.values())

    def _tell(self, context: Context, order_id: int, order: Any) -> Any:
        old = self.orders.get(order_id)
        answer = super()._tell(context, order_id, order)
        self.per_side.update(() if order is None else [order.side])
        self.per_side.subtract(() if old is None else [old.side])
        return answer

    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(command.data["side"], self.per_side[command.data["side"]])


@clean("rejects in the middle of a change, which the tables take back", flow=EXCHANGE)
class RejectsLate(FeeTaking):
    refused = Table(str, int)

    def fee(self, context: Context, owner: str, volume: int) -> Any:
        if volume % 11 == 0:
            raise Reject("unlucky", owner)
        return Decimal(1)


@clean("captures sorted, and all of it", flow=FEED)
class SoundCapture(PlainBook):
    def answer(self, context: Context, command: Command) -> Any:
        return [len(self.orders), self.changes]


@clean("an opaque image with an unsorted dump and a count of changes, and a digest of its own", flow=FEED)
class OwnDigest(PlainBook):
    def __init__(self) -> None:
        super().__init__()
        self.captures = 0
        self.names: set[str] = set()

    def apply(self, context: Context, command: Command) -> Any:
        self.names.update((command.type, *VENUES[: context.command_id % 8]))
        return super().apply(context, command)

    def capture(self) -> Any:
        self.captures += 1
        return json.dumps({"book": super().capture(), "names": list(self.names), "captures": self.captures})

    def restore(self, value: Any) -> None:
        found = json.loads(value)
        super().restore(found["book"])
        self.names, self.captures = set(found["names"]), 0

    def digest(self) -> bytes:
        text = json.dumps([super().capture(), sorted(self.names)])
        import hashlib

        return hashlib.sha256(text.encode()).digest()


@clean("a heap with full keys, captured in order", flow=FEED)
class FullKeyHeap(PlainBook):
    def __init__(self) -> None:
        super().__init__()
        self.queue: list[Any] = []

    def answer(self, context: Context, command: Command) -> Any:
        if command.type == "created":
            heapq.heappush(self.queue, (command.data["cents"] % 5, command.data["order_id"]))
        return heapq.heappop(self.queue) if len(self.queue) > 20 else None

    def capture(self) -> Any:
        return {**super().capture(), "queue": sorted(self.queue)}

    def restore(self, value: Any) -> None:
        super().restore(value)
        self.queue = value["queue"]


@clean("captures alias the live state, which the framework encodes at once", flow=FEED)
class AliasingCapture(PlainBook):
    def capture(self) -> Any:
        return {
            "orders": [[i, *o] for i, o in sorted(self.orders.items())],
            "live": self.orders,
            "changes": self.changes,
        }

    def restore(self, value: Any) -> None:
        super().restore(value)
        self.orders = dict(sorted(value["live"].items()))


@clean("a generator whose place is captured, and a lock that matters to nobody", flow=FEED)
class PlaceCaptured(PlainBook):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.place = 0
        self.turns = itertools.cycle(VENUES)

    def answer(self, context: Context, command: Command) -> Any:
        with self.lock:
            self.place += 1
            return next(self.turns)

    def capture(self) -> Any:
        return {**super().capture(), "place": self.place}

    def restore(self, value: Any) -> None:
        super().restore(value)
        self.place = value["place"]
        self.turns = itertools.cycle(VENUES)
        for _ in range(self.place % len(VENUES)):
            next(self.turns)
