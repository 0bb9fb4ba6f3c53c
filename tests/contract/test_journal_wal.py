"""The contract of journal/store.py on ``wal:``, in one segment and in many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from journal.files import LocalFiles
from journal.records import Entry
from journal.store import JournalStore
from journal.stores import wal_writer
from journal.stores.wal import WalStore
from journal.stores.wal_frames import (
    ENTRIES,
    HEAD_BYTES,
    SEGMENT_HEAD_BYTES,
    STREAM,
    Head,
    SegmentHead,
    make_frame,
    pack_entries,
    seal_of,
    unpack_entries,
    unpack_head,
    unpack_stream,
)
from journal.stores.wal_mark import Mark
from journal.testing.contract import JournalStoreContract

Entries = list[Entry]


class WalPlace:
    """A folder; the side door reads its segments as wal_frames.py says they are, and writes them anew as one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open_for_write(self) -> JournalStore:
        return WalStore.open_for_write(str(self.path))

    def open_for_read(self) -> JournalStore:
        return WalStore.open_for_read(str(self.path))

    def look(self, stream: str) -> Entries:
        number = self._number(stream)
        found: Entries = []
        for head, payload in self._frames():
            if head.kind == ENTRIES and head.stream == number:
                found += unpack_entries(payload, head.entries)
        return found

    def alter(self, stream: str, command_id: int, column: str, value: object) -> None:
        def altered(entries: Entries) -> list[Entries]:
            return [[one._replace(**{column: value}) if one.command_id == command_id else one for one in entries]]

        self._rewrite(self._number(stream), altered)

    def remove(self, stream: str, command_id: int) -> None:
        def parted(entries: Entries) -> list[Entries]:
            before = [one for one in entries if one.command_id < command_id]
            return [before, [one for one in entries if one.command_id > command_id]]

        self._rewrite(self._number(stream), parted)

    def _number(self, stream: str) -> int:
        streams = [
            head.stream
            for head, payload in self._frames()
            if head.kind == STREAM and unpack_stream(payload)[0] == stream
        ]
        return streams[0]

    def _frames(self) -> Iterator[tuple[Head, bytes]]:
        for number, path in enumerate(sorted(self.path.glob("*.wal")), 1):
            data, at = path.read_bytes(), SEGMENT_HEAD_BYTES
            while (head := unpack_head(data, at, number, at)) is not None:
                yield head, data[at + HEAD_BYTES : at + head.size]
                at += head.size

    def _rewrite(self, stream: int, change: Callable[[Entries], list[Entries]]) -> None:
        log_id = bytes(16)
        data, previous = SegmentHead(1, log_id, log_id).pack(), log_id
        for head, payload in list(self._frames()):
            pieces = [(payload, head.first, head.entries)]
            if (head.kind, head.stream) == (ENTRIES, stream):
                batches = [batch for batch in change(list(unpack_entries(payload, head.entries))) if batch]
                pieces = [(pack_entries(batch)[0], batch[0].command_id, len(batch)) for batch in batches]
            for packed, first, count in pieces:
                frame = make_frame(
                    head.kind, packed, stream=head.stream, count=count, epoch=head.epoch, first=first, segment=1,
                    offset=len(data), previous=previous,
                )  # fmt: skip
                data, previous = data + frame, seal_of(frame)
        for path in [*self.path.glob("*.wal"), *self.path.glob("*.index")]:
            path.unlink()
        (self.path / f"{1:020d}.wal").write_bytes(data + bytes(4096))
        (self.path / "durable").write_bytes(Mark(LocalFiles().boot(), 1, len(data)).pack())


class TestWal(JournalStoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> WalPlace:
        return WalPlace(tmp_path / "journal")


class TestWalInManySegments(JournalStoreContract):
    """Every segment holds a few frames only, so that all is looked up in indexes."""

    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WalPlace:
        monkeypatch.setattr(wal_writer, "SEGMENT_BYTES", 1500)
        monkeypatch.setattr(wal_writer, "ZEROED_BYTES", 700)
        return WalPlace(tmp_path / "journal")
