"""Engines that keep something where no image finds it: a restart, a query or a failure leaves the record otherwise."""

from __future__ import annotations

import contextvars
import decimal
import functools
import itertools
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, ClassVar

from recovery import Command, Context, Reject, command
from zoology.bases import DESKS, VENUES, FeeTaking, Tag, Tagging
from zoology.specimen import EXCHANGE, FEED, Act, specimen

RESTARTED: dict[str, Any] = {"restarts": (320,), "images": (100, 250)}
HIDDEN = ("hidden state", "restore hole")
EITHER = ("process", "restore point")
of_process = functools.partial(specimen, flow=FEED, cause=HIDDEN, factor=EITHER, **RESTARTED)
of_engine = functools.partial(specimen, flow=FEED, cause="restore hole", factor="restore point", **RESTARTED)

_numbers = itertools.count(1)
_total = 0
_sums: list[int] = []


@of_process("numbers orders by a counter of the module")
class ModuleCounter(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("number", next(_numbers))


@of_process("adds up in a global")
class ModuleNumber(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        global _total
        _total += command.data["satoshi"]
        return Tag("total", _total)


@of_process("counts in a class attribute")
class ClassAttribute(Tagging):
    count: ClassVar[int] = 0

    def tag(self, context: Context, command: Command) -> Tag:
        ClassAttribute.count += 1
        return Tag("count", self.count)


def _counting() -> Callable[[], int]:
    calls = 0

    def count() -> int:
        nonlocal calls
        calls += 1
        return calls

    return count


_count = _counting()


@of_process("counts in a closure")
class InClosure(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("call", _count())


@of_process("keeps a list in a default argument")
class DefaultArgument(Tagging):
    def tag(self, context: Context, command: Command, seen: list[int] = []) -> Tag:  # noqa: B006 - the bug
        seen.append(context.command_id)
        return Tag("seen", len(seen))


@functools.cache
def _first_price(side: str, holder: Any = None) -> list[int]:
    return []


@of_process("remembers the first price of each side in a cache that outlives the engine")
class MemoCache(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        held = _first_price(command.data["side"])
        held or held.append(command.data["cents"])
        return Tag("first", held[0])


_STEPS: contextvars.ContextVar[int] = contextvars.ContextVar("_STEPS", default=0)


@of_process("counts in a context variable")
class ContextVariable(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        _STEPS.set(_STEPS.get() + 1)
        return Tag("step", _STEPS.get())


_MONEY = decimal.Context(prec=12, rounding=decimal.ROUND_HALF_EVEN)


@of_process(
    "lowers the precision of a shared decimal context on the way", flow=EXCHANGE, restarts=(450,), images=(300,)
)
class SharedPrecision(FeeTaking):
    def fee(self, context: Context, owner: str, volume: int) -> Any:
        _MONEY.prec = max(4, _MONEY.prec - 1)
        return _MONEY.divide(Decimal(volume), Decimal(7))


# In the engine, beside its tables


@of_engine("keeps a list beside its tables")
class ListBeside(Tagging):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def tag(self, context: Context, command: Command) -> Tag:
        self.seen.append(context.command_id)
        return Tag("seen", len(self.seen))


@of_engine("draws numbers from a generator that stands where it stands")
class GeneratorState(Tagging):
    def __init__(self) -> None:
        self.squares: Iterator[int] = (number * number for number in itertools.count())

    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("square", next(self.squares))


@of_engine("goes around its venues with an iterator")
class IteratorPosition(Tagging):
    def __init__(self) -> None:
        self.turns = itertools.cycle(VENUES)

    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(next(self.turns), 0)


@of_engine("answers with a count that is in no table")
class HiddenAnswer(Tagging):
    def __init__(self) -> None:
        self.asked: list[str] = []

    def apply(self, context: Context, command: Command) -> Any:
        self.asked.append(command.type)
        return [super().apply(context, command), len(self.asked)]


@of_engine("numbers its events from an attribute")
class HiddenSequence(Tagging):
    def __init__(self) -> None:
        self.sent = [0]

    def tag(self, context: Context, command: Command) -> Tag:
        self.sent[0] += 1
        context.emit("Tagged", {"number": self.sent[0]}, sequence=self.sent[0])
        return Tag("told", 0)


@of_engine("rebuilds another count than it has kept")
class RebuildDiffers(Tagging):
    def rebuild(self) -> None:
        # Of what is in the book; while commands come, of all that ever were.
        self.per_side = {"bid": 0, "ask": 0}
        for order in self.orders.values():
            self.per_side[order.side] += 1

    def tag(self, context: Context, command: Command) -> Tag:
        self.per_side[command.data["side"]] += 1
        return Tag(command.data["side"], self.per_side[command.data["side"]])


@of_engine("compares orders by identity, which a restore does not keep")
class IdentityCompared(Tagging):
    def __init__(self) -> None:
        self.known: dict[int, Any] = {}

    def tag(self, context: Context, command: Command) -> Tag:
        # The row that was written last is remembered, to see whether the best is still the same.
        best = self.bids.first()
        row = None if best is None else self.orders[best]
        same = self.known.get(0) is row
        self.known[0] = row
        return Tag("same" if same else "new", 0)


@of_engine("remembers the dict order of its owners", flow=EXCHANGE, restarts=(450,), images=(300,))
class InsertionOrder(FeeTaking):
    def __init__(self) -> None:
        self.owners: dict[str, int] = {}

    def fee(self, context: Context, owner: str, volume: int) -> Any:
        self.owners.setdefault(owner, context.command_id)
        return Decimal(len(self.owners) + (next(iter(self.owners)) == owner))


# Queries and failures


@specimen(
    "a query that writes",
    flow=FEED,
    cause="restore hole",
    factor="restore point",
    acts=(Act("call:peek", (230, 300)),),
    images=(100, 220),
)
class QueryWrites(Tagging):
    def __init__(self) -> None:
        self.looks: list[int] = []

    def peek(self) -> int:
        """How often somebody looked."""
        self.looks.append(len(self.orders))
        return len(self.looks)

    def tag(self, context: Context, command: Command) -> Tag:
        self.looks.append(0)
        return Tag("looks", len(self.looks))


@specimen(
    "a failed command leaves half of it behind, in a list that is not rolled back",
    flow=EXCHANGE,
    cause="restore hole",
    factor="restore point",
    acts=(Act("fail", (350, 420)),),
    images=(300,),
)
class PartialFailure(FeeTaking):
    def __init__(self) -> None:
        self.volume: list[int] = []

    def fee(self, context: Context, owner: str, volume: int) -> Any:
        self.volume.append(volume)
        return Decimal(len(self.volume))

    @command
    def fail(self, context: Context) -> None:
        """Counts, and then fails."""
        self.volume.append(0)
        raise RuntimeError("half way")


@specimen(
    "a rejected command is counted before it is rejected, and the count is lost at a restart",
    flow=EXCHANGE,
    cause="restore hole",
    factor="restore point",
    restarts=(450,),
    images=(300,),
)
class RejectedCounted(FeeTaking):
    def __init__(self) -> None:
        self.refused: list[str] = []

    def apply(self, context: Context, command: Command) -> Any:
        try:
            return super().apply(context, command)
        except Reject as reject:
            self.refused.append(reject.code)
            raise Reject(reject.code, f"{reject.message}, the {len(self.refused)}th") from None


@specimen(
    "keeps the last desk of each thread of hands beside its tables",
    flow=FEED,
    cause="restore hole",
    factor="restore point",
    after=250,
    images=(100, 250),
)
class FromImageOnly(Tagging):
    """The recorded engine never stopped; the replay begins at an image."""

    def __init__(self) -> None:
        self.turn: list[str] = []

    def tag(self, context: Context, command: Command) -> Tag:
        self.turn.append(DESKS[len(self.turn) % len(DESKS)])
        return Tag(self.turn[-1], len(self.turn))
