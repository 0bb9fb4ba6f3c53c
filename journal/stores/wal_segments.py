"""What a segment of a ``wal:`` journal holds, and walking its frames.  The bytes are wal_frames.py's."""

from __future__ import annotations

import bisect
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from journal.errors import ChecksumMismatch
from journal.files import RandomAccessFile
from journal.stores.wal_frames import (
    ENTRIES,
    HEAD_BYTES,
    SEGMENT_HEAD_BYTES,
    Head,
    SegmentHead,
    damaged,
    entry_starts,
    is_whole,
    unpack_entries,
    unpack_head,
    unpack_segment_head,
)

BLOCK_BYTES: Final = 128 * 1024
SPARSE_BYTES: Final = 256 * 1024
"""A stream's frames are found by a list with about one in so many bytes."""

_SEGMENT_NAME: Final = re.compile(r"(\d{20})\.wal")


def segment_name(number: int) -> str:
    """A segment's file."""
    return f"{number:020d}.wal"


def index_name(number: int) -> str:
    """The file of a sealed segment's index."""
    return f"{number:020d}.index"


def segment_number(name: str) -> int | None:
    """The number of a segment by its file's name; None for other files."""
    found = _SEGMENT_NAME.fullmatch(name)
    return None if found is None else int(found[1])


@dataclass(slots=True)
class Held:
    """The entries of one stream in one segment: first and last command id, where the last frame lies, the latest time."""

    first: int
    last: int
    last_frame: int
    newest_ms: int


class Record(NamedTuple):
    """A frame that is no entries: the beginning of a stream, or of an epoch by its number."""

    kind: int
    stream: int
    number: int
    offset: int


class Contents(ABC):
    """What is known of a segment without reading it: where it ends, what it holds and where."""

    def __init__(self, head: SegmentHead) -> None:
        self.number = head.number
        self.log_id = head.log_id
        self.end = SEGMENT_HEAD_BYTES
        self.seal = head.previous
        self.held: dict[int, Held] = {}
        self.records: list[Record] = []
        self.sparse: dict[int, list[tuple[int, int]]] = {}

    @abstractmethod
    def locate(self, stream: int, key: bytes) -> int | None:
        """Where the entry of a request lies in the file; None where there is none."""

    def recorded(self, stream: int, keys: Sequence[bytes]) -> list[bytes]:
        """Which of these requests have an entry here."""
        return [key for key in keys if self.locate(stream, key) is not None]

    def seek(self, stream: int, command_id: int) -> int:
        """Where to begin to walk for a command of a stream that has entries here."""
        sparse = self.sparse[stream]
        return sparse[max(0, bisect.bisect_right(sparse, (command_id, 2**63)) - 1)][1]


class OpenContents(Contents):
    """Contents of the segment that is written to, or of one whose index is to be made: the request keys are in memory."""

    def __init__(self, head: SegmentHead) -> None:
        super().__init__(head)
        self.keys: dict[int, dict[bytes, int]] = {}

    def locate(self, stream: int, key: bytes) -> int | None:
        """By a dict."""
        return self.keys.get(stream, {}).get(key)

    def recorded(self, stream: int, keys: Sequence[bytes]) -> list[bytes]:
        """By a dict, all at once."""
        return list(self.keys.get(stream, {}).keys() & keys)

    def add(self, head: Head, payload: bytes) -> None:
        """A whole frame at ``end``, as it was read.  UnknownFormat where its entries cannot be."""
        keys: dict[bytes, int] = {}
        newest_ms = 0
        if head.kind == ENTRIES:
            begins = self.end + HEAD_BYTES
            entries = unpack_entries(payload, head.entries)
            keys = {one[1]: begins + at for one, at in zip(entries, entry_starts(payload, head.entries), strict=False)}
            newest_ms = max(one[4] for one in entries)
        self.add_frame(head, keys, newest_ms)

    def add_frame(self, head: Head, keys: dict[bytes, int], newest_ms: int) -> None:
        """A frame at ``end``, given where each of its request keys lies."""
        at = self.end
        self.end += head.size
        self.seal = head.seal
        if head.kind != ENTRIES:
            self.records.append(Record(head.kind, head.stream, head.epoch, at))
            return
        last = head.first + head.entries - 1
        held = self.held.get(head.stream)
        if held is None:
            self.held[head.stream] = Held(head.first, last, at, newest_ms)
            self.sparse[head.stream] = [(head.first, at)]
            self.keys[head.stream] = keys
            return
        held.last, held.last_frame, held.newest_ms = last, at, max(held.newest_ms, newest_ms)
        self.keys[head.stream].update(keys)
        if at - self.sparse[head.stream][-1][1] >= SPARSE_BYTES:
            self.sparse[head.stream].append((head.first, at))


class Frame(NamedTuple):
    """A whole frame, and where it lies."""

    offset: int
    head: Head
    payload: bytes


def walk(
    file: RandomAccessFile, path: str, segment: int, *, start: int, end: int, previous: bytes | None = None
) -> Iterator[Frame]:
    """The frames from ``start`` to ``end``, each proven; given the seal before, their order too.  ChecksumMismatch."""
    at = base = start
    block = b""
    while at < end:
        if at + HEAD_BYTES > base + len(block):
            block, base = file.read_at(BLOCK_BYTES, at), at
        head = unpack_head(block, at - base, segment, at)
        if head is None:
            raise damaged(path, at, "there is no frame as it was written")
        if at + head.size > base + len(block):
            block, base = file.read_at(max(BLOCK_BYTES, head.size), at), at
        begins = at - base + HEAD_BYTES
        payload = block[begins : begins + head.length]
        if not is_whole(head, payload):
            raise damaged(path, at, f"{_describe(head)} do not match their checksum")
        if previous is not None and head.previous != previous:
            raise damaged(path, at, f"{_describe(head)} do not continue the frame before them")
        previous = None if previous is None else head.seal
        yield Frame(at, head, payload)
        at += head.size


def _describe(head: Head) -> str:
    if head.kind == ENTRIES:
        return f"the bytes of commands {head.first} to {head.first + head.entries - 1}"
    return f"the bytes of epoch {head.epoch}" if head.epoch else "the bytes of a stream's identity"


def frame_at(file: RandomAccessFile, path: str, segment: int, offset: int) -> Frame:
    """The frame at a place where there must be one."""
    for frame in walk(file, path, segment, start=offset, end=offset + 1):
        return frame
    raise damaged(path, offset, "there is no frame as it was written")


def read_segment_head(file: RandomAccessFile, path: str, number: int) -> SegmentHead:
    """The head of a segment."""
    return unpack_segment_head(file.read_at(SEGMENT_HEAD_BYTES, 0), path, number)


def scan(file: RandomAccessFile, path: str, contents: OpenContents, until: int | None) -> ChecksumMismatch | None:
    """Add the frames behind ``contents.end``: all up to ``until``, which must be whole, or as many as are.

    In the second case gives what is wrong with the first that is not.
    """
    end = 2**63 - 1 if until is None else until
    try:
        for frame in walk(file, path, contents.number, start=contents.end, end=end, previous=contents.seal):
            contents.add(frame.head, frame.payload)
    except ChecksumMismatch as error:
        if until is not None:
            raise
        return error
    return None
