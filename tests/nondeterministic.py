"""One engine method for each thing the guard looks for; ``# here`` marks the line it must name.  And what it must not name."""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import copy
import dataclasses
import datetime as dt
import enum
import functools
import gc
import io
import json
import locale
import logging
import os
import pathlib
import random
import secrets
import socket
import subprocess
import tempfile
import threading
import time
import uuid
import weakref
from decimal import Decimal
from typing import Any, NamedTuple

from recovery import Command, Context, Reject, Table, TableEngine

KINDS = {
    "clock": ["clock_time", "clock_now", "clock_today", "clock_alias", "clock_gmtime", "clock_swallowed"],
    "time zone": ["zone_local", "zone_from", "zone_naive"],
    "random": [
        "random_module", "random_seed", "random_unseeded", "random_system", "uuid_1", "uuid_4", "urandom", "secret",
    ],
    "environment": ["environ_item", "environ_get", "process_id"],
    "files": ["file_open", "file_path", "file_exists", "file_temporary", "file_held", "file_removed", "file_raw"],
    "sockets": ["socket_made", "socket_host"],
    "subprocess": ["process_run", "process_system"],
    "threads": ["thread_start", "thread_submit"],
    "identity": ["identity_call", "identity_key", "identity_text"],
    "set order": [
        "set_for", "set_list", "set_next", "set_pop", "set_join", "set_star", "set_unpack", "set_objects", "set_text",
        "set_enum", "set_ties", "set_floats", "set_comprehension", "set_dataclass", "set_in_lambda", "set_in_property",
        "set_decorated", "hash_text",
    ],
    "weak reference": ["weak_call", "weak_dict"],
    "garbage collector": ["collect"],
    "locale": ["locale_settings", "locale_names"],
}  # fmt: skip
CLEAN = [
    "sets_in_any_order", "sets_of_numbers", "keys_without_ties", "own_random", "given_times", "said_and_not_heard",
    "imported_late", "plain_work", "rejected", "single",
]  # fmt: skip

NAMES = frozenset({"ada", "bob", "eve"})
now = time.time


class Thing:
    pass


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass(frozen=True)
class Point:
    name: str


class Pair(NamedTuple):
    name: str
    number: int


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def outer(*arguments: Any) -> Any:
        return function(*arguments)

    return outer


class Careless(TableEngine):
    """Each command is a method of its name; each writes a row before it goes wrong."""

    name = "careless"

    rows = Table(str, int)

    def apply(self, context: Context, command: Command) -> Any:
        self.rows["written"] = context.command_id
        return getattr(self, command.type)(context)

    def clock_time(self, context: Context) -> Any:
        return time.time()  # here

    def clock_now(self, context: Context) -> Any:
        return dt.datetime.now(tz=dt.UTC)  # here

    def clock_today(self, context: Context) -> Any:
        return str(dt.date.today())  # here

    def clock_alias(self, context: Context) -> Any:
        return now()  # here

    def clock_gmtime(self, context: Context) -> Any:
        return tuple(time.gmtime())  # here

    def clock_swallowed(self, context: Context) -> Any:
        with contextlib.suppress(Exception):
            time.monotonic()  # here
        return None

    def zone_local(self, context: Context) -> Any:
        return tuple(time.localtime(0))  # here

    def zone_from(self, context: Context) -> Any:
        return str(dt.datetime.fromtimestamp(context.now_ms / 1000))  # here

    def zone_naive(self, context: Context) -> Any:
        return dt.datetime(2026, 11, 28).timestamp()  # here

    def random_module(self, context: Context) -> Any:
        return random.randint(1, 6)  # here

    def random_seed(self, context: Context) -> Any:
        random.seed(1)  # here

    def random_unseeded(self, context: Context) -> Any:
        return random.Random().random()  # here

    def random_system(self, context: Context) -> Any:
        return random.SystemRandom().random()  # here

    def uuid_1(self, context: Context) -> Any:
        return uuid.uuid1()  # here

    def uuid_4(self, context: Context) -> Any:
        return uuid.uuid4()  # here

    def urandom(self, context: Context) -> Any:
        return os.urandom(4)  # here

    def secret(self, context: Context) -> Any:
        return secrets.token_hex()  # here

    def environ_item(self, context: Context) -> Any:
        return os.environ["PATH"]  # here

    def environ_get(self, context: Context) -> Any:
        return os.getenv("PATH")  # here

    def process_id(self, context: Context) -> Any:
        return os.getpid()  # here

    def file_open(self, context: Context) -> Any:
        with open(os.devnull) as file:  # here
            return file.name

    def file_path(self, context: Context) -> Any:
        return pathlib.Path(os.devnull).read_text()  # here

    def file_exists(self, context: Context) -> Any:
        return os.path.exists("/nowhere")  # here

    def file_temporary(self, context: Context) -> Any:
        tempfile.TemporaryFile().close()  # here

    def file_held(self, context: Context) -> Any:
        return HELD.read()  # here

    def file_removed(self, context: Context) -> Any:
        with contextlib.suppress(FileNotFoundError):
            os.remove("/nowhere/at/all")  # here

    def file_raw(self, context: Context) -> Any:
        io.FileIO(os.devnull).close()  # here

    def socket_made(self, context: Context) -> Any:
        socket.socket().close()  # here

    def socket_host(self, context: Context) -> Any:
        return socket.gethostname()  # here

    def process_run(self, context: Context) -> Any:
        return subprocess.run(["true"], check=False).returncode  # here

    def process_system(self, context: Context) -> Any:
        return os.system("true")  # here

    def thread_start(self, context: Context) -> Any:
        threading.Thread(target=int).start()  # here

    def thread_submit(self, context: Context) -> Any:
        return WORKERS.submit(int).result()  # here

    def identity_call(self, context: Context) -> Any:
        return id(self)  # here

    def identity_key(self, context: Context) -> Any:
        things = [Thing(), Thing()]
        things.sort(key=id)  # here

    def identity_text(self, context: Context) -> Any:
        return f"{Thing()}"  # here

    def set_for(self, context: Context) -> Any:
        for name in NAMES:  # here
            return name

    def set_list(self, context: Context) -> Any:
        return list(NAMES)  # here

    def set_next(self, context: Context) -> Any:
        return next(iter(NAMES))  # here

    def set_pop(self, context: Context) -> Any:
        names = set(NAMES)
        return names.pop()  # here

    def set_join(self, context: Context) -> Any:
        return ",".join(NAMES | {"dan"})  # here

    def set_star(self, context: Context) -> Any:
        return [*NAMES]  # here

    def set_unpack(self, context: Context) -> Any:
        first, *_ = NAMES  # here
        return first

    def set_objects(self, context: Context) -> Any:
        return [type(thing).__name__ for thing in {Thing(), Thing()}]  # here

    def set_text(self, context: Context) -> Any:
        return f"{NAMES}"  # here

    def set_enum(self, context: Context) -> Any:
        return [colour.value for colour in {*Colour}]  # here

    def set_ties(self, context: Context) -> Any:
        return min(NAMES, key=len)  # here

    def set_floats(self, context: Context) -> Any:
        return sum(len(name) / 10 for name in NAMES)  # here

    def set_comprehension(self, context: Context) -> Any:
        return [name for name in NAMES if name]  # here

    def set_dataclass(self, context: Context) -> Any:
        return [point.name for point in {Point("a"), Point("b")}]  # here

    def set_in_lambda(self, context: Context) -> Any:
        return (lambda names: tuple(names))(NAMES)  # here

    @property
    def first(self) -> Any:
        return next(iter(NAMES))  # here: set_in_property

    def set_in_property(self, context: Context) -> Any:
        return self.first

    @decorated
    def set_decorated(self, context: Context) -> Any:
        return list(NAMES)  # here

    def hash_text(self, context: Context) -> Any:
        return hash("ada") % 7  # here

    def weak_call(self, context: Context) -> Any:
        reference = weakref.ref(self)
        return reference() is self  # here

    def weak_dict(self, context: Context) -> Any:
        return len(WEAK)  # here

    def collect(self, context: Context) -> Any:
        return gc.collect()  # here

    def locale_settings(self, context: Context) -> Any:
        return locale.localeconv()["decimal_point"]  # here

    def locale_names(self, context: Context) -> Any:
        return dt.date(2026, 11, 28).strftime("%A")  # here

    # What is as deterministic as it looks

    def sets_in_any_order(self, context: Context) -> Any:
        names = set(NAMES)
        names |= {"dan"}
        shorter = {name for name in names if len(name) < 4}
        again = set(list(names)) & frozenset(tuple(shorter))  # noqa: C414 - what must stay silent
        count = sum(1 for name in names if name in shorter) + sum(len(name) for name in names)
        found = any(name == "ada" for name in names), all(name for name in names), max(len(name) for name in names)
        return [
            sorted(names),
            sorted(list(again)),  # noqa: C414 - what must stay silent
            len(names),
            count,
            *found,
            min(names),
            "ada" in names,
            names == again,
        ]

    def sets_of_numbers(self, context: Context) -> Any:
        numbers = {3, 1, 2}
        mixed = {Decimal(1), 2.5, True, uuid.UUID(int=1), dt.timedelta(1), (1, (2, 3))}
        return [min(numbers), max(numbers), list(numbers), [number + 1 for number in numbers], len([*mixed])]

    def keys_without_ties(self, context: Context) -> Any:
        pairs = {Pair("a", 1), Pair("b", 2), Pair("c", 2)}
        ordered = sorted(pairs, key=lambda pair: (pair.number, pair.name))
        return [ordered[0].name, min(pairs, key=lambda pair: pair.number).name, sorted([3, 1], key=lambda one: -one)]

    def own_random(self, context: Context) -> Any:
        own = random.Random(7)
        own.shuffle(list(range(3)))
        context.random.shuffle([1, 2, 3])
        return [context.random.random(), own.random(), context.new_uuid(), context.random.choice("abc")]

    def given_times(self, context: Context) -> Any:
        at = dt.datetime.fromtimestamp(context.now_ms / 1000, tz=dt.UTC)
        parsed = dt.datetime.strptime("2026-11-28", "%Y-%m-%d").replace(tzinfo=dt.UTC)
        return [
            at.timestamp(),
            at.strftime("%Y-%m-%d"),
            parsed.isoformat(),
            str(at.astimezone(dt.UTC)),
            *time.gmtime(0),
        ]

    def said_and_not_heard(self, context: Context) -> Any:
        logging.getLogger("careless").warning("%s", context.command_id)
        print(end="")

    def imported_late(self, context: Context) -> Any:
        import colorsys

        return colorsys.rgb_to_hsv(0, 0, 0)[0]

    def plain_work(self, context: Context) -> Any:
        rows = {"b": 2, "a": 1}
        taken = copy.deepcopy(rows)
        taken.pop("a")
        numbers = [1, 2]
        numbers.pop()
        numbers.remove(1)
        first, second = rows.values()
        return [json.dumps(taken), f"{first}{second:>3}", str(Colour.RED), hash(3), repr((1, "a")), str(Pair("a", 1))]

    def rejected(self, context: Context) -> Any:
        raise Reject("no", f"{context.command_id}")

    def single(self, context: Context) -> Any:
        return [*{"only"}, next(iter({"only"}))]


HELD = open(os.devnull)  # noqa: SIM115 - held for as long as the tests run
atexit.register(HELD.close)
WORKERS = concurrent.futures.ThreadPoolExecutor(1)
WEAK: weakref.WeakValueDictionary[str, Thing] = weakref.WeakValueDictionary()
