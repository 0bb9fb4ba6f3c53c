"""Histories: what is written is read again, block by block, and any byte that is not as it was is noticed."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import digest, history_file, values
from journal.errors import CorruptionError, RecoveryError, UsageError
from journal.history_file import HistoryFile, HistoryHeader, write_history
from journal.records import Entry, checksum
from journal.stores.file import FileStore
from journal.testing.contract import STREAM, _epoch, _identity, make_entries
from snapshots.stores.history import HistoryImages

packed = st.binary(max_size=400).map(values.encode)
digests = st.none() | st.just(digest.EMPTY) | st.binary(min_size=1, max_size=60)
fields = st.tuples(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.integers(0, 2**53),
    packed,
    st.booleans(),
    packed,
    packed,
    st.none() | packed,
    digests,
    digests,
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=64, max_size=64),
    st.booleans(),
    st.integers(1, 2**40),
    st.integers(0, 2**62),
    st.integers(0, 2**62),
)
images = st.dictionaries(
    st.text("abc0123456789", min_size=1, max_size=8).map("main/{}".format),
    st.lists(st.binary(max_size=300), max_size=4),
)


def entries_of(rows: list[tuple[Any, ...]], first: int) -> list[Entry]:
    made = []
    for command_id, row in enumerate(rows, first):
        all_but_last: Any = (command_id, command_id.to_bytes(16, "big"), *row)
        made.append(Entry(*all_but_last, checksum(*all_but_last)))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("histories")


@settings(max_examples=60)
@given(st.lists(fields, max_size=12), st.integers(0, 2**40), images, st.sampled_from([64, 1000, 2**18]), st.booleans())
def test_what_is_written_is_read(
    folder: Path,
    rows: list[tuple[Any, ...]],
    after: int,
    some_images: dict[str, list[bytes]],
    block_bytes: int,
    redacted: bool,
) -> None:
    after = after if rows else 0
    entries = entries_of(rows, max(after, 1))
    header = HistoryHeader(_identity(), (_epoch(1), _epoch(2)), after, redacted)
    path = folder / "a.journal"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_file, "BLOCK_BYTES", block_bytes)
        path.write_bytes(b"".join(write_history(header, entries, some_images.items())))
    store = FileStore.open_for_read(str(path))
    store.check()
    assert store.identity(STREAM) == _identity()
    assert store.epochs(STREAM) == [(1, _epoch(1)), (2, _epoch(2))]
    assert store.redacted is redacted
    assert store.page(STREAM, 0, 2**62) == entries
    assert store.last(STREAM) == (entries[-1] if entries else None)
    assert store.start(STREAM) == (entries[0] if after else None)
    for at, entry in enumerate(entries):
        assert store.page(STREAM, entry.command_id - 1, entry.command_id) == [entry]
        assert store.page(STREAM, entry.command_id, entry.command_id + 2) == entries[at + 1 : at + 3]
        assert store.find(STREAM, [entry.request_key]) == [entry]
    store.close()
    found = HistoryImages(str(path))
    assert found.names("main") == sorted(some_images)
    for name, chunks in some_images.items():
        with found.open(name) as file:
            assert file.read() == b"".join(chunks)
        assert found.size(name) == len(b"".join(chunks))


def a_history(path: Path) -> tuple[bytes, list[Entry]]:
    """A part of a stream, in many blocks, with two images."""
    entries = make_entries(1, 30)[9:]
    header = HistoryHeader(_identity(), (_epoch(1),), 10, False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(history_file, "BLOCK_BYTES", 2000)
        some = {"main/one": [b"first", b"second"], "main/two": [bytes(500)]}
        path.write_bytes(b"".join(write_history(header, entries, some.items())))
    return path.read_bytes(), entries


def read_all(path: Path) -> None:
    """Every reader there is, in the end ``check``."""
    store = FileStore.open_for_read(str(path))
    try:
        store.page(STREAM, 0, 99)
        images = HistoryImages(str(path))
        for name in images.names("main"):
            with images.open(name) as file:
                file.read()
        store.check()
    finally:
        store.close()


def test_any_altered_byte_is_noticed_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    whole, _ = a_history(path)
    read_all(path)
    chance = random.Random(4)
    for at in sorted({*range(0, len(whole), 19), *range(100), *range(len(whole) - 100, len(whole))}):
        bent = bytearray(whole)
        bent[at] ^= 1 << chance.randrange(8)
        path.write_bytes(bent)
        with pytest.raises(CorruptionError) as damage:
            read_all(path)
        assert str(path) in str(damage.value.position)
        assert damage.value.hint


def test_a_file_cut_anywhere_or_with_more_behind_it_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    whole, _ = a_history(path)
    for size in range(0, len(whole), 37):
        path.write_bytes(whole[:size])
        with pytest.raises(CorruptionError):
            FileStore.open_for_read(str(path))
    path.write_bytes(whole + b"\0")
    with pytest.raises(CorruptionError):
        FileStore.open_for_read(str(path))


def test_blocks_that_changed_places_are_noticed(tmp_path: Path) -> None:
    """Each is whole by itself, which is why its checksum covers the one before it."""
    path = tmp_path / "a.journal"
    whole, _ = a_history(path)
    file = HistoryFile(str(path))
    (one, two, three), rest = [block.offset for block in file.blocks[:3]], file.blocks[3].offset
    file.close()
    assert len(whole[:rest]) == rest
    path.write_bytes(whole[:one] + whole[two:three] + whole[one:two] + whole[three:])
    with pytest.raises(CorruptionError):
        read_all(path)


def test_a_block_of_another_history_is_noticed(tmp_path: Path) -> None:
    """One of the same commands and the same size: each is whole, and only the seal over both tells them apart."""
    header = HistoryHeader(_identity(), (_epoch(1),), 0, False)
    wholes = []
    for epoch in (1, 2):
        # Noise, so that both compress to the same size.
        rows = [("put", None, n, values.encode(random.Random(n * epoch).randbytes(300)), False) for n in range(1, 7)]
        rest = (values.encode(1), values.encode(()), None, None, None, bytes(16), bytes(64), False, 1, 0, 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(history_file, "BLOCK_BYTES", 500)
            wholes.append(b"".join(write_history(header, entries_of([(*row, *rest) for row in rows], 1))))
    ours, theirs = wholes
    path = tmp_path / "a.journal"
    path.write_bytes(ours)
    file = HistoryFile(str(path))
    second, third = file.blocks[1].offset, file.blocks[2].offset
    file.close()
    assert len(ours) == len(theirs)
    path.write_bytes(ours[:second] + theirs[second:third] + ours[third:])
    with pytest.raises(CorruptionError):
        read_all(path)


@pytest.mark.parametrize("value", [1, None, "text", b"bytes", (1,), True, 1.5])
@pytest.mark.parametrize("field", Entry._fields)
def test_a_forged_entry_of_other_types_is_damage(tmp_path: Path, field: str, value: object) -> None:
    """Whoever forges a file can make its checksums right; it must still be read as damage, or as what it says."""
    (entry,) = make_entries(1, 1)
    forged = entry._replace(**{field: value})
    path = tmp_path / "a.journal"
    try:
        path.write_bytes(b"".join(write_history(HistoryHeader(_identity(), (), 0, False), [forged])))
    except (RecoveryError, TypeError, struct.error):
        return
    store = FileStore.open_for_read(str(path))
    try:
        (found,) = store.page(STREAM, 0, 9)
        found.verify()
    except CorruptionError:
        return
    finally:
        store.close()
    assert [*map(type, found)] == [*map(type, entry)] or field in history_file._OPTIONAL


def test_a_promise_of_more_memory_than_there_is_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.journal"
    header = HistoryHeader(_identity(), (), 0, False)
    writer = history_file._Writer(header)
    raw = bytes(2**20)
    begin = writer._begin()
    block = writer._block(history_file.ENTRIES, bytes(16) + writer._compressor.compress(raw), 1, 100)
    at = writer._at
    index = writer._index([history_file.BlockPlace(len(begin), 1, 1)], [])
    path.write_bytes(begin + block + index + writer._block(history_file.END, history_file._END.pack(1, bytes(16), at)))
    with pytest.raises(CorruptionError, match="does not hold the 100 bytes"):
        read_all(path)


def test_entries_must_follow(tmp_path: Path) -> None:
    entries = make_entries(1, 5)
    for after, given_entries in ((0, entries[1:]), (0, [entries[0], entries[2]]), (3, entries), (2, [])):
        with pytest.raises(UsageError):
            list(write_history(HistoryHeader(_identity(), (), after, False), given_entries))


def test_the_same_history_gives_the_same_bytes(tmp_path: Path) -> None:
    assert a_history(tmp_path / "a")[0] == a_history(tmp_path / "b")[0]
