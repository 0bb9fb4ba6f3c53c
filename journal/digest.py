"""Digests of state, and the chain over history.  The hash is xxh3; it finds faults, not fraud.

Row hash: ``xxh3_128(key bytes + row bytes, seed=xxh3_64(table name))``, big-endian, the bytes being
``values.encode_bare``.  Both halves end by themselves, so the sum of the parts is injective.

StateDigest, as bytes (all integers big-endian)::

    algorithm  u8    1: tables     2: xxh3_128 of the captured value     3: bytes the engine gave
    1:  for each non-empty table in the order of its name's UTF-8 bytes:
            length of name u8, name, rows u64, sum of row hashes mod 2**128 as 16 bytes
    2, 3: the root itself

``root`` is xxh3_128 of those bytes for algorithm 1, and what follows the algorithm byte for 2 and 3.
Two states have equal digests when their tables hold equal rows.

Chain: ``H`` is xxh3_128 over the lengths of its parts, each as u32, and then the parts.  The chain before entry 1 is
``H(b"engine-recovery chain 1")``; each entry's is ``H(chain before, command hash, result hash,
events hash, pre root, post root)``, an absent digest's root being empty.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

import xxhash

from journal.errors import UnknownFormat

MODULUS: Final = 2**128
TABLES: Final = 1
CAPTURE: Final = 2
OWN: Final = 3
ROOT_BYTES_MAX: Final = 64

_xxh3_128 = xxhash.xxh3_128_digest


class TableDigest(NamedTuple):
    """The multiset hash of one table: how many rows, and the sum of their hashes modulo 2**128."""

    rows: int
    hash: int

    def pack(self, name: str) -> bytes:
        """This table's part of a StateDigest's bytes."""
        return part_label(name) + part_figures(self.rows, self.hash)


def part_label(name: str) -> bytes:
    """The beginning of a table's part: its name, with the length before it."""
    label = name.encode()
    return bytes([len(label)]) + label


def part_figures(rows: int, hash: int) -> bytes:
    """The rest of a table's part."""
    return rows.to_bytes(8, "big") + hash.to_bytes(16, "big")


class StateDigest(NamedTuple):
    """What a state was.  ``tables`` is empty for an engine without tables."""

    algorithm: int
    tables: Mapping[str, TableDigest]
    root: bytes

    def pack(self) -> bytes:
        """The bytes described at the head of this file."""
        if self.algorithm != TABLES:
            return bytes([self.algorithm]) + self.root
        return pack_tables(self.tables[name].pack(name) for name in sorted(self.tables, key=str.encode))

    @classmethod
    def unpack(cls, data: bytes) -> StateDigest:
        """Read ``pack``'s bytes.  UnknownFormat where the algorithm is unknown or the bytes are cut."""
        algorithm = data[0] if data else 0
        if algorithm in (CAPTURE, OWN):
            return cls(algorithm, {}, data[1:])
        if algorithm != TABLES:
            raise UnknownFormat(f"a state digest of unknown algorithm {algorithm}")
        return cls(algorithm, _unpack_tables(data), root_of(data))

    def __str__(self) -> str:
        return self.root.hex()


def pack_tables(parts: Iterable[bytes]) -> bytes:
    """A StateDigest's bytes from the parts of its non-empty tables, in name order."""
    return b"\x01" + b"".join(parts)


EMPTY: Final = pack_tables(())


def root_of(packed: bytes | None) -> bytes:
    """The root of a packed StateDigest; empty for an absent one."""
    if not packed:
        return b""
    return _xxh3_128(packed) if packed[0] == TABLES else packed[1:]


def _unpack_tables(data: bytes) -> dict[str, TableDigest]:
    tables = {}
    at = 1
    while at < len(data):
        name_end = at + 1 + data[at]
        end = name_end + 24
        if end > len(data):
            raise UnknownFormat(f"a state digest is cut at byte {len(data)}")
        name = data[at + 1 : name_end].decode()
        rows, total = data[name_end : name_end + 8], data[name_end + 8 : end]
        tables[name] = TableDigest(int.from_bytes(rows, "big"), int.from_bytes(total, "big"))
        at = end
    return tables


def table_seed(name: str) -> int:
    """The seed that makes a row's hash one of this table."""
    return xxhash.xxh3_64_intdigest(name.encode())


row_hash = xxhash.xxh3_128_intdigest
"""``row_hash(key bytes + row bytes, table_seed(name))``: an int below 2**128."""


_PARTS_MAX: Final = 8
_lengths: Final = [struct.Struct(f">{count}I").pack for count in range(_PARTS_MAX + 1)]


def hash_parts(*parts: bytes) -> bytes:
    """``H``: xxh3_128 over the parts' lengths and the parts, at most 8, 16 bytes."""
    return _xxh3_128(_lengths[len(parts)](*map(len, parts)) + b"".join(parts))


CHAIN_START: Final = hash_parts(b"engine-recovery chain 1")
