"""Entries as COPY's binary format, written and read by hand: five times as fast as one parameter after the other.

A row is its number of columns as i16, then for each its length as i32 (-1: NULL) and its bytes; all big-endian.  int8 is 8 bytes,
boolean 1, uuid 16, text UTF-8.  A stream of rows begins with ``HEADER`` and ends with ``TRAILER``.

The columns of fixed size stand first (``COLUMNS``), so that one ``struct`` call takes them all.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from journal.errors import CorruptionError
from journal.records import Entry

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"

_FIXED_NAMES: Final = (
    "command_id", "request_key", "received_at_ms", "rejected", "events_reduced", "epoch", "duration_ns", "recorded_at_ms",
    "chain", "part_hashes", "checksum",
)  # fmt: skip
_OTHER_NAMES: Final = (
    "type", "entity_id", "data_bytes", "result_bytes", "events_bytes", "changes_bytes", "pre_digest_bytes",
    "post_digest_bytes",
)  # fmt: skip
NAMES: Final = _FIXED_NAMES + _OTHER_NAMES
COLUMNS: Final = ", ".join(NAMES)
"""An entry's columns in the order they are copied in; the stream stands before them when written."""

_FIXED: Final = struct.Struct(">iqi16siqiBiBiqiqiqi16si64si16s")
# Behind the count of columns; the length of the first column of variable size is taken in the same step.
_ROW: Final = struct.Struct(">hiqi16siqiBiBiqiqiqi16si64si16si")
_COUNT: Final = struct.Struct(">h")
_LENGTH: Final = struct.Struct(">i")
_NULL: Final = b"\xff\xff\xff\xff"


def encode(stream: str, entries: Iterable[Entry]) -> bytes:
    """Entries, in the order (stream, *COLUMNS), as one COPY."""
    name = stream.encode()
    begin = _COUNT.pack(len(NAMES) + 1) + _LENGTH.pack(len(name)) + name
    fixed, length = _FIXED.pack, _LENGTH.pack
    parts = [HEADER]
    for e in entries:
        (i, key, type, entity, received, data, rejected, result, events, changes, pre, post, chain, hashes) = e[:14]
        reduced, epoch, duration, recorded, seal = e[14:]
        if len(chain) != 16 or len(hashes) != 64 or len(seal) != 16 or len(key) != 16:
            raise ValueError(f"entry {i} has a hash of another length")
        kind = type.encode()
        parts += (
            begin,
            fixed(
                8, i, 16, key, 8, received, 1, rejected, 1, reduced, 8, epoch, 8, duration, 8, recorded,
                16, chain, 64, hashes, 16, seal,
            ),
            length(len(kind)),
            kind,
        )  # fmt: skip
        if entity is None:
            parts.append(_NULL)
        else:
            word = entity.encode()
            parts += (length(len(word)), word)
        parts += (length(len(data)), data, length(len(result)), result, length(len(events)), events)
        for blob in (changes, pre, post):
            if blob is None:
                parts.append(_NULL)
            else:
                parts += (length(len(blob)), blob)
    parts.append(TRAILER)
    return b"".join(parts)


def decode(rows: Sequence[bytes]) -> list[Entry]:
    """The entries of copied rows, in the order of COLUMNS.  CorruptionError, with the position, where one is not an entry."""
    found: list[Entry] = []
    for row in rows:
        try:
            found.append(_entry(row))
        except (struct.error, UnicodeDecodeError, IndexError) as error:
            raise _damaged(row) from error
    return found


def _entry(row: bytes) -> Entry:
    (
        count, _, i, _, key, _, received, _, rejected, _, reduced, _, epoch, _, duration, _, recorded,
        chain_size, chain, hashes_size, hashes, seal_size, seal, size,
    ) = _ROW.unpack_from(row)  # fmt: skip
    if count != 19 or chain_size != 16 or hashes_size != 64 or seal_size != 16:
        raise IndexError
    length = _LENGTH.unpack_from
    at = _ROW.size + size
    kind = row[_ROW.size : at].decode()
    (size,) = length(row, at)
    at += 4
    entity = None
    if size >= 0:
        entity = row[at : at + size].decode()
        at += size
    (size,) = length(row, at)
    at += 4 + size
    data = row[at - size : at]
    (size,) = length(row, at)
    at += 4 + size
    result = row[at - size : at]
    (size,) = length(row, at)
    at += 4 + size
    events = row[at - size : at]
    (size,) = length(row, at)
    at += 4
    changes = None
    if size >= 0:
        changes = row[at : at + size]
        at += size
    (size,) = length(row, at)
    at += 4
    pre = None
    if size >= 0:
        pre = row[at : at + size]
        at += size
    (size,) = length(row, at)
    at += 4
    post = None
    if size >= 0:
        post = row[at : at + size]
    return _make(
        (
            i, key, kind, entity, received, data, rejected == 1, result, events, changes, pre, post, chain, hashes,
            reduced == 1, epoch, duration, recorded, seal,
        ),
    )  # fmt: skip


_make: Final[Callable[[tuple[Any, ...]], Entry]] = functools.partial(tuple.__new__, Entry)
"""``Entry._make`` without its count of fields, which the layout above has made sure of."""


def _damaged(row: bytes) -> CorruptionError:
    # The command's id comes first and is a number whatever else is wrong.
    position = int.from_bytes(row[6:14], "big")
    return CorruptionError("the entry is not as it was written", position=position, hint="run: recovery check")


def from_columns(row: Sequence[Any]) -> Entry:
    """The entry of a row that the driver decoded, in the order of COLUMNS."""
    named = dict(zip(NAMES, row, strict=True))
    named["request_key"] = named["request_key"].bytes
    return Entry(**named)


def rows_of(chunks: Iterable[bytes | bytearray | memoryview]) -> list[bytes]:
    """The rows of a COPY ... TO STDOUT as the driver gives it: a message each, the header before the first."""
    rows = [bytes(chunk) for chunk in chunks]
    if rows and rows[0].startswith(HEADER):
        rows[0] = rows[0][len(HEADER) :]
    # The end is a message of its own; where there is no row, the header and it may be one.
    while rows and rows[-1] in (TRAILER, b""):
        rows.pop()
    return rows
