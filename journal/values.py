"""Plain values and their canonical bytes.

Format, version 1.  A value's bytes are one version byte ``0x01`` and then MessagePack, in the
shortest form MessagePack has for each item, with these rules:

===========  =====================================================================================
None, bool   nil, false, true
int          the integer formats within [-2**63, 2**64); beyond, ext 3: two's complement, big-endian,
             in the fewest bytes
float        float 64, finite; -0.0 and 0.0 are two values
str          str, UTF-8, no lone surrogate
bytes        bin
tuple        array
list         ext 1, holding one array of the same items
dict         map, its keys str, int or bytes, sorted by their encoded bytes
Decimal      ext 2: ASCII ``[-]DIGITS"E"EXPONENT``, the coefficient's digits and the exponent as they are
datetime     ext 4: microseconds since 1970-01-01T00:00:00Z, signed 64-bit big-endian; tzinfo must be
             ``datetime.timezone.utc``
UUID         ext 5: its 16 bytes
===========  =====================================================================================

The tuple takes MessagePack's own array because rows and keys are tuples and are the hot path.
Types are exact (``type(x) is int``): a subclass is refused, so are NaN and infinities.  Encoding
is injective, and ``decode(encode(x))`` is ``x`` with the same types.  Equality everywhere in this
project is equality of these bytes.

One set of limits holds on write and on read: ``VALUE_BYTES_MAX`` bytes, ``CAPTURE_BYTES_MAX`` for the whole state of an
engine without tables, ``DEPTH_MAX`` levels.

msgspec does the encoding; ``journal.testing.reference_encode`` says the same with msgpack alone, and
a property test holds the bytes equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgpack
import msgspec

from journal.errors import UnknownFormat, ValueRefused

VERSION: Final = b"\x01"
VALUE_BYTES_MAX: Final = 16 * 2**20
CAPTURE_BYTES_MAX: Final = 2**30
DEPTH_MAX: Final = 32

EXT_LIST: Final = 1
EXT_DECIMAL: Final = 2
EXT_INT: Final = 3
EXT_DATETIME: Final = 4
EXT_UUID: Final = 5

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

# Types that msgspec writes canonically as they stand; an int may still overflow, and is then wrapped.
_DIRECT: Final = frozenset({type(None), bool, int, str, bytes})
_TEXT: Final = frozenset({str})
_KEYS: Final = frozenset({str, int, bytes})

_pack: Final[Callable[[object], bytes]] = msgspec.msgpack.Encoder().encode
_Ext = msgspec.msgpack.Ext


def encode(value: object, *, bytes_max: int = VALUE_BYTES_MAX) -> bytes:
    """The canonical bytes of a plain value, version byte first.  ValueRefused names the path of what is not plain."""
    return VERSION + encode_bare(value, bytes_max=bytes_max)


def encode_bare(value: object, *, bytes_max: int = VALUE_BYTES_MAX) -> bytes:
    """``encode`` without the version byte, for the formats that hold it once for many values."""
    try:
        packed = _pack(value if type(value) in _DIRECT else _wrap(value, 0))
    except (OverflowError, UnicodeEncodeError, _NotPlain):
        packed = _encode_slowly(value)
    if len(packed) > bytes_max:
        raise ValueRefused(f"a value of {len(packed)} bytes is beyond the limit of {bytes_max}")
    return packed


def decode(data: bytes) -> Any:
    """The value of ``encode``'s bytes.  UnknownFormat where they are of no known version or not well formed."""
    if data[:1] != VERSION:
        raise UnknownFormat(f"a value begins with {data[:1]!r}; this release reads version {VERSION!r}")
    return decode_bare(data[1:])


def decode_bare(data: bytes | memoryview) -> Any:
    """The value of ``encode_bare``'s bytes."""
    try:
        value = msgpack.unpackb(data, use_list=False, strict_map_key=False, ext_hook=_read_ext)
    except UnknownFormat:
        raise
    except Exception as error:  # whatever malformed bytes make the C decoder raise, they are malformed
        raise UnknownFormat(f"{len(data)} bytes are not a value: {error}") from error
    return value


def is_canonical(data: bytes) -> bool:
    """Whether these bytes are what ``encode_bare`` writes for the value they hold."""
    try:
        return encode_bare(decode_bare(data)) == data
    except (UnknownFormat, ValueRefused):
        return False


class _NotPlain(Exception):
    """Raised on the fast path; the slow path then finds the place and says it."""


def _wrap(value: object, depth: int) -> object:
    """What msgspec must be given to write ``value`` canonically."""
    kind = type(value)
    if kind in _DIRECT:
        return value
    if depth >= DEPTH_MAX:
        raise _NotPlain
    # isinstance is for the type checker, `kind is` for the rule: types are exact.
    if kind is tuple and isinstance(value, tuple):
        if _DIRECT.issuperset(map(type, value)):
            return value
        return tuple([_wrap(item, depth + 1) for item in value])
    if kind is dict and isinstance(value, dict):
        return _wrap_dict(value, depth)
    return _wrap_other(value, kind, depth)


_ORDERS: Final[dict[tuple[str, ...], tuple[str, ...]]] = {}
_ORDERS_MAX: Final = 4096


def _wrap_dict(value: dict[Any, object], depth: int) -> dict[Any, object]:
    if _TEXT.issuperset(map(type, value)):
        # Commands and events come in few shapes: the order of a shape's keys is worked out once.
        shape = tuple(value)
        order = _ORDERS.get(shape)
        if order is None:
            order = tuple(sorted(shape, key=_pack))
            if len(_ORDERS) < _ORDERS_MAX:
                _ORDERS[shape] = order
        return {key: _wrap(value[key], depth + 1) for key in order}
    if not _KEYS.issuperset(map(type, value)):
        raise _NotPlain
    pairs = sorted((_pack(key), key) for key in value if not _wide(key))
    if len(pairs) != len(value):
        raise _NotPlain
    return {key: _wrap(value[key], depth + 1) for _, key in pairs}


def _wide(key: object) -> bool:
    return type(key) is int and not -(2**63) <= key < 2**64


def _wrap_other(value: object, kind: type, depth: int) -> object:
    if kind is float and isinstance(value, float):
        if not math.isfinite(value):
            raise _NotPlain
        return value
    if kind is list and isinstance(value, list):
        return _Ext(EXT_LIST, _pack(tuple([_wrap(item, depth + 1) for item in value])))
    if kind is Decimal and isinstance(value, Decimal):
        return _Ext(EXT_DECIMAL, decimal_bytes(value))
    if kind is UUID and isinstance(value, UUID):
        return _Ext(EXT_UUID, value.bytes)
    if kind is datetime and isinstance(value, datetime):
        return _Ext(EXT_DATETIME, _datetime_bytes(value))
    raise _NotPlain


def _encode_slowly(value: object) -> bytes:
    """Values with wide integers, and the finding of what is not plain: ValueRefused names its path."""
    packed = _pack(_wrap_slowly(value, "value", 0))
    return packed


def _wrap_slowly(value: object, path: str, depth: int) -> object:
    kind = type(value)
    if depth > DEPTH_MAX:
        raise ValueRefused(f"{path} is nested deeper than {DEPTH_MAX} levels")
    if isinstance(value, tuple) and kind is tuple:
        return tuple([_wrap_slowly(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)])
    if isinstance(value, list) and kind is list:
        items = tuple([_wrap_slowly(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)])
        return _Ext(EXT_LIST, _pack(items))
    if isinstance(value, dict) and kind is dict:
        return _wrap_dict_slowly(value, path, depth)
    if isinstance(value, int) and kind is int and _wide(value):
        bits = (value if value >= 0 else ~value).bit_length() + 1
        return _Ext(EXT_INT, value.to_bytes((bits + 7) // 8, "big", signed=True))
    if isinstance(value, str) and kind is str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueRefused(f"{path} is text with a lone surrogate: {value!r}") from None
        return value
    try:
        return _wrap(value, depth)
    except _NotPlain:
        raise ValueRefused(f"{path} {_complaint(value)}") from None


def _wrap_dict_slowly(value: dict[object, object], path: str, depth: int) -> dict[object, object]:
    pairs = []
    for key in value:
        if type(key) not in _KEYS or _wide(key):
            raise ValueRefused(f"{path} has the key {key!r}: keys are str, bytes, or int of 64 bits")
        _wrap_slowly(key, f"{path} key", depth + 1)
        pairs.append((_pack(key), key))
    return {
        key: _wrap_slowly(value[key], f"{path}[{key!r}]", depth + 1) for _, key in sorted(pairs, key=lambda p: p[0])
    }


def _complaint(value: object) -> str:
    kind = type(value)
    if kind is float or kind is Decimal:
        return f"is {value}, and only finite numbers are stored"
    if kind is datetime:
        return f"is {value!r}: a datetime must have tzinfo=datetime.timezone.utc and fold=0"
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    plain = next((base.__name__ for base in kind.__mro__[1:] if base in _PLAIN), None)
    if plain is not None:
        return f"is a {name}, a subclass of {plain}; store a {plain} itself"
    return f"is a {name}, not a plain value (None, bool, int, float, str, bytes, Decimal, datetime, UUID, list, tuple, dict)"


_PLAIN: Final = frozenset({bool, int, float, str, bytes, Decimal, datetime, UUID, list, tuple, dict})


def decimal_bytes(value: Decimal) -> bytes:
    """A finite Decimal's bytes.  Not ``str()``: what that prints depends on the decimal context in force."""
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise _NotPlain
    return f"{'-' if sign else ''}{''.join(map(str, digits))}E{exponent}".encode("ascii")


def _datetime_bytes(value: datetime) -> bytes:
    if value.tzinfo is not UTC or value.fold:
        raise _NotPlain
    return ((value - _EPOCH) // _MICROSECOND).to_bytes(8, "big", signed=True)


def _read_ext(code: int, data: bytes) -> object:
    if code == EXT_LIST:
        return list(decode_bare(data))
    if code == EXT_DECIMAL:
        return Decimal(data.decode("ascii"))
    if code == EXT_UUID:
        return UUID(bytes=data)
    if code == EXT_DATETIME:
        return _EPOCH + int.from_bytes(data, "big", signed=True) * _MICROSECOND
    if code == EXT_INT:
        return int.from_bytes(data, "big", signed=True)
    raise UnknownFormat(f"a value holds an item of unknown kind {code}")
