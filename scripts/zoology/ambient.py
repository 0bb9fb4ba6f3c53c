"""Engines whose outcome depends on the process, the machine or the hour: on something that no command holds."""

from __future__ import annotations

import enum
import functools
import heapq
import locale
import os
import random
import secrets
import threading
import time
import uuid
import weakref
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

from recovery import Command, Context
from zoology.bases import DESKS, VENUES, FeeTaking, PlainBook, Tag, Tagging
from zoology.fixing import fixed
from zoology.specimen import EXCHANGE, FEED, Act, World, specimen

NOT_DETERMINISTIC = "not deterministic"
SEEDS = {"recorded": World({"PYTHONHASHSEED": "11"}), "replayed": World({"PYTHONHASHSEED": "12"})}
by_hash_seed = functools.partial(
    specimen, flow=FEED, cause=(NOT_DETERMINISTIC, "order only"), factor="hash seed", **SEEDS
)


# The order of sets, and hashes


@by_hash_seed("takes the first of a set of names")
class SetFirst(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(next(iter(set(VENUES))), len(self.orders))


@by_hash_seed("pops one of a set of names")
class SetPop(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        left = {*VENUES[: 2 + command.data["order_id"] % 6]}
        return Tag(left.pop(), len(left))


@by_hash_seed("joins a union of sets of names")
class SetJoined(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(",".join(set(VENUES[:3]) | {command.data["side"]}), 0)


@by_hash_seed("shows a set as text")
class SetAsText(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(f"{set(VENUES[:4])}", 0)


@by_hash_seed("makes a dict of a frozenset, and takes its first key")
class DictOfHashOrder(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        counts = dict.fromkeys(frozenset(VENUES), 0)
        return Tag(next(iter(counts)), len(counts))


@by_hash_seed("chooses a shard by hash() of a text")
class HashOfText(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(command.data["side"], hash(f"order {command.data['order_id']}") % 97)


@by_hash_seed("chooses a shard by the hash of a tuple with a text in it")
class HashOfTuple(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("shard", hash((command.data["side"], command.data["cents"])) % 97)


class Venue(enum.Enum):
    """Places to trade."""

    AMSTERDAM = 1
    BERGEN = 2
    CADIZ = 3
    DUBLIN = 4
    ESSEN = 5


@by_hash_seed("takes the first of a set of enum members")
class SetOfEnum(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("venue", next(iter(set(Venue))).value)


@by_hash_seed("takes the smallest of a set by a key that ties")
class SortTies(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(sorted(set(VENUES), key=lambda name: len(name) // 4)[0], 0)


@by_hash_seed("fills a heap from a set, with keys that tie")
class HeapTies(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        heap: list[tuple[int, int, str]] = []
        for number, name in enumerate(set(VENUES)):
            heapq.heappush(heap, (len(name) // 4, number, name))
        return Tag(heapq.heappop(heap)[2], len(heap))


@by_hash_seed("adds floats up in the order of a set", flow=EXCHANGE)
class FloatSumOrder(FeeTaking):
    nothing = 0.0
    rates: ClassVar[dict[str, float]] = {desk: 0.1 + 1e-9 * 7**number for number, desk in enumerate(DESKS)}

    def fee(self, context: Context, owner: str, volume: int) -> Any:
        return sum(self.rates[desk] for desk in set(DESKS)) * volume


@by_hash_seed("gives events in the order of a set")
class EventsInSetOrder(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        for name in {"best", "depth", "tape", "trade"}:
            context.emit("Told", name, key=name)
        return Tag("told", 4)


@by_hash_seed("answers with a list made from a set")
class AnswerInSetOrder(Tagging):
    def apply(self, context: Context, command: Command) -> Any:
        return [super().apply(context, command), *{"bid", "ask", command.type}]


@by_hash_seed("allots what is left over to the first of a set of accounts", flow=EXCHANGE)
class AllotsToFirstOfSet(FeeTaking):
    def fee(self, context: Context, owner: str, volume: int) -> Any:
        names = set(list(self.accounts)[:6])
        lucky = next(iter(names))
        account = self.accounts[lucky]
        self.accounts[lucky] = account._replace(cash=account.cash + 1)
        return Decimal(1)


@by_hash_seed("captures what it holds as a list of a set, and has no digest of its own")
class CaptureOfSet(PlainBook):
    def __init__(self) -> None:
        super().__init__()
        self.sides: set[str] = set()

    def apply(self, context: Context, command: Command) -> Any:
        if context.command_id > 100:
            self.sides.add(command.type)
            self.sides.update(VENUES[:3])
        return super().apply(context, command)

    def capture(self) -> Any:
        return {**super().capture(), "sides": list(self.sides)}

    def restore(self, value: Any) -> None:
        super().restore(value)
        self.sides = set(value["sides"])


@by_hash_seed("verifies here, and would not under another hash seed", replay=("--perturb",))
class SetBeforeItShows(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(next(iter(set(VENUES))), 0)


# Addresses


class Note:
    """An object with nothing of its own but its address."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


by_address = functools.partial(specimen, flow=FEED, cause=(NOT_DETERMINISTIC, "order only"), factor="memory addresses")


@by_address("walks through a set of objects")
class SetOfObjects(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        notes = {Note(f"{name}{number}") for number in range(3) for name in VENUES}
        return Tag(fixed(context, lambda: " ".join(note.text for note in notes)), len(notes))


@by_address("sorts objects by id()")
class IdOrder(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        # What is freed in between makes holes, in which the later ones lie.
        notes = [Note(name) for number in range(6) for name in VENUES[: 3 + number % 3]]
        return Tag(fixed(context, lambda: " ".join(note.text for note in sorted(notes, key=id))), 0)


@by_address("shows an object without a text of its own")
class AddressInText(Tagging):
    def apply(self, context: Context, command: Command) -> Any:
        best = super().apply(context, command)
        return [best, fixed(context, lambda: repr(Note("")))] if context.command_id > 200 else best


# The clock


by_clock = functools.partial(specimen, flow=FEED, cause=NOT_DETERMINISTIC, factor="clock")


@by_clock("stamps an order with time.time_ns()")
class WallClock(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("at", int(fixed(context, lambda: str(time.time_ns()))))


@by_clock("measures with time.monotonic()")
class Monotonic(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(fixed(context, lambda: str(time.monotonic_ns())), 0)


@by_clock("calls an order old by the wall clock", recorded=World(clock_hours=24 * 100))
class OldByWallClock(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("day of the year", datetime.now(tz=UTC).timetuple().tm_yday)


@by_clock("has a session by the hour of the day", recorded=World(clock_hours=7))
class TimeOfDay(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("session", datetime.now(tz=UTC).hour)


# Time zone and locale


by_zone = functools.partial(
    specimen,
    flow=FEED,
    cause=NOT_DETERMINISTIC,
    factor="time zone",
    recorded=World({"TZ": "UTC"}),
    replayed=World({"TZ": "EST5EDT"}),
)


@by_zone("tells the hour in the zone of the machine")
class LocalHour(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("hour", datetime.fromtimestamp(context.now_ms / 1000).hour)


@by_zone("reads a time without a zone")
class NaiveTime(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("opens", int(datetime(2026, 3, 2, 9, 30).timestamp()) % 86_400)


@by_zone("verifies here, and would not in another zone", replay=("--perturb",))
class ZoneBeforeItShows(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("hour", datetime.fromtimestamp(context.now_ms / 1000).hour)


by_locale = functools.partial(
    specimen,
    flow=FEED,
    cause=NOT_DETERMINISTIC,
    factor="locale",
    recorded=World({"LC_ALL": "C.UTF-8"}),
    replayed=World({"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
)


@by_locale("encodes by the locale")
class LocaleEncoding(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        text = f"{command.data['cents'] / 100} €"
        return Tag(text.encode(locale.getencoding(), errors="replace").decode("utf-8"), 0)


@by_locale("asks for the locale's name")
class LocaleName(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(str(locale.setlocale(locale.LC_CTYPE, "")), 0)


# Chance


by_chance = functools.partial(specimen, flow=FEED, cause=NOT_DETERMINISTIC, factor="random")


@by_chance("names an order by uuid4()")
class Uuid4(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(fixed(context, lambda: str(uuid.uuid4())), 0)


@by_chance("names an order by secrets.token_hex()")
class Token(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(fixed(context, lambda: secrets.token_hex(8)), 0)


@by_chance("salts with os.urandom()")
class Urandom(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("salt", int(fixed(context, lambda: str(int.from_bytes(os.urandom(6))))))


@by_chance("looks at one order in ten, by the random module")
class RandomModule(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(fixed(context, lambda: "looked at" if random.random() < 0.1 else "passed"), 0)


@by_chance("shuffles who is asked first")
class Shuffled(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        names = list(VENUES)
        random.shuffle(names)
        return Tag(fixed(context, lambda: " ".join(names)), 0)


@by_chance("draws from a generator that was made without a seed")
class UnseededGenerator(Tagging):
    def __init__(self) -> None:
        self.generator = random.Random()

    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("drawn", int(fixed(context, lambda: str(self.generator.getrandbits(40)))))


@specimen("reads chance from the kernel, where nobody can hold it still", flow=FEED, cause=NOT_DETERMINISTIC)
class KernelChance(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(fixed(context, lambda: Path("/proc/sys/kernel/random/uuid").read_text().strip()), 0)


# The machine


@specimen(
    "takes its fee from the environment",
    flow=EXCHANGE,
    cause=NOT_DETERMINISTIC,
    factor="environment",
    recorded=World({"FEE_BPS": "25"}),
    replayed=World({"FEE_BPS": "30"}),
)
class FeeFromEnvironment(FeeTaking):
    def fee(self, context: Context, owner: str, volume: int) -> Any:
        return Decimal(volume) * int(os.environ["FEE_BPS"]) / 10_000


AT_IMPORT = os.environ.get("ZOO_DESK", "alpha")


@specimen(
    "reads the environment once, as it is imported",
    flow=FEED,
    cause=NOT_DETERMINISTIC,
    factor="environment",
    recorded=World({"ZOO_DESK": "beta"}),
)
class EnvironmentAtImport(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(AT_IMPORT, 0)


@specimen(
    "reads a file of the working folder",
    flow=FEED,
    cause=NOT_DETERMINISTIC,
    factor="working directory",
    recorded=World(files={"fee.txt": "25"}),
    replayed=World(files={"fee.txt": "30"}),
)
class FileOfFolder(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        path = Path("fee.txt")
        return Tag("fee", int(path.read_text()) if path.exists() else 0)


@specimen(
    "reads a file whose path does not depend on anything, and which has changed since",
    flow=FEED,
    cause="unknown",
    recorded=World(files={"~rates": "25"}),
    replayed=World(files={"~rates": "30"}),
)
class FileElsewhere(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("rate", int((Path.home() / "rates").read_text()))


@specimen("writes the id of its process down", flow=FEED, cause="hidden state", factor="process")
class ProcessId(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("by", int(fixed(context, lambda: str(os.getpid()))))


def checked(cents: int) -> str:
    """A text that says whether asserts are on."""
    try:
        assert cents < 0
    except AssertionError:
        return "checked"
    return "unchecked"


@specimen(
    "answers by whether asserts are on",
    flow=FEED,
    cause=NOT_DETERMINISTIC,
    factor="optimization",
    recorded=World({"PYTHONOPTIMIZE": "1"}),
)
class Asserting(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(checked(command.data["cents"]), 0)


DESK = threading.local()
DESK.name = "main"


@specimen(
    "keeps its desk in a thread local, which the runtime's thread does not have",
    flow=FEED,
    cause=NOT_DETERMINISTIC,
    factor="thread",
)
class ThreadLocal(Tagging):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag(getattr(DESK, "name", "none"), 0)


@specimen(
    "divides in a thread of its own, under whatever decimal context new threads get",
    flow=EXCHANGE,
    cause=NOT_DETERMINISTIC,
    factor="decimal context",
    acts=(Act("decimals", (300,)),),
)
class DecimalInWorker(FeeTaking):
    def fee(self, context: Context, owner: str, volume: int) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: Decimal(volume) / 7).result()


# The collector


class Watcher:
    """Part of a cycle, so that only the collector takes it away."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.me = self


by_collector = functools.partial(
    specimen,
    flow=FEED,
    cause=NOT_DETERMINISTIC,
    factor="garbage collection",
    acts=(Act("collect", range(200, 400, 7)),),
)


class Observing(Tagging):
    """Holds one watcher, by a weak reference."""

    seen: ClassVar[Any] = None

    def apply(self, context: Context, command: Command) -> Any:
        answer = super().apply(context, command)
        Observing.seen = weakref.ref(Watcher(f"{context.command_id}"))
        return answer


@by_collector("asks whether a weakly held object is still there")
class WeakReference(Observing):
    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("alive" if Observing.seen is not None and Observing.seen() is not None else "dead", 0)


@by_collector("looks into a WeakValueDictionary")
class WeakDictionary(Tagging):
    watchers: ClassVar[weakref.WeakValueDictionary[str, Watcher]] = weakref.WeakValueDictionary()

    def apply(self, context: Context, command: Command) -> Any:
        answer = super().apply(context, command)
        self.watchers["last"] = Watcher("last")
        return answer

    def tag(self, context: Context, command: Command) -> Tag:
        return Tag("known" if "last" in self.watchers else "new", 0)
