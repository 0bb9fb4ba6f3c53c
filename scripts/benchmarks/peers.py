"""What we are measured against: eventsourcing 9.5.6, one stored event a transition, each recorder in its fastest durable mode.

Their application recorders number events over all aggregates, as a journal does.  On PostgreSQL the fastest is
``enable_db_functions``; their default there hangs at a thousand events a commit.
"""

from __future__ import annotations

import os
import random
import time
import urllib.parse
import uuid
from collections.abc import Callable
from typing import Any

from journal.testing.postgres_server import PostgresServer

PAYLOAD_BYTES = 548
THEIRS = "eventsourcing 9.5.6"

NewId = Callable[[], uuid.UUID]


class Peer:
    """A recorder of theirs that appends events of random bytes and reads them back."""

    def __init__(self, recorder: Any, close: Callable[[], None], new_id: NewId) -> None:
        self.recorder = recorder
        self.close = close
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

    def read(self, count: int, page: int) -> float:
        """Events a second, in pages of their notification log."""
        began = time.perf_counter()
        start, seen = 1, 0
        while seen < count:
            found = self.recorder.select_notifications(start, min(page, count - seen))
            seen += len(found)
            start = found[-1].id + 1
        return count / (time.perf_counter() - began)


def sqlite_peer(folder: str, new_id: NewId) -> Peer:
    """Their recorder on a file of its own, proven to be as durable as ours."""
    from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore

    datastore = SQLiteDatastore(os.path.join(folder, f"theirs-{uuid.uuid4()}.db"))
    recorder = SQLiteApplicationRecorder(datastore)
    recorder.create_table()
    with datastore.transaction(commit=False) as cursor:
        for pragma, wanted in (("journal_mode", "wal"), ("synchronous", 2)):
            cursor.execute(f"PRAGMA {pragma}")
            found = next(iter(tuple(cursor.fetchone())))
            assert found == wanted, f"their {pragma} is {found}"
    return Peer(recorder, datastore.close, new_id)


def postgres_peer(server: PostgresServer, new_id: NewId) -> Peer:
    """Their recorder on the same server as ours, in a schema of its own."""
    from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore

    schema = f"theirs_{uuid.uuid4().hex[:8]}"
    server.execute(f"CREATE SCHEMA {schema}")
    parts = urllib.parse.urlsplit(server.url())
    where = dict(urllib.parse.parse_qsl(parts.query))
    datastore = PostgresDatastore(
        parts.path.lstrip("/") or where.get("dbname", "postgres"),
        where.get("host") or urllib.parse.unquote(parts.hostname or ""),
        where.get("port") or parts.port or 5432,
        where.get("user") or parts.username or "",
        "",
        schema=schema,
        enable_db_functions=True,
    )
    recorder = PostgresApplicationRecorder(datastore, events_table_name="stored_events")
    recorder.create_table()
    return Peer(recorder, datastore.close, new_id)
