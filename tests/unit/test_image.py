"""The image file: what goes in comes out, and nothing but that ever does."""

from __future__ import annotations

import io
import struct
from itertools import pairwise
from typing import Any

import pytest
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import digest, values
from journal.errors import BrokenChain, ChecksumMismatch, CorruptionError, UnknownFormat, UsageError, ValueRefused
from snapshots import image
from snapshots.image import ImageHeader, ImageReader, write_image, write_value_image
from snapshots.redo import digest_of
from snapshots.testing import RowHistory

SMALL = {
    ("accounts", -3): ("ada", 5),
    ("accounts", 2**40): ("bob", None),
    ("cells", ()): 1.5,
    ("pairs", ("a", 1)): b"x",
}

keys = st.one_of(
    st.lists(st.integers(-(2**63), 2**64 - 1), unique=True),
    st.lists(st.text(max_size=8), unique=True),
    st.lists(st.binary(max_size=8), unique=True),
    st.lists(st.tuples(st.text(max_size=3), st.integers(-9, 9)), unique=True),
)
rows = st.one_of(
    st.integers(),
    st.text(),
    st.none(),
    st.tuples(st.booleans(), st.integers(), st.text(), st.decimals(allow_nan=False, allow_infinity=False)),
)
states = st.dictionaries(st.sampled_from(["a", "é", "z", "cells", "\U0001f600"]), keys)


def whole(history: RowHistory, command_id: int) -> bytes:
    return b"".join(write_image(history.header(command_id), history.tables(command_id)))


def small_image() -> bytes:
    history = RowHistory()
    history.command(SMALL)
    return whole(history, 1)


def value_header(captured: bytes, *, algorithm: int = digest.CAPTURE) -> ImageHeader:
    history = RowHistory()
    history.command({})
    root = xxhash.xxh3_128_digest(captured) if algorithm == digest.CAPTURE else b"mine"
    return history.header(1)._replace(kind="value", schema=b"", post_digest_bytes=bytes([algorithm]) + root)


def contents(data: bytes) -> tuple[Any, ...]:
    """What every reader finds in an image."""
    header = ImageReader(io.BytesIO(data)).header
    if header.kind == "value":
        return header, ImageReader(io.BytesIO(data)).value_bytes()
    decoded = [
        (table, key, row)
        for table, some_keys, some_rows in ImageReader(io.BytesIO(data)).tables()
        for key, row in zip(some_keys, some_rows, strict=True)
    ]
    raw = [
        row
        for block in ImageReader(io.BytesIO(data)).rows()
        for row in zip([block.table] * len(block.keys), *block[1:], strict=True)
    ]
    ImageReader(io.BytesIO(data)).verify()
    return header, decoded, raw


@settings(max_examples=80, deadline=None)
@given(states, st.data())
def test_what_goes_in_comes_out(state: dict[str, list[Any]], data: st.DataObject) -> None:
    history = RowHistory()
    history.command({(table, key): data.draw(rows) for table, some in state.items() for key in some})
    header, decoded, raw = contents(whole(history, 1))
    expected = [
        (table, key, history.states[1][table][key])
        for table in sorted(history.states[1])
        for key in sorted(history.states[1][table])
    ]
    assert header == history.header(1)
    assert [(table, key, values.encode_bare(row)) for table, key, row in decoded] == expected
    assert [(type(key), key) for _, key, _ in decoded] == [(type(key), key) for _, key, _ in expected]
    assert raw == [(table, key, values.encode_bare(key), row) for table, key, row in expected]


def test_many_blocks() -> None:
    history = RowHistory()
    big = {("big", 1): b"x" * (3 * image.BLOCK_BYTES)}
    history.command({("t", key): ("x" * 50_000, key) for key in range(100)} | big)
    data = whole(history, 1)
    blocks = list(ImageReader(io.BytesIO(data)).rows())
    assert [(block.table, len(block.keys)) for block in blocks[:2]] == [("big", 1), ("t", 20)]
    assert len(blocks) == 6
    assert contents(data)[1][1:3] == [("t", 0, ("x" * 50_000, 0)), ("t", 1, ("x" * 50_000, 1))]


@pytest.mark.parametrize("algorithm", [digest.CAPTURE, digest.OWN])
@pytest.mark.parametrize("value", [None, {"a": [1, (2,)]}, "x" * (2 * image.BLOCK_BYTES)])
def test_a_captured_value_comes_back(value: object, algorithm: int) -> None:
    captured = values.encode(value)
    header = value_header(captured, algorithm=algorithm)
    assert contents(b"".join(write_value_image(header, captured))) == (header, captured)


@pytest.mark.parametrize("kind", ["tables", "value"])
def test_every_flipped_byte_and_every_cut_is_found(kind: str) -> None:
    captured = values.encode({"ada": (5, [None])})
    data = small_image() if kind == "tables" else b"".join(write_value_image(value_header(captured), captured))
    contents(data)
    flips = [data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :] for at in range(len(data)) for bit in (1, 0x10, 0xFF)]
    cuts = [data[:size] for size in range(len(data))]
    for damaged in (*flips, *cuts):
        with pytest.raises((ChecksumMismatch, UnknownFormat)) as found:
            contents(damaged)
        assert str(found.value.position).startswith("image, byte ")
        assert found.value.hint == "run: recovery check"


def test_bytes_behind_the_end_are_refused() -> None:
    for tail in (b"\0", small_image()):
        with pytest.raises(UnknownFormat, match="goes on behind its end"):
            contents(small_image() + tail)


def blocks_of(data: bytes) -> list[bytes]:
    """An image in pieces: the header, and each block."""
    _, _, size = image._PREFIX.unpack_from(data)
    starts = [0, image._PREFIX.size + size + 16]
    while starts[-1] < len(data):
        _, name, _, _, stored = image._BLOCK.unpack_from(data, starts[-1])
        starts.append(starts[-1] + image._BLOCK.size + name + stored + 16)
    return [data[start:end] for start, end in pairwise(starts)]


def test_blocks_cannot_be_left_out_doubled_or_exchanged() -> None:
    head, first, second, third, end = blocks_of(small_image())
    for order in (
        [head, first, second, end],
        [head, first, first, second, third, end],
        [head, second, first, third, end],
        [head, end],
    ):
        with pytest.raises(ChecksumMismatch):
            contents(b"".join(order))


def sealed(header: ImageHeader, blocks: list[tuple[int, str, int, int, bytes]], totals: tuple[int, int]) -> bytes:
    """An image whose checksums hold, whatever its blocks say: (kind, table, rows, raw size, payload)."""
    writer = image._Writer(header, header.kind)
    parts = [writer._begin()]
    for kind, table, count, raw_size, payload in blocks:
        parts.append(writer._sealed(kind, table.encode(), count, raw_size, payload))
    parts.append(writer._sealed(image.END, b"", 0, 16, struct.pack(">QQ", *totals)))
    return b"".join(parts)


def raw_rows(pairs: list[tuple[bytes, bytes]]) -> bytes:
    lengths = struct.pack(f"<{len(pairs)}I", *(len(key) for key, _ in pairs))
    lengths += struct.pack(f"<{len(pairs)}I", *(len(key + row) for key, row in pairs))
    return lengths + b"\xdd" + struct.pack(">I", 2 * len(pairs)) + b"".join(key + row for key, row in pairs)


PAIRS = [(b"\x01", b"\x0a"), (b"\x02", b"\x0b")]


def header_of(tables: list[tuple[str, list[tuple[bytes, bytes]]]]) -> ImageHeader:
    history = RowHistory()
    history.command({})
    return history.header(1)._replace(post_digest_bytes=digest_of(tables).pack())


def one_block(raw: bytes, *, count: int = 2, kind: int = image.ROWS, raw_size: int | None = None) -> bytes:
    payload = zstandard.ZstdCompressor(level=1).compress(raw)
    block = (kind, "t", count, len(raw) if raw_size is None else raw_size, payload)
    return sealed(header_of([("t", PAIRS)]), [block], (2, 1))


def test_the_crafted_image_is_good_as_it_stands() -> None:
    assert contents(one_block(raw_rows(PAIRS)))[1] == [("t", 1, 10), ("t", 2, 11)]


def test_sizes_are_refused_before_memory_is_taken_for_them() -> None:
    for size in (image.RAW_BYTES_MAX + 1, 2**32 - 1):
        with pytest.raises(UnknownFormat, match="no release wrote"):
            contents(one_block(raw_rows(PAIRS), raw_size=size))
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(image.RAW_BYTES_MAX * 4))
    assert len(bomb) < 100_000
    with pytest.raises(UnknownFormat, match="does not hold the 20 bytes it promises"):
        contents(sealed(header_of([]), [(image.ROWS, "t", 1, 20, bomb)], (1, 1)))
    unsized = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(bytes(image.RAW_BYTES_MAX * 4))
    with pytest.raises(UnknownFormat):
        contents(sealed(header_of([]), [(image.ROWS, "t", 1, 20, unsized)], (1, 1)))


@pytest.mark.parametrize(
    "damaged",
    [
        one_block(raw_rows(PAIRS), count=1),
        one_block(raw_rows(PAIRS), count=3),
        one_block(raw_rows(PAIRS), count=2**32 - 1),
        one_block(raw_rows(PAIRS), count=0),
        one_block(raw_rows(PAIRS), kind=image.VALUE),
        one_block(raw_rows(PAIRS), kind=9),
        one_block(raw_rows(PAIRS)[:-1]),
        one_block(raw_rows(PAIRS) + b"\0"),
        one_block(b"\x03" + raw_rows(PAIRS)[1:]),
        one_block(raw_rows([(b"\x01", b"\x0a"), (b"\x02", b"\xc1")])),
        one_block(raw_rows(PAIRS[::-1])),
        one_block(raw_rows([PAIRS[0], PAIRS[0]])),
        one_block(raw_rows([PAIRS[0], (b"\xa1x", b"\x0b")])),
        one_block(raw_rows([PAIRS[0], (b"\x02", b"\x0c")])),
        one_block(raw_rows(PAIRS[:1]), count=1),
        sealed(header_of([("t", PAIRS)]), [(image.ROWS, "t", 2, 30, b"no frame")], (2, 1)),
        sealed(header_of([]), [], (1, 0)),
    ],
)
def test_sense_is_checked_even_where_checksums_hold(damaged: bytes) -> None:
    with pytest.raises((UnknownFormat, ChecksumMismatch)):
        contents(damaged)
    with pytest.raises((UnknownFormat, ChecksumMismatch)):
        ImageReader(io.BytesIO(damaged)).verify()


def test_tables_out_of_order_are_refused_by_both_sides() -> None:
    tables = [("b", PAIRS), ("a", PAIRS)]
    header = header_of(tables[::-1])
    with pytest.raises(UnknownFormat, match="order of names"):
        list(write_image(header, tables))
    payload = zstandard.ZstdCompressor(level=1).compress(raw_rows(PAIRS))
    size = len(raw_rows(PAIRS))
    with pytest.raises(UnknownFormat, match="order of names"):
        contents(sealed(header, [(image.ROWS, name, 2, size, payload) for name, _ in tables], (4, 2)))


def test_a_header_that_makes_no_sense_is_refused() -> None:
    good = header_of([])
    for document in (values.encode(good._asdict() | {"more": 1}), values.encode(7), b"\x01\xc1", b"\x02"):
        data = image._PREFIX.pack(image.MAGIC, 1, len(document)) + document
        with pytest.raises(UnknownFormat, match="byte 0"):
            ImageReader(io.BytesIO(data + xxhash.xxh3_128_digest(data)))
    with pytest.raises(UnknownFormat, match="unknown kind"):
        contents(b"".join(image._Writer(good._replace(kind="x"), "x").tables([])))
    huge = image._PREFIX.pack(image.MAGIC, 1, 2**32 - 1)
    with pytest.raises(UnknownFormat, match="beyond the limit"):
        ImageReader(io.BytesIO(huge))


def test_the_writer_ends_no_image_of_another_state() -> None:
    history = RowHistory()
    history.command(SMALL)
    history.command({("accounts", -3): ("ada", 6)})
    out: list[bytes] = []
    with pytest.raises(BrokenChain) as found:
        out.extend(write_image(history.header(2), history.tables(1)))
    assert out
    assert found.value.position == 2
    with pytest.raises(CorruptionError):
        contents(b"".join(out))
    captured = values.encode(1)
    with pytest.raises(BrokenChain):
        list(write_value_image(value_header(values.encode(2)), captured))


def test_the_writer_refuses_what_no_reader_would_take() -> None:
    header = header_of([("t", PAIRS)])
    for wrong in (PAIRS[::-1], [PAIRS[0], PAIRS[0]], [PAIRS[0], (b"\xa1x", b"\x0b")]):
        with pytest.raises(UnknownFormat, match="ascending"):
            list(write_image(header, [("t", wrong)]))
    with pytest.raises(ValueRefused, match="beyond an image's limit"):
        list(write_image(header, [("t", [(b"\x01", b"x" * image.RAW_BYTES_MAX)])]))
    with pytest.raises(ValueRefused, match="header"):
        list(write_image(header._replace(schema=bytes(2**20)), []))
    with pytest.raises(UsageError):
        write_image(header._replace(kind="value"), [])
    with pytest.raises(UsageError):
        write_value_image(header, b"\x01\xc0")
