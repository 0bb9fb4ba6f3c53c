"""Entries as COPY's binary format, written by hand: five times as fast as one parameter after the other.

A row is its number of columns as i16, then for each its length as i32 (-1: NULL) and its bytes; all big-endian.  int8 is 8 bytes,
boolean 1, uuid 16, text UTF-8.  A stream of rows begins with ``HEADER`` and ends with ``TRAILER``.

The columns of fixed size stand first (``COLUMNS``), so that one ``struct`` call writes them all.  Reading is otherwise: a
prepared SELECT in binary, which the driver decodes in C, is three times as fast as a COPY read by hand in Python.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

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
"""An entry's columns in the order they are written in; the stream stands before them."""

_FIXED: Final = struct.Struct(">iqi16siqiBiBiqiqiqi16si64si16s")
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
