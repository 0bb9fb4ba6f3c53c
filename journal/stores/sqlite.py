"""``sqlite:PATH``: a journal in one SQLite file, durable by WAL mode with ``synchronous=FULL``.

Layout: stores/sql/sqlite/*.sql (sqlite_schema.py).  An entry's row id is ``stream * 2**40 + command_id``.

SQLite is reached through ``Connection`` (sqlite_connection.py).  Exactly one connection writes or checkpoints: releases
before 3.51.3 may damage a file where two do.  Readers open ``mode=ro``, which can do neither.  Nothing here opens the
database file itself: closing it would drop SQLite's own POSIX locks.

**Fail-stop.**  After the first I/O error nothing more is written: a second fsync may succeed although the first one lost the
pages.  SQLite checkpoints by itself only where it may ignore such an error, so the store checkpoints, before a batch.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import urllib.parse
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from journal import digest
from journal.errors import (
    ChecksumMismatch,
    CorruptionError,
    Gap,
    RecoveryError,
    StoreUnavailable,
    UsageError,
    WriterFenced,
    WriterPoisoned,
)
from journal.files import FileOps, LocalFiles, kill_point
from journal.records import Entry
from journal.store import Hook, SqlCursor, SqlJournalStore
from journal.stores.sqlite_connection import Connection, SqliteFailure, StandardConnection, sync_wal
from journal.stores.sqlite_cursor import SqliteCursor, bound
from journal.stores.sqlite_rows import RESTORE, entries_of, parameters_of
from journal.stores.sqlite_schema import APPLICATION_ID, migrations, schema_version, wal_reset_bug
from journal.stores.writer_lock import WriterLock

BUSY_TIMEOUT_MS: Final = 5000
CACHE_KIB: Final = 64 * 1024
CHECKPOINT_COMMITS: Final = 1000
CHECKPOINT_GROWTH_PAGES: Final = 2000
FIND_MAX: Final = 500

_STREAM_SHIFT: Final = 40
_COMMAND_MASK: Final = 2**_STREAM_SHIFT - 1
_FULL: Final = 2

Connect = Callable[[str], Connection]

# What an entry says of its place must be where it lies; else the id comes back as NULL, which is damage.
_IS_PLACED: Final = f"stream = position >> {_STREAM_SHIFT} AND command_id = position & {_COMMAND_MASK}"
_PLACED_ID: Final = f"CASE WHEN {_IS_PLACED} THEN command_id END"
_COLUMNS: Final = ", ".join([_PLACED_ID, *Entry._fields[1:]])
_PAGE: Final = f"SELECT {_COLUMNS} FROM entries WHERE position > ? AND position <= ? ORDER BY position"
_NEWEST: Final = f"SELECT {_COLUMNS} FROM entries WHERE position > ? AND position <= ? ORDER BY position DESC LIMIT ?"
_LAST: Final = "SELECT position FROM entries WHERE position >= ? AND position <= ? ORDER BY position DESC LIMIT 1"
_FIND: Final = "SELECT position, request_key FROM entries WHERE stream = ? AND request_key IN ({})"
_KEYS_SINCE: Final = (
    "SELECT request_key FROM entries WHERE position > ? AND position <= ? AND received_at_ms >= ? ORDER BY position"
)
# The stream's number stands in the text: every parameter of an executemany is bound for every row.
_INSERT: Final = f"INSERT INTO entries VALUES (?, {{stream}}{', ?' * len(Entry._fields)})"

_REFUSED: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class SqliteStore(SqlJournalStore):
    """Streams in one SQLite file.  Opened by ``open_for_read`` or ``open_for_write``; usable from any thread."""

    dialect = "sqlite"

    def __init__(self, path: str, db: Connection, lock: WriterLock | None) -> None:
        self.location = f"sqlite:{path}"
        self._path = path
        self._db = db
        self._lock = lock
        self._pid = os.getpid()
        self._turn = threading.RLock()
        self._numbers: dict[str, int] = {}
        self._hooks: dict[str, Hook] = {}
        self._closed = False
        self._refusal: RecoveryError | None = None
        self._commits = 0
        self._pages = 0
        self.durable = False
        _open.add(self)

    @classmethod
    def open_for_read(cls, path: str, connect: Connect = StandardConnection) -> SqliteStore:
        """Look at a journal.  StoreUnavailable where there is none, or where its schema is older than this release's."""
        store = cls(path, _connect_to_read(path, connect), None)
        with store._closing_on_error():
            found = schema_version(store._db, store.location)
            wanted = len(migrations())
            if found != wanted:
                raise StoreUnavailable(
                    f"{store.location} has the schema of an older release",
                    expected=f"version {wanted}",
                    found=f"version {found}",
                    hint=f"run: recovery migrate --journal {store.location}",
                )
            store._set_up()
        return store

    @classmethod
    def open_for_write(
        cls, path: str, connect: Connect = StandardConnection, *, files: FileOps | None = None
    ) -> SqliteStore:
        """Hold a journal against every other writer; make it where it is missing, and bring its schema up to date."""
        folder = os.path.dirname(os.path.abspath(path))
        files = files or LocalFiles()
        try:
            files.make_directories(folder)
        except OSError as error:
            raise _unwritable(path, error) from error
        lock = WriterLock(path)
        try:
            store = cls(path, connect(_uri(path, "rwc")), lock)
        except SqliteFailure as failure:
            lock.release()
            raise _unavailable(f"sqlite:{path}", failure) from failure.__cause__
        with store._closing_on_error():
            found = schema_version(store._db, store.location)
            store._db.execute("PRAGMA journal_mode = WAL")
            store._set_up()
            store._migrate(found)
            # SQLite syncs the folder when it first syncs a new -wal; the rest, the lock among it, is ours to sync.
            files.sync_directory(folder)
            store._pages = store._page_count()
        return store

    def identity(self, stream: str) -> bytes | None:
        """The stream's identity, or None."""
        found = self._streams().get(stream)
        return None if found is None else found[1]

    def epochs(self, stream: str) -> list[tuple[int, bytes]]:
        """All epochs by number."""
        number = self._number(stream)
        rows = self._read("SELECT number, document FROM epochs WHERE stream = ? ORDER BY number", (number,))
        for epoch, document in rows:
            if type(document) is not bytes:
                raise CorruptionError("it is not the bytes that were written", position=f"epoch {epoch}", hint=RESTORE)
        return rows

    def last(self, stream: str) -> Entry | None:
        """The last entry, or None."""
        last = self._last_id(self._number(stream))
        page = self.page(stream, last - 1, last)
        return page[0] if page else None

    def page(self, stream: str, after: int, until: int) -> list[Entry]:
        """The entries with ``after < command_id <= until``.  CorruptionError names the first that cannot be read."""
        after, until = max(after, 0), min(until, _COMMAND_MASK)
        if after >= until:
            return []
        base = self._number(stream) << _STREAM_SHIFT
        try:
            return entries_of(self._read(_PAGE, (base + after, base + until)))
        except CorruptionError as error:
            if until - after == 1:
                error.position = until
                raise
        # By halves, the first half first: what stops it is the first entry that cannot be read.
        middle = (after + until) // 2
        return self.page(stream, after, middle) + self.page(stream, middle, until)

    def newest(self, stream: str, limit: int) -> list[Entry]:
        """The last entries, in one query."""
        base = self._number(stream) << _STREAM_SHIFT
        try:
            return entries_of(self._read(_NEWEST, (base, base + _COMMAND_MASK, max(limit, 0))))[::-1]
        except CorruptionError:
            return super().newest(stream, limit)  # which names the entry

    def find(self, stream: str, request_keys: Sequence[bytes]) -> list[Entry]:
        """The entries with these request keys."""
        number = self._number(stream)
        keys = list(dict.fromkeys(request_keys))
        found: list[Entry] = []
        for at in range(0, len(keys), FIND_MAX):
            some = keys[at : at + FIND_MAX]
            for position, key in self._read(_FIND.format(", ".join("?" * len(some))), (number, *some)):
                # A damaged index may give anything, NULL among it, for the row it points to.
                command_id = position & _COMMAND_MASK if type(position) is int else 0
                page = self.page(stream, command_id - 1, command_id)
                if not page or page[0].request_key != key:
                    # An index that lies is worse than none: a command could be applied twice.
                    raise CorruptionError(
                        f"the index of requests in {self.location} does not match the entries",
                        position=command_id,
                        hint=RESTORE,
                    )
                found += page
        return found

    def request_keys(self, stream: str, since_ms: int) -> Iterator[bytes]:
        """The request keys of entries received at or after a time, a page at a time."""
        base = self._number(stream) << _STREAM_SHIFT
        last = self._last_id(base >> _STREAM_SHIFT)
        for after in range(0, last, 10_000):
            for (key,) in self._read(_KEYS_SINCE, (base + after, base + min(after + 10_000, last), since_ms)):
                yield key

    def make_durable(self) -> None:
        """Sync the -wal: what a killed writer left there can be read, and may never have been synced.

        No lock of SQLite's is on that file, so closing it drops none.
        """
        if self._lock is None:
            sync_wal(self._path)

    def settings(self) -> dict[str, str]:
        """SQLite's version and what it says of its own durability."""
        version = str(self._pragma("SELECT sqlite_version()"))
        return {
            "path": self._path,
            "sqlite": version,
            "journal_mode": str(self._pragma("PRAGMA journal_mode")),
            "synchronous": {0: "OFF", 1: "NORMAL", _FULL: "FULL", 3: "EXTRA"}[self._pragma("PRAGMA synchronous")],
            "schema": str(self._pragma("PRAGMA user_version")),
            "wal_reset_bug": wal_reset_bug(version),
        }

    def check(self) -> None:
        """SQLite's own check: pages, layout, and every entry of the index against its row.

        The whole file is read in one transaction: what a writer adds meanwhile stays in the -wal until it has ended.
        """
        ((found,),) = self._read("PRAGMA integrity_check(1)")
        if found != "ok":
            raise CorruptionError(f"SQLite finds {found}", position=self.location, hint=RESTORE)

    def create(self, stream: str, identity: bytes) -> None:
        """Begin a stream."""
        with self._transaction() as db:
            numbers = self._streams()
            if stream in numbers:
                raise UsageError(f"{self.location} holds a stream {stream!r} already", hint="open it instead")
            number = len(numbers) + 1
            checksum = _stream_checksum(number, stream, identity)
            db.execute("INSERT INTO streams VALUES (?, ?, ?, ?)", (number, stream, identity, checksum))
        kill_point("create.after")

    def append_epoch(self, stream: str, number: int, document: bytes) -> None:
        """Record an epoch."""
        kill_point("epoch.before")
        with self._transaction() as db:
            place, newest, _ = self._end(stream)
            if number != newest + 1:
                raise WriterFenced(f"epoch {number} does not follow {newest}", hint=_AGAIN)
            db.execute("INSERT INTO epochs VALUES (?, ?, ?)", (place, number, document))
        kill_point("epoch.after")

    def append(self, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        """Write entries that follow the last one."""
        if not entries:
            return
        kill_point("append.before")
        self._checkpoint_when_due()
        with self._transaction(entries) as db:
            place, newest, last = self._end(stream)
            if epoch != newest or not epoch:
                raise WriterFenced(f"epoch {epoch} is not the newest, {newest}", hint=_AGAIN)
            for follows, entry in enumerate(entries, last + 1):
                if entry[0] != follows:
                    message = f"command {entry[0]} does not follow command {follows - 1}"
                    raise WriterPoisoned(message, position=entry[0], hint=_AGAIN)
            db.executemany(_INSERT.format(stream=place), parameters_of(entries, place << _STREAM_SHIFT))
            if stream in self._hooks:
                self._hooks[stream](SqliteCursor(db), entries)
            kill_point("commit.before")
        kill_point("commit.after")
        self._commits += 1
        kill_point("append.after")

    def attach(self, stream: str, hook: Hook) -> None:
        """Run this in the transaction of every append to the stream."""
        self._hooks[stream] = hook

    def transact(self, work: Callable[[SqlCursor], None]) -> None:
        """One transaction for tables of others."""
        with self._transaction() as db:
            work(SqliteCursor(db))
            kill_point("commit.before")
        kill_point("commit.after")

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement that only reads."""
        return self._read(sql, bound(parameters))

    def has_table(self, name: str) -> bool:
        """Whether there is a table of this name; SQLite does not tell large letters from small ones."""
        return bool(self._read("SELECT 1 FROM sqlite_master WHERE lower(name) = lower(?)", (name,)))

    def close(self) -> None:
        """Let the file and the lock go."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        try:
            with self._turn, self._mapped():
                self._db.close()
        finally:
            _open.discard(self)
            if self._lock is not None:
                self._lock.release()

    # Reading

    def _read(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        self._refuse_elsewhere()
        with self._turn, self._mapped():
            return self._db.execute(sql, parameters)

    def _pragma(self, sql: str) -> Any:
        return self._read(sql)[0][0]

    def _page_count(self) -> int:
        return int(self._pragma("PRAGMA page_count"))

    def _number(self, stream: str) -> int:
        """A stream's number; 0, which no stream has, where there is none."""
        if stream not in self._numbers:
            found = self._streams().get(stream)
            if found is None:
                return 0
            self._numbers[stream] = found[0]
        return self._numbers[stream]

    def _streams(self) -> dict[str, tuple[int, bytes]]:
        """Number and identity of each stream by name.

        All are read and proven each time: a journal whose name is damaged must not be taken for one that never was.
        """
        found = {}
        # A stream with entries has an epoch.  Asked first: another process may be creating a stream just now.
        ((written,),) = self._read("SELECT coalesce(max(stream), 0) FROM epochs")
        rows = self._read("SELECT stream, name, identity, checksum FROM streams ORDER BY stream")
        if len(rows) < written:
            raise Gap(
                f"{self.location} holds entries of it", position=f"identity of stream number {written}", hint=RESTORE
            )
        for number, (stored_as, name, identity, checksum) in enumerate(rows, 1):
            shape = tuple(map(type, (name, identity)))
            if stored_as != number or shape != (str, bytes) or checksum != _stream_checksum(number, name, identity):
                raise ChecksumMismatch(
                    f"{self.location} does not hold what was written",
                    position=f"identity of stream number {number}",
                    hint=RESTORE,
                )
            found[name] = (number, identity)
        return found

    def _last_id(self, number: int) -> int:
        base = number << _STREAM_SHIFT
        rows = self._read(_LAST, (base, base + _COMMAND_MASK))
        return int(rows[0][0]) - base if rows else 0

    def _end(self, stream: str) -> tuple[int, int, int]:
        """A stream's number, newest epoch and last command id, as the open transaction sees them."""
        number = self._number(stream)
        if not number:
            raise UsageError(f"{self.location} holds no stream {stream!r}", hint="create it first")
        newest = self._pragma_with("SELECT coalesce(max(number), 0) FROM epochs WHERE stream = ?", number)
        return number, newest, self._last_id(number)

    def _pragma_with(self, sql: str, parameter: object) -> int:
        return int(self._read(sql, (parameter,))[0][0])

    # Writing

    @contextmanager
    def _transaction(self, entries: Sequence[Entry] = ()) -> Iterator[Connection]:
        """One transaction, committed at the end of the block; an error undoes it and decides whether the store goes on."""
        self._refuse_elsewhere()
        with self._turn:
            self._refuse_to_write()
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except SqliteFailure as failure:
                raise self._undo(self._verdict(failure, entries)) from failure.__cause__
            except BaseException as error:
                undone = self._undo(error)
                if undone is error:
                    raise
                raise undone from error

    def _undo(self, error: BaseException) -> BaseException:
        """Roll back; the error to raise.  Unless the store may go on, every later write is refused."""
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except SqliteFailure as failure:
            error = _poisoned(self.location, failure)
        if not isinstance(error, (StoreUnavailable, UsageError)):
            self._stop(error)
        return error

    def _stop(self, error: BaseException) -> None:
        if self._refusal is None:
            kind = WriterFenced if isinstance(error, WriterFenced) else WriterPoisoned
            self._refusal = kind(f"{self.location} takes no more writes after: {error}", hint=_AGAIN)

    def _verdict(self, failure: SqliteFailure, entries: Sequence[Entry]) -> RecoveryError:
        if failure.code in _DAMAGED:
            return _damaged(self.location, failure)
        if failure.code not in _REFUSED:
            return _poisoned(self.location, failure)
        refusal = _unavailable(self.location, failure)
        if failure.code == sqlite3.SQLITE_TOOBIG and entries:
            refusal.position = max(entries, key=_size).command_id
            refusal.hint = "the command's record is larger than SQLite stores; make it smaller"
        return refusal

    def _checkpoint_when_due(self) -> None:
        """Copy the -wal into the database once enough was written; an error stops the store before the next batch."""
        self._refuse_elsewhere()
        with self._turn:
            self._refuse_to_write()
            pages = self._page_count()
            if self._commits < CHECKPOINT_COMMITS and pages - self._pages < CHECKPOINT_GROWTH_PAGES:
                return
            try:
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            except SqliteFailure as failure:
                error = self._verdict(failure, ())
                raise self._undo(error) from failure.__cause__
            self._commits, self._pages = 0, pages

    def _refuse_to_write(self) -> None:
        if self._lock is None:
            raise UsageError(f"{self.location} was opened for read", hint="open it for write")
        if self._refusal is not None:
            raise type(self._refusal)(self._refusal.message, hint=_AGAIN) from self._refusal.__cause__

    def _refuse_elsewhere(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self.location} is closed", hint="open it again")
        if os.getpid() != self._pid:
            raise WriterFenced(
                f"{self.location} was opened by process {self._pid}; a forked child may not use its parent's connection",
                hint="open the journal in the child",
            )

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        """SqliteFailure as the contract's errors of reading.  A writer that meets an I/O error or damage here stops too."""
        try:
            yield
        except SqliteFailure as failure:
            known = _damaged if failure.code in _DAMAGED else _unavailable
            error = known(self.location, failure)
            if failure.code not in _REFUSED:
                self._stop(error)
            raise error from failure.__cause__

    # Opening

    @contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        try:
            with self._mapped():
                yield
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise _unwritable(self._path, error) from error
            raise

    def _set_up(self) -> None:
        for pragma in (
            "synchronous = FULL",
            # On macOS fsync alone does not reach the disk.
            "fullfsync = ON",
            "wal_autocheckpoint = 0",
            f"busy_timeout = {BUSY_TIMEOUT_MS}",
            f"cache_size = -{CACHE_KIB}",
        ):
            self._db.execute(f"PRAGMA {pragma}")
        mode, synchronous = self._pragma("PRAGMA journal_mode"), self._pragma("PRAGMA synchronous")
        self.durable = mode == "wal" and synchronous >= _FULL

    def _migrate(self, found: int) -> None:
        # An empty transaction too: it is how an unwritable file is found out before a command depends on it.
        with self._transaction():
            pass
        for version, script in enumerate(migrations()[found:], found + 1):
            kill_point("migrate.before")
            with self._transaction() as db:
                for statement in script.split(";\n"):
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                db.execute(f"PRAGMA user_version = {version}")
            kill_point("migrate.after")


_AGAIN: Final = "close this writer, and open again"

_open: weakref.WeakSet[SqliteStore] = weakref.WeakSet()
_left_open: list[SqliteStore] = []


def _leave_open_in_child() -> None:
    # Collecting a connection closes it, and closing checkpoints: in a forked child that would be a second writer.
    _left_open.extend(_open)


os.register_at_fork(after_in_child=_leave_open_in_child)


def _stream_checksum(number: int, name: str, identity: bytes) -> bytes:
    return digest.hash_parts(number.to_bytes(8, "big"), name.encode(), identity)


def _size(entry: Entry) -> int:
    return sum(len(field) for field in entry if isinstance(field, (bytes, str)))


def _uri(path: str, mode: str) -> str:
    return f"file:{urllib.parse.quote(os.fsencode(os.path.abspath(path)))}?mode={mode}"


def _connect_to_read(path: str, connect: Connect) -> Connection:
    if not os.path.exists(path):
        raise StoreUnavailable(
            f"there is no journal at {path}",
            hint="check --journal; a runtime makes the journal when it is first opened",
        )
    try:
        return connect(_uri(path, "ro"))
    except SqliteFailure as failure:
        raise _unavailable(f"sqlite:{path}", failure) from failure.__cause__


def _unavailable(location: str, failure: SqliteFailure) -> StoreUnavailable:
    return StoreUnavailable(f"{location}: {failure}", hint="check the disk, its space and the file's permissions")


def _unwritable(path: str, error: OSError) -> StoreUnavailable:
    return StoreUnavailable(
        f"{path} cannot be opened for write: {error.filename or path}: {error.strerror}",
        hint="check the folder's permissions, or name another path",
    )


def _damaged(location: str, failure: SqliteFailure) -> CorruptionError:
    return CorruptionError(str(failure), position=location, hint=RESTORE)


def _poisoned(location: str, failure: SqliteFailure) -> WriterPoisoned:
    return WriterPoisoned(f"{location}: {failure}; what is on disk is unknown", hint=_AGAIN)


def schema_state(path: str) -> tuple[int, int]:
    """The schema version found in a file and the one wanted.  StoreUnavailable, UsageError, NewerSchema."""
    db = _connect_to_read(path, StandardConnection)
    try:
        return schema_version(db, f"sqlite:{path}"), len(migrations())
    except SqliteFailure as failure:
        known = _damaged if failure.code in _DAMAGED else _unavailable
        raise known(f"sqlite:{path}", failure) from failure.__cause__
    finally:
        db.close()
