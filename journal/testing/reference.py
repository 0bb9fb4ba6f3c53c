"""The canonical encoding of journal/values.py once more, by msgpack's Packer alone: slow, plain, and the reference."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgpack

from journal import values

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def reference_encode(value: Any) -> bytes:
    """What ``values.encode`` must give for a plain value."""
    return values.VERSION + _encode(value)


def _encode(value: Any) -> bytes:
    packer = msgpack.Packer(use_bin_type=True)
    kind = type(value)
    if kind is tuple:
        return bytes(packer.pack_array_header(len(value))) + b"".join(map(_encode, value))
    if kind is list:
        return _ext(values.EXT_LIST, _encode(tuple(value)))
    if kind is dict:
        pairs = sorted((_encode(key), _encode(item)) for key, item in value.items())
        return bytes(packer.pack_map_header(len(value))) + b"".join(key + item for key, item in pairs)
    if kind is Decimal:
        sign, digits, exponent = value.as_tuple()
        return _ext(values.EXT_DECIMAL, f"{'-' * sign}{''.join(map(str, digits))}E{exponent}".encode())
    if kind is int and not -(2**63) <= value < 2**64:
        size = 1
        while not -(2 ** (8 * size - 1)) <= value < 2 ** (8 * size - 1):
            size += 1
        return _ext(values.EXT_INT, value.to_bytes(size, "big", signed=True))
    if kind is datetime:
        return _ext(
            values.EXT_DATETIME, ((value - _EPOCH) // timedelta(microseconds=1)).to_bytes(8, "big", signed=True)
        )
    if kind is UUID:
        return _ext(values.EXT_UUID, value.bytes)
    return bytes(packer.pack(value))


def _ext(code: int, data: bytes) -> bytes:
    return bytes(msgpack.packb(msgpack.ExtType(code, data)))
