"""(h) Reading a million transitions, against eventsourcing's notification log of as many events.

*entries* are pages of a store, each transition as an ``Entry`` of its fields, which is what the other side gives.  *checked* is
``open_journal(url).read()``: besides, every entry's checksum and chain are checked.  *values* besides decodes the command's
data, the response and the events, as a replay does.  The collector is off on both sides, as it is in a replay.
``READ_TRANSITIONS`` is the size (default one million).
"""

from __future__ import annotations

import functools
import os
import time
import uuid
from collections.abc import Callable, Iterator

from durable_append import Ours, in_order, peer_or_note
from peers import THEIRS, Peer, postgres_peer, sqlite_peer
from rounds import Table, by_turns

from journal.journal import PAGE_ENTRIES, Journal
from journal.testing.postgres_server import PostgresServer
from journal.urls import migrate_journal, open_reader
from recovery.verifying.range_replay import steady_collector

TRANSITIONS = int(os.environ.get("READ_TRANSITIONS", "1000000"))
BATCH = 1_000
AIM = ">= 2"


def entries(journal: Journal) -> int:
    """Read pages of the store; how many entries."""
    head = journal.head().command_id
    for after in range(0, head, PAGE_ENTRIES):
        journal.store.page("main", after, after + PAGE_ENTRIES)
    return head


def checked(journal: Journal) -> int:
    """Read the journal."""
    return sum(1 for _ in journal.read())


def valued(journal: Journal) -> int:
    """Read the journal, and decode what is in it."""
    return sum(1 for entry in journal.read() if (entry.data, entry.response, entry.events))


READS = {"entries": entries, "checked": checked, "values": valued}


def rate(url: str, read: Callable[[Journal], int]) -> float:
    """Transitions a second."""
    with Journal(open_reader(url)) as journal, steady_collector():
        began = time.perf_counter()
        return read(journal) / (time.perf_counter() - began)


def peer_rate(peer: Peer, count: int) -> float:
    """Events a second."""
    with steady_collector():
        return peer.read(count, 10_000)


def filled(url: str, count: int) -> str:
    """A journal of so many transitions."""
    ours = Ours(url, in_order())
    for _ in range(0, count, 10 * BATCH):
        ours.append(min(count, 10 * BATCH), BATCH)
    ours.store.close()
    return url


def tables(folder: str, *, rounds: int, quick: bool) -> Iterator[Table]:
    """One table for the embedded stores, one for PostgreSQL."""
    count = BATCH if quick else TRANSITIONS
    peer, notes = peer_or_note(lambda: sqlite_peer(folder, in_order()))
    urls = {
        scheme: filled(f"{scheme}:{os.path.join(folder, f'read-{uuid.uuid4()}')}", count)
        for scheme in ("sqlite", "wal")
    }
    yield _table("embedded", urls, peer, notes, count, rounds)
    with PostgresServer({"shared_buffers": "256MB", "max_wal_size": "2GB"}) as server:
        migrate_journal(server.url())
        peer, notes = peer_or_note(lambda: postgres_peer(server, in_order()))
        yield _table("postgresql", {"postgresql": filled(server.url(), count)}, peer, notes, count, rounds)


def _table(title: str, urls: dict[str, str], peer: Peer | None, notes: list[str], count: int, rounds: int) -> Table:
    sides: dict[str, Callable[[], float]] = {}
    if peer is not None:
        for _ in range(0, count, 10 * BATCH):
            peer.append(min(count, 10 * BATCH), BATCH)
        sides[THEIRS] = lambda: peer_rate(peer, count)
    for name, url in urls.items():
        sides |= {f"ours: {name}: {what}": functools.partial(rate, url, read) for what, read in READS.items()}
    table = Table(
        f"reading {count:,} transitions, {title}",
        "transitions/s",
        by_turns(sides, rounds),
        base=THEIRS if peer is not None else "",
        aims={f"ours: {name}: entries": AIM for name in urls},
        notes=notes,
    )
    if peer is not None:
        peer.close()
    return table
