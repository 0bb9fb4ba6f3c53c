"""What a store must pass besides that lets tables of others be written with its entries: a ``SqlJournalStore``.

Used as ``JournalStoreContract`` is (journal/testing/contract.py), with the same fixture ``place``::

    class TestMyTables(SqlJournalStoreContract):
        @pytest.fixture
        def place(self, tmp_path):
            return MyPlace(tmp_path)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from journal.errors import ProjectionFailed, UsageError, WriterFenced
from journal.records import Entry
from journal.store import JournalStore, SqlCursor, SqlJournalStore
from journal.testing.contract import STREAM, Place, make_entries

_MADE = "CREATE TABLE seen (command_id BIGINT PRIMARY KEY, size BIGINT CHECK (size < 1000))"
_SEEN = "INSERT INTO seen (command_id, size) VALUES (?, ?)"


def _make(cursor: SqlCursor) -> None:
    cursor.execute(_MADE)


def _note(cursor: SqlCursor, entries: Sequence[Entry]) -> None:
    cursor.executemany(_SEEN, [(entry.command_id, len(entry.data_bytes)) for entry in entries])


def _seen(store: JournalStore) -> list[int]:
    assert isinstance(store, SqlJournalStore)
    return [row[0] for row in store.query("SELECT command_id FROM seen ORDER BY command_id")]


class SqlJournalStoreContract:
    """The tests of ``SqlJournalStore`` and ``SqlCursor`` in journal/store.py."""

    @pytest.fixture
    def store(self, place: Place) -> Iterator[SqlJournalStore]:
        """A store with one epoch and a table of another's."""
        store = place.open_for_write()
        assert isinstance(store, SqlJournalStore)
        store.create(STREAM, b"identity")
        store.append_epoch(STREAM, 1, b"epoch")
        store.transact(_make)
        yield store
        store.close()

    def test_a_hook_writes_with_the_entries(self, place: Place, store: SqlJournalStore) -> None:
        entries = make_entries(1, 5)
        store.append(STREAM, 1, entries[:1])
        store.attach(STREAM, _note)
        store.append(STREAM, 1, entries[1:2])
        store.append(STREAM, 1, entries[2:])
        for reader in (store, place.open_for_read()):
            assert _seen(reader) == [2, 3, 4, 5]
            assert reader.page(STREAM, 0, 9) == entries

    @pytest.mark.parametrize("count", [1, 3])
    def test_what_the_hook_is_refused_undoes_the_entries_and_the_store_goes_on(
        self, place: Place, store: SqlJournalStore, count: int
    ) -> None:
        def refused(cursor: SqlCursor, entries: Sequence[Entry]) -> None:
            _note(cursor, entries)
            cursor.execute(_SEEN, (99, 1000))

        entries = make_entries(1, count)
        for hook in (refused, lambda cursor, entries: cursor.execute("INSERT INTO nowhere VALUES (?)", (1,))):
            store.attach(STREAM, hook)
            with pytest.raises(ProjectionFailed) as failed:
                store.append(STREAM, 1, entries)
            assert failed.value.__cause__ is not None
            assert (store.page(STREAM, 0, 9), _seen(store)) == ([], [])
        store.attach(STREAM, _note)
        store.append(STREAM, 1, entries)
        assert (place.look(STREAM), _seen(store)) == (entries, list(range(1, count + 1)))

    def test_the_hook_of_a_stream_is_its_own(self, store: SqlJournalStore) -> None:
        store.create("other", b"identity")
        store.append_epoch("other", 1, b"epoch")
        store.attach("other", _note)
        store.append(STREAM, 1, make_entries(1, 2))
        assert _seen(store) == []

    def test_a_fenced_writer_runs_no_hook(self, store: SqlJournalStore) -> None:
        store.attach(STREAM, _note)
        store.append_epoch(STREAM, 2, b"epoch")
        with pytest.raises(WriterFenced):
            store.append(STREAM, 1, make_entries(1, 1))
        assert _seen(store) == []

    def test_a_transaction_is_done_whole_or_not_at_all(self, place: Place, store: SqlJournalStore) -> None:
        def twice(cursor: SqlCursor) -> None:
            assert cursor.dialect == store.dialect
            cursor.execute(_SEEN, (1, 1))
            assert cursor.execute("SELECT command_id FROM seen") == [(1,)]
            cursor.execute(_SEEN, (1, 1))

        with pytest.raises(ProjectionFailed):
            store.transact(twice)
        with pytest.raises(UsageError, match="of mine"):
            store.transact(lambda cursor: _fail(cursor))
        assert _seen(store) == []
        store.transact(lambda cursor: cursor.executemany(_SEEN, [(1, 1), (2, 2)]))
        assert _seen(place.open_for_read()) == [1, 2]

    def test_who_reads_may_ask_and_not_write(self, place: Place, store: SqlJournalStore) -> None:
        reader = place.open_for_read()
        assert isinstance(reader, SqlJournalStore)
        assert reader.has_table("seen")
        assert not reader.has_table("unseen")
        assert reader.query("SELECT ? FROM seen", ("x",)) == []
        with pytest.raises(UsageError, match="read"):
            reader.transact(_make)


def _fail(cursor: SqlCursor) -> None:
    cursor.execute(_SEEN, (7, 7))
    raise UsageError("an error of mine")
