"""The contract of journal/store.py on every store, and on SQLite through both drivers."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from journal.postgres_schema import migrate
from journal.records import Entry
from journal.store import JournalStore
from journal.stores.memory import PLACES, MemoryStore
from journal.stores.postgres import PostgresStore
from journal.stores.sqlite import SqliteStore
from journal.stores.sqlite_connection import StandardConnection
from journal.testing.apsw_connection import ApswConnection
from journal.testing.contract import STREAM, JournalStoreContract, make_entries
from journal.testing.sql_contract import SqlJournalStoreContract

_names = itertools.count()


class MemoryPlace:
    """A named place; the side door is the dict it lies in."""

    def __init__(self) -> None:
        self.name = f"contract {next(_names)}"

    def open_for_write(self) -> JournalStore:
        return MemoryStore.open_for_write(self.name)

    def open_for_read(self) -> JournalStore:
        return MemoryStore.open_for_read(self.name)

    def look(self, stream: str) -> list[Entry]:
        return PLACES[self.name].streams[stream].entries

    def alter(self, stream: str, command_id: int, column: str, value: object) -> None:
        found = PLACES[self.name].streams[stream]
        altered = found.entries[command_id - 1]._replace(**{column: value})
        found.entries[command_id - 1] = found.by_request[altered.request_key] = altered

    def remove(self, stream: str, command_id: int) -> None:
        del PLACES[self.name].streams[stream].entries[command_id - 1]


class SqlitePlace:
    """A file; the side door is another connection."""

    def __init__(self, path: Path, connect: type[StandardConnection] | type[ApswConnection]) -> None:
        self.path = str(path)
        self._connect = connect

    def open_for_write(self) -> JournalStore:
        return SqliteStore.open_for_write(self.path, self._connect)

    def open_for_read(self) -> JournalStore:
        return SqliteStore.open_for_read(self.path, self._connect)

    def look(self, stream: str) -> list[Entry]:
        sql = f"SELECT {', '.join(Entry._fields)} FROM entries WHERE stream = ({_NUMBER}) ORDER BY command_id"
        with closing(sqlite3.connect(self.path)) as db:
            rows = map(Entry._make, db.execute(sql, (stream,)))
            flags = ("rejected", "events_reduced")
            return [row._replace(**{flag: bool(getattr(row, flag)) for flag in flags}) for row in rows]

    def alter(self, stream: str, command_id: int, column: str, value: object) -> None:
        self._change(f"UPDATE entries SET {column} = ?", value, stream, command_id)

    def remove(self, stream: str, command_id: int) -> None:
        self._change("DELETE FROM entries", stream, command_id)

    def _change(self, sql: str, *parameters: object) -> None:
        with closing(sqlite3.connect(self.path)) as db, db:
            assert db.execute(f"{sql} WHERE stream = ({_NUMBER}) AND command_id = ?", parameters).rowcount == 1


_NUMBER = "SELECT stream FROM streams WHERE name = ?"


class TestMemory(JournalStoreContract):
    @pytest.fixture
    def place(self) -> MemoryPlace:
        return MemoryPlace()


class TestSqlite(JournalStoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> SqlitePlace:
        return SqlitePlace(tmp_path / "journal.db", StandardConnection)


class TestSqliteThroughApsw(JournalStoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> SqlitePlace:
        return SqlitePlace(tmp_path / "journal.db", ApswConnection)


class PostgresPlace:
    """A database; the side door is another connection."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._stores: list[PostgresStore] = []
        migrate(url)

    def open_for_write(self) -> JournalStore:
        return self._kept(PostgresStore.open_for_write(self.url, STREAM))

    def open_for_read(self) -> JournalStore:
        return self._kept(PostgresStore.open_for_read(self.url))

    def _kept(self, store: PostgresStore) -> PostgresStore:
        self._stores.append(store)
        return store

    def close(self) -> None:
        for store in self._stores:
            store.close()

    def look(self, stream: str) -> list[Entry]:
        names = sql.SQL(", ").join(map(sql.Identifier, Entry._fields))
        query = sql.SQL("SELECT {} FROM engine_journal WHERE stream = %s ORDER BY command_id").format(names)
        with psycopg.connect(self.url) as db:
            rows = [Entry._make(row) for row in db.execute(query, (stream,))]
        return [row._replace(request_key=row.request_key.bytes) for row in rows]  # type: ignore[attr-defined]

    def alter(self, stream: str, command_id: int, column: str, value: object) -> None:
        update = sql.SQL("UPDATE engine_journal SET {} = %s").format(sql.Identifier(column))
        self._change(update, value, stream, command_id)

    def remove(self, stream: str, command_id: int) -> None:
        self._change(sql.SQL("DELETE FROM engine_journal"), stream, command_id)

    def _change(self, query: sql.Composable, *parameters: object) -> None:
        with psycopg.connect(self.url) as db:
            done = db.execute(query + sql.SQL(" WHERE stream = %s AND command_id = %s"), parameters)
            assert done.rowcount == 1


class TestPostgres(JournalStoreContract):
    @pytest.fixture
    def place(self, postgres_url: str) -> Iterator[PostgresPlace]:
        place = PostgresPlace(postgres_url)
        yield place
        place.close()


def test_one_driver_reads_what_the_other_wrote(tmp_path: Path) -> None:
    entries = make_entries(1, 20)
    for writer, reader in itertools.permutations([StandardConnection, ApswConnection]):
        path = tmp_path / writer.__name__
        with closing(SqliteStore.open_for_write(str(path), writer)) as store:
            store.create(STREAM, b"identity")
            store.append_epoch(STREAM, 1, b"epoch")
            store.append(STREAM, 1, entries)
        with closing(SqliteStore.open_for_read(str(path), reader)) as store:
            assert store.page(STREAM, 0, 20) == entries


# Tables of others, in the stores that are databases


class TestTablesInSqlite(SqlJournalStoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> SqlitePlace:
        return SqlitePlace(tmp_path / "journal.db", StandardConnection)


class TestTablesInSqliteThroughApsw(SqlJournalStoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> SqlitePlace:
        return SqlitePlace(tmp_path / "journal.db", ApswConnection)


class TestTablesInPostgres(SqlJournalStoreContract):
    @pytest.fixture
    def place(self, postgres_url: str) -> Iterator[PostgresPlace]:
        place = PostgresPlace(postgres_url)
        yield place
        place.close()
