"""``wal:`` by itself: torn against damaged, row by row; segments and their indexes; readers beside a writer; the URL."""

from __future__ import annotations

import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.errors import (
    ChecksumMismatch,
    CorruptionError,
    Gap,
    JournalInUse,
    NewerSchema,
    StoreUnavailable,
    TornTail,
    UnknownFormat,
    UnknownScheme,
    UsageError,
    WriterFenced,
)
from journal.files import LocalFiles
from journal.records import Entry
from journal.stores import wal_writer
from journal.stores.wal import WalStore
from journal.stores.wal_frames import (
    HEAD_BYTES,
    SECTOR_BYTES,
    SEGMENT_HEAD_BYTES,
    SegmentHead,
    make_frame,
    pack_entries,
    unpack_entries,
    unpack_entry,
    unpack_head,
    unpack_segment_head,
    zero_sectors,
)
from journal.stores.wal_mark import Mark, unpack_mark
from journal.testing.contract import STREAM, make_entries
from journal.urls import cut_torn_tail, open_reader, open_writer

ENTRIES = make_entries(1, 24)
FIRST = f"{1:020d}.wal"


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A journal of two batches, closed."""
    path = str(tmp_path / "journal")
    with closing(WalStore.open_for_write(path)) as store:
        store.create(STREAM, b"identity")
        store.append_epoch(STREAM, 1, b"epoch")
        store.append(STREAM, 1, ENTRIES[:4])
        store.append(STREAM, 1, ENTRIES[4:8])
    return path


class Tail:
    """The segment of ``place``: where its last two frames begin and end, and ways to hurt them."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.segment = self.path / FIRST
        self.data = self.segment.read_bytes()
        self.frames = []
        at = SEGMENT_HEAD_BYTES
        while (head := unpack_head(self.data, at, 1, at)) is not None:
            self.frames.append((at, at + head.size))
            at += head.size
        self.last, self.end = self.frames[-1]
        self.before = self.frames[-2][0]

    def zero(self, start: int, end: int) -> None:
        self.data = self.data[:start] + bytes(end - start) + self.data[end:]
        self.segment.write_bytes(self.data)

    def flip(self, at: int) -> None:
        self.data = self.data[:at] + bytes([self.data[at] ^ 0x41]) + self.data[at + 1 :]
        self.segment.write_bytes(self.data)

    def mark_at(self, offset: int, boot: bytes = b"another machine.") -> None:
        (self.path / "durable").write_bytes(Mark(boot, 1, offset).pack())

    def sectors(self) -> list[tuple[int, int]]:
        """The whole sectors within the last frame."""
        first = self.last + -self.last % SECTOR_BYTES
        return [(at, at + SECTOR_BYTES) for at in range(first, self.end - SECTOR_BYTES + 1, SECTOR_BYTES)]


@pytest.fixture
def tail(place: str) -> Tail:
    found = Tail(place)
    assert len(found.sectors()) >= 2
    return found


def is_torn(path: Path) -> bool:
    """Whether a writer finds a torn tail, and a reader ends before it and says so; then it is cut."""
    with closing(WalStore.open_for_write(str(path))) as store:
        assert store.page(STREAM, 0, 99) == ENTRIES[:4]
        assert store.torn is not None
    with closing(WalStore.open_for_read(str(path))) as reader:
        assert reader.page(STREAM, 0, 99) == ENTRIES[:4]
    return True


def refused(path: Path) -> str:
    """Both a writer and a reader refuse; where."""
    with pytest.raises(CorruptionError) as found:
        WalStore.open_for_write(str(path))
    with pytest.raises(CorruptionError):
        store = WalStore.open_for_read(str(path))
        store.page(STREAM, 0, 99)
        store.check()
    assert found.value.hint
    return str(found.value.position)


# Torn against damaged, row by row


def test_a_last_frame_with_a_sector_of_zeros_is_torn_cut_and_its_space_used_again(tail: Tail) -> None:
    for start, end in tail.sectors():
        shutil.copytree(tail.path, copy := tail.path.with_name(f"copy {start}"))
        other = Tail(str(copy))
        other.zero(start, end)
        other.mark_at(tail.last)
        with (
            closing(WalStore.open_for_read(str(copy))) as reader,
            pytest.raises(TornTail, match="acknowledged") as torn,
        ):
            reader.check()
        assert f"byte {tail.last}" in str(torn.value.position)
        assert "--repair" in torn.value.hint
        assert is_torn(copy)
        before = other.data[tail.last : tail.end].rstrip(b"\0")
        with closing(WalStore.open_for_write(str(copy))) as store:
            store.append(STREAM, 1, ENTRIES[4:5])
            assert store.torn is None
            store.check()
        (kept,) = copy.glob("*.torn")
        assert kept.read_bytes() == before
        assert kept.name == f"{1:020d}-{tail.last}-1.torn"
        with closing(WalStore.open_for_read(str(copy))) as reader:
            assert reader.page(STREAM, 0, 99) == ENTRIES[:5]
            assert reader.find(STREAM, [ENTRIES[6].request_key]) == []


def test_a_head_of_zeros_with_more_behind_it_is_torn(tail: Tail) -> None:
    tail.zero(tail.last, tail.last + HEAD_BYTES)
    tail.mark_at(tail.last)
    assert is_torn(tail.path)


def test_all_of_the_last_frame_zeros_is_a_clean_end(tail: Tail) -> None:
    tail.zero(tail.last, tail.end)
    tail.mark_at(tail.last)
    with closing(WalStore.open_for_write(str(tail.path))) as store:
        assert store.torn is None
        assert store.page(STREAM, 0, 99) == ENTRIES[:4]


def test_what_the_mark_covers_is_never_torn(tail: Tail) -> None:
    """The mark was made durable at the close: it is the mark of a clean close, too."""
    start, end = tail.sectors()[0]
    tail.zero(start, end)
    assert f"byte {tail.last}" in refused(tail.path)
    tail.zero(tail.last, tail.end)
    assert f"byte {tail.last}" in refused(tail.path)


def test_a_flipped_byte_of_the_last_frame_is_damage(tail: Tail) -> None:
    (tail.path / "durable").unlink()
    for at in (tail.last, tail.last + 70, tail.last + HEAD_BYTES + 1, tail.end - 9):
        tail.flip(at)
        assert f"{FIRST}, byte {tail.last}" in refused(tail.path)
        tail.flip(at)


def test_a_frame_that_is_whole_is_never_torn_whatever_zeros_it_holds(tmp_path: Path) -> None:
    """A sector of zeros that was written as one proves nothing: a flipped byte beside it is damage."""
    path = str(tmp_path / "journal")
    entry = ENTRIES[0]._replace(data_bytes=bytes(5000))
    with closing(WalStore.open_for_write(path)) as store:
        store.create(STREAM, b"identity")
        store.append_epoch(STREAM, 1, b"epoch")
        store.append(STREAM, 1, [entry])
    tail = Tail(path)
    tail.mark_at(tail.last)
    tail.flip(tail.last + HEAD_BYTES + 30)
    assert f"byte {tail.last}" in refused(tail.path)
    tail.flip(tail.last + HEAD_BYTES + 30)
    tail.zero(tail.sectors()[-1][1], tail.end)
    with closing(WalStore.open_for_write(path)) as store:
        assert store.torn is not None


def test_a_torn_frame_with_a_whole_one_behind_it_is_damage(tail: Tail) -> None:
    (tail.path / "durable").unlink()
    start = tail.before + -tail.before % SECTOR_BYTES
    tail.zero(start, start + SECTOR_BYTES)
    assert f"byte {tail.before}" in refused(tail.path)


def test_a_torn_frame_in_front_of_another_segment_is_damage(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tail = Tail(place)
    monkeypatch.setattr(wal_writer, "SEGMENT_BYTES", tail.end)
    with closing(WalStore.open_for_write(place)) as store:
        store.append(STREAM, 1, ENTRIES[8:9])
    for name in ("durable", f"{1:020d}.index"):
        (tail.path / name).unlink()
    tail.zero(*tail.sectors()[0])
    assert f"{FIRST}, byte {tail.last}" in refused(tail.path)
    tail.zero(tail.last, tail.end)
    assert f"{FIRST}, byte {tail.last}" in refused(tail.path)


def test_a_segment_that_ends_within_a_frame_is_damage(tail: Tail) -> None:
    (tail.path / "durable").unlink()
    tail.segment.write_bytes(tail.data[: tail.end - 8])
    assert f"byte {tail.last}" in refused(tail.path)


def test_a_frame_of_another_place_is_damage(tail: Tail) -> None:
    """Whole in itself, but not what was written here."""
    (tail.path / "durable").unlink()
    first, end = tail.frames[-2]
    stale = tail.data[first:end]
    tail.segment.write_bytes(tail.data[: tail.end] + stale + bytes(SECTOR_BYTES))
    assert f"byte {tail.end}" in refused(tail.path)


# Segments and indexes


@pytest.fixture
def long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A journal of many segments."""
    monkeypatch.setattr(wal_writer, "SEGMENT_BYTES", 4096)
    monkeypatch.setattr(wal_writer, "ZEROED_BYTES", 2048)
    path = str(tmp_path / "long")
    with closing(WalStore.open_for_write(path)) as store:
        for stream in ("other", STREAM):
            store.create(stream, stream.encode())
            store.append_epoch(stream, 1, b"epoch")
        for entry in ENTRIES:
            store.append(STREAM, 1, [entry])
        store.append("other", 1, ENTRIES[:1])
    assert len(list(Path(path).glob("*.wal"))) > 4
    return path


def all_of(path: str) -> None:
    with closing(WalStore.open_for_read(path)) as store:
        assert store.page(STREAM, 0, 99) == ENTRIES
        assert store.page(STREAM, 11, 13) == ENTRIES[11:13]
        assert sorted(store.find(STREAM, [entry.request_key for entry in ENTRIES])) == ENTRIES
        assert store.last("other") == ENTRIES[0]
        assert sorted(store.request_keys(STREAM, 20_000)) == sorted(entry.request_key for entry in ENTRIES[19:])
        assert store.epochs("other") == store.epochs(STREAM) == [(1, b"epoch")]


def test_an_index_that_is_missing_or_damaged_is_made_again(long: str) -> None:
    indexes = sorted(Path(long).glob("*.index"))
    sound = {path: path.read_bytes() for path in indexes}
    all_of(long)
    for path in indexes[:2]:
        data = sound[path]
        for at in (0, 20, 60, 80, 100, 110, len(data) - 20, len(data) - 1):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            all_of(long)
            with closing(WalStore.open_for_read(long)) as store, pytest.raises(CorruptionError, match="index"):
                store.check()
        path.write_bytes(data[:50])
        all_of(long)
        path.unlink()
        all_of(long)
    assert not indexes[0].exists(), "a reader writes nothing"
    WalStore.open_for_write(long).close()
    assert {path: path.read_bytes() for path in indexes} == sound
    with closing(WalStore.open_for_read(long)) as store:
        store.check()


def test_a_missing_segment_is_a_gap(long: str) -> None:
    segments = sorted(Path(long).glob("*.wal"))
    for segment in (segments[0], segments[2], segments[-1]):
        data = segment.read_bytes()
        segment.unlink()
        with pytest.raises(Gap, match="missing") as found:
            WalStore.open_for_write(long)
        assert segment.name in str(found.value.position)
        segment.write_bytes(data)
    for segment in segments:
        segment.unlink()
    (Path(long) / "durable").unlink()
    with pytest.raises(Gap):
        WalStore.open_for_write(long)


def test_exchanged_and_foreign_segments_are_damage(long: str) -> None:
    first, second, *_ = sorted(Path(long).glob("*.wal"))
    second.write_bytes(first.read_bytes())
    with pytest.raises(ChecksumMismatch, match="under the name of segment 2"):
        WalStore.open_for_read(long)
    second.write_bytes(SegmentHead(2, b"another log     ", bytes(16)).pack() + bytes(4096))
    with pytest.raises(CorruptionError):
        WalStore.open_for_read(long)


def test_bytes_behind_the_end_of_a_sealed_segment_are_found(long: str) -> None:
    path = sorted(Path(long).glob("*.wal"))[0]
    with path.open("ab") as file:
        file.write(b"\0\0x")
    all_of(long)
    with closing(WalStore.open_for_read(long)) as store, pytest.raises(ChecksumMismatch, match="zeros to the end"):
        store.check()


def test_heads_of_another_format_or_a_newer_release() -> None:
    head = SegmentHead(3, b"i" * 16, b"p" * 16)
    assert unpack_segment_head(head.pack(), "x", 3) == head
    import xxhash

    for magic, error in ((b"RECWAL\x00\x02", NewerSchema), (b"RECWAX\x00\x01", UnknownFormat)):
        data = magic + head.pack()[8:48]
        with pytest.raises(error):
            unpack_segment_head(data + xxhash.xxh3_128_digest(data), "x", 3)
    with pytest.raises(ChecksumMismatch):
        unpack_segment_head(head.pack()[:-1], "x", 3)


# Beside a writer


def test_a_reader_ends_where_the_mark_is_and_goes_on_with_it(place: str) -> None:
    tail = Tail(place)
    tail.mark_at(tail.last, LocalFiles().boot())
    reader = WalStore.open_for_read(place)
    assert reader.last(STREAM) == ENTRIES[3]
    assert reader.find(STREAM, [ENTRIES[5].request_key]) == []
    reader.check()
    tail.mark_at(tail.end, LocalFiles().boot())
    assert reader.last(STREAM) == ENTRIES[7]
    assert reader.find(STREAM, [ENTRIES[5].request_key]) == [ENTRIES[5]]
    # After another start of the machine, whatever is there was on the disk.
    tail.mark_at(tail.last)
    with closing(WalStore.open_for_read(place)) as other:
        assert other.last(STREAM) == ENTRIES[7]
    reader.close()


def test_a_reader_follows_through_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal_writer, "SEGMENT_BYTES", 3000)
    path = str(tmp_path / "journal")
    with closing(WalStore.open_for_write(path)) as store:
        store.create(STREAM, b"identity")
        store.append_epoch(STREAM, 1, b"epoch")
        readers = [WalStore.open_for_read(path)]
        for number, entry in enumerate(ENTRIES, 1):
            store.append(STREAM, 1, [entry])
            if number % 5 == 0:
                store.append_epoch(STREAM, number // 5 + 1, b"again")
                store.append_epoch(STREAM, number // 5 + 2, b"again") if number == 20 else None
                readers.append(WalStore.open_for_read(path))
            if number == 5:
                break
        for at in range(5, 24, 4):
            store.append(STREAM, 2, ENTRIES[at : at + 4])
            for reader in readers if at % 8 == 5 else readers[:1]:
                assert reader.page(STREAM, 0, 99) == ENTRIES[: at + 4]
                assert len(reader.epochs(STREAM)) == 2
        for reader in readers:
            reader.check()
            assert sorted(reader.find(STREAM, [entry.request_key for entry in ENTRIES])) == ENTRIES
            reader.close()


def test_the_mark_says_how_far_it_is_durable(place: str) -> None:
    mark = unpack_mark((Path(place) / "durable").read_bytes())
    assert mark == Mark(LocalFiles().boot(), 1, Tail(place).end)
    assert unpack_mark(b"") is None


def test_a_forked_child_may_not_use_it_and_frees_the_lock(place: str) -> None:
    store = WalStore.open_for_write(place)
    child = os.fork()
    if child == 0:
        try:
            store.last(STREAM)
        except WriterFenced:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    with pytest.raises(JournalInUse):
        WalStore.open_for_write(place)
    store.close()
    WalStore.open_for_write(place).close()


# Frames and entries


@given(st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=1500), st.text(max_size=8)), min_size=1, max_size=6))
def test_entries_come_back(drawn: list[tuple[int, bytes, str]]) -> None:
    entries: list[Entry] = []
    for (kind, data, text), entry in zip(drawn, make_entries(1, len(drawn)), strict=True):
        changes = None if kind == 1 else data
        entries.append(entry._replace(data_bytes=data, type=text, changes_bytes=changes, events_reduced=kind == 3))
    payload, starts = pack_entries(entries)
    assert len(payload) % 8 == 0
    assert len(starts) == len(entries)
    assert unpack_entries(payload, len(entries)) == entries
    for start, entry in zip(starts, entries, strict=True):
        assert unpack_entry(payload[start:]) == entry
        assert unpack_entry(payload[start : start + 20]) is None


@given(
    st.integers(0, 200).map(lambda n: 64 + 8 * n),
    st.lists(st.sampled_from([bytes(700), b"x" * 90, bytes(3)]), max_size=6),
)
def test_a_frame_counts_its_sectors_of_zeros(offset: int, pieces: list[bytes]) -> None:
    payload = b"".join(pieces)
    payload += bytes(-len(payload) % 8)
    frame = make_frame(
        3, payload, stream=1, count=1, epoch=1, first=1, segment=1, offset=offset, previous=b"p" * 16
    )  # fmt: skip
    head = unpack_head(frame, 0, 1, offset)
    assert head is not None
    assert head.zero_sectors == zero_sectors(frame, offset)
    assert unpack_head(frame, 0, 2, offset) is unpack_head(frame, 0, 1, offset + 8) is None


def test_what_does_not_fit_the_format_is_refused_and_nothing_written(place: str) -> None:
    with closing(WalStore.open_for_write(place)) as store:
        for wrong in ({"request_key": b"short"}, {"rejected": 1}, {"received_at_ms": 2**70}):
            with pytest.raises(UsageError):
                store.append(STREAM, 1, [ENTRIES[8]._replace(**wrong)])
        store.append(STREAM, 1, ENTRIES[8:9])


# The URL


def test_the_url_names_a_folder(tmp_path: Path) -> None:
    for url in ("wal:", "wal:///x"):
        with pytest.raises(UnknownScheme) as unknown:
            open_reader(url)
        assert "wal:" in unknown.value.hint
    url = f"wal:{tmp_path}/deep/journal"
    with pytest.raises(StoreUnavailable, match="there is no journal"):
        open_reader(url)
    open_writer(url).close()
    with closing(open_reader(url)) as reader:
        assert reader.location == url
        assert reader.settings()["segments"] == "1"
        assert reader.identity(STREAM) is None


def test_a_torn_tail_is_cut_where_that_is_agreed_to(tail: Tail) -> None:
    url = f"wal:{tail.path}"
    asked: list[str] = []
    assert cut_torn_tail(url, lambda what: not asked.append(what)) is None
    assert cut_torn_tail("memory:", lambda what: not asked.append(what)) is None
    assert asked == []
    tail.zero(*tail.sectors()[0])
    tail.mark_at(tail.last)
    assert cut_torn_tail(url, lambda what: bool(asked.append(what))) is None
    assert not list(tail.path.glob("*.torn"))
    copy = cut_torn_tail(url, lambda what: not asked.append(what))
    assert copy is not None
    assert Path(copy).exists()
    assert all("never wholly written" in what for what in asked)
    assert len(asked) == 2
