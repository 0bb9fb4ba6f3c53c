"""One image: the state after one command, in one file.

Integers are big-endian, but for the lengths inside a block, which are little-endian; checksums are xxh3_128, 16 bytes::

    magic          8 bytes  b"RECIMAGE"
    version        u16      1
    header length  u32      at most HEADER_BYTES_MAX
    header         values.encode of a dict, the fields of ImageHeader
    checksum       over all of the above

then blocks, the last of kind 3, and nothing behind it::

    kind           u8       1: rows of one table     2: a piece of the captured value     3: the end
    name length    u8       of the table's name; 0 but for kind 1
    rows           u32      how many rows the block holds; 0 but for kind 1
    raw size       u32      of the payload before compression, at most RAW_BYTES_MAX
    stored size    u32      of the payload as it stands here
    name           UTF-8
    payload
    checksum       over the checksum before this block, and all of the block: so the last one seals the whole file

A payload of kind 1 is one zstd frame of::

    key lengths    rows times u32
    pair lengths   rows times u32: of key and row together
    0xdd, u32      the head of a MessagePack array of twice as many items as rows
    pairs          key, row, key, row, …, each values.encode_bare: the items of that array

so that a whole block is decoded by one call, and hashed by loops that run in C.  Kind 2 is one zstd frame of a piece of
values.encode(captured value).  Kind 3 is, not compressed, rows u64 and blocks u64: how many came before.

Tables come in the order of their names, rows in the order of their keys (Python's ``<`` on the decoded keys).  A block
holds about BLOCK_BYTES, more only where one row does.  The rows give the header's digest: the writer refuses to end an
image whose rows do not, and the reader raises at the end.  Readers check a block's sizes before they take memory for
it, and its checksum before they look into it.
"""

from __future__ import annotations

import struct
import sys
import uuid
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, islice
from operator import add, gt
from typing import Any, BinaryIO, Final, NamedTuple

import xxhash
import zstandard

from journal import digest, values
from journal.compressed import decompress
from journal.errors import BrokenChain, ChecksumMismatch, CorruptionError, UnknownFormat, UsageError, ValueRefused
from snapshots.tally import Tally

MAGIC: Final = b"RECIMAGE"
VERSION: Final = 1
BLOCK_BYTES: Final = 2**20
RAW_BYTES_MAX: Final = 2 * values.VALUE_BYTES_MAX + 64
STORED_BYTES_MAX: Final = RAW_BYTES_MAX + RAW_BYTES_MAX // 128
HEADER_BYTES_MAX: Final = 2**20

ROWS: Final = 1
VALUE: Final = 2
END: Final = 3

_PREFIX: Final = struct.Struct(">8sHI")
_BLOCK: Final = struct.Struct(">BBIII")
_TOTALS: Final = struct.Struct(">QQ")
_ARRAY: Final = struct.Struct(">BI")
_ARRAY_32: Final = 0xDD
_CHECKSUM_BYTES: Final = 16

Pairs = Iterable[tuple[bytes, bytes]]


class ImageHeader(NamedTuple):
    """What an image is of.

    ``kind`` is "tables" or "value".  ``schema`` is the fingerprint of the engine's tables, empty for a value.  ``base``
    says what it was made from: "genesis" (redone from the journal's beginning), "capture" (read from a live engine) or
    the name of the image it was redone from; two images are independent when neither was redone from the other.
    """

    journal_id: uuid.UUID
    stream: str
    engine: str
    state_version: int
    logic_version: int
    schema: bytes
    command_id: int
    chain: bytes
    received_at_ms: int
    post_digest_bytes: bytes
    kind: str
    base: str
    created_at_ms: int

    @property
    def post_digest(self) -> digest.StateDigest:
        """The digest of the state it holds."""
        return digest.StateDigest.unpack(self.post_digest_bytes)


class Rows(NamedTuple):
    """Consecutive rows of one table as bytes, with their keys decoded too: what redo goes by."""

    table: str
    keys: Sequence[Any]
    key_bytes: Sequence[bytes]
    row_bytes: Sequence[bytes]


# Writing


def write_image(header: ImageHeader, tables: Iterable[tuple[str, Pairs]]) -> Iterator[bytes]:
    """The bytes of an image of tables, a block at a time.

    ``tables`` gives (name, pairs of key and row bytes) by name, pairs by key; memory is one block.  BrokenChain where
    the rows do not give the header's digest, UnknownFormat where they are out of order: both before the end block, so
    that what was given out until then is no image.
    """
    return _Writer(header, "tables").tables(tables)


def write_value_image(header: ImageHeader, captured: bytes) -> Iterator[bytes]:
    """The bytes of an image of a captured value, given as values.encode's.  BrokenChain where its digest is another."""
    return _Writer(header, "value").value(captured)


class _Writer:
    def __init__(self, header: ImageHeader, kind: str) -> None:
        if header.kind != kind:
            raise UsageError(f"the header says that the image is of {header.kind!r}, and {kind!r} is given")
        self._header = header
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._checksum = b""
        self._blocks = 0

    def tables(self, tables: Iterable[tuple[str, Pairs]]) -> Iterator[bytes]:
        tally = Tally()
        yield self._begin()
        for name, pairs in tables:
            for block in in_blocks(name, pairs):
                joined = list(map(add, block.key_bytes, block.row_bytes))
                tally.add(name, block.keys, joined)
                array_head = _ARRAY.pack(_ARRAY_32, 2 * len(joined))
                raw = b"".join([_lengths(block.key_bytes), _lengths(joined), array_head, *joined])
                yield self._block(ROWS, name.encode(), len(joined), raw)
        self._require(tally.digest_bytes())
        yield self._end(tally.rows)

    def value(self, captured: bytes) -> Iterator[bytes]:
        yield self._begin()
        for at in range(0, len(captured), BLOCK_BYTES):
            yield self._block(VALUE, b"", 0, captured[at : at + BLOCK_BYTES])
        self._require(_value_digest(captured, self._header))
        yield self._end(0)

    def _begin(self) -> bytes:
        document = values.encode(self._header._asdict())
        if len(document) > HEADER_BYTES_MAX:
            raise ValueRefused(f"an image's header of {len(document)} bytes is beyond the limit of {HEADER_BYTES_MAX}")
        data = _PREFIX.pack(MAGIC, VERSION, len(document)) + document
        self._checksum = xxhash.xxh3_128_digest(data)
        return data + self._checksum

    def _block(self, kind: int, name: bytes, rows: int, raw: bytes) -> bytes:
        if len(raw) > RAW_BYTES_MAX:
            raise ValueRefused(f"a row of {len(raw)} bytes with its key is beyond an image's limit of {RAW_BYTES_MAX}")
        self._blocks += 1
        return self._sealed(kind, name, rows, len(raw), self._compressor.compress(raw))

    def _end(self, rows: int) -> bytes:
        return self._sealed(END, b"", 0, _TOTALS.size, _TOTALS.pack(rows, self._blocks))

    def _sealed(self, kind: int, name: bytes, rows: int, raw_size: int, payload: bytes) -> bytes:
        data = _BLOCK.pack(kind, len(name), rows, raw_size, len(payload)) + name + payload
        self._checksum = xxhash.xxh3_128_digest(self._checksum + data)
        return data + self._checksum

    def _require(self, found: bytes) -> None:
        if found != self._header.post_digest_bytes:
            raise BrokenChain(
                "the state given for an image is not the one whose digest is recorded",
                position=self._header.command_id,
                expected=digest.root_of(self._header.post_digest_bytes).hex(),
                found=digest.root_of(found).hex(),
                hint="run: recovery replay",
            )


def in_blocks(table: str, pairs: Pairs) -> Iterator[Rows]:
    """The rows of one table in blocks of about BLOCK_BYTES; none is empty."""
    keys: list[bytes] = []
    rows: list[bytes] = []
    size = 0
    for key, row in pairs:
        size += len(key) + len(row)
        if size > BLOCK_BYTES and keys:
            yield Rows(table, _decoded_keys(keys), keys, rows)
            keys, rows, size = [], [], len(key) + len(row)
        keys.append(key)
        rows.append(row)
    if keys:
        yield Rows(table, _decoded_keys(keys), keys, rows)


def _lengths(parts: Sequence[bytes]) -> bytes:
    lengths = array("I", map(len, parts))
    if sys.byteorder == "big":
        lengths.byteswap()
    return lengths.tobytes()


def _value_digest(captured: bytes, header: ImageHeader) -> bytes:
    """The digest of a captured value; bytes the engine gave itself are for the engine to check, and pass."""
    if header.post_digest_bytes[:1] == bytes([digest.OWN]):
        return header.post_digest_bytes
    return bytes([digest.CAPTURE]) + xxhash.xxh3_128_digest(captured)


# Reading


class _Block:
    """The payload of one block of rows, laid open.  UnknownFormat where its lengths do not add up."""

    def __init__(self, table: str, count: int, raw: bytes) -> None:
        pairs_at = 8 * count + _ARRAY.size
        if not count or len(raw) < pairs_at or _ARRAY.unpack_from(raw, 8 * count) != (_ARRAY_32, 2 * count):
            raise UnknownFormat(f"{len(raw)} bytes are not {count} rows")
        self.table = table
        self._raw = raw
        self._count = count
        self._ends = list(accumulate(_read_lengths(raw[4 * count : 8 * count]), initial=pairs_at))
        if self._ends[-1] != len(raw):
            raise UnknownFormat("the lengths of its rows do not add up")

    def pairs(self) -> tuple[Sequence[Any], Sequence[Any]]:
        """Keys and rows, decoded."""
        flat = values.decode_bare(memoryview(self._raw)[8 * self._count :])
        return flat[::2], flat[1::2]

    def keys(self) -> tuple[Sequence[Any], Sequence[Any]]:
        """Keys, decoded; rows not."""
        return _decoded_keys(self.halves()[0]), ()

    def joined(self) -> Iterable[bytes]:
        """Key and row bytes joined, row by row: what is hashed."""
        return map(self._raw.__getitem__, map(slice, self._ends, islice(self._ends, 1, None)))

    def halves(self) -> tuple[list[bytes], list[bytes]]:
        """The bytes of each key, and of each row."""
        key_ends = list(map(add, self._ends, _read_lengths(self._raw[: 4 * self._count])))
        if any(map(gt, key_ends, islice(self._ends, 1, None))):
            raise UnknownFormat("the lengths of its keys do not add up")
        take = self._raw.__getitem__
        return list(map(take, map(slice, self._ends, key_ends))), list(
            map(take, map(slice, key_ends, islice(self._ends, 1, None)))
        )


_Decode = Callable[[_Block], tuple[Sequence[Any], Sequence[Any]]]


def _decoded_keys(key_bytes: Sequence[bytes]) -> Sequence[Any]:
    """The keys of a block by one call."""
    keys: Sequence[Any] = values.decode_bare(_ARRAY.pack(_ARRAY_32, len(key_bytes)) + b"".join(key_bytes))
    return keys


def _read_lengths(data: bytes) -> array[int]:
    lengths = array("I", data)
    if sys.byteorder == "big":
        lengths.byteswap()
    return lengths


class ImageReader:
    """Reads one image, once, from a buffered file.  ``name`` stands in errors, with the byte where the bad part begins.

    The header is read and checked at once.  Damage is a CorruptionError: ChecksumMismatch, or UnknownFormat where bytes
    are missing, are too many or make no sense.  Content is proven only when an iterator has ended.
    """

    def __init__(self, file: BinaryIO, name: str = "image") -> None:
        self._file = file
        self._name = name
        self._at = 0
        self._decompressor = zstandard.ZstdDecompressor()
        prefix = self._take(_PREFIX.size, 0)
        magic, version, size = _PREFIX.unpack(prefix)
        if magic != MAGIC:
            raise self._damage(0, f"begins with {magic!r}, so it is no image")
        if version != VERSION:
            raise self._damage(0, f"is of format version {version}; this release reads {VERSION}")
        if size > HEADER_BYTES_MAX:
            raise self._damage(0, f"has a header of {size} bytes, beyond the limit of {HEADER_BYTES_MAX}")
        document = self._take(size, 0)
        self._checksum = xxhash.xxh3_128_digest(prefix + document)
        self._check(0)
        self.header = self._parsed(document)

    def tables(self) -> Iterator[tuple[str, Sequence[Any], Sequence[Any]]]:
        """(table, keys, rows), block by block; keys and rows are decoded, rows as plain tuples or scalars.

        Decoding in bulk is three times faster with the garbage collector off, which is the caller's to decide.
        """
        for block, keys, rows in self._proven(_Block.pairs):
            yield block.table, keys, rows

    def rows(self) -> Iterator[Rows]:
        """The rows as bytes, block by block: nothing but the keys is decoded."""
        for block, keys, _ in self._proven(_Block.keys):
            yield Rows(block.table, keys, *block.halves())

    def value_bytes(self) -> bytes:
        """The captured value's bytes, for values.decode, proven."""
        parts = []
        size = 0
        for at, kind, _, _, raw in self._blocks():
            size += len(raw)
            if kind != VALUE or size > values.CAPTURE_BYTES_MAX + 1:
                raise self._damage(at, "holds what is no piece of a captured value")
            parts.append(raw)
        captured = b"".join(parts)
        self._prove(_value_digest(captured, self.header))
        return captured

    def verify(self) -> None:
        """Read every byte and prove it."""
        if self.header.kind == "value":
            self.value_bytes()
        else:
            for _ in self._proven(_Block.keys):
                pass

    def _proven(self, decode: _Decode) -> Iterator[tuple[_Block, Sequence[Any], Sequence[Any]]]:
        """Every block of rows with what ``decode`` makes of it; the digest is checked behind the last."""
        tally = Tally()
        for at, kind, table, count, raw in self._blocks():
            if kind != ROWS:
                raise self._damage(at, "holds a captured value among its tables")
            try:
                block = _Block(table, count, raw)
                keys, rows = decode(block)
                tally.add(table, keys, block.joined())
            except CorruptionError as error:
                raise self._damage(at, f"has a block that cannot be read: {error.message}") from error
            yield block, keys, rows
        self._prove(tally.digest_bytes())

    def _prove(self, found: bytes) -> None:
        if found != self.header.post_digest_bytes:
            raise ChecksumMismatch(
                "the state it holds does not give the digest in its header",
                position=self._name,
                expected=digest.root_of(self.header.post_digest_bytes).hex(),
                found=digest.root_of(found).hex(),
                hint="run: recovery check",
            )

    def _blocks(self) -> Iterator[tuple[int, int, str, int, bytes]]:
        """(position, kind, table, rows, raw payload) of each block but the last, which is checked."""
        rows = blocks = 0
        while True:
            at = self._at
            head = self._take(_BLOCK.size, at)
            kind, name_size, count, raw_size, stored_size = _BLOCK.unpack(head)
            if kind not in (ROWS, VALUE, END) or raw_size > RAW_BYTES_MAX or stored_size > STORED_BYTES_MAX:
                raise self._damage(at, f"has a block of kind {kind} and {raw_size} bytes, which no release wrote")
            body = self._take(name_size + stored_size, at)
            self._checksum = xxhash.xxh3_128_digest(b"".join([self._checksum, head, body]))
            self._check(at)
            if kind == END:
                break
            name, payload = body[:name_size], body[name_size:]
            yield at, kind, self._text(at, name), count, self._inflated(at, payload, raw_size)
            rows += count
            blocks += 1
        if body != _TOTALS.pack(rows, blocks):
            raise self._damage(at, "ends with other totals than it holds")
        if self._file.read(1):
            raise self._damage(self._at, "goes on behind its end")

    def _inflated(self, at: int, payload: bytes, size: int) -> bytes:
        try:
            return decompress(self._decompressor, payload, size)
        except ValueError as error:
            raise self._damage(at, f"has a block that {error}") from error

    def _text(self, at: int, name: bytes) -> str:
        try:
            return name.decode()
        except UnicodeDecodeError as error:
            raise self._damage(at, "names a table in bytes that are not UTF-8") from error

    def _parsed(self, document: bytes) -> ImageHeader:
        try:
            header = ImageHeader(**values.decode(document))
        except (TypeError, UnknownFormat) as error:
            raise self._damage(0, f"has a header that cannot be read: {error}") from error
        if header.kind not in ("tables", "value"):
            raise self._damage(0, f"is of the unknown kind {header.kind!r}")
        return header

    def _take(self, size: int, start: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise self._damage(start, f"is cut at byte {self._at + len(data)}")
        self._at += size
        return data

    def _check(self, start: int) -> None:
        found = self._take(_CHECKSUM_BYTES, start)
        if found != self._checksum:
            raise ChecksumMismatch(
                "the bytes from there on do not match their checksum",
                position=f"{self._name}, byte {start}",
                expected=found.hex(),
                found=self._checksum.hex(),
                hint="run: recovery check",
            )

    def _damage(self, at: int, what: str) -> UnknownFormat:
        return UnknownFormat(f"the image {what}", position=f"{self._name}, byte {at}", hint="run: recovery check")
