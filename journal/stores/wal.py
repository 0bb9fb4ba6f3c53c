"""``wal:DIR``: a journal in segment files, one frame for each append, durable by one fdatasync into space zeroed ahead.

The folder: ``<number>.wal`` (wal_frames.py), ``<number>.index`` of each but the last (wal_index.py), ``durable``
(wal_mark.py), ``writer.lock`` (writer_lock.py), and ``*.torn`` copies of what was cut (wal_tail.py).

**Fail-stop.**  After the first I/O error of a write nothing more is written; a second fsync may succeed although the first
lost the pages.  A full disk is met before a frame is written, while its space is zeroed, and the store goes on.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Protocol

from journal.errors import (
    CorruptionError,
    RecoveryError,
    StoreUnavailable,
    TornTail,
    UsageError,
    WriterFenced,
    WriterPoisoned,
)
from journal.files import FileOps, LocalFiles, kill_point
from journal.records import Entry
from journal.store import JournalStore
from journal.stores import wal_writer
from journal.stores.wal_check import check_log
from journal.stores.wal_frames import ENTRIES, EPOCH, STREAM, pack_entries, pack_epoch, pack_stream
from journal.stores.wal_log import Log, Stream
from journal.stores.wal_tail import Torn
from journal.stores.wal_writer import LogWriter, NoRoom
from journal.stores.writer_lock import WriterLock

_AGAIN: Final = "close this writer, and open again"
_PAGE_MAX: Final = 2**63 - 1


class Hold(Protocol):
    """What keeps other writers out, until released."""

    def release(self) -> None:
        """Let another writer in."""


class WalStore(JournalStore):
    """Streams in a folder of segments.  Opened by ``open_for_read`` or ``open_for_write``; usable from any thread."""

    def __init__(self, path: str, log: Log, writer: LogWriter | None, hold: Hold | None) -> None:
        self.location = f"wal:{path}"
        self.durable = True
        self._log = log
        self._writer = writer
        self._hold = hold
        self._pid = os.getpid()
        self._turn = threading.RLock()
        self._closed = False
        self._refusal: RecoveryError | None = None
        self._absent: tuple[str, set[bytes]] = ("", set())

    @classmethod
    def open_for_read(cls, path: str, *, files: FileOps | None = None) -> WalStore:
        """Look at a journal.  StoreUnavailable where there is none; a torn tail is left out."""
        log = Log(path, files or LocalFiles())
        with _reading(f"wal:{path}"):
            log.load(limited=True)
        log.require_there()
        return cls(path, log, None, None)

    @classmethod
    def open_for_write(
        cls, path: str, *, files: FileOps | None = None, lock: Callable[[str], Hold] = WriterLock
    ) -> WalStore:
        """Hold a journal against every other writer; make it where it is missing.  A torn tail is cut by the first write."""
        files = files or LocalFiles()
        log = Log(path, files)
        try:
            files.make_directories(path)
        except OSError as error:
            raise _unavailable(f"wal:{path}", error) from error
        hold = lock(f"{path}/writer")
        try:
            with _reading(f"wal:{path}"):
                log.load(limited=False)
                writer = LogWriter(log)
        except NoRoom as error:
            hold.release()
            raise _unavailable(f"wal:{path}", error.__cause__) from error.__cause__
        except BaseException:
            hold.release()
            raise
        return cls(path, log, writer, hold)

    @property
    def torn(self) -> Torn | None:
        """What lies behind the last whole frame and was never acknowledged; the next write cuts it."""
        return self._log.torn

    def cut_torn_tail(self) -> str | None:
        """Cut what is torn now; the path of the copy, or None where nothing is."""
        with self._writing() as writer:
            return writer.cut_tail()

    # Reading

    def identity(self, stream: str) -> bytes | None:
        """The stream's identity, or None."""
        with self._looking() as log:
            found = log.streams.get(stream)
            return None if found is None else found.identity

    def epochs(self, stream: str) -> list[tuple[int, bytes]]:
        """All epochs by number."""
        with self._looking() as log:
            found = log.streams.get(stream)
            places = [] if found is None else found.epochs
            return [(number, log.epoch(segment, offset)) for number, segment, offset in places]

    def last(self, stream: str) -> Entry | None:
        """The last entry, or None."""
        with self._looking() as log:
            found = log.streams.get(stream)
            return None if found is None else log.last(found)

    def page(self, stream: str, after: int, until: int) -> list[Entry]:
        """The entries with ``after < command_id <= until``."""
        after, until = max(after, 0), min(until, _PAGE_MAX)
        with self._looking() as log:
            found = log.streams.get(stream)
            return [] if found is None or after >= until else log.page(found, after, until)

    def find(self, stream: str, request_keys: Sequence[bytes]) -> list[Entry]:
        """The entries with these request keys."""
        with self._looking() as log:
            found = log.streams.get(stream)
            entries = [] if found is None else log.find(found, request_keys)
            if self._writer is not None:
                # Whoever asks before appending need not be asked about again.
                self._absent = (stream, set(request_keys).difference(entry[1] for entry in entries))
            return entries

    def request_keys(self, stream: str, since_ms: int) -> Iterator[bytes]:
        """The request keys of entries received at or after a time."""
        with self._looking() as log:
            found = log.streams.get(stream)
        if found is not None:
            with _reading(self.location):
                yield from log.request_keys(found, since_ms)

    def make_durable(self) -> None:
        """Nothing: a reader ends at the mark (wal_mark.py), and a writer syncs what it finds before it shows it."""

    def settings(self) -> dict[str, str]:
        """How it is made durable, how far it is, and whether a torn tail waits to be cut."""
        with self._looking() as log:
            contents = log.segments[-1]
            return {
                "path": log.folder,
                "sync": "fdatasync of space zeroed ahead, once for each append",
                "segments": str(len(log.segments)),
                "segment_bytes": str(wal_writer.SEGMENT_BYTES),
                "ends_at": f"{log.segment_path(contents.number)}, byte {contents.end}",
                "torn_tail": "none" if log.torn is None else str(log.torn),
            }

    def check(self) -> None:
        """Every byte of every segment, and every index against its segment.  TornTail where the last batch is torn."""
        with self._looking() as log:
            check_log(log)
            if log.torn is not None:
                raise TornTail(
                    f"a batch of {log.torn.size} bytes was never wholly written, nor acknowledged",
                    position=f"{log.torn.path}, byte {log.torn.offset}",
                    hint=f"run: recovery check --repair --journal {self.location}; the next writer does so by itself",
                )

    # Writing

    def create(self, stream: str, identity: bytes) -> None:
        """Begin a stream."""
        with self._writing() as writer:
            if stream in self._log.streams:
                raise UsageError(f"{self.location} holds a stream {stream!r} already", hint="open it instead")
            number = len(self._log.streams) + 1
            payload = pack_stream(stream, identity)
            writer.append(STREAM, payload, stream=number, count=1, epoch=0, first=0, starts={}, newest_ms=0)
        kill_point("create.after")

    def append_epoch(self, stream: str, number: int, document: bytes) -> None:
        """Record an epoch."""
        kill_point("epoch.before")
        with self._writing() as writer:
            found = self._stream_to_write(stream)
            newest = len(found.epochs)
            if number != newest + 1:
                raise WriterFenced(f"epoch {number} does not follow {newest}", hint=_AGAIN)
            payload = pack_epoch(document)
            writer.append(EPOCH, payload, stream=found.number, count=1, epoch=number, first=0, starts={}, newest_ms=0)
        kill_point("epoch.after")

    def append(self, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        """Write entries that follow the last one."""
        if not entries:
            return
        kill_point("append.before")
        with self._writing() as writer:
            found = self._stream_to_write(stream)
            newest = len(found.epochs)
            if epoch != newest or not epoch:
                raise WriterFenced(f"epoch {epoch} is not the newest, {newest}", hint=_AGAIN)
            first = found.last_id + 1
            for follows, entry in enumerate(entries, first):
                if entry[0] != follows:
                    message = f"command {entry[0]} does not follow command {follows - 1}"
                    raise WriterPoisoned(message, position=entry[0], hint=_AGAIN)
            payload, starts = pack_entries(entries)
            keys = [entry[1] for entry in entries]
            fresh = dict(zip(keys, starts, strict=True))
            self._refuse_recorded(stream, found, keys, fresh)
            newest_ms = max(entry[4] for entry in entries)
            writer.append(
                ENTRIES, payload, stream=found.number, count=len(entries), epoch=epoch, first=first, starts=fresh,
                newest_ms=newest_ms,
            )  # fmt: skip
        kill_point("append.after")

    def close(self) -> None:
        """Let the files and the lock go."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        try:
            if self._writer is not None:
                with self._turn, _reading(self.location):
                    self._writer.close(is_sound=self._refusal is None)
        finally:
            if self._hold is not None:
                self._hold.release()

    def _refuse_recorded(self, stream: str, found: Stream, keys: list[bytes], fresh: dict[bytes, int]) -> None:
        absent = self._absent[1] if self._absent[0] == stream else set()
        self._absent = ("", set())
        asked = keys if not absent else [key for key in keys if key not in absent]
        known = self._log.recorded(found, asked)
        if known or len(fresh) != len(keys):
            twice = known or [key for number, key in enumerate(keys) if key in keys[:number]]
            raise WriterPoisoned(f"request {twice[0].hex()} is recorded already", hint=_AGAIN)

    def _stream_to_write(self, stream: str) -> Stream:
        found = self._log.streams.get(stream)
        if found is None:
            raise UsageError(f"{self.location} holds no stream {stream!r}", hint="create it first")
        return found

    @contextmanager
    def _looking(self) -> Iterator[Log]:
        self._refuse_elsewhere()
        with self._turn:
            try:
                with _reading(self.location):
                    if self._writer is None:
                        self._log.refresh()
                    yield self._log
            except (StoreUnavailable, CorruptionError) as error:
                if self._writer is not None and isinstance(error.__cause__, OSError):
                    self._stop(error)
                raise

    @contextmanager
    def _writing(self) -> Iterator[LogWriter]:
        """One write; an error decides whether the store goes on."""
        self._refuse_elsewhere()
        with self._turn:
            if self._writer is None:
                raise UsageError(f"{self.location} was opened for read", hint="open it for write")
            if self._refusal is not None:
                raise type(self._refusal)(self._refusal.message, hint=_AGAIN) from self._refusal.__cause__
            try:
                yield self._writer
            except NoRoom as error:
                raise _unavailable(self.location, error.__cause__) from error.__cause__
            except OSError as error:
                poisoned = WriterPoisoned(f"{self.location}: {error}; what is on disk is unknown", hint=_AGAIN)
                self._stop(poisoned)
                raise poisoned from error
            except BaseException as error:
                if not isinstance(error, (StoreUnavailable, UsageError)):
                    self._stop(error)
                raise

    def _stop(self, error: BaseException) -> None:
        if self._refusal is None:
            kind = WriterFenced if isinstance(error, WriterFenced) else WriterPoisoned
            self._refusal = kind(f"{self.location} takes no more writes after: {error}", hint=_AGAIN)

    def _refuse_elsewhere(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self.location} is closed", hint="open it again")
        if os.getpid() != self._pid:
            raise WriterFenced(
                f"{self.location} was opened by process {self._pid}; a forked child may not use its parent's files",
                hint="open the journal in the child",
            )


def _unavailable(location: str, error: BaseException | None) -> StoreUnavailable:
    return StoreUnavailable(f"{location}: {error}", hint="check the disk, its space and the folder's permissions")


@contextmanager
def _reading(location: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unavailable(location, error) from error
