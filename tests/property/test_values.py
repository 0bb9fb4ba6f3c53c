"""Plain values: round trip with exact types, one encoding each, two values never the same bytes, refusals with a path."""

from __future__ import annotations

import decimal
from collections import OrderedDict
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from enum import IntEnum
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import values
from journal.errors import UnknownFormat, ValueRefused
from journal.testing.reference import reference_encode
from tests.strategies import plain


def exact(value: Any) -> Any:
    """What tells any two plain values apart: types, signs of zero, exponents, but not a dict's insertion order."""
    if isinstance(value, list | tuple):
        return type(value), [exact(item) for item in value]
    if isinstance(value, dict):
        return dict, sorted(((repr(exact(key)), exact(item)) for key, item in value.items()), key=lambda pair: pair[0])
    return type(value), repr(value)


@given(plain)
@settings(max_examples=400, deadline=None)
def test_round_trip_keeps_value_and_types_and_equals_the_reference(value: Any) -> None:
    data = values.encode(value)
    assert exact(values.decode(data)) == exact(value)
    assert data == reference_encode(value)
    assert values.is_canonical(data[1:])


NEAR = [
    None, False, 0, 0.0, -0.0, "", b"", (), [], {}, Decimal(0), Decimal("-0"), Decimal("0.0"), Decimal("0E+1"),
    True, 1, 1.0, "1", b"1", (1,), [1], {1: 1}, {"1": 1}, {b"1": 1}, Decimal(1), Decimal("1.0"), Decimal("1.00"),
    ((),), ([],), [()], [[]], {"a": 1, "b": 2}, {"a": 2, "b": 1}, 2**64, float(2**64), Decimal(2**64), -(2**63) - 1,
    datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0), bytes(16), bytes(8), "a" * 31, "a" * 32, (True,), (1.0,), ("1",),
]  # fmt: skip


def test_values_that_look_alike_have_different_bytes() -> None:
    encoded = [values.encode(value) for value in NEAR]
    assert len(set(encoded)) == len(NEAR)


@given(plain, plain)
@settings(max_examples=300, deadline=None)
def test_two_values_never_share_bytes(one: Any, other: Any) -> None:
    assert (values.encode(one) == values.encode(other)) == (exact(one) == exact(other))


@given(st.dictionaries(st.text(max_size=3), st.integers(), max_size=6), st.randoms())
def test_the_order_of_insertion_does_not_show(value: dict[str, int], rng: Any) -> None:
    keys = list(value)
    rng.shuffle(keys)
    assert values.encode({key: value[key] for key in keys}) == values.encode(value)


def test_the_decimal_context_does_not_show() -> None:
    number = Decimal("123456789.000E+7")
    expected = values.encode(number)
    with decimal.localcontext(decimal.Context(prec=2, capitals=0, Emax=3, Emin=-3)):
        assert values.encode(number) == expected
        assert str(values.decode(expected).as_tuple()) == str(number.as_tuple())


class Colour(IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


class Pair(NamedTuple):
    left: int


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Colour.RED, r"value is a .*Colour, a subclass of int"),
        ({"a": [1, Text("x")]}, r"value\['a'\]\[1\] is a .*Text, a subclass of str"),
        ((1, Pair(1)), r"value\[1\] is a .*Pair, a subclass of tuple"),
        ([OrderedDict()], r"value\[0\] is a .*OrderedDict, a subclass of dict"),
        ({"a": {1, 2}}, r"value\['a'\] is a set"),
        ([float("nan")], r"value\[0\] is nan"),
        (float("-inf"), r"value is -inf"),
        ([Decimal("NaN")], r"value\[0\] is NaN"),
        ({"x": "\ud800"}, r"value\['x'\] is text with a lone surrogate"),
        ({"\ud800": 1}, r"value key is text with a lone surrogate"),
        (datetime(2026, 1, 1), r"value is .*tzinfo"),
        (
            datetime(2026, 1, 1, tzinfo=timezone(timedelta(0))).replace(tzinfo=timezone(timedelta(hours=1))),
            r"value is .*tzinfo",
        ),
        (datetime(2026, 1, 1, tzinfo=UTC, fold=1), r"value is .*fold"),
        ({2**64: 1}, r"value has the key 18446744073709551616"),
        ({True: 1}, r"value has the key True"),
        ({(1,): 1}, r"value has the key \(1,\)"),
        ({None: 1}, r"value has the key None"),
        ([object()], r"value\[0\] is a object"),
        (deep(40), r"nested deeper than 32"),
        (bytes(values.VALUE_BYTES_MAX), r"beyond the limit"),
    ],
)
def test_what_is_not_plain_is_refused_with_its_path(value: Any, path: str) -> None:
    with pytest.raises(ValueRefused, match=path):
        values.encode(value)


def test_what_encode_takes_at_its_limit_decode_reads() -> None:
    for value in (deep(values.DEPTH_MAX), bytes(values.VALUE_BYTES_MAX - 10), 2**4000):
        assert values.decode(values.encode(value)) == value


@given(st.binary(max_size=40))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_decode_or_are_an_unknown_format(data: bytes) -> None:
    for candidate in (data, values.VERSION + data):
        try:
            values.decode(candidate)
        except UnknownFormat:
            continue


@given(plain, st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_decode_or_are_an_unknown_format(value: Any, data: Any) -> None:
    encoded = bytearray(values.encode(value))
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    for damaged in (bytes(encoded), bytes(encoded[:at])):
        try:
            values.decode(damaged)
        except UnknownFormat:
            continue
