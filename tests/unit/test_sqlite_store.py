"""What is peculiar to ``sqlite:``: its lock and forks, fail-stop, full disks, and files that are something else."""

from __future__ import annotations

import errno
import os
import platform
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from journal.errors import (
    CorruptionError,
    JournalInUse,
    NewerSchema,
    RecoveryError,
    StoreUnavailable,
    UnknownScheme,
    UsageError,
    WriterFenced,
    WriterPoisoned,
)
from journal.files import LocalFiles
from journal.stores.sqlite import SqliteStore
from journal.stores.sqlite_connection import SqliteFailure, StandardConnection
from journal.stores.sqlite_schema import migrations, wal_reset_bug
from journal.testing.contract import STREAM, make_entries
from journal.urls import journal_schema, journal_schema_sql, migrate_journal, open_reader, open_writer


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal.db")


@pytest.fixture
def store(path: str) -> Iterator[SqliteStore]:
    with closing(begun(SqliteStore.open_for_write(path))) as store:
        yield store


def begun(store: SqliteStore) -> SqliteStore:
    store.create(STREAM, b"identity")
    store.append_epoch(STREAM, 1, b"epoch")
    return store


def stored(path: str) -> list[int]:
    with closing(SqliteStore.open_for_read(path)) as reader:
        return [entry.command_id for entry in reader.page(STREAM, 0, 1000)]


# Durability


def test_the_settings_that_durability_rests_on_are_read_back(store: SqliteStore) -> None:
    settings = store.settings()
    assert (settings["journal_mode"], settings["synchronous"]) == ("wal", "FULL")
    assert settings["sqlite"] == sqlite3.sqlite_version
    assert store.durable


def test_a_store_that_cannot_have_a_wal_does_not_call_itself_durable(path: str) -> None:
    class WithoutWal(StandardConnection):
        def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
            return super().execute(sql.replace("journal_mode = WAL", "journal_mode = MEMORY"), parameters)

    with closing(SqliteStore.open_for_write(path, WithoutWal)) as store:
        assert not store.durable


def test_the_folder_is_made_and_synced(tmp_path: Path) -> None:
    synced = []

    class Watched(LocalFiles):
        def sync_directory(self, path: str) -> None:
            synced.append(Path(path))
            super().sync_directory(path)

    SqliteStore.open_for_write(str(tmp_path / "a" / "b" / "journal.db"), files=Watched()).close()
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= set(synced)


# The lock


def test_the_holder_is_named_by_host_and_pid(store: SqliteStore, path: str) -> None:
    with pytest.raises(JournalInUse, match=f"process {os.getpid()} on {platform.node()} since"):
        SqliteStore.open_for_write(path)


def test_the_lock_is_on_the_file_whatever_it_is_called(store: SqliteStore, path: str, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(path)
    with pytest.raises(JournalInUse):
        SqliteStore.open_for_write(str(tmp_path / "other"))


def test_a_refused_second_writer_does_not_let_go_of_the_lock(store: SqliteStore, path: str) -> None:
    for _ in range(2):
        with pytest.raises(JournalInUse):
            SqliteStore.open_for_write(path)


def test_a_forked_child_may_neither_write_nor_keep_the_lock(store: SqliteStore, path: str) -> None:
    store.append(STREAM, 1, make_entries(1, 1))
    ready, leave = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            store.append(STREAM, 1, make_entries(2, 2))
        except WriterFenced:
            outcome = 0
        os.write(ready[1], bytes([outcome]))
        os.read(leave[0], 1)
        os._exit(outcome)
    try:
        assert os.read(ready[0], 1) == b"\0", "the child wrote through its parent's connection"
        store.append(STREAM, 1, make_entries(2, 2))
        store.close()
        SqliteStore.open_for_write(path).close()
    finally:
        os.write(leave[1], b"x")
        os.waitpid(child, 0)
        for end in (*ready, *leave):
            os.close(end)
    assert stored(path) == [1, 2]


# Fail-stop


class Failing(StandardConnection):
    """Fails once at a statement, as SQLite does on a bad disk."""

    fail_at = ""
    code = sqlite3.SQLITE_IOERR

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        if self.fail_at and sql.startswith(self.fail_at):
            Failing.fail_at = ""
            raise SqliteFailure(self.code, "made to fail") from OSError(errno.EIO, "made to fail")
        return super().execute(sql, parameters)


@pytest.mark.parametrize("statement", ["BEGIN", "COMMIT", "SELECT position"])
def test_nothing_is_written_after_the_first_io_error(
    path: str, statement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = begun(SqliteStore.open_for_write(path, Failing))
    store.append(STREAM, 1, make_entries(1, 2))
    monkeypatch.setattr(Failing, "fail_at", statement)
    with pytest.raises(RecoveryError) as failed:
        store.append(STREAM, 1, make_entries(3, 4))
    assert isinstance(failed.value.__cause__, OSError)
    for write in (lambda: store.append(STREAM, 1, make_entries(3, 4)), lambda: store.append_epoch(STREAM, 2, b"")):
        with pytest.raises(WriterPoisoned) as poisoned:
            write()
        assert poisoned.value.hint
    assert [entry.command_id for entry in store.page(STREAM, 0, 9)] == [1, 2], "reading goes on"
    store.close()
    assert stored(path) == [1, 2]
    with closing(SqliteStore.open_for_write(path)) as reopened:
        reopened.append(STREAM, 1, make_entries(3, 4))
    assert stored(path) == [1, 2, 3, 4]


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY])
def test_a_refusal_before_anything_is_written_does_not_stop_the_store(
    path: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "code", code)
    with closing(begun(SqliteStore.open_for_write(path, Failing))) as store:
        monkeypatch.setattr(Failing, "fail_at", "COMMIT")
        with pytest.raises(StoreUnavailable):
            store.append(STREAM, 1, make_entries(1, 3))
        store.append(STREAM, 1, make_entries(1, 3))
    assert stored(path) == [1, 2, 3]


def test_a_full_disk_refuses_the_batch_and_takes_a_smaller_one(path: str, store: SqliteStore) -> None:
    store._db.execute("PRAGMA max_page_count = 40")
    entries = make_entries(1, 400)
    with pytest.raises(StoreUnavailable) as full:
        store.append(STREAM, 1, entries)
    assert full.value.hint
    assert stored(path) == []
    store.append(STREAM, 1, entries[:3])
    store._db.execute("PRAGMA max_page_count = 100000")
    store.append(STREAM, 1, entries[3:])
    assert len(stored(path)) == 400


# What is not a journal


def test_a_newer_schema_is_refused_and_left_alone(path: str, store: SqliteStore) -> None:
    store.close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(migrations()) + 1}")
    before = Path(path).read_bytes()
    for open_it in (SqliteStore.open_for_write, SqliteStore.open_for_read):
        with pytest.raises(NewerSchema, match="newer release") as newer:
            open_it(path)
        assert "upgrade" in newer.value.hint
    assert Path(path).read_bytes() == before


def test_another_programs_database_is_refused_and_left_alone(path: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    before = Path(path).read_bytes()
    for open_it in (SqliteStore.open_for_write, SqliteStore.open_for_read):
        with pytest.raises(UsageError, match="not a journal"):
            open_it(path)
    assert Path(path).read_bytes() == before


def test_a_file_of_something_else_is_damage(path: str) -> None:
    Path(path).write_bytes(b"Dear diary, " * 1000)
    for open_it in (SqliteStore.open_for_write, SqliteStore.open_for_read):
        with pytest.raises(CorruptionError):
            open_it(path)


@pytest.mark.parametrize("what", ["a folder", "under a file"])
def test_a_path_that_cannot_be_written_is_named(tmp_path: Path, what: str) -> None:
    if what == "a folder":
        path = tmp_path
    else:
        (tmp_path / "file").write_text("in the way")
        path = tmp_path / "file" / "journal.db"
    with pytest.raises(StoreUnavailable) as refused:
        SqliteStore.open_for_write(str(path))
    assert str(tmp_path) in str(refused.value)
    assert refused.value.hint


def test_reading_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="no journal at") as missing:
        SqliteStore.open_for_read(str(tmp_path / "no.db"))
    assert missing.value.hint
    assert list(tmp_path.iterdir()) == []


# URLs and migrations


@pytest.mark.parametrize(
    ("url", "right"),
    [
        ("sqlite://till.db", "sqlite:till.db"),
        ("sqlite:///var/till.db", "sqlite:/var/till.db"),
        ("sqlite:", "sqlite:PATH"),
    ],
)
def test_a_url_with_slashes_names_the_right_form(url: str, right: str) -> None:
    for open_it in (open_reader, open_writer):
        with pytest.raises(UnknownScheme) as refused:
            open_it(url)
        assert right in refused.value.hint


def test_the_sql_that_is_shown_makes_what_is_used(path: str, store: SqliteStore) -> None:
    layout = "SELECT type, name, sql FROM sqlite_master ORDER BY name"
    with closing(sqlite3.connect(":memory:")) as shown, closing(sqlite3.connect(path)) as used:
        shown.executescript(journal_schema_sql(f"sqlite:{path}"))
        assert shown.execute(layout).fetchall() == used.execute(layout).fetchall()


def test_an_older_schema_is_read_only_after_migrating(path: str) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA application_id = {int.from_bytes(b'ERJ1', 'big')}")
    assert journal_schema(f"sqlite:{path}") == (0, len(migrations()))
    with pytest.raises(StoreUnavailable, match="older release") as older:
        open_reader(f"sqlite:{path}")
    assert "recovery migrate" in older.value.hint
    assert migrate_journal(f"sqlite:{path}") == (0, len(migrations()))
    assert journal_schema(f"sqlite:{path}") == (len(migrations()),) * 2
    open_reader(f"sqlite:{path}").close()


@pytest.mark.parametrize(
    ("said", "version"),
    [("present", version) for version in ("3.40.1", "3.44.5", "3.45.0", "3.50.6", "3.51.2")]
    + [("fixed", version) for version in ("3.44.6", "3.50.7", "3.51.3", "3.54.1")],
)
def test_the_versions_with_the_wal_reset_bug_are_known(version: str, said: str) -> None:
    assert wal_reset_bug(version).startswith(said)


def test_sqlite_is_loaded_only_when_it_is_named() -> None:
    code = "import sys, recovery; sys.exit('journal.stores.sqlite' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0
