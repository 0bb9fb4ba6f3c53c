"""``file:`` against the contract.  It cannot be written, so memory takes the writes and an export of it answers the reads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from journal.errors import UsageError
from journal.history_file import HistoryHeader, write_history
from journal.records import Entry
from journal.store import JournalStore
from journal.stores.file import FileStore
from journal.stores.memory import PLACES, MemoryStore
from journal.testing.contract import STREAM, JournalStoreContract, _identity, make_entries

_names = itertools.count()


def exported(store: JournalStore, stream: str, path: Path) -> FileStore:
    identity = store.identity(stream)
    assert identity is not None
    header = HistoryHeader(identity, tuple(epoch for _, epoch in store.epochs(stream)), 0, False)
    path.write_bytes(b"".join(write_history(header, store.page(stream, 0, 2**62))))
    return FileStore.open_for_read(str(path))


class ReadsExported(MemoryStore):
    """Streams in memory, read through their exports.  Each read exports anew, as each write may have changed them."""

    folder: Path

    def _file(self, stream: str) -> FileStore | None:
        if stream not in self._streams():
            return None
        memory = MemoryStore.open_for_read(self.location.removeprefix("memory:"))
        return exported(memory, stream, self.folder / f"{next(_names)}.journal")

    def identity(self, stream: str) -> bytes | None:
        file = self._file(stream)
        return None if file is None else file.identity(stream)

    def epochs(self, stream: str) -> list[tuple[int, bytes]]:
        file = self._file(stream)
        return [] if file is None else file.epochs(stream)

    def last(self, stream: str) -> Entry | None:
        file = self._file(stream)
        return None if file is None else file.last(stream)

    def page(self, stream: str, after: int, until: int) -> list[Entry]:
        file = self._file(stream)
        return [] if file is None else file.page(stream, after, until)

    def newest(self, stream: str, limit: int) -> list[Entry]:
        file = self._file(stream)
        return [] if file is None else file.newest(stream, limit)

    def find(self, stream: str, request_keys: Sequence[bytes]) -> list[Entry]:
        file = self._file(stream)
        return [] if file is None else file.find(stream, request_keys)

    def request_keys(self, stream: str, since_ms: int) -> Iterator[bytes]:
        file = self._file(stream)
        return iter(()) if file is None else file.request_keys(stream, since_ms)


class FilePlace:
    def __init__(self, folder: Path) -> None:
        self.name = f"exported {next(_names)}"
        self._store = type("Store", (ReadsExported,), {"folder": folder})

    def open_for_write(self) -> JournalStore:
        return self._store.open_for_write(self.name)

    def open_for_read(self) -> JournalStore:
        return self._store.open_for_read(self.name)

    def look(self, stream: str) -> list[Entry]:
        return PLACES[self.name].streams[stream].entries

    def alter(self, stream: str, command_id: int, column: str, value: object) -> None:
        found = PLACES[self.name].streams[stream]
        altered = found.entries[command_id - 1]._replace(**{column: value})
        found.entries[command_id - 1] = found.by_request[altered.request_key] = altered


class TestFile(JournalStoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> FilePlace:
        return FilePlace(tmp_path)

    def test_an_entry_that_was_taken_away_is_a_gap(self, place: FilePlace, store: JournalStore) -> None:
        """A history is not written with a gap."""
        store.append(STREAM, 1, make_entries(1, 5))
        del PLACES[place.name].streams[STREAM].entries[2]
        with pytest.raises(UsageError, match="do not follow command 0"):
            store.page(STREAM, 0, 9)


def test_it_is_never_written(tmp_path: Path) -> None:
    with_memory = MemoryStore.open_for_write("")
    with_memory.create(STREAM, _identity())
    store = exported(with_memory, STREAM, tmp_path / "a.journal")
    for write in (
        lambda: store.create("other", b""),
        lambda: store.append_epoch(STREAM, 1, b""),
        lambda: store.append(STREAM, 1, []),
    ):
        with pytest.raises(UsageError, match="only read"):
            write()
    assert store.last(STREAM) is None
    assert store.page(STREAM, 0, 9) == []
    store.check()
    store.close()
