"""(b) Replay with every check, and redo, against bare: the same ``apply`` on plain dicts and sorted lists, nothing decoded.

The history is the generated order flow (with accounts and holds) and its orders alone (the bare book).
"""

from __future__ import annotations

import gc
import os
import time
import uuid
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from rounds import Table, by_turns
from sortedcontainers import SortedList

from journal.journal import Journal
from journal.urls import open_reader
from recovery import Command, Index, Reject, Runtime, verify
from recovery.engine import Context
from recovery.examples.exchange import Book, Exchange
from recovery.examples.generated import Generated

COMMANDS = 20_000
AIMS = {"exchange": "<= 3", "book": "<= 5"}


class PlainTable(dict[Any, Any]):
    """A dict that keeps sorted lists beside it, as an author without a framework would."""

    def __init__(self) -> None:
        super().__init__()
        self.indexes: list[PlainIndex] = []

    def __setitem__(self, key: Any, row: Any) -> None:
        for index in self.indexes:
            index.move(key, self.get(key), row)
        super().__setitem__(key, row)

    def __delitem__(self, key: Any) -> None:
        for index in self.indexes:
            index.move(key, self[key], None)
        super().__delitem__(key)


class PlainIndex:
    """Keys in the order of a function of their rows."""

    def __init__(self, table: PlainTable, key: Callable[[Any, Any], Any]) -> None:
        self._items = SortedList()
        self._key = key
        table.indexes.append(self)

    def move(self, key: Any, old: Any, new: Any) -> None:
        before = None if old is None else self._key(key, old)
        after = None if new is None else self._key(key, new)
        if before == after:
            return
        if before is not None:
            self._items.remove((before, key))
        if after is not None:
            self._items.add((after, key))

    def first(self) -> Any:
        return self._items[0][1] if self._items else None


def plain(engine_type: type[Book]) -> Book:
    """The engine's own code on plain containers."""
    engine = engine_type()
    made: dict[int, PlainTable] = {}
    for name, member in engine_type._members.items():
        if isinstance(member, Index):
            index = PlainIndex(made[id(member._declared)], member._key)
            object.__setattr__(engine, name, index)
        else:
            made[id(member)] = PlainTable()
            object.__setattr__(engine, name, made[id(member)])
    return engine


def run_bare(engine: Book, commands: list[tuple[str, dict[str, Any]]]) -> float:
    """Microseconds a command."""
    methods = {name: getattr(engine, name) for name in {type for type, _ in commands}}
    began = time.perf_counter()
    for number, (type, data) in enumerate(commands, 1):
        try:
            methods[type](Context(number, 0, 1, 1), **data)
        except Reject:
            continue
    return (time.perf_counter() - began) / len(commands) * 1e6


def record(folder: str, engine_type: type[Book], count: int) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """A journal of the history, and its commands."""
    given = [(command.type, command.data) for command in Generated(commands=count).commands()]
    if engine_type is Book:
        given = [(type, data) for type, data in given if type in ("new", "cancel", "modify")]
    url = f"sqlite:{os.path.join(folder, f'{engine_type.name}-{uuid.uuid4()}.db')}"
    with Runtime.open(engine_type, journal=url, snapshots="memory:", snapshot_every=0) as runtime:
        for outcome in runtime.execute_many(Command(type, data) for type, data in given):
            if isinstance(outcome, Exception):
                raise outcome
        runtime.close(snapshot=False)
    return url, given


def replay(engine_type: type[Book], url: str, mode: str) -> float:
    """Microseconds a command."""
    report = verify(engine_type, url, mode=mode)
    assert report.verdict == "verified"
    return report.seconds / report.commands * 1e6


def tables(folder: str, *, rounds: int, quick: bool) -> Iterator[Table]:
    """One table for each engine."""
    for engine_type in (Exchange, Book):
        url, given = record(folder, engine_type, COMMANDS // 20 if quick else COMMANDS)
        with Journal(open_reader(url)) as journal:
            rows = sum(len(entry.changes or ()) for entry in journal.read())

        def bare(engine_type: type[Book] = engine_type, given: Any = given) -> float:
            engine = plain(engine_type)
            gc.disable()
            try:
                return run_bare(engine, given)
            finally:
                gc.enable()

        def ours(mode: str, engine_type: type[Book] = engine_type, url: str = url) -> Callable[[], float]:
            return lambda: replay(engine_type, url, mode)

        sides = {"bare": bare, "execute": ours("execute"), "redo": ours("redo")}
        figures = by_turns(sides, rounds)
        added = median(figures["execute"]) - median(figures["bare"])
        yield Table(
            f"replay of {engine_type.name}, {len(given):,} commands, {rows / len(given):.2f} changed rows each",
            "µs/command",
            figures,
            base="bare",
            aims={"execute": AIMS[engine_type.name]},
            notes=[f"execute adds {added:.1f} µs a command, {added * len(given) / rows:.1f} µs a changed row"],
        )
