"""(a) Durable appends, 1, 100 and 1000 transitions a commit: ours on ``sqlite:`` against eventsourcing's SQLite recorder.

The same 548 bytes a transition on either side, WAL and ``synchronous=FULL`` on both, files that have been written to before.
*store* appends entries that are ready; *recorder* also links, hashes and seals them, as the runtime does.  What an entry
is found by again, its request id here and its aggregate's id there, is given in order or at random: a random one touches
another page of the index each time, on either side.
"""

from __future__ import annotations

import functools
import itertools
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator

from rounds import Table, by_turns

from journal import digest, framing
from journal.digest import StateDigest, TableDigest
from journal.framing import Event
from journal.recorder import Recorder
from journal.records import Entry, Epoch, JournalIdentity, Transition
from journal.stores.sqlite import SqliteStore

PER_COMMIT = {1: 300, 100: 10_000, 1000: 20_000}
WARM_UP = 3_000
PAYLOAD_BYTES = 548
THEIRS = "eventsourcing 9.5.6"

NewId = Callable[[], uuid.UUID]


def transitions(count: int) -> list[Transition]:
    """Transitions of random bytes: 120 of command, 60 of response, two events, no rows, digests of one table."""
    draw = random.Random(count)
    found = []
    for _ in range(count):
        events = framing.pack_events([Event("happened", draw.randbytes(72)) for _ in range(2)])
        post = StateDigest(digest.TABLES, {"t": TableDigest(1, draw.getrandbits(128))}, b"").pack()
        asked = (draw.randbytes(16), "command", None, 1_700_000_000_000, draw.randbytes(120))
        found.append(Transition(*asked, False, draw.randbytes(60), events, framing.NO_CHANGES, post, 1000))
    return found


class Ours:
    """A recorder on a file of its own; ``ready`` appends without it."""

    def __init__(self, folder: str, new_id: NewId, *, ready: bool) -> None:
        self._new_id = new_id
        self.store = SqliteStore.open_for_write(os.path.join(folder, f"ours-{uuid.uuid4()}.db"))
        identity = JournalIdentity(uuid.uuid4(), "main", "bench", 1, 0, "rows", 3600, 0)
        self.recorder = Recorder.open(self.store, "main", identity)
        self.recorder.epoch = 1
        self.recorder.begin_epoch(Epoch(1, "bench", 1, 1, b"s", "r", "3", "l", "h", 1, 28, 0, 0, None))
        self._ready = ready

    def append(self, count: int, per_commit: int) -> float:
        """Transitions a second."""
        given = transitions(count)
        batches = [given[at : at + per_commit] for at in range(0, count, per_commit)]
        if self._ready:
            return self._append_ready(batches, count)
        began = time.perf_counter()
        for batch in batches:
            for transition in batch:
                self.recorder.seal(self._fresh(transition))
            self.recorder.commit()
        return count / (time.perf_counter() - began)

    def _append_ready(self, batches: list[list[Transition]], count: int) -> float:
        sealed: list[list[Entry]] = []
        for batch in batches:
            sealed.append([self.recorder.seal(self._fresh(transition)) for transition in batch])
        began = time.perf_counter()
        for entries in sealed:
            self.store.append("main", 1, entries)
        seconds = time.perf_counter() - began
        self.recorder.head = self.recorder.tip
        self.recorder.abandon()
        return count / seconds

    def _fresh(self, transition: Transition) -> Transition:
        return transition._replace(request_key=self._new_id().bytes)


class Theirs:
    """Their application recorder, which numbers events over all aggregates as a journal does; one stored event a transition."""

    def __init__(self, folder: str, new_id: NewId) -> None:
        from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore

        self.datastore = SQLiteDatastore(os.path.join(folder, f"theirs-{uuid.uuid4()}.db"))
        self.recorder = SQLiteApplicationRecorder(self.datastore)
        self.recorder.create_table()
        with self.datastore.transaction(commit=False) as cursor:
            for pragma, wanted in (("journal_mode", "wal"), ("synchronous", 2)):
                cursor.execute(f"PRAGMA {pragma}")
                found = next(iter(tuple(cursor.fetchone())))
                assert found == wanted, f"their {pragma} is {found}"
        self._new_id = new_id

    def append(self, count: int, per_commit: int) -> float:
        """Transitions a second."""
        from eventsourcing.persistence import StoredEvent

        draw = random.Random(count)
        events = []
        for _ in range(count):
            events.append(StoredEvent(self._new_id(), 1, "transition", draw.randbytes(PAYLOAD_BYTES)))
        batches = [events[at : at + per_commit] for at in range(0, count, per_commit)]
        began = time.perf_counter()
        for batch in batches:
            self.recorder.insert_events(batch)
        return count / (time.perf_counter() - began)


def in_order() -> NewId:
    """Ids of one beginning, counted up."""
    numbers = itertools.count(random.getrandbits(120) << 32)
    return lambda: uuid.UUID(int=next(numbers) % 2**128)


def tables(folder: str, *, rounds: int, quick: bool) -> Iterator[Table]:
    """One table for each kind of id and size of batch."""
    try:
        import eventsourcing  # noqa: F401
    except ImportError:
        can_compare = False
        notes = [
            "eventsourcing is not installed, so there is nothing to compare with: pip install eventsourcing==9.5.6"
        ]
    else:
        can_compare, notes = True, []
    for ids, new_id in (("ids in order", in_order()), ("random ids", uuid.uuid4)):
        recorder, store = Ours(folder, new_id, ready=False), Ours(folder, new_id, ready=True)
        sides = {"ours: store": store.append, "ours: recorder": recorder.append}
        if can_compare:
            theirs = Theirs(folder, new_id)
            sides = {THEIRS: theirs.append, **sides}
        for append in sides.values():
            # A -wal that has had its full length once is overwritten from then on, which is what lasts.
            append(WARM_UP // 100 if quick else WARM_UP, 1)
        for per_commit, count in PER_COMMIT.items():
            size = max(per_commit, count // 100) if quick else count
            measured = {name: functools.partial(append, size, per_commit) for name, append in sides.items()}
            yield Table(
                f"durable append, {ids}, {per_commit} a commit",
                "transitions/s",
                by_turns(measured, rounds),
                base=THEIRS if can_compare else "",
                aims={"ours: store": ">= 1.2"} if per_commit == 1000 else {},
                notes=notes,
            )
        recorder.store.close()
        store.store.close()
        if can_compare:
            theirs.datastore.close()
