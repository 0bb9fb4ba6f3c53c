"""(i) The whole runtime at work: acknowledged commands a second and how long each waits, on every store, against bare ``apply``.

The generated order flow through ``exchange.py`` with accounts and holds; digests, chain and recorded rows on, as always.  *bare*
is the same ``apply`` on plain dicts (replay_cost.py).  ``AHEAD`` commands are under way at any time, which is a busy service;
waits are from ``submit`` to the receipt.
"""

from __future__ import annotations

import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from itertools import islice
from statistics import quantiles
from typing import Any

from replay_cost import plain, run_bare
from rounds import Table, by_turns

from journal.records import Command, Receipt
from journal.testing.postgres_server import PostgresServer
from journal.urls import migrate_journal
from recovery import Runtime
from recovery.examples.exchange import Exchange
from recovery.examples.generated import Generated

COMMANDS = 20_000
AHEAD = 256
BARE = "bare apply"

UnderWay = tuple["Future[Receipt]", list[float]]


def bare(commands: list[Command]) -> float:
    """Commands a second of the engine alone."""
    given = [(command.type, command.data) for command in commands]
    return 1e6 / run_bare(plain(Exchange), given)


def live(commands: list[Command], where: dict[str, Any], waits: list[float]) -> float:
    """Acknowledged commands a second; the waits, in milliseconds, go to ``waits``."""
    with Runtime.open(Exchange, snapshots="memory:", snapshot_every=0, **where) as runtime:
        under_way: deque[UnderWay] = deque()
        began = time.perf_counter()
        for command in commands:
            if len(under_way) >= AHEAD:
                _settle(under_way, waits)
            under_way.append(_sent(runtime, command))
        while under_way:
            _settle(under_way, waits)
        return len(commands) / (time.perf_counter() - began)


def _sent(runtime: Runtime, command: Command) -> UnderWay:
    at = time.perf_counter()
    future = runtime.submit(command)
    waited: list[float] = []
    future.add_done_callback(lambda _: waited.append((time.perf_counter() - at) * 1000))
    return future, waited


def _settle(under_way: deque[UnderWay], waits: list[float]) -> None:
    future, waited = under_way.popleft()
    future.result()
    waits += waited


@contextmanager
def _places(folder: str) -> Iterator[dict[str, Callable[[], dict[str, Any]]]]:
    """For each store, what names a fresh journal of it."""

    def fresh(scheme: str) -> str:
        return f"{scheme}:{os.path.join(folder, f'live-{uuid.uuid4()}')}"

    with PostgresServer({"shared_buffers": "256MB", "max_wal_size": "2GB"}) as server:

        def database() -> str:
            schema = f"live_{uuid.uuid4().hex[:8]}"
            server.execute(f"CREATE SCHEMA {schema}")
            url = server.url(options=f"-csearch_path={schema}")
            migrate_journal(url)
            return url

        yield {
            "sqlite:": lambda: {"journal": fresh("sqlite")},
            "wal:": lambda: {"journal": fresh("wal")},
            "wal: + ship to postgresql:, ack both": lambda: {
                "journal": fresh("wal"),
                "ship_to": database(),
                "ack": "both",
            },
            "wal: + ship to postgresql:, ack local": lambda: {
                "journal": fresh("wal"),
                "ship_to": database(),
                "ack": "local",
            },
            "postgresql:": lambda: {"journal": database()},
        }


def tables(folder: str, *, rounds: int, quick: bool) -> Iterator[Table]:
    """Rates, and the waits of all rounds in the notes."""
    workload = Generated(commands=200 if quick else COMMANDS)
    commands = list(islice(workload.commands(), workload.total))
    with _places(folder) as places:
        waits: dict[str, list[float]] = {name: [] for name in places}
        sides: dict[str, Callable[[], float]] = {BARE: lambda: bare(commands)}
        for name, place in places.items():
            sides[name] = lambda name=name, place=place: live(commands, place(), waits[name])
        figures = by_turns(sides, rounds)
    notes = [
        f"{name}: p50 {cut[49]:.1f} ms, p99 {cut[98]:.1f} ms from submit to receipt, {AHEAD} under way"
        for name, cut in ((name, quantiles(found, n=100)) for name, found in waits.items())
    ]
    yield Table(
        f"the whole runtime, {len(commands):,} commands of the exchange", "commands/s", figures, base=BARE, notes=notes
    )
