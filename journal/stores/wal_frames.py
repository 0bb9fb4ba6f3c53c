"""The bytes of a ``wal:`` journal's segment files.

All integers are big-endian.  A *digest* is xxh3_128, 16 bytes.  A segment is a head, then frames, then zeros: the file is
filled with zeros ahead of the frames, and made durable, before a frame is written there.

Segment head, 64 bytes::

    0   8   "RECWAL" 0x00 0x01 (the version)
    8   8   number of the segment, from 1
    16  16  id of the log, drawn once; the same in all of its segments
    32  16  seal of the last frame of the segment before; the log's id in the first
    48  16  digest of bytes 0 to 47

Frame, one for each append.  It begins at a multiple of 8; its head has 112 bytes::

    0   4   0xA7 "WF" 0x01
    4   1   kind: 1 a stream begins, 2 an epoch begins, 3 entries
    5   3   zeros
    8   4   number of the stream, from 1
    12  4   how many entries; 1 for the other kinds
    16  8   epoch: the one under which entries were written, or which begins
    24  8   first command id; 0 for the other kinds
    32  8   length of the payload, a multiple of 8
    40  8   number of the segment, and
    48  8   byte of it, at which the frame lies: a frame is nowhere else what it is here
    56  4   how many of its sectors are nothing but zeros
    60  4   zeros
    64  16  seal of the frame before, or what stands at 32 in the segment's head
    80  16  digest of the payload
    96  16  seal: digest of bytes 0 to 95
    112     payload

A *sector* has 512 bytes and begins at a multiple of 512 in the file; a frame's first and last may be parts of one.  Since the
space was zeros before, a frame of which more sectors are zeros than it says was never wholly written.

Payload of a stream: length of the name u16, the name (UTF-8), length of the identity u32, the identity.  Of an epoch: length
u32, the document.  Of n entries::

    0       4 x n   length of each entry
    4n      1       0xDD, msgpack's array of
    4n + 1  4       n
    4n + 5          the entries, each a msgpack array of the 19 fields of ``Entry`` (records.py) in their order: int, bin, str,
                    bool, or nil where there is none; every one in its shortest form

Zeros follow up to a multiple of 8.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgpack
import msgspec
import xxhash

from journal.errors import ChecksumMismatch, NewerSchema, UnknownFormat, UsageError
from journal.records import Entry

SECTOR_BYTES: Final = 512
ALIGNMENT: Final = 8
KEY_BYTES: Final = 16

STREAM: Final = 1
EPOCH: Final = 2
ENTRIES: Final = 3

RESTORE: Final = "restore a copy"

_MAGIC: Final = b"\xa7WF\x01"
_SEGMENT_MAGIC: Final = b"RECWAL\x00\x01"
_SEGMENT: Final = struct.Struct(">8sQ16s16s16s")
_HEAD: Final = struct.Struct(">4sB3xIIQQQQQI4x16s16s16s")
_ARRAY: Final = struct.Struct(">BI")
_ARRAY_32: Final = 0xDD

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Entry]).decode

SEGMENT_HEAD_BYTES: Final = _SEGMENT.size
HEAD_BYTES: Final = _HEAD.size
MAGIC: Final = _MAGIC


class SegmentHead(NamedTuple):
    """How a segment begins."""

    number: int
    log_id: bytes
    previous: bytes

    def pack(self) -> bytes:
        """The 64 bytes."""
        data = _SEGMENT.pack(_SEGMENT_MAGIC, self.number, self.log_id, self.previous, b"")[:-16]
        return data + xxhash.xxh3_128_digest(data)


def unpack_segment_head(data: bytes, path: str, number: int) -> SegmentHead:
    """The head of a segment.  ChecksumMismatch, NewerSchema, UnknownFormat."""
    if len(data) < SEGMENT_HEAD_BYTES or xxhash.xxh3_128_digest(data[:48]) != data[48:64]:
        raise damaged(path, 0, "the segment's head is not what was written")
    magic, found, log_id, previous, _ = _SEGMENT.unpack_from(data)
    if magic != _SEGMENT_MAGIC:
        if magic[:7] == _SEGMENT_MAGIC[:7] and magic[7] > _SEGMENT_MAGIC[7]:
            raise NewerSchema(f"{path} was written by a newer release", expected=_SEGMENT_MAGIC[7], found=magic[7])
        raise UnknownFormat(f"{path} is no segment of a wal: journal", found=magic)
    if found != number:
        raise damaged(path, 0, f"it is segment {found}, under the name of segment {number}")
    return SegmentHead(found, log_id, previous)


class Head(NamedTuple):
    """The head of a frame, proven to be what was written for its place."""

    kind: int
    stream: int
    entries: int
    epoch: int
    first: int
    length: int
    zero_sectors: int
    previous: bytes
    payload_digest: bytes
    seal: bytes

    @property
    def size(self) -> int:
        """Bytes of the whole frame."""
        return HEAD_BYTES + self.length


def make_frame(
    kind: int,
    payload: bytes,
    *,
    stream: int,
    count: int,
    epoch: int,
    first: int,
    segment: int,
    offset: int,
    previous: bytes,
) -> bytes:
    """A whole frame; its last 16 bytes of head are the seal."""
    zeros = _zero_sectors_of(payload, offset + HEAD_BYTES)
    data = _HEAD.pack(
        _MAGIC, kind, stream, count, epoch, first, len(payload), segment, offset, zeros,
        previous, xxhash.xxh3_128_digest(payload), b"",
    )[:-16]  # fmt: skip
    return b"".join((data, xxhash.xxh3_128_digest(data), payload))


def seal_of(frame: bytes) -> bytes:
    """The seal of a frame."""
    return frame[HEAD_BYTES - 16 : HEAD_BYTES]


def unpack_head(data: bytes, at: int, segment: int, offset: int) -> Head | None:
    """The head at ``data[at:]``, which lies at ``offset`` of a segment; None where there is none that belongs there."""
    if len(data) - at < HEAD_BYTES or data[at : at + 4] != _MAGIC:
        return None
    head = data[at : at + HEAD_BYTES]
    if xxhash.xxh3_128_digest(head[:-16]) != head[-16:]:
        return None
    _, kind, stream, count, epoch, first, length, number, place, zeros, previous, payload, seal = _HEAD.unpack(head)
    if number != segment or place != offset:
        return None
    return Head(kind, stream, count, epoch, first, length, zeros, previous, payload, seal)


def is_whole(head: Head, payload: bytes) -> bool:
    """Whether a payload is the one that was written behind this head."""
    return len(payload) == head.length and xxhash.xxh3_128_digest(payload) == head.payload_digest


def zero_sectors(data: bytes, offset: int) -> int:
    """How many sectors, or parts of one, of ``data`` at ``offset`` of a file are nothing but zeros."""
    first = -offset % SECTOR_BYTES
    cuts = [0, *range(first, len(data), SECTOR_BYTES), len(data)]
    return sum(not any(data[low:high]) for low, high in itertools.pairwise(cuts) if low < high)


def _zero_sectors_of(payload: bytes, offset: int) -> int:
    """``zero_sectors`` of a frame, given its payload: its head is never zeros, nor what shares a sector with its end."""
    start = -offset % SECTOR_BYTES
    rest = len(payload) - start
    if rest <= 0:
        return 0
    tail = rest % SECTOR_BYTES
    if payload.find(_ZEROS) < 0:
        return int(tail > 0 and not any(payload[-tail:]))
    return zero_sectors(payload[start:], 0)


_ZEROS: Final = bytes(SECTOR_BYTES)


def pack_stream(name: str, identity: bytes) -> bytes:
    """Payload of a stream."""
    text = name.encode()
    return _padded(b"".join((len(text).to_bytes(2, "big"), text, len(identity).to_bytes(4, "big"), identity)))


def unpack_stream(payload: bytes) -> tuple[str, bytes]:
    """Name and identity of a stream."""
    size = 2 + int.from_bytes(payload[:2], "big")
    length = int.from_bytes(payload[size : size + 4], "big")
    return payload[2:size].decode(), payload[size + 4 : size + 4 + length]


def pack_epoch(document: bytes) -> bytes:
    """Payload of an epoch."""
    return _padded(len(document).to_bytes(4, "big") + document)


def unpack_epoch(payload: bytes) -> bytes:
    """The document of an epoch."""
    return payload[4 : 4 + int.from_bytes(payload[:4], "big")]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)


def pack_entries(entries: Sequence[Entry]) -> tuple[bytes, list[int]]:
    """Payload of entries, and where in it each begins.  UsageError where one does not fit its format."""
    if {len(entry[1]) for entry in entries} != {KEY_BYTES}:
        raise UsageError(f"a request key has not {KEY_BYTES} bytes", position=entries[0][0])
    if not {type(entry[6]) for entry in entries} | {type(entry[14]) for entry in entries} <= {bool}:
        raise UsageError("whether an entry is rejected, or its events reduced, is no bool", position=entries[0][0])
    try:
        packed = list(map(_encode, entries))
    except (TypeError, OverflowError, UnicodeEncodeError) as error:
        raise UsageError(f"an entry does not fit the format of wal: {error}", position=entries[0][0]) from error
    count = len(packed)
    sizes = list(map(len, packed))
    begins = 4 * count + _ARRAY.size
    starts = list(itertools.accumulate(sizes[:-1], initial=begins))
    rest = -(starts[-1] + sizes[-1]) % ALIGNMENT
    return b"".join((_sizes(count).pack(*sizes), _ARRAY.pack(_ARRAY_32, count), *packed, bytes(rest))), starts


def entry_starts(payload: bytes, count: int) -> list[int]:
    """Where each entry begins, and where the last ends.  UnknownFormat where that is beyond the payload."""
    begins = 4 * count + _ARRAY.size
    if len(payload) < begins or payload[4 * count : begins] != _ARRAY.pack(_ARRAY_32, count):
        raise UnknownFormat("the entries of a frame are not as many as its head says")
    starts = list(itertools.accumulate(_sizes(count).unpack_from(payload), initial=begins))
    if starts[-1] + -starts[-1] % ALIGNMENT != len(payload):
        raise UnknownFormat("the lengths of a frame's entries do not add up")
    return starts


def unpack_entries(payload: bytes, count: int) -> list[Entry]:
    """The entries of a payload.  UnknownFormat."""
    end = entry_starts(payload, count)[-1]
    try:
        return _decode(memoryview(payload)[4 * count : end])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UnknownFormat(f"entries cannot be read: {error}") from error


def unpack_entry(data: bytes) -> Entry | None:
    """The entry at the beginning of some bytes; None where they are not all of it.  UnknownFormat."""
    unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=2**31 - 1)
    unpacker.feed(data)
    try:
        fields = unpacker.unpack()
        return msgspec.convert(fields, Entry)
    except msgpack.OutOfData:
        return None
    except (ValueError, msgpack.UnpackException, msgspec.ValidationError) as error:
        raise UnknownFormat(f"an entry cannot be read: {error}") from error


@functools.lru_cache(maxsize=64)
def _sizes(count: int) -> struct.Struct:
    return struct.Struct(f">{count}I")


def damaged(path: str, offset: int, message: str) -> ChecksumMismatch:
    """The refusal of what is not as it was written, naming file and byte."""
    return ChecksumMismatch(message, position=f"{path}, byte {offset}", hint=RESTORE)
