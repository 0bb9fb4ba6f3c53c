"""A ``wal:`` folder, read: its segments in order, the streams in them, and where everything lies.

A reader beside a writer, or after one that died in this boot, ends at the mark (wal_mark.py): what lies beyond may not be
durable yet.  It looks at the mark before each read and goes on from where it stood.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final

from journal.errors import Gap, StoreUnavailable, UnknownFormat
from journal.files import FileOps, RandomAccessFile
from journal.records import Entry
from journal.stores.wal_frames import (
    ENTRIES,
    RESTORE,
    STREAM,
    SegmentHead,
    damaged,
    unpack_entries,
    unpack_entry,
    unpack_epoch,
    unpack_stream,
)
from journal.stores.wal_index import build_index, load_index
from journal.stores.wal_mark import MARK_BYTES, MARK_NAME, Mark, unpack_mark
from journal.stores.wal_segments import (
    Contents,
    Frame,
    OpenContents,
    frame_at,
    index_name,
    read_segment_head,
    scan,
    segment_name,
    segment_number,
    walk,
)
from journal.stores.wal_tail import Torn, judge

_ENTRY_BLOCK_BYTES: Final = 4096
_MARK_TRIES: Final = 100


class Stream:
    """One stream: its identity, where its epochs lie, and the segments that hold entries of it, in order."""

    def __init__(self, number: int, identity: bytes) -> None:
        self.number = number
        self.identity = identity
        self.epochs: list[tuple[int, int, int]] = []
        self.parts: list[Contents] = []

    @property
    def last_id(self) -> int:
        """The last command id; 0 where there is none."""
        return self.parts[-1].held[self.number].last if self.parts else 0


class Log:
    """The segments of a folder.  ``OSError`` passes through; CorruptionError names file and byte."""

    def __init__(self, folder: str, files: FileOps) -> None:
        self.folder = folder
        self.files = files
        self.segments: list[Contents] = []
        self.streams: dict[str, Stream] = {}
        self.torn: Torn | None = None
        self.rebuilt: dict[int, bytes] = {}
        self.mark: Mark | None = None
        self._mark_bytes = b""
        self._by_number: dict[int, Stream] = {}
        self._registered = 0

    def path(self, name: str) -> str:
        """A file of the folder."""
        return f"{self.folder}/{name}"

    def segment_path(self, number: int) -> str:
        """A segment's file."""
        return self.path(segment_name(number))

    @property
    def open_segment(self) -> OpenContents:
        """The last segment."""
        contents = self.segments[-1]
        assert isinstance(contents, OpenContents)
        return contents

    # Loading

    def numbers(self) -> list[int]:
        """The segments there are.  Gap where one is missing between others."""
        names = self.files.names(self.folder)
        numbers = sorted(number for number in map(segment_number, names) if number is not None)
        for wanted, number in enumerate(numbers, 1):
            if wanted != number:
                raise self._missing(wanted)
        # An index is made of a segment that is there.
        if any(name > index_name(len(numbers)) for name in names if name.endswith(index_name(0)[20:])):
            raise self._missing(len(numbers) + 1)
        return numbers

    def _missing(self, number: int) -> Gap:
        return Gap("the segment is missing", position=self.segment_path(number), hint=RESTORE)

    def load(self, *, limited: bool) -> None:
        """Take in all there is, or where ``limited`` all up to the mark of this boot.  A torn tail is left out, and noted."""
        self._read_mark()
        mark = self.mark
        numbers = self.numbers()
        if mark is not None and mark.segment > len(numbers):
            raise self._missing(mark.segment)
        if not numbers:
            return
        until = mark if limited and mark is not None and mark.boot == self.files.boot() else None
        last = len(numbers) if until is None else until.segment
        for number in numbers[: last - 1]:
            self._push(self.sealed(number))
        contents = self._begin(last)
        with self.file(last) as file:
            error = scan(file, self.segment_path(last), contents, until.offset if until else None)
            if error is not None:
                path = self.segment_path(last)
                reached = mark.offset if mark is not None and mark.segment == last else 0
                self.torn = judge(file, path, contents, error, size=self.files.size(path), reached=reached)
        self.register()

    def _begin(self, number: int) -> OpenContents:
        """The contents, still empty, of a segment, in the list."""
        path = self.segment_path(number)
        with self.file(number) as file:
            contents = OpenContents(read_segment_head(file, path, number))
        self._push(contents)
        return contents

    def _push(self, contents: Contents) -> None:
        if self.segments:
            before = self.segments[-1]
            head = self._head_of(contents.number)
            if head.previous != before.seal or head.log_id != before.log_id:
                path = self.segment_path(before.number)
                raise damaged(path, before.end, "the segment does not end where the next one begins")
        self.segments.append(contents)
        self._registered = 0
        self.register()

    def _head_of(self, number: int) -> SegmentHead:
        with self.file(number) as file:
            return read_segment_head(file, self.segment_path(number), number)

    def sealed(self, number: int) -> Contents:
        """The contents of a sealed segment, by its index, or where that is not whole by reading it."""
        head, seal = self._head_of(number), self._head_of(number + 1).previous
        with suppress(FileNotFoundError):
            view = self.files.view(self.path(index_name(number)))
            loaded = load_index(head, view, lambda: self.rebuilt_index(number))
            # An index may have been made before the last frames, if power went before the next segment began.
            if loaded is not None and loaded.seal == seal:
                return loaded
        self.rebuilt[number] = data = self.rebuilt_index(number)
        rebuilt = load_index(head, data, lambda: self.rebuilt_index(number))
        assert rebuilt is not None
        return rebuilt

    def rebuilt_index(self, number: int) -> bytes:
        """The index of a sealed segment, from its frames."""
        path = self.segment_path(number)
        with self.file(number) as file:
            contents = OpenContents(read_segment_head(file, path, number))
            error = scan(file, path, contents, None)
            rest = file.read_at(max(0, self.files.size(path) - contents.end), contents.end)
            if error is not None and any(rest):
                raise error
        return build_index(contents)

    def begin(self, head: SegmentHead) -> None:
        """A segment was just begun behind the others."""
        self.segments.append(OpenContents(head))
        self._registered = 0

    def register(self) -> None:
        """Take up what the last segment's contents hold and the streams do not know yet."""
        contents = self.segments[-1]
        for record in contents.records[self._registered :]:
            if record.kind == STREAM:
                name, identity = unpack_stream(self.frame(contents.number, record.offset).payload)
                self.streams[name] = self._by_number[record.stream] = Stream(record.stream, identity)
            else:
                self._by_number[record.stream].epochs.append((record.number, contents.number, record.offset))
        self._registered = len(contents.records)
        for number in contents.held:
            parts = self._by_number[number].parts
            if not parts or parts[-1] is not contents:
                parts.append(contents)

    def replace_last(self, contents: Contents) -> None:
        """The last segment was sealed: its contents are now by its index."""
        old, self.segments[-1] = self.segments[-1], contents
        for stream in self._by_number.values():
            if stream.parts and stream.parts[-1] is old:
                stream.parts[-1] = contents

    # Following a writer

    def _read_mark(self) -> bool:
        """Read the mark; whether it changed.  One that is just being written is read again, one that is damaged is not."""
        before = b""
        for _ in range(_MARK_TRIES):
            try:
                with self._opened(MARK_NAME) as file:
                    data = file.read_at(MARK_BYTES, 0)
            except FileNotFoundError:
                return False
            if data == self._mark_bytes:
                return False
            mark = unpack_mark(data)
            if mark is not None:
                self._mark_bytes, self.mark = data, mark
                return True
            if data == before:
                self._mark_bytes = data
                return False
            before = data
        return False

    def refresh(self) -> None:
        """Go on to where the mark is now."""
        if not self._read_mark() or self.mark is None or self.mark.boot != self.files.boot():
            return
        while self.segments and self.segments[-1].number < self.mark.segment:
            number = self.segments[-1].number
            self.replace_last(self.sealed(number))
            self.register()
            self._begin(number + 1)
        if not self.segments:
            self.load(limited=True)
        elif self.mark.offset > self.segments[-1].end:
            number = self.segments[-1].number
            with self.file(number) as file:
                scan(file, self.segment_path(number), self.open_segment, self.mark.offset)
            self.register()

    # Reading

    @contextmanager
    def _opened(self, name: str) -> Iterator[RandomAccessFile]:
        file = self.files.open_at(self.path(name), "r")
        try:
            yield file
        finally:
            file.close()

    def file(self, number: int) -> AbstractContextManager[RandomAccessFile]:
        """A segment's file, open for a while."""
        return self._opened(segment_name(number))

    def frame(self, number: int, offset: int) -> Frame:
        """The frame at a place."""
        with self.file(number) as file:
            return frame_at(file, self.segment_path(number), number, offset)

    def epoch(self, number: int, offset: int) -> bytes:
        """The document of the epoch at a place."""
        return unpack_epoch(self.frame(number, offset).payload)

    def frames(self, contents: Contents, stream: int, command_id: int) -> Iterator[Frame]:
        """The entry frames of a stream in a segment, from the one that holds a command, or a little before it."""
        number = contents.number
        start = contents.seek(stream, command_id)
        with self.file(number) as file:
            for frame in walk(file, self.segment_path(number), number, start=start, end=contents.end):
                if frame.head.kind == ENTRIES and frame.head.stream == stream:
                    yield frame

    def page(self, stream: Stream, after: int, until: int) -> list[Entry]:
        """The entries with ``after < command_id <= until``."""
        page: list[Entry] = []
        number = stream.number
        first = bisect.bisect_right(stream.parts, after, key=lambda contents: contents.held[number].last)
        for contents in stream.parts[first:]:
            if contents.held[number].first > until:
                break
            for offset, head, payload in self.frames(contents, number, after + 1):
                if head.first > until:
                    break
                if head.first + head.entries - 1 > after:
                    entries = self._decoded(contents.number, offset, payload, head.entries)
                    page += [entry for entry in entries if after < entry[0] <= until]
        return page

    def _decoded(self, number: int, offset: int, payload: bytes, count: int) -> list[Entry]:
        try:
            return unpack_entries(payload, count)
        except UnknownFormat as error:
            raise damaged(self.segment_path(number), offset, str(error)) from error

    def last(self, stream: Stream) -> Entry | None:
        """The last entry."""
        if not stream.parts:
            return None
        contents = stream.parts[-1]
        offset = contents.held[stream.number].last_frame
        frame = self.frame(contents.number, offset)
        return self._decoded(contents.number, offset, frame.payload, frame.head.entries)[-1]

    def recorded(self, stream: Stream, keys: Sequence[bytes]) -> list[bytes]:
        """Which of these requests are there."""
        return [key for contents in stream.parts for key in contents.recorded(stream.number, keys)]

    def find(self, stream: Stream, keys: Sequence[bytes]) -> list[Entry]:
        """The entries of requests."""
        found = []
        for key in dict.fromkeys(keys):
            for contents in reversed(stream.parts):
                at = contents.locate(stream.number, key)
                if at is not None:
                    found.append(self._entry_at(contents.number, at, key))
                    break
        return found

    def _entry_at(self, number: int, offset: int, key: bytes) -> Entry:
        path = self.segment_path(number)
        entry, size, data = None, _ENTRY_BLOCK_BYTES, b""
        with self.file(number) as file:
            while entry is None and (not data or len(data) == size // 16):
                data = file.read_at(size, offset)
                size *= 16
                try:
                    entry = unpack_entry(data)
                except UnknownFormat as error:
                    raise damaged(path, offset, str(error)) from error
        if entry is None:
            raise damaged(path, offset, "an entry is cut")
        if entry.request_key != key:
            raise damaged(path, offset, "the index of requests does not match the entries")
        return entry

    def request_keys(self, stream: Stream, since_ms: int) -> Iterator[bytes]:
        """The request keys of entries received at or after a time."""
        for contents in list(stream.parts):
            held = contents.held[stream.number]
            if held.newest_ms >= since_ms:
                for frame in self.frames(contents, stream.number, held.first):
                    for entry in self._decoded(contents.number, frame.offset, frame.payload, frame.head.entries):
                        if entry[4] >= since_ms:
                            yield entry[1]

    def require_there(self) -> None:
        """StoreUnavailable where the folder holds no log."""
        if not self.segments:
            raise StoreUnavailable(
                f"there is no journal at {self.folder}",
                hint="check --journal; a runtime makes the journal when it is first opened",
            )
