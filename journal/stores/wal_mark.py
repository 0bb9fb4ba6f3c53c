"""The mark of a ``wal:`` journal: how far it is known to be durable.  The file ``durable``, overwritten after each sync.

::

    0   8   "RECMARK" 0x01
    8   16  boot id of the machine that wrote it
    24  8   number of the segment, big-endian
    32  8   byte of it up to which all is durable
    40  16  digest of bytes 0 to 39

The mark itself is synced only when the writer closes.  So:

* What it covers was durable, always: a bad frame there is damage, and a file that ends before it has lost its end.
* Within the boot that wrote it, what lies beyond may be in the page cache alone: readers end at the mark.
* After another boot, whatever is found was on the disk, and the mark limits nothing.

A mark that is missing or not whole says nothing: it is not part of the record.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import xxhash

_MARK: Final = struct.Struct(">8s16sQQ")
_MAGIC: Final = b"RECMARK\x01"

MARK_NAME: Final = "durable"
MARK_BYTES: Final = _MARK.size + 16


class Mark(NamedTuple):
    """How far a log is durable, and the boot in which that was written."""

    boot: bytes
    segment: int
    offset: int

    def pack(self) -> bytes:
        """The bytes of the file."""
        data = _MARK.pack(_MAGIC, self.boot, self.segment, self.offset)
        return data + xxhash.xxh3_128_digest(data)


def unpack_mark(data: bytes) -> Mark | None:
    """The mark; None where it is not whole."""
    if len(data) < MARK_BYTES or xxhash.xxh3_128_digest(data[:40]) != data[40:MARK_BYTES]:
        return None
    magic, boot, segment, offset = _MARK.unpack_from(data)
    return Mark(boot, segment, offset) if magic == _MAGIC else None
