"""What a store of snapshots must pass, for third-party stores too, and a small journal to make images of.

A store's test file subclasses ``SnapshotStoreContract``, gives a fixture ``store``, and a side door that reads and
writes without the store, so that each direction is checked by itself.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from journal import digest, values
from journal.digest import CHAIN_START, StateDigest, TableDigest
from journal.errors import StoreUnavailable
from journal.framing import NO_EVENTS, Change, pack_changes
from journal.records import Entry, JournalIdentity, checksum, next_chain, part_hashes
from snapshots.image import ImageHeader, Pairs
from snapshots.store import SnapshotStore

NAME = "main/00000000000000000007-0123456789abcdef.image"
OTHER = "main/00000000000000000008-0123456789abcdef.image"
MARKER = NAME + ".bad"


class SnapshotStoreContract(ABC):
    """The tests of the contract in snapshots/store.py."""

    @abstractmethod
    def look(self, store: SnapshotStore, name: str) -> bytes | None:
        """The bytes under a name, read without the store; None where it is free."""

    @abstractmethod
    def place(self, store: SnapshotStore, name: str, data: bytes) -> None:
        """Put bytes under a name without the store."""

    def test_put_writes_all_chunks(self, store: SnapshotStore) -> None:
        assert store.put(NAME, [b"one", b"", b"two" * 500_000]) is True
        assert self.look(store, NAME) == b"one" + b"two" * 500_000

    def test_put_of_nothing_is_an_empty_file(self, store: SnapshotStore) -> None:
        assert store.put(NAME, []) is True
        assert self.look(store, NAME) == b""

    def test_put_leaves_a_taken_name_as_it_is(self, store: SnapshotStore) -> None:
        self.place(store, NAME, b"first")
        assert store.put(NAME, [b"second"]) is False
        assert self.look(store, NAME) == b"first"

    def test_nothing_is_seen_before_the_last_chunk(self, store: SnapshotStore) -> None:
        seen: list[object] = []

        def chunks() -> Iterator[bytes]:
            yield b"one"
            seen.extend([store.names("main"), self.look(store, NAME)])
            yield b"two"

        assert store.put(NAME, chunks())
        assert seen == [[], None]

    def test_what_chunks_raises_passes_through_and_leaves_nothing(self, store: SnapshotStore) -> None:
        def chunks() -> Iterator[bytes]:
            yield b"one"
            raise LookupError("no more")

        with pytest.raises(LookupError):
            store.put(NAME, chunks())
        assert store.names("main") == []
        assert self.look(store, NAME) is None
        assert store.put(NAME, [b"again"]) is True

    def test_an_oserror_out_of_chunks_is_not_taken_for_the_stores(self, store: SnapshotStore) -> None:
        def chunks() -> Iterator[bytes]:
            yield b"one"
            raise OSError(5, "somewhere else")

        with pytest.raises(OSError, match="somewhere else"):
            store.put(NAME, chunks())
        assert self.look(store, NAME) is None

    def test_of_two_puts_at_once_one_writes(self, store: SnapshotStore) -> None:
        outcomes: list[bool] = []

        def chunks() -> Iterator[bytes]:
            yield b"slow, "
            outcomes.append(store.put(NAME, [b"quick"]))
            yield b"and late"

        outcomes.append(store.put(NAME, chunks()))
        assert outcomes == [True, False]
        assert self.look(store, NAME) == b"quick"

    def test_open_reads_what_is_there(self, store: SnapshotStore) -> None:
        self.place(store, NAME, bytes(range(256)) * 1000)
        with store.open(NAME) as file:
            assert file.read(3) == b"\x00\x01\x02"
            assert file.read(10**6) == (bytes(range(256)) * 1000)[3:]
            assert file.read(1) == b""
        assert store.size(NAME) == 256_000

    def test_what_is_not_there_is_unavailable(self, store: SnapshotStore) -> None:
        self.place(store, OTHER, b"x")
        for missing in (NAME, "elsewhere/" + NAME.split("/")[1]):
            with pytest.raises(StoreUnavailable):
                store.open(missing)
            with pytest.raises(StoreUnavailable):
                store.size(missing)

    def test_names_are_those_of_one_folder_in_order(self, store: SnapshotStore) -> None:
        assert store.names("main") == []
        for name in (OTHER, MARKER, NAME, NAME.replace("main/", "main2/"), NAME.replace("main/", "mai/")):
            self.place(store, name, b"x")
        assert store.names("main") == [NAME, MARKER, OTHER]
        assert store.names("mai") == [NAME.replace("main/", "mai/")]

    def test_delete_frees_one_name(self, store: SnapshotStore) -> None:
        self.place(store, NAME, b"x")
        self.place(store, MARKER, b"y")
        store.delete(NAME)
        assert (self.look(store, NAME), self.look(store, MARKER)) == (None, b"y")
        assert store.put(NAME, [b"z"]) is True
        assert self.look(store, NAME) == b"z"

    def test_delete_of_a_free_name_is_nothing(self, store: SnapshotStore) -> None:
        self.place(store, OTHER, b"x")
        store.delete(NAME)
        store.delete(NAME)
        assert store.names("main") == [OTHER]

    def test_it_says_where_it_is(self, store: SnapshotStore) -> None:
        assert store.location
        assert store.durable in (True, False)


Row = Mapping[tuple[str, Any], Any]


class RowHistory:
    """A journal of row changes in memory, and the state after each command: a ``JournalView`` to make images of."""

    def __init__(self, *, engine: str = "till", stream: str = "main") -> None:
        self.identity = JournalIdentity(uuid.uuid4(), stream, engine, 1, 0, "rows", 3600, 0)
        self.entries: list[Entry] = []
        self.states: list[dict[str, dict[Any, bytes]]] = [{}]
        self._digests = [digest.EMPTY]

    def command(self, writes: Row) -> Entry:
        """Append a command that writes rows by (table, key); None deletes."""
        state = {table: dict(rows) for table, rows in self.states[-1].items()}
        changes = []
        for (table, key), row in sorted(writes.items(), key=lambda item: item[0]):
            rows = state.setdefault(table, {})
            key_bytes, old = values.encode_bare(key), rows.get(key)
            old_hash = None if old is None else digest.row_hash(key_bytes + old, digest.table_seed(table))
            if row is None:
                rows.pop(key, None)
            else:
                rows[key] = values.encode_bare(row)
            if row is not None or old is not None:
                changes.append(Change(table, key_bytes, rows.get(key), old_hash))
        self.states.append(state)
        self._digests.append(_digest_bytes(state))
        self.entries.append(self._entry(pack_changes(changes)))
        return self.entries[-1]

    def _entry(self, changes_bytes: bytes) -> Entry:
        command_id = len(self.entries) + 1
        chain = self.entries[-1].chain if self.entries else CHAIN_START
        pre, post = self._digests[-2:]
        key, nothing = command_id.to_bytes(16, "big"), values.encode(None)
        parts = part_hashes(key, "write", None, command_id, nothing, False, nothing, NO_EVENTS, changes_bytes)
        fields = (
            *(command_id, key, "write", None, command_id, nothing, False, nothing, NO_EVENTS, changes_bytes),
            *(pre, post, next_chain(chain, parts, pre, post), parts, False, 1, 0, command_id),
        )
        return Entry(*fields, checksum(*fields))

    def entry(self, command_id: int) -> Entry | None:
        """As ``JournalView``."""
        return self.entries[command_id - 1] if 0 < command_id <= len(self.entries) else None

    def entries_after(self, command_id: int, until: int) -> Iterator[Entry]:
        """As ``JournalView``."""
        return iter(self.entries[command_id:until])

    def tables(self, command_id: int) -> list[tuple[str, Pairs]]:
        """The state after a command, for ``write_image``."""
        state = self.states[command_id]
        return [
            (table, [(values.encode_bare(key), state[table][key]) for key in sorted(state[table])])
            for table in sorted(state)
        ]

    def header(self, command_id: int, *, base: str = "capture", created_at_ms: int = 0) -> ImageHeader:
        """The header of the image after a command."""
        entry = self.entries[command_id - 1]
        return ImageHeader(
            journal_id=self.identity.journal_id,
            stream=self.identity.stream,
            engine=self.identity.engine,
            state_version=1,
            logic_version=1,
            schema=b"schema",
            command_id=command_id,
            chain=entry.chain,
            received_at_ms=entry.received_at_ms,
            post_digest_bytes=self._digests[command_id],
            kind="tables",
            base=base,
            created_at_ms=created_at_ms,
        )


def _digest_bytes(state: Mapping[str, Mapping[Any, bytes]]) -> bytes:
    tables = {}
    for table, rows in state.items():
        seed = digest.table_seed(table)
        hashes = [digest.row_hash(values.encode_bare(key) + row, seed) for key, row in rows.items()]
        if hashes:
            tables[table] = TableDigest(len(hashes), sum(hashes) % digest.MODULUS)
    return StateDigest(digest.TABLES, tables, b"").pack()
