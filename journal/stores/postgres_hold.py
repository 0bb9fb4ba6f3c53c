"""Who may write a stream: the claim.  It is a number in the stream's row that every opening for write counts up.

An append reads claim and epoch ``FOR SHARE`` in its own transaction; a claim is made under the row's exclusive lock.  So a claim
waits for what is on its way, and whatever comes after it under the older number writes nothing, however long it slept.

**Is the holder alive?**  Its session is looked for in ``pg_stat_activity``, by process id and start.  Where that cannot be said
(no such view, or its columns hidden from this role) it counts as alive.  A holder of this host whose process is gone is given a
moment: the server may not have noticed yet.
"""

from __future__ import annotations

import os
import platform
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import psycopg

from journal.errors import EvidenceAhead, JournalInUse, RecoveryError, WriterFenced
from journal.postgres_connection import Db, PostgresPlace

NOTICE_MS_MAX: Final = 5000

AGAIN: Final = "close this writer, and open again"

_HOLDER: Final = """\
SELECT claim, holder_host, holder_pid, holder_since_ms, backend_pid, backend_start
FROM engine_streams WHERE stream = %s"""
_ACTIVE: Final = "SELECT backend_start FROM pg_stat_activity WHERE pid = %s"
_MINE: Final = """\
UPDATE engine_streams SET claim = %(claim)s, holder_host = %(host)s, holder_pid = %(pid)s, holder_since_ms = %(since)s,
backend_pid = %(backend)s, backend_start = %(start)s WHERE stream = %(stream)s"""
_SELF: Final = "SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
_CREATE: Final = "INSERT INTO engine_streams VALUES (%s, %s, 0, 0) ON CONFLICT (stream) DO NOTHING"
# Waits until it has ended, for so many milliseconds: what it is told afterwards it is not to answer any more.
_TERMINATE: Final = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid = %s AND backend_start = %s"
_RELEASE: Final = """\
UPDATE engine_streams SET holder_host = NULL, holder_pid = NULL, holder_since_ms = NULL, backend_pid = NULL,
backend_start = NULL WHERE stream = %s AND claim = %s"""
_LAST: Final = "SELECT command_id FROM engine_journal WHERE stream = %s ORDER BY command_id DESC LIMIT 1"


class Holder(NamedTuple):
    """Who opened a stream for write last; ``host`` is None where it has closed."""

    claim: int
    host: str | None
    pid: int | None
    since_ms: int | None
    backend_pid: int | None
    backend_start: datetime | None

    def __str__(self) -> str:
        since = datetime.fromtimestamp((self.since_ms or 0) / 1000, UTC).isoformat(timespec="seconds")
        return f"process {self.pid} on {self.host} since {since}"


class Hold:
    """The claims of one writer, by stream."""

    def __init__(self, place: PostgresPlace) -> None:
        self._place = place
        self._since_ms = time.time_ns() // 1_000_000
        self.claims: dict[str, int] = {}
        self.reached: dict[str, int] = {}
        """The last command that was acknowledged to us."""

    def claim(self, db: Db, stream: str, *, takeover: bool) -> bool:
        """Become the writer of a stream; False where there is no such stream.  JournalInUse names a live holder."""
        holder = _holder(db, stream)
        if holder is None:
            return False
        if holder.host is not None and is_alive(db, holder):
            if not takeover:
                raise self.in_use(stream, holder)
            terminate(db, holder)
        with db.transaction():
            # Waits for an append on its way; then nothing older than this claim can write.
            locked = _holder(db, stream, "FOR UPDATE")
            if locked is None:
                return False
            if locked.claim != holder.claim:
                raise self.in_use(stream, locked)
            self._take(db, stream, locked.claim + 1)
        return True

    def create(self, db: Db, stream: str, identity: bytes) -> bool:
        """Begin a stream as its writer; False where it is there.  JournalInUse where another has just begun it."""
        with db.transaction():
            db.execute(_CREATE, (stream, identity))
            row = db.execute("SELECT identity FROM engine_streams WHERE stream = %s FOR UPDATE", (stream,)).fetchone()
            holder = _holder(db, stream)
            # With our identity, which holds a fresh UUID, it is ours, even where the answer was lost on the way.
            mine = stream not in self.claims and row is not None and row[0] == identity
            if mine and holder is not None and holder.claim <= 1:
                self._take(db, stream, 1)
                return True
        if holder is not None and holder.host is not None and stream not in self.claims and is_alive(db, holder):
            raise self.in_use(stream, holder)
        return False

    def _take(self, db: Db, stream: str, claim: int) -> None:
        db.execute(_MINE, {"claim": claim, "stream": stream, **card(db, self._since_ms)})
        self.claims[stream] = claim

    def restore(self, db: Db) -> None:
        """Hold on a new connection what was held on a lost one.

        WriterFenced where another took a stream meanwhile; EvidenceAhead where the server lost what it acknowledged.
        """
        for stream, claim in self.claims.items():
            with db.transaction():
                found = _holder(db, stream, "FOR UPDATE")
                if found is None or found.claim < claim:
                    raise self.loss(stream, 0)
                if found.claim != claim:
                    raise self.fenced(stream, found)
                row = db.execute(_LAST, (stream,)).fetchone()
                last = 0 if row is None else int(row[0])
                if last < self.reached.get(stream, 0):
                    raise self.loss(stream, last)
                self._take(db, stream, claim)

    def prove(self, db: Db, stream: str) -> None:
        """Raise WriterFenced where the claim to a stream is no longer ours."""
        holder = _holder(db, stream)
        if stream in self.claims and (holder is None or holder.claim != self.claims[stream]):
            raise self.fenced(stream, holder)

    def release(self, db: Db) -> None:
        """Say that nobody writes our streams any more."""
        for stream, claim in self.claims.items():
            db.execute(_RELEASE, (stream, claim))

    def why_fenced(self, db: Db, stream: str) -> RecoveryError:
        """The error of a write that found another claim or epoch than ours."""
        return self.fenced(stream, _holder(db, stream))

    def fenced(self, stream: str, holder: Holder | None) -> WriterFenced:
        """The error of who was replaced."""
        ours = self.claims.get(stream)
        if holder is None or holder.claim == ours:
            return WriterFenced(f"a later epoch of stream {stream!r} is recorded in {self._place.location}", hint=AGAIN)
        by = str(holder) if holder.host is not None else "a writer that has closed since"
        return WriterFenced(f"stream {stream!r} of {self._place.location} was taken over by {by}", hint=AGAIN)

    def loss(self, stream: str, last: int) -> EvidenceAhead:
        """The error where the server has less than it acknowledged."""
        reached = self.reached.get(stream, 0)
        return EvidenceAhead(
            f"{self._place.location} acknowledged command {reached} of stream {stream!r} and ends at command {last}: "
            "the server lost what it had committed",
            position=reached,
            hint="fail over to the server that has it, or restore; to go on without: --accept-loss",
        )

    def in_use(self, stream: str, holder: Holder) -> JournalInUse:
        """The refusal of a second writer."""
        return JournalInUse(
            f"stream {stream!r} of {self._place.location} is being written by {holder}",
            hint="close that writer first, or replace it: --takeover, Runtime.open(takeover=True)",
        )


def _holder(db: Db, stream: str, lock: str = "") -> Holder | None:
    row = db.execute(f"{_HOLDER} {lock}".encode(), (stream,)).fetchone()
    return None if row is None else Holder(*row)


def card(db: Db, since_ms: int) -> dict[str, Any]:
    """Who we are, and with which session, as a holder's columns say it."""
    start = None
    with suppress(psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction), db.transaction():
        row = db.execute(_SELF).fetchone()
        start = None if row is None else row[0]
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "since": since_ms,
        "backend": db.info.backend_pid,
        "start": start,
    }


def is_alive(db: Db, holder: Holder) -> bool:
    """Whether the holder's session is there, or cannot be looked for."""
    deadline = time.monotonic() + NOTICE_MS_MAX / 1000
    while _is_active(db, holder):
        if not _is_gone(holder) or time.monotonic() > deadline:
            return True
        time.sleep(0.02)
    return False


def _is_active(db: Db, holder: Holder) -> bool:
    if holder.backend_start is None:
        return True
    try:
        rows = db.execute(_ACTIVE, (holder.backend_pid,)).fetchall()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InsufficientPrivilege):
        return True
    return any(start is None or start == holder.backend_start for (start,) in rows)


def _is_gone(holder: Holder) -> bool:
    """Whether the holder's process was of this host and is there no more."""
    if holder.host != platform.node() or holder.pid is None:
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def terminate(db: Db, holder: Holder) -> None:
    """End the session of who is replaced: stopped in the midst of a COPY it would hold its locks for ever."""
    with suppress(
        psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedTable
    ):
        db.execute(_TERMINATE, (holder.backend_pid, holder.backend_start))
