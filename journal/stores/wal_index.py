"""The index of a sealed segment: what it holds and where, and its request keys, sorted.  Made from the segment at any time.

The file ``<segment>.index``, big-endian; digests are xxh3_128::

    0   8   "RECIDX" 0x00 0x01
    8   8   number of the segment
    16  8   byte at which its last frame ends
    24  16  id of the log
    40  16  seal of its last frame
    56  4   how many streams, 60 4 how many records, 64 4 how many places, 68 4 zeros
    72  16  digest of all request keys and their places
    88  16  digest of bytes 0 to 87 and of all up to the keys
    104     streams:  number u32, request keys u32, first and last command id u64, byte of the last frame u64, latest time i64
            records:  kind u32, stream u32, number of the epoch u64, byte of the frame u64
            places:   stream u32, zeros u32, first command id u64 of a frame, its byte u64; by stream and command id
            keys:     for each stream its request keys, 16 bytes each, in order, and then for each the byte of its entry u64

It is no part of the record: one that is missing or not whole is made again, by a writer on disk, by a reader in memory.
"""

from __future__ import annotations

import array
import bisect
import mmap
import struct
import sys
from collections.abc import Callable
from typing import Final, NamedTuple

import xxhash

from journal.stores.wal_frames import SegmentHead
from journal.stores.wal_segments import Contents, Held, OpenContents, Record

_MAGIC: Final = b"RECIDX\x00\x01"
_HEAD: Final = struct.Struct(">8sQQ16s16sIII4x16s")
_STREAM: Final = struct.Struct(">IIQQQq")
_RECORD: Final = struct.Struct(">IIQQ")
_PLACE: Final = struct.Struct(">I4xQQ")
_DIGEST_AT: Final = _HEAD.size
_SUMMARY_AT: Final = _DIGEST_AT + 16
_KEY_BYTES: Final = 16
_STEP: Final = 128
"""One key in so many is kept in memory, and says where to look for those between."""

Data = bytes | mmap.mmap


def build_index(contents: OpenContents) -> bytes:
    """The index of a segment whose frames were all added."""
    streams = sorted(contents.held)
    keys = b"".join(map(_sorted_keys, (contents.keys[stream] for stream in streams)))
    places = [_PLACE.pack(stream, *place) for stream in streams for place in contents.sparse[stream]]
    parts = [
        _STREAM.pack(stream, len(contents.keys[stream]), held.first, held.last, held.last_frame, held.newest_ms)
        for stream, held in sorted(contents.held.items())
    ]
    parts += [_RECORD.pack(*record) for record in contents.records]
    summary = b"".join(parts + places)
    head = _HEAD.pack(
        _MAGIC,
        contents.number,
        contents.end,
        contents.log_id,
        contents.seal,
        len(streams),
        len(contents.records),
        len(places),
        xxhash.xxh3_128_digest(keys),
    )
    return b"".join((head, xxhash.xxh3_128_digest(head + summary), summary, keys))


def _sorted_keys(keys: dict[bytes, int]) -> bytes:
    order = sorted(keys)
    places = array.array("Q", map(keys.__getitem__, order))
    if sys.byteorder == "little":
        places.byteswap()
    return b"".join(order) + places.tobytes()


class _Keys(NamedTuple):
    """Where the keys of a stream begin, how many there are, and every ``_STEP``-th of them."""

    at: int
    size: int
    sample: list[bytes]


class SealedContents(Contents):
    """Contents of a sealed segment.  Its keys are looked up in the file, proven at the first use; ``rebuild`` makes it anew."""

    def __init__(self, head: SegmentHead, data: Data, rebuild: Callable[[], bytes]) -> None:
        super().__init__(head)
        self._data = data
        self._rebuild = rebuild
        self._counts: dict[int, int] = {}
        self._keys: dict[int, _Keys] | None = None
        self._keys_at = _SUMMARY_AT
        self._keys_digest = b""

    def locate(self, stream: int, key: bytes) -> int | None:
        """By the sample, and a search between two of its keys."""
        if self._keys is None:
            self._keys = self._proven_keys()
        keys = self._keys.get(stream)
        step = -1 if keys is None else bisect.bisect_right(keys.sample, key) - 1
        if keys is None or step < 0:
            return None
        low = keys.at + step * _STEP * _KEY_BYTES
        high = min(low + _STEP * _KEY_BYTES, keys.at + keys.size * _KEY_BYTES)
        found = self._data.find(key, low, high)
        while found >= 0 and (found - low) % _KEY_BYTES:
            found = self._data.find(key, found + 1, high)
        if found < 0:
            return None
        at = keys.at + keys.size * _KEY_BYTES + (found - keys.at) // 2
        return int.from_bytes(self._data[at : at + 8], "big")

    def _proven_keys(self) -> dict[int, _Keys]:
        if xxhash.xxh3_128_digest(memoryview(self._data)[self._keys_at :]) != self._keys_digest:
            self._data = self._rebuild()
        at = self._keys_at
        found = {}
        for stream, count in self._counts.items():
            end = at + count * _KEY_BYTES
            sample = [self._data[begin : begin + _KEY_BYTES] for begin in range(at, end, _STEP * _KEY_BYTES)]
            found[stream] = _Keys(at, count, sample)
            at = end + count * 8
        return found


def load_index(head: SegmentHead, data: Data, rebuild: Callable[[], bytes]) -> SealedContents | None:
    """The contents that an index gives; None where its head or summary is not whole, or of another segment."""
    if len(data) < _SUMMARY_AT:
        return None
    magic, number, end, log_id, seal, streams, records, places, keys_digest = _HEAD.unpack_from(data)
    keys_at = _SUMMARY_AT + streams * _STREAM.size + records * _RECORD.size + places * _PLACE.size
    summary = data[_SUMMARY_AT:keys_at]
    if xxhash.xxh3_128_digest(data[:_DIGEST_AT] + summary) != data[_DIGEST_AT:_SUMMARY_AT]:
        return None
    if (magic, number, log_id) != (_MAGIC, head.number, head.log_id):
        return None
    contents = SealedContents(head, data, rebuild)
    contents.end, contents.seal = end, seal
    contents._keys_at, contents._keys_digest = keys_at, keys_digest
    at = 0
    for _ in range(streams):
        stream, count, *held = _STREAM.unpack_from(summary, at)
        contents.held[stream] = Held(*held)
        contents.sparse[stream] = []
        contents._counts[stream] = count
        at += _STREAM.size
    for _ in range(records):
        contents.records.append(Record(*_RECORD.unpack_from(summary, at)))
        at += _RECORD.size
    for _ in range(places):
        stream, command_id, offset = _PLACE.unpack_from(summary, at)
        contents.sparse[stream].append((command_id, offset))
        at += _PLACE.size
    return contents
