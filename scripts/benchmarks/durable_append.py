"""(a) Durable appends, 1, 100 and 1000 transitions a commit: ours against eventsourcing's recorder of the same kind of store.

The same 548 bytes a transition on either side, the same durability, files that have been written to before.  A *store* appends
entries that are ready, which is what the other side does; a *recorder* also links, hashes and seals them, as the runtime does.
What an entry is found by again, its request id here and its aggregate's id there, is given in order or at random: a random
one touches another page of the index each time, on either side.

On PostgreSQL there is also a floor: the same bytes, encoded before the clock starts, copied into a table of the same shape.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing

from peers import THEIRS, NewId, Peer, postgres_peer, sqlite_peer
from rounds import Table, by_turns

from journal import digest, framing, values
from journal.digest import StateDigest, TableDigest
from journal.framing import Event
from journal.recorder import Recorder
from journal.records import Entry, Epoch, JournalIdentity, Transition
from journal.store import JournalStore
from journal.testing.postgres_server import PostgresServer
from journal.urls import migrate_journal, open_writer

PER_COMMIT = {1: 300, 100: 10_000, 1000: 20_000}
WARM_UP = 3_000
SQLITE, WAL, POSTGRES = "ours: sqlite: store", "ours: wal: store", "ours: postgresql: store"
RECORDER, FLOOR = "ours: sqlite: recorder", "the same bytes, copied"
AIMS = {
    1: {WAL: ">= 1.7", POSTGRES: ">= 1.35"},
    100: {WAL: ">= 3", POSTGRES: ">= 4.5"},
    1000: {SQLITE: ">= 1.2", WAL: ">= 4", POSTGRES: ">= 5.5"},
}
FLOOR_AIM = ">= 0.6"

Append = Callable[[int, int], float]


def transitions(count: int) -> list[Transition]:
    """Transitions of random bytes: 120 of command data, 60 of response, two events, no rows, digests of one table."""
    draw = random.Random(count)
    found = []
    for _ in range(count):
        events = framing.pack_events([Event("happened", draw.randbytes(72)) for _ in range(2)])
        post = StateDigest(digest.TABLES, {"t": TableDigest(1, draw.getrandbits(128))}, b"").pack()
        asked = (draw.randbytes(16), "command", None, 1_700_000_000_000, values.encode(draw.randbytes(117)))
        found.append(
            Transition(*asked, False, values.encode(draw.randbytes(57)), events, framing.NO_CHANGES, post, 1000)
        )
    return found


def recorder_on(store: JournalStore) -> Recorder:
    """A recorder of a new stream."""
    identity = JournalIdentity(uuid.uuid4(), "main", "bench", 1, 0, "rows", 3600, 0)
    recorder = Recorder.open(store, "main", identity)
    recorder.begin_epoch(Epoch(1, "bench", 1, 1, b"s", "r", "3", "l", "h", 1, 28, 0, 0, None))
    return recorder


class Ours:
    """A recorder on a store of its own, and its store without it."""

    def __init__(self, url: str, new_id: NewId) -> None:
        self.store = open_writer(url)
        self.recorder = recorder_on(self.store)
        self._new_id = new_id

    def append(self, count: int, per_commit: int) -> float:
        """Transitions a second, entries ready before the clock starts."""
        batches = self.sealed(count, per_commit)
        began = time.perf_counter()
        for entries in batches:
            self.store.append("main", 1, entries)
        seconds = time.perf_counter() - began
        return count / seconds

    def record(self, count: int, per_commit: int) -> float:
        """Transitions a second, linked and sealed on the way."""
        given = transitions(count)
        began = time.perf_counter()
        for at in range(0, count, per_commit):
            for transition in given[at : at + per_commit]:
                self.recorder.seal(self._fresh(transition))
            self.recorder.commit()
        return count / (time.perf_counter() - began)

    def sealed(self, count: int, per_commit: int) -> list[list[Entry]]:
        """Batches of entries, each following the one before; they count as durable."""
        given = transitions(count)
        batches = []
        for at in range(0, count, per_commit):
            batches.append([self.recorder.seal(self._fresh(each)) for each in given[at : at + per_commit]])
        self.recorder.head = self.recorder.tip
        self.recorder.abandon()
        return batches

    def _fresh(self, transition: Transition) -> Transition:
        return transition._replace(request_key=self._new_id().bytes)


class Floor:
    """Bytes that are encoded already, copied into a table like the journal's, a transaction a batch."""

    def __init__(self, server: PostgresServer, schema: str, new_id: NewId) -> None:
        import psycopg

        self._made = Ours("memory:", new_id)
        self._db = psycopg.connect(server.url(options=f"-csearch_path={schema}"))
        self._db.execute("CREATE TABLE floor (LIKE engine_journal INCLUDING ALL)")
        self._db.commit()

    def append(self, count: int, per_commit: int) -> float:
        """Transitions a second."""
        from journal.stores.postgres_copy import COLUMNS, encode

        batches = [encode("main", batch) for batch in self._made.sealed(count, per_commit)]
        began = time.perf_counter()
        for data in batches:
            with self._db.cursor().copy(f"COPY floor (stream, {COLUMNS}) FROM STDIN (FORMAT binary)") as copy:
                copy.write(data)
            self._db.commit()
        return count / (time.perf_counter() - began)

    def close(self) -> None:
        """Let the connection go."""
        self._db.close()


def in_order() -> NewId:
    """Ids of one beginning, counted up."""
    numbers = itertools.count(random.getrandbits(120) << 32)
    return lambda: uuid.UUID(int=next(numbers) % 2**128)


def tables(folder: str, *, rounds: int, quick: bool) -> Iterator[Table]:
    """One table for each kind of store, kind of id and size of batch."""
    for ids, new_id in (("ids in order", in_order()), ("random ids", uuid.uuid4)):
        yield from _embedded(folder, ids, new_id, rounds=rounds, quick=quick)
        with PostgresServer({"shared_buffers": "256MB", "max_wal_size": "2GB"}) as server:
            yield from _postgres(server, ids, new_id, rounds=rounds, quick=quick)


def peer_or_note(make: Callable[[], Peer]) -> tuple[Peer | None, list[str]]:
    """The peer, or why there is none."""
    try:
        return make(), []
    except ImportError as error:
        return None, [
            f"{THEIRS} is not installed ({error}), so there is nothing to compare with: pip install '.[bench]'"
        ]


def _embedded(folder: str, ids: str, new_id: NewId, *, rounds: int, quick: bool) -> Iterator[Table]:
    def place(scheme: str) -> str:
        return f"{scheme}:{os.path.join(folder, f'ours-{uuid.uuid4()}')}"

    peer, notes = peer_or_note(lambda: sqlite_peer(folder, new_id))
    ours = {
        name: Ours(place(scheme), new_id) for name, scheme in ((SQLITE, "sqlite"), (WAL, "wal"), (RECORDER, "sqlite"))
    }
    sides: dict[str, Append] = {} if peer is None else {THEIRS: peer.append}
    sides |= {name: each.record if name == RECORDER else each.append for name, each in ours.items()}
    yield from _by_batch(f"embedded, {ids}", sides, notes, rounds=rounds, quick=quick)
    for each in ours.values():
        each.store.close()
    if peer is not None:
        peer.close()


def _postgres(server: PostgresServer, ids: str, new_id: NewId, *, rounds: int, quick: bool) -> Iterator[Table]:
    schema = f"ours_{uuid.uuid4().hex[:8]}"
    server.execute(f"CREATE SCHEMA {schema}")
    url = server.url(options=f"-csearch_path={schema}")
    migrate_journal(url)
    peer, notes = peer_or_note(lambda: postgres_peer(server, new_id))
    ours = Ours(url, new_id)
    with closing(Floor(server, schema, new_id)) as floor:
        sides: dict[str, Append] = {} if peer is None else {THEIRS: peer.append}
        yield from _by_batch(
            f"postgresql, {ids}",
            {**sides, POSTGRES: ours.append, FLOOR: floor.append},
            notes,
            rounds=rounds,
            quick=quick,
        )
    ours.store.close()
    if peer is not None:
        peer.close()


def _by_batch(title: str, sides: dict[str, Append], notes: list[str], *, rounds: int, quick: bool) -> Iterator[Table]:
    for append in sides.values():
        # Files that have had their full length once are overwritten from then on, which is what lasts.
        append(WARM_UP // 100 if quick else WARM_UP, 1)
    for per_commit, count in PER_COMMIT.items():
        size = max(per_commit, count // 100) if quick else count
        measured = {name: functools.partial(append, size, per_commit) for name, append in sides.items()}
        table = Table(
            f"durable append, {title}, {per_commit} a commit",
            "transitions/s",
            by_turns(measured, rounds),
            base=THEIRS if THEIRS in sides else "",
            aims=AIMS[per_commit],
            notes=list(notes),
        )
        if FLOOR in sides:
            floor = table.ratio_of(POSTGRES, FLOOR)
            table.notes.append(f"{POSTGRES} is {floor:.2f} of {FLOOR} (aim {FLOOR_AIM})")
        yield table
