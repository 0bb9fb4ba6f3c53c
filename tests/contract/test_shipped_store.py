"""The contract of journal/store.py on two journals that are one: what is looked at, altered and taken away is the local one's."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal.shipped_store import ShippedStore
from journal.store import JournalStore
from journal.stores.sqlite import SqliteStore
from journal.stores.wal import WalStore
from journal.testing.contract import STREAM, JournalStoreContract, make_entries
from tests.contract.test_journal_wal import WalPlace


class ShippedPlace(WalPlace):
    """A folder, and a file behind it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "local")
        self.target = str(folder / "target.db")

    def open_for_write(self) -> JournalStore:
        local = WalStore.open_for_write(str(self.path))
        try:
            target = SqliteStore.open_for_write(self.target)
        except BaseException:
            local.close()
            raise
        return ShippedStore.open(local, target, STREAM, ack="both", engine="till")


class TestShipped(JournalStoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> ShippedPlace:
        return ShippedPlace(tmp_path)

    def test_the_target_has_the_same(self, place: ShippedPlace, store: JournalStore) -> None:
        entries = make_entries(1, 9)
        store.append(STREAM, 1, entries[:4])
        store.append(STREAM, 1, entries[4:])
        store.close()
        target = SqliteStore.open_for_read(place.target)
        assert target.page(STREAM, 0, 99) == entries
        target.close()
