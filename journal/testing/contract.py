"""What a store of journals must pass, for third-party stores too.

A store's test file subclasses ``JournalStoreContract`` and gives a fixture ``place``: where streams can be opened for write and
read, with a side door that looks at entries, and damages them, without the store::

    class TestMyStore(JournalStoreContract):
        @pytest.fixture
        def place(self, tmp_path):
            return MyPlace(tmp_path)
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from journal import digest, values
from journal.digest import CHAIN_START
from journal.errors import (
    CorruptionError,
    JournalInUse,
    StoreUnavailable,
    UsageError,
    WriterFenced,
    WriterPoisoned,
)
from journal.framing import NO_CHANGES, NO_EVENTS, Event, pack_events
from journal.journal import Journal
from journal.records import Entry, Epoch, JournalIdentity, checksum, next_chain, part_hashes
from journal.store import JournalStore

STREAM = "main"
Calls = tuple[Callable[[], object], ...]


class Place(Protocol):
    """Where one journal lies, and a way to it around the store."""

    def open_for_write(self) -> JournalStore:
        """A store that holds the place."""

    def open_for_read(self) -> JournalStore:
        """A store that only looks."""

    def look(self, stream: str) -> list[Entry]:
        """All entries of a stream in order, read without the store."""

    def alter(self, stream: str, command_id: int, column: str, value: object) -> None:
        """Overwrite one field of an entry behind the store's back."""

    def remove(self, stream: str, command_id: int) -> None:
        """Take an entry away behind the store's back."""


def make_entries(first: int, last: int, *, epoch: int = 1, chain: bytes = CHAIN_START, salt: str = "") -> list[Entry]:
    """Entries ``first`` to ``last``, linked from ``chain`` on, with everything a column can hold.

    ``salt`` tells the request ids of one set from another's.
    """
    entries = []
    for command_id in range(first, last + 1):
        key = uuid.uuid5(uuid.NAMESPACE_OID, f"{salt}{command_id}").bytes
        rejected = command_id % 5 == 0
        result = values.encode(("refused", "because")) if rejected else values.encode({"n": command_id})
        events = pack_events([] if rejected else [Event("Seen", {"n": command_id}, f"key {command_id}", command_id)])
        asked = (
            key,
            f"type {command_id % 3}",
            None if command_id % 2 else f"entity \U0001f600 {command_id}",
            command_id * 1000,
        )
        data = values.encode({"n": command_id, "blob": bytes(range(256)) * (command_id % 4)})
        changes = None if command_id % 7 == 0 else NO_CHANGES
        parts = part_hashes(*asked, data, rejected, result, events, changes)
        pre, post = (None if at % 3 == 0 else digest.EMPTY for at in (command_id - 1, command_id))
        chain = next_chain(chain, parts, pre, post)
        times = (2**40 + command_id, 2**41 + command_id)
        outcome = (rejected, result, events, changes, pre, post, chain, parts, False)
        fields: Any = (command_id, *asked, data, *outcome, epoch, *times)
        entries.append(Entry._make((*fields, checksum(*fields))))
    return entries


def _identity(stream: str = STREAM) -> bytes:
    return JournalIdentity(uuid.UUID(int=7), stream, "till", 1, 0, "rows", 3600, 0).pack()


def _epoch(number: int) -> bytes:
    return Epoch(number, "till", 1, 1, b"s", "r", "3", "l", "h", 1, 28, 0, 0, None).pack()


def _begin(store: JournalStore, stream: str = STREAM) -> JournalStore:
    store.create(stream, _identity(stream))
    store.append_epoch(stream, 1, _epoch(1))
    return store


class JournalStoreContract:
    """The tests of the contract in journal/store.py."""

    @pytest.fixture
    def store(self, place: Place) -> Iterator[JournalStore]:
        """A store opened for write on a stream with one epoch."""
        store = _begin(place.open_for_write())
        yield store
        store.close()

    # What is not there

    def test_a_new_place_holds_nothing(self, place: Place) -> None:
        store = place.open_for_write()
        assert store.identity(STREAM) is None
        assert store.epochs(STREAM) == []
        assert store.last(STREAM) is None
        assert store.page(STREAM, 0, 100) == []
        assert store.find(STREAM, [bytes(16)]) == []
        assert list(store.request_keys(STREAM, 0)) == []
        store.check()
        store.close()

    def test_a_stream_must_be_created_and_only_once(self, place: Place) -> None:
        store = place.open_for_write()
        writes: Calls = (lambda: store.append_epoch("x", 1, b""), lambda: store.append("x", 1, make_entries(1, 1)))
        for write in writes:
            with pytest.raises(UsageError, match="no stream 'x'"):
                write()
        _begin(store, "x")
        with pytest.raises(UsageError, match="already"):
            store.create("x", b"other")
        assert store.identity("x") == _identity("x")
        store.append("x", 1, make_entries(1, 1))
        store.close()

    # Order, and field for field

    def test_entries_come_back_as_they_were_given(self, place: Place, store: JournalStore) -> None:
        entries = make_entries(1, 40)
        store.append(STREAM, 1, entries[:1])
        store.append(STREAM, 1, entries[1:30])
        store.append(STREAM, 1, entries[30:])
        for reader in (store, place.open_for_read()):
            found = reader.page(STREAM, 0, 40)
            assert found == entries
            assert [list(map(type, entry)) for entry in found] == [list(map(type, entry)) for entry in entries]
            assert reader.last(STREAM) == entries[-1]
        assert place.look(STREAM) == entries

    @pytest.mark.parametrize(
        ("after", "until"), [(0, 1), (3, 3), (4, 3), (9, 10), (10, 99), (-5, 2), (50, 60), (0, 2**62)]
    )
    def test_a_page_is_a_half_open_range(self, store: JournalStore, after: int, until: int) -> None:
        entries = make_entries(1, 10)
        store.append(STREAM, 1, entries)
        assert store.page(STREAM, after, until) == [entry for entry in entries if after < entry.command_id <= until]

    def test_nothing_appended_is_nothing(self, store: JournalStore) -> None:
        store.append(STREAM, 1, [])
        assert store.last(STREAM) is None

    def test_large_entries_come_back(self, store: JournalStore) -> None:
        (small,) = make_entries(1, 1)
        fields = small._replace(data_bytes=values.encode(bytes(5_000_000)))[:-1]
        entry = Entry(*fields, checksum(*fields))
        store.append(STREAM, 1, [entry])
        assert store.page(STREAM, 0, 1) == [entry]

    def test_streams_are_apart(self, place: Place, store: JournalStore) -> None:
        _begin(store, "other")
        mine, others = make_entries(1, 3), make_entries(1, 5, salt="other ")
        store.append(STREAM, 1, mine)
        store.append("other", 1, others)
        store.append_epoch("other", 2, _epoch(2))
        for reader in (store, place.open_for_read()):
            assert reader.page(STREAM, 0, 9) == mine
            assert reader.page("other", 0, 9) == others
            assert [number for number, _ in reader.epochs(STREAM)] == [1]
            assert reader.find(STREAM, [others[0].request_key]) == []
            assert reader.identity("third") is None

    # Lookup

    def test_requests_are_found_in_one_batch(self, store: JournalStore) -> None:
        entries = make_entries(1, 700)
        store.append(STREAM, 1, entries)
        keys = [entry.request_key for entry in entries]
        assert sorted(store.find(STREAM, [*keys, bytes(16), keys[0]])) == entries
        assert store.find(STREAM, [bytes(16)]) == []
        assert store.find(STREAM, []) == []

    def test_request_keys_since_a_time(self, store: JournalStore) -> None:
        entries = make_entries(1, 9)
        store.append(STREAM, 1, entries)
        assert sorted(store.request_keys(STREAM, 0)) == sorted(entry.request_key for entry in entries)
        assert sorted(store.request_keys(STREAM, 8000)) == sorted(entry.request_key for entry in entries[7:])
        assert list(store.request_keys(STREAM, 9001)) == []

    @pytest.mark.parametrize("limit", [-1, 0, 1, 3, 10, 99])
    def test_the_newest_are_the_last_in_order(self, store: JournalStore, limit: int) -> None:
        assert store.newest(STREAM, limit) == []
        entries = make_entries(1, 10)
        store.append(STREAM, 1, entries)
        assert store.newest(STREAM, limit) == entries[10 - max(0, min(limit, 10)) :]

    def test_a_journal_is_read_by_request_by_time_and_from_its_end(self, place: Place, store: JournalStore) -> None:
        entries = make_entries(1, 9)
        # What was emitted stays covered by its hash, whatever is kept of it.
        entries[7] = entries[7]._replace(events_bytes=NO_EVENTS, events_reduced=True)
        entries[7] = entries[7]._replace(checksum=checksum(*entries[7][:-1]))
        store.append(STREAM, 1, entries)
        for reader in (Journal(store, STREAM), Journal(place.open_for_read(), STREAM)):
            assert reader.get(entries[3].request_id) == entries[3]
            assert entries[3].request_id in reader
            assert reader.get(uuid.UUID(int=0)) is None
            assert uuid.UUID(int=0) not in reader
            assert set(reader.request_ids(since_ms=8000)) == {entries[7].request_id, entries[8].request_id}
            recent = reader.recent(3)
            assert [one.command_id for one in recent] == [9, 8, 7]
            assert [(one.events, one.event_types, one.events_reduced) for one in recent] == [
                (1, ("Seen",), False),
                (0, (), True),
                (1, ("Seen",), False),
            ]
            assert reader.recent(0) == []
            assert len(reader.recent(99)) == 9
            assert list(reader.read()) == entries

    # Atomicity and the assertions that poison

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda batch: [batch[0], batch[2]],
            lambda batch: [batch[1]],
            lambda batch: [batch[0], batch[0]],
            lambda batch: [*batch[:2], batch[2]._replace(request_key=batch[0].request_key)],
            lambda batch: [batch[0], batch[1]._replace(request_key=make_entries(1, 1)[0].request_key)],
        ],
        ids=["a gap", "not after the head", "twice the same", "twice the same request", "a request that is recorded"],
    )
    def test_what_does_not_follow_poisons_and_leaves_nothing(
        self, place: Place, store: JournalStore, spoil: Callable[[list[Entry]], list[Entry]]
    ) -> None:
        before = make_entries(1, 3)
        store.append(STREAM, 1, before)
        batch = make_entries(4, 6, chain=before[-1].chain)
        with pytest.raises(WriterPoisoned):
            store.append(STREAM, 1, spoil(batch))
        writes: Calls = (
            lambda: store.append(STREAM, 1, batch),
            lambda: store.append_epoch(STREAM, 2, _epoch(2)),
            lambda: store.create("other", b""),
        )
        for write in writes:
            with pytest.raises(WriterPoisoned) as again:
                write()
            assert again.value.hint
        assert place.look(STREAM) == before
        store.close()
        reopened = place.open_for_write()
        assert reopened.page(STREAM, 0, 9) == before
        reopened.append(STREAM, 1, batch)
        assert reopened.page(STREAM, 0, 9) == before + batch
        reopened.close()

    # Epochs fence

    def test_epochs_are_numbered_from_one_and_kept(self, place: Place, store: JournalStore) -> None:
        store.append_epoch(STREAM, 2, _epoch(2))
        store.append_epoch(STREAM, 3, _epoch(3))
        for reader in (store, place.open_for_read()):
            assert reader.epochs(STREAM) == [(number, _epoch(number)) for number in (1, 2, 3)]

    @pytest.mark.parametrize("number", [0, 1, 3])
    def test_an_epoch_that_does_not_follow_is_fenced(self, store: JournalStore, number: int) -> None:
        with pytest.raises(WriterFenced):
            store.append_epoch(STREAM, number, b"late")
        assert store.epochs(STREAM) == [(1, _epoch(1))]

    @pytest.mark.parametrize("epoch", [0, 1, 3])
    def test_an_append_under_another_epoch_is_fenced_for_good(
        self, place: Place, store: JournalStore, epoch: int
    ) -> None:
        store.append_epoch(STREAM, 2, _epoch(2))
        for under in (epoch, 2):
            with pytest.raises(WriterFenced):
                store.append(STREAM, under, make_entries(1, 2, epoch=under))
        assert place.look(STREAM) == []

    # One writer, and readers beside it

    def test_a_second_writer_is_refused_by_name_of_the_first(self, place: Place, store: JournalStore) -> None:
        with pytest.raises(JournalInUse, match=r"process \d+ on .+ since \d{4}-") as refused:
            place.open_for_write()
        assert refused.value.hint
        store.append(STREAM, 1, make_entries(1, 1))
        store.close()
        place.open_for_write().close()

    def test_a_reader_sees_what_is_written_and_may_not_write(self, place: Place, store: JournalStore) -> None:
        reader = place.open_for_read()
        entries = make_entries(1, 4)
        store.append(STREAM, 1, entries[:2])
        assert reader.page(STREAM, 0, 9) == entries[:2]
        store.append(STREAM, 1, entries[2:])
        assert reader.last(STREAM) == entries[-1]
        writes: Calls = (
            lambda: reader.create("other", b""),
            lambda: reader.append_epoch(STREAM, 2, b""),
            lambda: reader.append(STREAM, 1, make_entries(5, 5)),
        )
        for write in writes:
            with pytest.raises(UsageError, match="read"):
                write()
        reader.close()
        assert place.look(STREAM) == entries

    def test_all_is_there_after_reopening(self, place: Place, store: JournalStore) -> None:
        entries = make_entries(1, 12)
        store.append(STREAM, 1, entries)
        store.close()
        store.close()
        again = place.open_for_write()
        assert again.identity(STREAM) == _identity()
        assert again.epochs(STREAM) == [(1, _epoch(1))]
        assert again.page(STREAM, 0, 99) == entries
        again.append_epoch(STREAM, 2, _epoch(2))
        again.append(STREAM, 2, make_entries(13, 14, epoch=2, chain=entries[-1].chain))
        assert [entry.command_id for entry in Journal(again).read()] == list(range(1, 15))
        again.close()

    def test_a_closed_store_says_so(self, store: JournalStore) -> None:
        store.close()
        uses: Calls = (
            lambda: store.last(STREAM),
            lambda: store.page(STREAM, 0, 1),
            lambda: store.identity(STREAM),
            lambda: store.append(STREAM, 1, make_entries(1, 1)),
        )
        for use in uses:
            with pytest.raises(StoreUnavailable, match="closed"):
                use()

    # Damage

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("result_bytes", values.encode("another")),
            ("data_bytes", b""),
            ("type", "another"),
            ("entity_id", "another"),
            ("rejected", True),
            ("epoch", 2),
            ("duration_ns", 1),
            ("received_at_ms", 1),
            ("post_digest_bytes", None),
            ("chain", bytes(16)),
            ("checksum", bytes(16)),
        ],
    )
    def test_what_was_altered_is_damage_at_its_position(
        self, place: Place, store: JournalStore, column: str, value: object
    ) -> None:
        entries = make_entries(1, 4)
        store.append(STREAM, 1, entries)
        place.alter(STREAM, 2, column, value)
        reader = Journal(place.open_for_read(), STREAM)
        reads: Calls = (
            lambda: list(reader.read()),
            lambda: reader.entry(2),
            lambda: reader.get(entries[1].request_id),
        )
        for read in reads:
            with pytest.raises(CorruptionError) as damage:
                read()
            assert damage.value.position == 2

    def test_an_entry_that_was_taken_away_is_a_gap(self, place: Place, store: JournalStore) -> None:
        store.append(STREAM, 1, make_entries(1, 5))
        place.remove(STREAM, 3)
        reader = Journal(place.open_for_read(), STREAM)
        found = []
        with pytest.raises(CorruptionError) as damage:
            for entry in reader.read():
                found.append(entry.command_id)
        assert damage.value.position == 3
        assert found == [1, 2]

    def test_it_says_where_it_is_and_what_its_durability_rests_on(self, store: JournalStore) -> None:
        assert store.location
        assert store.durable in (True, False)
        assert all(isinstance(part, str) for pair in store.settings().items() for part in pair)
