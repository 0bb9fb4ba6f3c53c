"""A ``wal:`` folder, written: one frame at a time, each synced before the next; segments begun, filled with zeros, sealed.

**What a failure leaves.**  No space for more zeros, an index or a new segment: nothing was written that counts, and the
writer goes on (``NoRoom``).  Any other OSError is not caught here: what is on disk is then unknown.
"""

from __future__ import annotations

import errno
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from journal.files import NewFile, RandomAccessFile, kill_point
from journal.stores.wal_frames import HEAD_BYTES, Head, SegmentHead, make_frame, unpack_head
from journal.stores.wal_index import build_index
from journal.stores.wal_log import Log
from journal.stores.wal_mark import MARK_NAME, Mark
from journal.stores.wal_segments import index_name, segment_name
from journal.stores.wal_tail import copy_aside

SEGMENT_BYTES: Final = 64 * 2**20
"""A segment is sealed once the next frame would end beyond so many bytes; a larger frame has a segment of its own."""

ZEROED_BYTES: Final = 4 * 2**20
"""So many zeros are written, and synced, at a time ahead of the frames."""

_NEW: Final = ".new"
_LEFT_OVER: Final = re.compile(r"\d{20}\.(wal|index)\.new")
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class NoRoom(Exception):
    """There is no space on the disk; nothing was written that counts.  The OSError is the ``__cause__``."""


class LogWriter:
    """Writes a log that was loaded without limit, under the writer's lock."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self._files = log.files
        self._boot = log.files.boot()
        for name in self._files.names(log.folder):
            if _LEFT_OVER.fullmatch(name):
                self._files.unlink(log.path(name))
        for number, data in log.rebuilt.items():
            self._publish(index_name(number), data)
        if not log.segments:
            self._begin_segment(1, secrets.token_bytes(16), None)
        self._file = self._files.open_at(log.path(segment_name(log.segments[-1].number)), "w")
        try:
            self._zeroed_to = 0
            self._settle()
            self._mark: RandomAccessFile = self._open_mark()
        except BaseException:
            self._file.close()
            raise

    def _settle(self) -> None:
        """Make what was found durable: after a killed process, the last frame may be in the page cache alone.

        After an fsync that failed the cache may hold it as clean although it is not on the disk, so it is written again.
        """
        contents, mark = self.log.open_segment, self.log.mark
        # Zeros are written again too, before the first frame: those found may be in the cache alone.
        self._zeroed_to = contents.end
        covered = mark is not None and (
            mark.boot != self._boot or (mark.segment, mark.offset) >= (contents.number, contents.end)
        )
        if not covered:
            offset = self._last_frame()
            self._file.write_at(self._file.read_at(contents.end - offset, offset), offset)
        self._file.sync()
        self._files.sync_directory(self.log.folder)

    def _last_frame(self) -> int:
        contents = self.log.open_segment
        offsets = [held.last_frame for held in contents.held.values()] + [record.offset for record in contents.records]
        return max(offsets, default=0)

    def _open_mark(self) -> RandomAccessFile:
        path = self.log.path(MARK_NAME)
        if MARK_NAME not in self._files.names(self.log.folder):
            self._files.create(path).close()
            self._files.sync_directory(self.log.folder)
        file = self._files.open_at(path, "w")
        file.write_at(self._mark_now(), 0)
        return file

    def _mark_now(self) -> bytes:
        contents = self.log.segments[-1]
        return Mark(self._boot, contents.number, contents.end).pack()

    # A frame

    def cut_tail(self) -> str | None:
        """Cut a torn tail, before anything is written; the path of its copy, or None where there is none."""
        torn = self.log.torn
        if torn is None:
            return None
        with _growing():
            path = copy_aside(self._files, self.log.folder, self._file, torn)
        kill_point("wal.tail.copied")
        self._zero(torn.offset + torn.size)
        kill_point("wal.tail.zeroed")
        self.log.torn = None
        return path

    def append(
        self, kind: int, payload: bytes, *, stream: int, count: int, epoch: int, first: int,
        starts: dict[bytes, int], newest_ms: int,
    ) -> None:  # fmt: skip
        """Write a frame; it is durable on return.  ``starts``: where in the payload the entry of each request begins."""
        self.cut_tail()
        self._make_room(HEAD_BYTES + len(payload))
        contents = self.log.open_segment
        offset = contents.end
        frame = make_frame(
            kind, payload, stream=stream, count=count, epoch=epoch, first=first, segment=contents.number, offset=offset,
            previous=contents.seal,
        )  # fmt: skip
        kill_point("commit.before")
        self._file.write_at(frame, offset)
        kill_point("wal.frame.written")
        self._file.sync()
        kill_point("commit.after")
        head = unpack_head(frame, 0, contents.number, offset)
        assert isinstance(head, Head)
        begins = offset + HEAD_BYTES
        contents.add_frame(head, {key: begins + at for key, at in starts.items()}, newest_ms)
        self.log.register()
        self._mark.write_at(self._mark_now(), 0)

    # Space

    def _make_room(self, size: int) -> None:
        contents = self.log.open_segment
        if contents.end + size > SEGMENT_BYTES and (contents.held or contents.records):
            self._roll()
            contents = self.log.open_segment
        end = contents.end + size
        if end > self._zeroed_to:
            self._zero(max(end, min(self._zeroed_to + ZEROED_BYTES, SEGMENT_BYTES)))

    def _zero(self, end: int) -> None:
        """Fill the segment with zeros up to a byte, durable on return."""
        with _growing():
            for at in range(self._zeroed_to, end, ZEROED_BYTES):
                self._file.write_at(bytes(min(ZEROED_BYTES, end - at)), at)
        self._file.sync()
        self._zeroed_to = end

    def _roll(self) -> None:
        """Seal the segment and begin the next."""
        contents = self.log.open_segment
        kill_point("wal.index.before")
        self._publish(index_name(contents.number), build_index(contents))
        kill_point("wal.index.after")
        self._begin_segment(contents.number + 1, contents.log_id, contents.seal)
        file = self._files.open_at(self.log.path(segment_name(contents.number + 1)), "w")
        self._file.close()
        self._file = file
        self._zeroed_to = self.log.open_segment.end

    def _begin_segment(self, number: int, log_id: bytes, previous: bytes | None) -> None:
        head = SegmentHead(number, log_id, log_id if previous is None else previous)
        kill_point("wal.segment.before")
        self._publish(segment_name(number), head.pack())
        kill_point("wal.segment.after")
        if self.log.segments:
            self.log.replace_last(self.log.sealed(number - 1))
        self.log.begin(head)

    def _publish(self, name: str, data: bytes) -> None:
        """A file that is there whole, or not at all."""
        path = self.log.path(name)
        with suppress(FileNotFoundError):
            self._files.unlink(path + _NEW)
        with _growing():
            file = self._files.create(path + _NEW)
            try:
                self._fill(file, data)
            finally:
                file.close()
            self._files.rename(path + _NEW, path)
        self._files.sync_directory(self.log.folder)

    def _fill(self, file: NewFile, data: bytes) -> None:
        file.write(data)
        file.sync()

    def close(self, *, is_sound: bool) -> None:
        """Let the files go; where nothing failed, the mark is made durable first."""
        try:
            if is_sound:
                kill_point("wal.close.before")
                self._mark.sync()
                kill_point("wal.close.after")
        finally:
            self._mark.close()
            self._file.close()


@contextmanager
def _growing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise NoRoom(str(error)) from error
        raise
