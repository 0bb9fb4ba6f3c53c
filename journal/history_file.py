"""A history in one file: a stream, or the part of it after some command, to carry elsewhere.  Written once, read in place.

Integers are big-endian; checksums are xxh3_128, 16 bytes::

    magic          8 bytes  b"RECHISTO"
    version        u16      1
    header length  u32      at most HEADER_BYTES_MAX
    header         values.encode of a dict, the fields of HistoryHeader
    checksum       over all of the above

then blocks, the last of kind 5, and nothing behind it::

    kind           u8       1: entries   2: an image's name   3: a piece of that image   4: the index   5: the end
    count          u32      how many entries; 0 but for kind 1
    raw size       u32      of the payload without compression, at most RAW_BYTES_MAX
    stored size    u32      of the payload as it stands here
    payload
    checksum       over the checksum before this block, and all of the block: so the last one seals the whole file,
                   and each block is proven by itself, with the checksum before it

Payloads::

    1   the request keys, ``count`` times 16 bytes, which do not compress; then one zstd frame of a MessagePack array of
        ``count`` arrays: the fields of each Entry (journal/records.py) in their order, without the request key
    2   UTF-8
    3   as it stands: images are compressed already
    4   one zstd frame of values.encode of a dict:
          blocks   ((offset, first command id, entries), …) of the blocks of kind 1
          images   ((name, offset of the block of kind 2, bytes), …)
    5   entries u64, last chain 16 bytes, offset of the index u64: so the file's last END_BYTES say where all is

A part of a stream begins with its *anchor*, the entry of command ``after``: what follows continues it, and an image of
that command makes the part one that can be replayed.  A whole stream has ``after`` 0 and no anchor.  Entries are gapless and
continue the chain; who writes gives them so, and ``check`` proves it.

A block of entries holds about BLOCK_BYTES, more only where one entry does.  Readers hold a block's sizes against their
limits before they take memory for it, and its checksum before they look into it.  The same history gives the same bytes.
"""

from __future__ import annotations

import bisect
import itertools
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from types import NoneType
from typing import Final, NamedTuple

import xxhash
import zstandard

from journal import digest, values
from journal.compressed import decompress
from journal.errors import ChecksumMismatch, CorruptionError, UnknownFormat, UsageError
from journal.records import ENTRY_BYTES_MAX, Entry

MAGIC: Final = b"RECHISTO"
VERSION: Final = 1
BLOCK_BYTES: Final = 2**18
PIECE_BYTES_MAX: Final = 2**24
HEADER_BYTES_MAX: Final = values.VALUE_BYTES_MAX
RAW_BYTES_MAX: Final = ENTRY_BYTES_MAX + 2**24
STORED_BYTES_MAX: Final = RAW_BYTES_MAX + RAW_BYTES_MAX // 128

ENTRIES: Final = 1
IMAGE: Final = 2
PIECE: Final = 3
INDEX: Final = 4
END: Final = 5

_PREFIX: Final = struct.Struct(">8sHI")
_BLOCK: Final = struct.Struct(">BIII")
_END: Final = struct.Struct(">Q16sQ")
_CHECKSUM_BYTES: Final = 16
_KEY_BYTES: Final = 16
END_BYTES: Final = _BLOCK.size + _END.size + _CHECKSUM_BYTES

_KEY_AT: Final = Entry._fields.index("request_key")
_OPTIONAL: Final = {"entity_id", "changes_bytes", "pre_digest_bytes", "post_digest_bytes"}
_KINDS: Final = {"type": str, "entity_id": str, "rejected": bool, "events_reduced": bool}
_KINDS_BYTES: Final = {name for name in Entry._fields if name.endswith("_bytes")} | {"chain", "part_hashes", "checksum"}


def _shapes() -> Iterator[tuple[type, ...]]:
    """The types that an entry's fields may have."""
    choices = []
    for name in Entry._fields:
        kind: type = _KINDS.get(name, bytes if name in _KINDS_BYTES or name == "request_key" else int)
        choices.append((kind, NoneType) if name in _OPTIONAL else (kind,))
    return itertools.product(*choices)


_SHAPES: Final = frozenset(_shapes())


class HistoryHeader(NamedTuple):
    """What the history is of.

    ``identity`` and ``epochs`` are as a store holds them; epochs are numbered from 1, and go as far as the entries do.
    ``after`` is the command that the history begins after.  ``redacted``: payloads were replaced, so it can be read and
    not replayed; the chain still is the recorded one.
    """

    identity: bytes
    epochs: tuple[bytes, ...]
    after: int
    redacted: bool


class BlockPlace(NamedTuple):
    """Where a block of entries lies."""

    offset: int
    first: int
    entries: int


class ImagePlace(NamedTuple):
    """Where an image lies."""

    name: str
    offset: int
    bytes: int


# Writing


def write_history(
    header: HistoryHeader, entries: Iterable[Entry], images: Iterable[tuple[str, Iterable[bytes]]] = ()
) -> Iterator[bytes]:
    """The bytes of a history, a block at a time; memory is one block.

    ``entries`` are gapless, from command 1, or from the anchor where ``header.after`` is not 0; UsageError where they are
    not.  ``images`` are names and bytes, as a snapshot store gives them.
    """
    return _Writer(header).history(entries, images)


class _Writer:
    def __init__(self, header: HistoryHeader) -> None:
        self._header = header
        self._compressor = zstandard.ZstdCompressor(level=3)
        self._checksum = b""
        self._at = 0

    def history(self, entries: Iterable[Entry], images: Iterable[tuple[str, Iterable[bytes]]]) -> Iterator[bytes]:
        yield self._begin()
        blocks: list[BlockPlace] = []
        follows, chain = max(self._header.after, 1), digest.CHAIN_START
        for block in _in_blocks(entries):
            if [entry.command_id for entry in block] != list(range(follows, follows + len(block))):
                raise UsageError(f"the entries given for a history do not follow command {follows - 1}")
            blocks.append(BlockPlace(self._at, follows, len(block)))
            follows, chain = follows + len(block), block[-1].chain
            yield self._entries(block)
        if self._header.after and not blocks:
            raise UsageError(f"a history after command {self._header.after} begins with that command's entry")
        places: list[ImagePlace] = []
        for name, chunks in images:
            at, size = self._at, 0
            yield self._block(IMAGE, name.encode())
            for piece in _pieces(chunks):
                size += len(piece)
                yield self._block(PIECE, piece)
            places.append(ImagePlace(name, at, size))
        index_at = self._at
        yield self._index(blocks, places)
        yield self._block(END, _END.pack(sum(block.entries for block in blocks), chain, index_at))

    def _begin(self) -> bytes:
        document = values.encode(self._header._asdict(), bytes_max=HEADER_BYTES_MAX)
        data = _PREFIX.pack(MAGIC, VERSION, len(document)) + document
        self._checksum = xxhash.xxh3_128_digest(data)
        self._at = len(data) + _CHECKSUM_BYTES
        return data + self._checksum

    def _entries(self, entries: list[Entry]) -> bytes:
        rows = tuple([entry[:_KEY_AT] + entry[_KEY_AT + 1 :] for entry in entries])
        raw = values.encode_bare(rows, bytes_max=RAW_BYTES_MAX)
        keys = b"".join([entry.request_key for entry in entries])
        if len(keys) != _KEY_BYTES * len(entries):
            raise UsageError("a request key is not 16 bytes", position=entries[0].command_id)
        return self._block(ENTRIES, keys + self._compressor.compress(raw), len(entries), len(raw))

    def _index(self, blocks: list[BlockPlace], images: list[ImagePlace]) -> bytes:
        document = {"blocks": tuple(map(tuple, blocks)), "images": tuple(map(tuple, images))}
        raw = values.encode(document, bytes_max=RAW_BYTES_MAX)
        return self._block(INDEX, self._compressor.compress(raw), 0, len(raw))

    def _block(self, kind: int, payload: bytes, count: int = 0, raw_size: int | None = None) -> bytes:
        data = _BLOCK.pack(kind, count, len(payload) if raw_size is None else raw_size, len(payload)) + payload
        self._checksum = xxhash.xxh3_128_digest(self._checksum + data)
        self._at += len(data) + _CHECKSUM_BYTES
        return data + self._checksum


def _in_blocks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    block: list[Entry] = []
    size = 0
    for entry in entries:
        own = sum(len(part) for part in entry if part.__class__ is bytes)
        if block and size + own > BLOCK_BYTES:
            yield block
            block, size = [], 0
        block.append(entry)
        size += own
    if block:
        yield block


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for at in range(0, len(chunk), PIECE_BYTES_MAX):
            yield chunk[at : at + PIECE_BYTES_MAX]


# Reading


class HistoryFile:
    """Reads a history in place.  Opening reads the header, the end and the index; each block is proven when it is read.

    Damage is a CorruptionError: ChecksumMismatch, or UnknownFormat where bytes are missing, are too many or make no sense;
    its position names the file and the byte where the bad part begins.  OSError where the file cannot be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            self._size = os.fstat(self._file).st_size
            self._decompressor = zstandard.ZstdDecompressor()
            self.header, self._first_block_at = self._read_header()
            self._read_end_and_index()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let the file go.  Twice is once."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def entries(self, block: BlockPlace) -> list[Entry]:
        """The entries of a block, each as it was given; their own checksums are not looked at."""
        kind, count, raw_size, payload, _ = self._block(block.offset)
        if kind != ENTRIES or count != block.entries:
            raise self._damage(block.offset, "holds something else where its index says there are entries")
        return self._decoded(block.offset, count, raw_size, payload)

    def find(self, request_keys: set[bytes]) -> Iterator[Entry]:
        """The entries with these request keys; goes through the keys of the whole file."""
        for place in self.blocks:
            kind, count, raw_size, payload, _ = self._block(place.offset)
            if kind != ENTRIES or count != place.entries:
                raise self._damage(place.offset, "holds something else where its index says there are entries")
            keys = [payload[at : at + _KEY_BYTES] for at in range(0, _KEY_BYTES * count, _KEY_BYTES)]
            if not request_keys.isdisjoint(keys):
                found = self._decoded(place.offset, count, raw_size, payload)
                yield from (entry for entry in found if entry.request_key in request_keys)

    def pieces(self, image: ImagePlace) -> Iterator[bytes]:
        """The bytes of an image, a piece at a time."""
        kind, _, _, payload, at = self._block(image.offset)
        if kind != IMAGE or payload != image.name.encode():
            raise self._damage(image.offset, f"holds no image {image.name} where its index says so")
        rest = image.bytes
        while rest > 0:
            kind, _, _, payload, end = self._block(at)
            if kind != PIECE or not 0 < len(payload) <= rest:
                raise self._damage(at, f"does not hold the image {image.name} to its end")
            yield payload
            rest -= len(payload)
            at = end

    def check(self) -> None:
        """Read every byte, in order, and hold the index and the totals against what is there.  Constant memory."""
        at, blocks, images = self._first_block_at, list(self.blocks), list(self.images)
        last_chain = digest.CHAIN_START
        while True:
            kind, count, raw_size, payload, end = self._block(at)
            if kind == ENTRIES:
                entries = self._decoded(at, count, raw_size, payload)
                if not blocks or blocks.pop(0) != BlockPlace(at, entries[0].command_id, count):
                    raise self._damage(at, "has another index than it has entries")
                last_chain = entries[-1].chain
            elif kind == IMAGE:
                if not images or images[0][:2] != (payload.decode(errors="replace"), at):
                    raise self._damage(at, "has another index than it has images")
                size = sum(map(len, self.pieces(images[0])))
                if size != images.pop(0).bytes:
                    raise self._damage(at, "has another index than it has images")
            elif kind == INDEX and at != self._index_at:
                raise self._damage(at, "has a second index")
            elif kind == END:
                break
            at = end
        if blocks or images or end != self._size or last_chain != self.last_chain:
            raise self._damage(at, "has another end than its entries say")

    # Below: bytes

    def _read_header(self) -> tuple[HistoryHeader, int]:
        prefix = self._take(0, _PREFIX.size, 0)
        magic, version, size = _PREFIX.unpack(prefix)
        if magic != MAGIC:
            raise self._damage(0, f"begins with {magic!r}, so it is no history")
        if version != VERSION:
            raise self._damage(0, f"is of format version {version}; this release reads {VERSION}")
        if size > HEADER_BYTES_MAX:
            raise self._damage(0, f"has a header of {size} bytes, beyond the limit of {HEADER_BYTES_MAX}")
        document = self._take(_PREFIX.size, size, 0)
        end = _PREFIX.size + size
        self._check(0, xxhash.xxh3_128_digest(prefix + document), self._take(end, _CHECKSUM_BYTES, 0))
        try:
            header = HistoryHeader(**values.decode(document))
        except (TypeError, UnknownFormat) as error:
            raise self._damage(0, f"has a header that cannot be read: {error}") from error
        if tuple(map(type, header)) != (bytes, tuple, int, bool) or header.after < 0:
            raise self._damage(0, "has a header that makes no sense")
        if any(type(epoch) is not bytes for epoch in header.epochs):
            raise self._damage(0, "has epochs that make no sense")
        return header, end + _CHECKSUM_BYTES

    def _read_end_and_index(self) -> None:
        at = self._size - END_BYTES
        if at < self._first_block_at:
            raise self._damage(self._first_block_at, f"is cut at byte {self._size}")
        kind, count, raw_size, stored_size = _BLOCK.unpack(self._take(at, _BLOCK.size, at))
        if (kind, count, raw_size, stored_size) != (END, 0, _END.size, _END.size):
            raise self._damage(at, "does not end as a history does: it is cut, or something follows it")
        self.entry_count, self.last_chain, self._index_at = _END.unpack(self._block(at)[3])
        if not self._first_block_at <= self._index_at < at:
            raise self._damage(at, f"names byte {self._index_at} as the place of its index")
        kind, _, raw_size, payload, end = self._block(self._index_at)
        if kind != INDEX or end != at:
            raise self._damage(self._index_at, "has no index where its end says so")
        try:
            document = values.decode(self._inflated(self._index_at, payload, raw_size))
            self.blocks = [BlockPlace(*place) for place in document["blocks"]]
            self.images = [ImagePlace(*place) for place in document["images"]]
            follows = max(self.header.after, 1)
            first = follows
            for block in self.blocks:
                if block.first != follows or block.entries < 1 or not self._first_block_at <= block.offset < at:
                    raise self._damage(self._index_at, "has an index that makes no sense")
                follows += block.entries
        except (CorruptionError, LookupError, TypeError, ValueError) as error:
            raise self._damage(self._index_at, f"has an index that cannot be read: {error}") from error
        if follows - first != self.entry_count or (self.header.after and not self.blocks):
            raise self._damage(at, "has another number of entries than its index")

    def _block(self, at: int) -> tuple[int, int, int, bytes, int]:
        """(kind, count, raw size, payload, where the next begins) of the block at a place, its checksum checked."""
        head = self._take(at - _CHECKSUM_BYTES, _CHECKSUM_BYTES + _BLOCK.size, at)
        kind, count, raw_size, stored_size = _BLOCK.unpack_from(head, _CHECKSUM_BYTES)
        if (
            kind not in (ENTRIES, IMAGE, PIECE, INDEX, END)
            or raw_size > RAW_BYTES_MAX
            or stored_size > STORED_BYTES_MAX
        ):
            raise self._damage(at, f"has a block of kind {kind} and {raw_size} bytes, which no release wrote")
        payload_at = at + _BLOCK.size
        payload = self._take(payload_at, stored_size, at)
        end = payload_at + stored_size
        self._check(at, xxhash.xxh3_128_digest(head + payload), self._take(end, _CHECKSUM_BYTES, at))
        return kind, count, raw_size, payload, end + _CHECKSUM_BYTES

    def _decoded(self, at: int, count: int, raw_size: int, payload: bytes) -> list[Entry]:
        keys_end = _KEY_BYTES * count
        if not count or keys_end > len(payload):
            raise self._damage(at, f"has a block of {count} entries in {len(payload)} bytes")
        try:
            rows = values.decode_bare(self._inflated(at, payload[keys_end:], raw_size))
            entries = [
                Entry._make((*row[:_KEY_AT], payload[key_at : key_at + _KEY_BYTES], *row[_KEY_AT:]))
                for key_at, row in zip(range(0, keys_end, _KEY_BYTES), rows, strict=True)
            ]
        except (TypeError, ValueError, UnknownFormat) as error:
            raise self._damage(at, f"has a block of entries that cannot be read: {error}") from error
        for entry in entries:
            if tuple(map(type, entry)) not in _SHAPES:
                raise self._damage(at, "has an entry with fields of other types than an entry's")
        return entries

    def _inflated(self, at: int, payload: bytes, size: int) -> bytes:
        try:
            return decompress(self._decompressor, payload, size)
        except ValueError as error:
            raise self._damage(at, f"has a block that {error}") from error

    def _take(self, at: int, size: int, start: int) -> bytes:
        # A size is taken from the file: no memory is asked for that the file could not fill.
        data = os.pread(self._file, size, at) if at + size <= self._size else b""
        if len(data) != size:
            raise self._damage(start, f"is cut at byte {self._size}")
        return data

    def _check(self, start: int, found: bytes, expected: bytes) -> None:
        if found != expected:
            raise ChecksumMismatch(
                "the bytes from there on do not match their checksum",
                position=f"{self.path}, byte {start}",
                expected=expected.hex(),
                found=found.hex(),
                hint="export it again, or restore a copy",
            )

    def _damage(self, at: int, what: str) -> UnknownFormat:
        return UnknownFormat(
            f"the history {what}", position=f"{self.path}, byte {at}", hint="export it again, or restore a copy"
        )


def block_of(blocks: Sequence[BlockPlace], command_id: int) -> int:
    """The number of the first block that ends at this command or after it."""
    return bisect.bisect_left(blocks, command_id, key=lambda block: block.first + block.entries - 1)
