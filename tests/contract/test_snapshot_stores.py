"""The contract of snapshots/store.py on every store, and what is peculiar to each."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from journal.errors import StoreUnavailable, UnknownScheme, UsageError
from journal.postgres_schema import migrate
from journal.testing.postgres_server import PostgresServer
from snapshots.store import SnapshotStore
from snapshots.stores import directory
from snapshots.stores.directory import DirectorySnapshots
from snapshots.stores.memory import MemorySnapshots
from snapshots.stores.postgres import CHUNK_BYTES, PostgresSnapshots
from snapshots.testing import NAME, OTHER, SnapshotStoreContract
from snapshots.urls import open_snapshot_store


class TestMemory(SnapshotStoreContract):
    @pytest.fixture
    def store(self) -> MemorySnapshots:
        return MemorySnapshots()

    def look(self, store: SnapshotStore, name: str) -> bytes | None:
        return store._images.get(name)  # type: ignore[attr-defined, no-any-return]

    def place(self, store: SnapshotStore, name: str, data: bytes) -> None:
        store._images[name] = data  # type: ignore[attr-defined]


class TestDirectory(SnapshotStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> DirectorySnapshots:
        return DirectorySnapshots(str(tmp_path / "not" / "yet"))

    def path(self, store: SnapshotStore, name: str) -> Path:
        return Path(store.location.removeprefix("dir:"), name)

    def look(self, store: SnapshotStore, name: str) -> bytes | None:
        path = self.path(store, name)
        return path.read_bytes() if path.exists() else None

    def place(self, store: SnapshotStore, name: str, data: bytes) -> None:
        path = self.path(store, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def test_no_temporary_stays(self, store: DirectorySnapshots) -> None:
        store.put(NAME, [b"x"])
        store.put(NAME, [b"y"])
        assert [path.name for path in self.path(store, NAME).parent.iterdir()] == [NAME.split("/")[1]]


class TestPostgres(SnapshotStoreContract):
    @pytest.fixture
    def store(self, postgres_url: str) -> Iterator[PostgresSnapshots]:
        migrate(postgres_url)
        self.url = postgres_url
        store = PostgresSnapshots.connect(postgres_url)
        yield store
        store._link.close()

    def look(self, store: SnapshotStore, name: str) -> bytes | None:
        query = "SELECT coalesce(string_agg(data, '' ORDER BY number), '') FROM engine_image_chunks WHERE image = %s"
        with psycopg.connect(self.url) as db:
            found = db.execute("SELECT image FROM engine_images WHERE name = %s", (name,)).fetchone()
            return None if found is None else db.execute(query, found).fetchall()[0][0]

    def place(self, store: SnapshotStore, name: str, data: bytes) -> None:
        image = uuid.uuid4()
        with psycopg.connect(self.url) as db:
            db.execute("INSERT INTO engine_images VALUES (%s, %s, %s)", (image, name, len(data)))
            db.execute("INSERT INTO engine_image_chunks VALUES (%s, 0, %s)", (image, data[:1000]))
            db.execute("INSERT INTO engine_image_chunks VALUES (%s, 1, %s)", (image, data[1000:]))

    def test_nothing_unfinished_stays(self, store: PostgresSnapshots) -> None:
        self.place(store, OTHER, b"x")
        with psycopg.connect(self.url) as db:
            db.execute("INSERT INTO engine_images VALUES (%s, NULL, 0, now() - interval '2 days')", (uuid.uuid4(),))
            db.execute("INSERT INTO engine_images VALUES (%s, NULL, 0, now())", (uuid.uuid4(),))
        store.put(NAME, [b"x"])
        store.put(OTHER, [b"y"])
        with psycopg.connect(self.url) as db:
            found = db.execute("SELECT name FROM engine_images ORDER BY name").fetchall()
        assert found == [(NAME,), (OTHER,), (None,)], "an old leftover, or a young one that may still be written"

    def test_a_swept_image_is_an_error_to_its_writer(self, store: PostgresSnapshots) -> None:
        def chunks() -> Iterator[bytes]:
            yield bytes(CHUNK_BYTES)
            with psycopg.connect(self.url) as db:
                db.execute("DELETE FROM engine_images")

        with pytest.raises(StoreUnavailable):
            store.put(NAME, chunks())
        assert store.names("main") == []

    def test_a_missing_chunk_is_not_read_over(self, store: PostgresSnapshots) -> None:
        store.put(NAME, [bytes(range(256)) * 5000] * 3)
        with psycopg.connect(self.url) as db:
            db.execute("DELETE FROM engine_image_chunks WHERE number = 1")
        with store.open(NAME) as file, pytest.raises(OSError, match="not whole"):
            file.read()

    def test_it_lets_its_connection_go(self, store: PostgresSnapshots, postgres: PostgresServer) -> None:
        other = PostgresSnapshots.connect(self.url + "&application_name=let_go")
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'let_go'"
        assert postgres.execute(query) == [(1,)]
        del other
        for _ in range(500):
            if postgres.execute(query) == [(0,)]:
                return
            time.sleep(0.01)
        raise AssertionError("the connection stayed")


def test_memory_is_shared_by_name_only() -> None:
    open_snapshot_store("memory:a-place").put(NAME, [b"x"])
    assert open_snapshot_store("memory:a-place").names("main") == [NAME]
    assert open_snapshot_store("memory:b-place").names("main") == []
    open_snapshot_store("memory:").put(NAME, [b"x"])
    assert open_snapshot_store("memory:").names("main") == []


def test_urls(tmp_path: Path) -> None:
    assert open_snapshot_store(f"dir:{tmp_path}").location == f"dir:{tmp_path}"
    assert open_snapshot_store("dir:some/where").location == "dir:some/where"
    for url in ("s4://bucket", "till-snapshots", "", "DIR:x"):
        with pytest.raises(UnknownScheme) as unknown:
            open_snapshot_store(url)
        assert "memory:" in str(unknown.value)
        assert "dir:PATH" in str(unknown.value)
    for url, hint in (("dir:///var/x", "dir:/var/x"), ("dir://x", "dir:x"), ("dir:", "dir:PATH")):
        with pytest.raises(UsageError) as wrong:
            open_snapshot_store(url)
        assert hint in wrong.value.hint


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = DirectorySnapshots(str(tmp_path / "file"))
    for attempt in (lambda: store.put(NAME, [b"x"]), lambda: store.names("main"), lambda: store.open(NAME)):
        with pytest.raises(StoreUnavailable, match=r"file.*: \w+") as unavailable:
            attempt()
        assert isinstance(unavailable.value.__cause__, OSError)


def test_temporaries_of_the_dead_are_swept_and_those_of_the_living_are_not(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    folder = tmp_path / "main"
    folder.mkdir()
    now, host = time.time_ns() // 10**6, directory._host()
    dead = f".{now}-{host}-{child.pid}-00.tmp"
    old = f".{now - 25 * 3600 * 1000}-elsewhere-1-00.tmp"
    alive = f".{now}-{host}-{os.getpid()}-00.tmp"
    elsewhere = f".{now}-elsewhere-{child.pid}-00.tmp"
    strange = ".nfs0001"
    for name in (dead, old, alive, elsewhere, strange):
        (folder / name).write_bytes(b"half")
    DirectorySnapshots(str(tmp_path)).put(NAME, [b"x"])
    assert {path.name for path in folder.iterdir()} == {alive, elsewhere, strange, NAME.split("/")[1]}


def test_a_swept_temporary_is_an_error_to_its_writer(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"one"
        for path in (tmp_path / "main").iterdir():
            path.unlink()

    store = DirectorySnapshots(str(tmp_path))
    with pytest.raises(StoreUnavailable):
        store.put(NAME, chunks())
    assert store.names("main") == []
