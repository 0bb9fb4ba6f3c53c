"""``postgresql://…``: a journal in a PostgreSQL database, one row a command (stores/sql/postgresql/).

A batch is one transaction: the stream's row read ``FOR SHARE`` (postgres_hold.py), a binary COPY (postgres_copy.py), COMMIT.  A
lone entry is one statement that does all three.  Nothing else is asked of the server: no session locks, no LISTEN, no sequences.

**A lost connection.**  Before COMMIT was sent, nothing is written: the server is waited for (``ride_out_s``), the claim proven
on the new connection, and the batch sent again.  At COMMIT, or in a lone statement, it is OutcomeUnknown, and no append is taken
until a new epoch is recorded: recording one waits for whatever the old session still does.  The same holds for a COMMIT with a
warning, which is how a server says that it did not wait for its synchronous standby.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import psycopg
from psycopg import sql
from psycopg.types.numeric import Int8

from journal.errors import (
    CorruptionError,
    Gap,
    OutcomeUnknown,
    RecoveryError,
    StoreUnavailable,
    UsageError,
    WriterFenced,
    WriterPoisoned,
)
from journal.files import kill_point
from journal.postgres_connection import RETRIED, UNKNOWN, Db, Link, Patience, PostgresPlace, described, parse, refusal
from journal.postgres_schema import migrations, require_schema
from journal.records import Entry
from journal.sql import postgresql_form
from journal.store import Hook, SqlCursor, SqlJournalStore
from journal.stores import postgres_reading as reading
from journal.stores.postgres_copy import COLUMNS, NAMES, encode
from journal.stores.postgres_cursor import carry_out
from journal.stores.postgres_hold import AGAIN, Hold

T = TypeVar("T")

COMMAND_MAX: Final = 2**62
FIND_MAX: Final = 1000

_IDENTITY: Final = """\
SELECT (SELECT identity FROM engine_streams WHERE stream = %(stream)s),
EXISTS (SELECT FROM engine_epochs WHERE stream = %(stream)s) OR
EXISTS (SELECT FROM engine_journal WHERE stream = %(stream)s)"""
_LAST: Final = "(SELECT command_id FROM engine_journal WHERE stream = {stream} ORDER BY command_id DESC LIMIT 1)"
_FENCE: Final = f"SELECT claim, epoch, coalesce({_LAST}, 0) FROM engine_streams WHERE stream = {{stream}}"
_BEGIN: Final = f"BEGIN; {_FENCE} FOR SHARE"
_COPY: Final = f"COPY engine_journal (stream, {COLUMNS}) FROM STDIN (FORMAT binary)"
# A takeover under way changes the fence's row: this waits for it, looks again, and then finds no row to write beside.
_LONE: Final = f"""\
WITH fence AS (
    SELECT stream FROM engine_streams WHERE stream = %b AND claim = %b AND epoch = %b FOR SHARE
)
INSERT INTO engine_journal (stream, {COLUMNS})
SELECT stream, {", ".join(["%b"] * len(NAMES))} FROM fence
WHERE coalesce((SELECT max(command_id) FROM engine_journal WHERE stream = %b), 0) = %b"""


class PostgresStore(SqlJournalStore):
    """Streams in one database.  Opened by ``open_for_read`` or ``open_for_write``; usable from any thread."""

    dialect = "postgresql"

    def __init__(self, place: PostgresPlace) -> None:
        self.location = place.location
        self._hooks: dict[str, Hook] = {}
        self._place = place
        self._link = Link(place)
        self._ahead = reading.PageAhead(place)
        self._hold: Hold | None = None
        self._pid = os.getpid()
        self._closed = False
        self._refusal: RecoveryError | None = None
        self._in_doubt: set[str] = set()
        self._committing = False
        self._fences: dict[str, bytes] = {}
        self.durable = False

    @classmethod
    def open_for_read(cls, url: str) -> PostgresStore:
        """Look at a journal.  StoreUnavailable where there is none, or where its schema is older than this release's."""
        store = cls(parse(url))
        store._connect()
        return store

    @classmethod
    def open_for_write(cls, url: str, stream: str = "main", *, takeover: bool = False) -> PostgresStore:
        """Hold a stream against every other writer.  JournalInUse names one that lives; ``takeover`` replaces it.

        Other streams are held from the first write to them.  The schema is never changed here.
        """
        store = cls(parse(url))
        store._connect()
        hold = store._hold = Hold(store._place)
        try:
            store._link.run(lambda db: hold.claim(db, stream, takeover=takeover))
        except BaseException:
            store.close()
            raise
        known = weakref.ref(store)
        store._link.restored = lambda db: _restored(known, db)
        return store

    def _connect(self) -> None:
        try:
            self._link.open()
            self._link.run(lambda db: require_schema(db, self._place))
        except BaseException:
            self._link.close()
            raise
        self.durable = self._link.durable

    # Reading

    def identity(self, stream: str) -> bytes | None:
        """The stream's identity, or None.  Gap where it is lost and something of the stream is not."""
        identity, used = self._read(lambda db: _row(db, _IDENTITY, {"stream": stream}))
        if identity is None and used:
            raise Gap(
                f"{self.location} holds entries of it", position=f"identity of stream {stream!r}", hint="restore a copy"
            )
        return None if identity is None else bytes(identity)

    def epochs(self, stream: str) -> list[tuple[int, bytes]]:
        """All epochs by number."""
        query = "SELECT number, document FROM engine_epochs WHERE stream = %s ORDER BY number"
        return self._read(lambda db: db.execute(query, (stream,)).fetchall())

    def last(self, stream: str) -> Entry | None:
        """The last entry, or None."""
        newest = self.newest(stream, 1)
        return newest[0] if newest else None

    def page(self, stream: str, after: int, until: int) -> list[Entry]:
        """The entries with ``after < command_id <= until``.  CorruptionError names the first that cannot be read."""
        after, until = max(after, 0), min(until, COMMAND_MAX)
        if after >= until:
            return []
        self._refuse_elsewhere()
        with self._link.turn:
            entries = self._ahead.take(stream, after, until)
            if entries is None:
                entries = self._page(stream, after, until)
            if len(entries) == until - after:
                self._ahead.given(stream, after, until)
        return entries

    def _page(self, stream: str, after: int, until: int) -> list[Entry]:
        try:
            return self._read(partial(reading.page, stream=stream, after=after, until=until))
        except CorruptionError as error:
            if until - after == 1:
                error.position = until
                raise
        # By halves, the first half first: what stops it is the first entry that cannot be read.
        middle = (after + min(until, self._end(stream, after, until))) // 2
        return self._page(stream, after, middle) + self._page(stream, middle, until)

    def _end(self, stream: str, after: int, until: int) -> int:
        query = "SELECT coalesce(max(command_id), 0) FROM engine_journal WHERE stream = %s"
        return max(after + 2, min(until, int(self._read(lambda db: _row(db, query, (stream,)))[0])))

    def newest(self, stream: str, limit: int) -> list[Entry]:
        """The last entries, in one query."""
        return self._read(partial(reading.newest, stream=stream, limit=max(limit, 0)))[::-1]

    def find(self, stream: str, request_keys: Sequence[bytes]) -> list[Entry]:
        """The entries with these request keys."""
        entries: list[Entry] = []
        keys = list(dict.fromkeys(request_keys))
        for at in range(0, len(keys), FIND_MAX):
            some = keys[at : at + FIND_MAX]
            entries += self._read(partial(reading.found, stream=stream, request_keys=some))
        return entries

    def request_keys(self, stream: str, since_ms: int) -> Iterator[bytes]:
        """The request keys of entries received at or after a time, a range at a time."""
        last = self.last(stream)
        after = 0
        while last is not None and after < last.command_id:
            keys, after = self._read(partial(reading.keys_since, stream=stream, after=after, since_ms=since_ms))
            yield from keys

    def make_durable(self) -> None:
        """Wait for the synchronous standbys, if there are any: a primary that was started anew shows what they may not have.

        Without them, what can be read was flushed before it could be.
        """
        if not self._read(reading.waits_for_standbys):
            return
        self._link.warnings.clear()
        self._read(lambda db: db.execute("SELECT pg_logical_emit_message(true, 'recovery', '')"))
        if self._link.warnings:
            raise StoreUnavailable(f"{self.location} did not wait for its synchronous standby", hint="try again")

    def settings(self) -> dict[str, str]:
        """What the server says of its durability, and versions."""
        return self._read(lambda db: described(db, self._place)) | {"schema": str(len(migrations()))}

    def check(self) -> None:
        """The index of requests against the entries, in every stream.  Entries are read, and proven, by who checks them."""
        for stream in self._read(reading.streams):
            self._read(partial(reading.check_index, stream=stream))

    def _read(self, work: Callable[[Db], T]) -> T:
        self._refuse_elsewhere()
        return self._link.run(work)

    # Writing

    def create(self, stream: str, identity: bytes) -> None:
        """Begin a stream, and hold it."""
        with self._link.turn:
            hold = self._writing()
            if not self._link.run(lambda db: hold.create(db, stream, identity)):
                raise UsageError(f"{self.location} holds a stream {stream!r} already", hint="open it instead")
        kill_point("create.after")

    def append_epoch(self, stream: str, number: int, document: bytes) -> None:
        """Record an epoch.  Done when a COMMIT said so: after one that did not, the same is recorded again."""
        kill_point("epoch.before")
        with self._link.turn:
            self._held(stream)
            patience = Patience(self._place)
            if not self._attempt(lambda db: self._record_epoch(db, stream, number, document), patience):
                while not self._attempt(lambda db: self._record_epoch_again(db, stream, number, document), patience):
                    pass
            self._in_doubt.discard(stream)
        kill_point("epoch.after")

    def _record_epoch(self, db: Db, stream: str, number: int, document: bytes) -> None:
        newest = self._locked_epoch(db, stream)
        if newest != number - 1:
            raise WriterFenced(f"epoch {number} does not follow {newest}", hint=AGAIN)
        db.execute("INSERT INTO engine_epochs VALUES (%s, %s, %s)", (stream, number, document))
        db.execute("UPDATE engine_streams SET epoch = %s WHERE stream = %s", (number, stream))
        self._commit(db)

    def _record_epoch_again(self, db: Db, stream: str, number: int, document: bytes) -> None:
        """After a COMMIT without an answer.  Where the epoch is there, its row is written anew: that COMMIT covers both."""
        query = "SELECT document FROM engine_epochs WHERE stream = %s AND number = %s"
        newest = self._locked_epoch(db, stream)
        if newest == number and db.execute(query, (stream, number)).fetchone() == (document,):
            db.execute("UPDATE engine_streams SET epoch = %s WHERE stream = %s", (number, stream))
            self._commit(db)
            return
        self._link.roll_back()
        self._record_epoch(db, stream, number, document)

    def _locked_epoch(self, db: Db, stream: str) -> int:
        """Begin a transaction that waits for every append on its way, in whatever session; the newest epoch."""
        db.execute("BEGIN")
        query = "SELECT claim, epoch FROM engine_streams WHERE stream = %s FOR UPDATE"
        claim, newest = db.execute(query, (stream,)).fetchone() or (0, 0)
        hold = self._writing()
        if claim != hold.claims[stream]:
            raise hold.why_fenced(db, stream)
        return int(newest)

    def append(self, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        """Write entries that follow the last one."""
        if not entries:
            return
        kill_point("append.before")
        with self._link.turn:
            hold = self._held(stream)
            if stream in self._in_doubt:
                raise OutcomeUnknown(
                    "an append before this one may or may not be written", hint="record a new epoch first"
                )
            self._ahead.stop()
            alone = len(entries) == 1 and stream not in self._hooks
            write = self._append_alone if alone else self._append_batch
            try:
                known = self._attempt(lambda db: write(db, stream, epoch, entries), Patience(self._place))
            except StoreUnavailable as error:
                if isinstance(error.__cause__, psycopg.DataError | psycopg.errors.ProgramLimitExceeded):
                    error.position = max(entries, key=_size).command_id
                raise
            if not known:
                self._in_doubt.add(stream)
                raise OutcomeUnknown(
                    f"{self.location} was lost at COMMIT: commands {entries[0].command_id} to {entries[-1].command_id} "
                    "may or may not be recorded",
                    hint="open again, and send the same commands with the same request ids",
                ) from self._link.last_error
            hold.reached[stream] = entries[-1].command_id
        kill_point("append.after")

    def _append_batch(self, db: Db, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        claim, newest, last = self._fence(db, stream)
        self._require_next(db, stream, epoch, entries, (claim, newest, last))
        with db.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.write(encode(stream, entries))
        if stream in self._hooks:
            hook = self._hooks[stream]
            carry_out(db, self._place, lambda cursor: hook(cursor, entries))
        kill_point("commit.before")
        self._commit(db)
        kill_point("commit.after")

    def require_hold(self, stream: str) -> None:
        """Look whether the claim to a stream is still ours."""
        with self._link.turn:
            self._link.run(lambda db: self._writing().prove(db, stream))
            self._writing()  # a new connection may have found that another writes now

    def attach(self, stream: str, hook: Hook) -> None:
        """Run this in the transaction of every append to the stream."""
        self._hooks[stream] = hook

    def transact(self, work: Callable[[SqlCursor], None]) -> None:
        """One transaction for tables of others; behind the fence of every stream that is held."""

        def write(db: Db) -> None:
            db.execute("BEGIN")
            for stream, claim in self._writing().claims.items():
                found = db.execute("SELECT claim FROM engine_streams WHERE stream = %s FOR SHARE", (stream,)).fetchone()
                if found != (claim,):
                    raise self._writing().why_fenced(db, stream)
            carry_out(db, self._place, work)
            kill_point("commit.before")
            self._commit(db)
            kill_point("commit.after")

        with self._link.turn:
            self._writing()
            if not self._attempt(write, Patience(self._place)):
                raise OutcomeUnknown(
                    f"{self.location} was lost at COMMIT: what was written may or may not be there", hint="do it again"
                ) from self._link.last_error

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement that only reads."""
        return self._read(lambda db: db.execute(postgresql_form(sql).encode(), parameters).fetchall())

    def has_table(self, name: str) -> bool:
        """Whether there is a table of this name on the search path."""
        return self._read(lambda db: bool(_row(db, "SELECT to_regclass(%s) IS NOT NULL", (name,))[0]))

    def _fence(self, db: Db, stream: str) -> tuple[int, int, int]:
        """Begin a transaction and hold the stream's row; its claim, epoch and last command.  One round trip."""
        query = self._fences.get(stream)
        if query is None:
            text = sql.SQL(_BEGIN).format(stream=sql.Literal(stream))
            query = self._fences[stream] = text.as_bytes(db)
        with db.execute(query) as cursor:
            cursor.nextset()
            return cursor.fetchone() or (0, 0, 0)

    def _append_alone(self, db: Db, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        (entry,) = entries
        claim = self._writing().claims[stream]
        kill_point("commit.before")
        self._committing = True
        with db.cursor() as cursor:
            cursor.execute(
                _LONE.encode(),
                (stream, Int8(claim), Int8(epoch), *_parameters(entry), stream, Int8(entry.command_id - 1)),
            )
            written = cursor.rowcount
        self._committing = False
        kill_point("commit.after")
        if not written:
            query = sql.SQL(_FENCE).format(stream=sql.Literal(stream))
            self._require_next(db, stream, epoch, entries, db.execute(query).fetchone() or (0, 0, 0))
            raise WriterPoisoned(f"{self.location} did not write the entry", position=entry.command_id, hint=AGAIN)

    def _require_next(
        self, db: Db, stream: str, epoch: int, entries: Sequence[Entry], found: tuple[int, int, int]
    ) -> None:
        claim, newest, last = found
        if claim != self._writing().claims[stream]:
            raise self._writing().why_fenced(db, stream)
        if epoch != newest or not epoch:
            raise WriterFenced(f"epoch {epoch} is not the newest, {newest}", hint=AGAIN)
        for follows, entry in enumerate(entries, last + 1):
            if entry.command_id != follows:
                message = f"command {entry.command_id} does not follow command {follows - 1}"
                raise WriterPoisoned(message, position=entry.command_id, hint=AGAIN)

    def _commit(self, db: Db) -> None:
        self._link.warnings.clear()
        self._committing = True
        db.execute("COMMIT")

    def _attempt(self, write: Callable[[Db], None], patience: Patience) -> bool:
        """Run a transaction, again while it is known not to be written; False where its COMMIT may or may not have been done."""
        while True:
            self._committing = False
            self._link.warnings.clear()
            try:
                db = self._link.db()
                self._writing()  # a new connection may have found that another writes now
                write(db)
                return not self._link.warnings
            except psycopg.Error as error:
                self._link.last_error = error
                if self._committing and (self._link.lost(error) or error.sqlstate in UNKNOWN):
                    self._link.drop()
                    return False
                self._again(error, patience)
            except BaseException as error:
                self._link.roll_back()
                if not isinstance(error, StoreUnavailable | UsageError):
                    self._stop(error)
                raise
            finally:
                self._committing = False

    def _again(self, error: psycopg.Error, patience: Patience) -> None:
        """After an error that left nothing written: return to try again, or raise what it means."""
        state = error.sqlstate or ""
        if state[:2] in ("23", "58"):
            self._link.roll_back()
            poisoned = WriterPoisoned(str(refusal(error, self._place)), hint=AGAIN)
            self._stop(poisoned)
            raise poisoned from error
        if state in RETRIED and patience.wait():
            self._link.roll_back()
            return
        try:
            self._link.wait_for_return(error, patience)
        except CorruptionError as damage:
            self._stop(damage)
            raise

    def _held(self, stream: str) -> Hold:
        """The hold, with a claim to this stream; UsageError where there is none."""
        hold = self._writing()
        if stream not in hold.claims and not self._link.run(lambda db: hold.claim(db, stream, takeover=False)):
            raise UsageError(f"{self.location} holds no stream {stream!r}", hint="create it first")
        return hold

    def _writing(self) -> Hold:
        self._refuse_elsewhere()
        if self._hold is None:
            raise UsageError(f"{self.location} was opened for read", hint="open it for write")
        if self._refusal is not None:
            said = self._refusal
            raise type(said)(said.message, position=said.position, hint=said.hint) from said.__cause__
        return self._hold

    def _stop(self, error: BaseException) -> None:
        """Take no more writes."""
        if self._refusal is not None:
            return
        if isinstance(error, WriterFenced | WriterPoisoned | CorruptionError):
            self._refusal = error
        else:
            self._refusal = WriterPoisoned(f"{self.location} takes no more writes after: {error!r}", hint=AGAIN)

    def _refuse_elsewhere(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self.location} is closed", hint="open it again")
        if os.getpid() != self._pid:
            raise WriterFenced(
                f"{self.location} was opened by process {self._pid}; a forked child may not use its parent's connection",
                hint="open the journal in the child",
            )

    def close(self) -> None:
        """Say that nobody writes here any more, and let the connections go."""
        if self._closed or os.getpid() != self._pid:
            return
        with self._link.turn:
            self._closed = True
            self._ahead.stop()
            self._link.close((lambda db: None) if self._hold is None else self._hold.release)

    def __del__(self) -> None:
        # A reader left to the collector.  A writer's claim stays: its session is gone, so it does not count as alive.
        if os.getpid() == self._pid and not self._closed:
            self._ahead.stop()
            self._link.close()


def _restored(known: weakref.ref[PostgresStore], db: Db) -> None:
    """Prove our claims on a new connection; where that fails, reads still go on and writes say why they do not."""
    store = known()
    if store is None or store._hold is None:
        return
    try:
        store._hold.restore(db)
        if store.durable and not store._link.durable:
            raise WriterPoisoned(
                f"{store.location} came back with its durability turned off", hint="run: recovery doctor"
            )
    except RecoveryError as error:
        store._stop(error)


def _row(db: Db, query: str, parameters: Any) -> tuple[Any, ...]:
    row = db.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return tuple(row)


_NUMBERS: Final = frozenset({"command_id", "received_at_ms", "epoch", "duration_ns", "recorded_at_ms"})


def _parameters(entry: Entry) -> list[object]:
    """An entry's fields in the order of COLUMNS, each of one type always, so that one prepared statement serves."""
    fields = entry._asdict()
    fields["request_key"] = entry.request_id
    return [Int8(fields[name]) if name in _NUMBERS else fields[name] for name in NAMES]


def _size(entry: Entry) -> int:
    return sum(len(field) for field in entry if isinstance(field, (bytes, str)))
