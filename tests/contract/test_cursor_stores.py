"""Every place for cursors is held to the contract that third parties get."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from journal.cursors import CursorStore
from journal.errors import JournalInUse, StoreUnavailable, WriterFenced
from journal.stores.cursor_memory import MemoryCursors
from journal.stores.postgres_cursors import PostgresCursors
from journal.testing.cursor_contract import STREAM, CursorStoreContract
from journal.testing.postgres_server import PostgresServer, memory_folder
from journal.urls import migrate_journal, open_cursors
from tests.postgres import fresh_schema

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from journal.urls import open_cursors
hold = open_cursors(sys.argv[1]).hold("main", "mail")
hold.write(b"of the child")
print("held", flush=True)
sys.stdin.read()
"""


class TestMemory(CursorStoreContract):
    @pytest.fixture
    def cursors(self) -> CursorStore:
        return MemoryCursors("")


class TestBesideSqlite(CursorStoreContract):
    @pytest.fixture
    def cursors(self, tmp_path: Path) -> CursorStore:
        return open_cursors(f"sqlite:{tmp_path}/till.db")

    def test_a_stream_may_be_called_like_a_lock(self, cursors: CursorStore) -> None:
        for stream in ("main", "main.lock", "main.tmp"):
            hold = cursors.hold(stream, "mail")
            hold.write(stream.encode())
            hold.release()
        assert [cursors.read(stream, "mail") for stream in ("main", "main.lock")] == [b"main", b"main.lock"]


class TestWithinWal(CursorStoreContract):
    @pytest.fixture
    def cursors(self, tmp_path: Path) -> CursorStore:
        (tmp_path / "journal").mkdir()
        return open_cursors(f"wal:{tmp_path}/journal")


class TestPostgres(CursorStoreContract):
    @pytest.fixture
    def cursors(self, postgres_url: str) -> Iterator[CursorStore]:
        migrate_journal(postgres_url)
        store = PostgresCursors(postgres_url)
        yield store
        store.close()

    def test_a_database_that_was_not_migrated_says_so(self, postgres_url: str) -> None:
        store = PostgresCursors(postgres_url)
        with pytest.raises(StoreUnavailable) as refused:
            store.names(STREAM)
        assert "recovery migrate" in refused.value.hint
        store.close()

    def test_a_hold_outlives_its_connection_and_not_its_claim(
        self, cursors: CursorStore, postgres: PostgresServer
    ) -> None:
        hold = cursors.hold(STREAM, "mail")
        hold.write(b"one")
        postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        hold.write(b"two")
        with pytest.raises(JournalInUse):
            cursors.hold(STREAM, "mail")
        # The session is gone and not yet missed: another consumer takes over, and the first writes nothing more.
        postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        other = cursors.hold(STREAM, "mail")
        assert other.read() == b"two"
        with pytest.raises(WriterFenced, match="taken over"):
            hold.write(b"late")
        other.write(b"three")
        hold.release()
        assert cursors.read(STREAM, "mail") == b"three"
        other.release()


def test_a_server_that_is_restarted_is_waited_for(tmp_path: Path) -> None:
    with PostgresServer(parent=memory_folder()) as server, fresh_schema(server) as url:
        migrate_journal(url)
        cursors = open_cursors(url)
        hold = cursors.hold(STREAM, "mail")
        hold.write(b"one")
        server.kill()
        server.start()
        hold.write(b"two")
        assert cursors.read(STREAM, "mail") == b"two"
        hold.release()
        cursors.close()


@pytest.mark.parametrize("scheme", ["sqlite", "postgresql"])
def test_a_killed_consumer_holds_nothing(scheme: str, tmp_path: Path, postgres_url: str) -> None:
    url = postgres_url if scheme == "postgresql" else f"sqlite:{tmp_path}/till.db"
    if scheme == "postgresql":
        migrate_journal(url)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    cursors = open_cursors(url)
    try:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(JournalInUse, match=f"process {child.pid} on"):
            cursors.hold(STREAM, "mail")
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=30)
    hold = cursors.hold(STREAM, "mail")
    assert hold.read() == b"of the child"
    hold.release()
    cursors.close()
