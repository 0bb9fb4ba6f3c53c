"""EIO and ENOSPC at the n-th operation of a short run, for every n, on every file store.

After each: the error is of the right family, a writer goes on only where nothing was written, what was acknowledged is there
when the store is opened again, also after a power cut, and nothing half-written is seen.  (``dir:`` alone, put by put, is in
test_power_cut_snapshots.py.)
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from journal.errors import RecoveryError, StoreUnavailable, UnavailableError, WriterPoisoned
from journal.stores import sqlite, wal_writer
from journal.stores.sqlite import SqliteStore
from journal.stores.wal import WalStore
from journal.testing.contract import make_entries
from journal.testing.power_cut import PowerCutDisk
from journal.testing.power_cut_sqlite import SqliteDisk
from tests.crash import test_power_cut_snapshots as on_dir
from tests.crash import test_power_cut_sqlite as on_sqlite
from tests.crash import test_power_cut_wal as on_wal

SEED = 3
ERRORS = [errno.EIO, errno.ENOSPC]


@pytest.fixture(autouse=True)
def short_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short lives must see segments end and checkpoints be made."""
    monkeypatch.setattr(wal_writer, "SEGMENT_BYTES", 8 * 1024)
    monkeypatch.setattr(wal_writer, "ZEROED_BYTES", 4 * 1024)
    monkeypatch.setattr(on_wal, "BATCHES", 4)
    monkeypatch.setattr(on_sqlite, "BATCHES", 3)
    monkeypatch.setattr(sqlite, "CHECKPOINT_COMMITS", 2)


def failed_life(disk: PowerCutDisk, ledger: on_wal.Ledger) -> RecoveryError | None:
    """One life under ``wal:``, and what ended it."""
    try:
        on_wal.live(disk, ledger, random.Random(SEED))
    except (StoreUnavailable, WriterPoisoned) as error:
        return says_why(error)
    return None


def says_why(error: RecoveryError) -> RecoveryError:
    assert isinstance(error.__cause__, OSError), error
    assert error.hint
    return error


@pytest.mark.parametrize("error", ERRORS)
def test_wal_when_any_operation_fails(error: int) -> None:
    guard_against_lies_of_the_cache(error)


def guard_against_lies_of_the_cache(error: int) -> None:
    """After each failure the same machine goes on; then its power goes."""
    uncut = on_wal.plain_disk(-1)
    assert failed_life(uncut, on_wal.Ledger()) is None
    kinds = set()
    for fail_at in range(1, uncut.operations + 1):
        disk = PowerCutDisk(fail_at=fail_at, error=error, sector_bytes=on_wal.SECTOR_BYTES)
        ledger = on_wal.Ledger()
        kinds.add(type(failed_life(disk, ledger)))
        again = disk.after_kill()
        after = on_wal.Ledger()
        after.acknowledged, after.epochs, after.attempted = ledger.acknowledged, ledger.epochs, ledger.attempted
        store = on_wal.open_for_write(again)
        last = store.last("main")
        shown = 0 if last is None else last.command_id
        assert ledger.acknowledged <= shown <= ledger.attempted
        cut = again.after_cut(random.Random(fail_at))
        assert on_wal.read(cut) == shown, "what the next writer found was in the page cache alone"
        store.close()
        on_wal.live(again, after, random.Random(fail_at))
        on_wal.look(again.after_cut(random.Random(fail_at)), after)
    assert kinds == {StoreUnavailable, WriterPoisoned}


@pytest.mark.parametrize("error", ERRORS)
def test_wal_goes_on_after_a_full_disk_and_only_then(error: int) -> None:
    """StoreUnavailable: the same call, made again, does it.  WriterPoisoned: no call does anything, ever again."""
    entries = make_entries(1, 9)
    calls: list[Callable[[WalStore], None]] = [
        lambda store: store.create("main", b"identity"),
        lambda store: store.append_epoch("main", 1, b"epoch"),
        *(lambda store, at=at: store.append("main", 1, entries[at : at + 3]) for at in range(0, 9, 3)),
    ]
    uncut = on_wal.plain_disk(-1)
    opened = on_wal.open_for_write(uncut)
    for call in calls:
        call(opened)
    ended = set()
    for fail_at in range(1, uncut.operations + 1):
        disk = PowerCutDisk(fail_at=fail_at, error=error, sector_bytes=on_wal.SECTOR_BYTES)
        try:
            store = on_wal.open_for_write(disk)
        except StoreUnavailable:
            continue
        done = 0
        for call in calls:
            try:
                call(store)
            except StoreUnavailable:
                ended.add(StoreUnavailable)
                call(store)
            except WriterPoisoned:
                ended.add(WriterPoisoned)
                break
            done += 1
        for call in calls[done:]:
            with pytest.raises(WriterPoisoned):
                call(store)
        for found in (disk.after_kill(), disk.after_cut(random.Random(fail_at))):
            page = WalStore.open_for_read(on_wal.FOLDER, files=found).page("main", 0, 9)
            assert page == entries[: len(page)]
            assert len(page) in (max(0, done - 2) * 3, max(0, done - 1) * 3)
    assert ended == ({StoreUnavailable, WriterPoisoned} if error == errno.ENOSPC else {WriterPoisoned})


def test_wal_when_any_reading_fails() -> None:
    uncut = on_wal.plain_disk(-1)
    on_wal.live(uncut, on_wal.Ledger(), random.Random(SEED))
    first = uncut.readings
    on_wal.read(uncut)
    for fail_read_at in range(1, uncut.readings - first + 1):
        disk = PowerCutDisk(fail_read_at=fail_read_at, sector_bytes=on_wal.SECTOR_BYTES)
        disk._names = disk._durable_names = uncut._names
        try:
            on_wal.read(disk)
        except StoreUnavailable as error:
            says_why(error)
        assert on_wal.read(disk) == on_wal.read(uncut)


@pytest.mark.parametrize("error", ERRORS)
def test_dir_when_any_operation_of_a_life_fails(error: int) -> None:
    uncut = PowerCutDisk()
    on_dir.Life(uncut).live(0)
    for fail_at in range(1, uncut.operations + 1):
        life = on_dir.Life(PowerCutDisk(fail_at=fail_at, error=error))
        try:
            life.live(0)
        except StoreUnavailable as unavailable:
            says_why(unavailable)
        life.check(life.disk)
        life.check(life.disk.after_cut(random.Random(fail_at)))


@pytest.mark.parametrize("error", ERRORS)
def test_sqlite_when_any_operation_fails(tmp_path: Path, error: int) -> None:
    (tmp_path / "uncut").mkdir()
    uncut = SqliteDisk(str(tmp_path / "uncut"))
    on_sqlite.live(uncut, on_sqlite.Ledger(), random.Random(SEED))
    uncut.unregister()
    for fail_at in range(sum(uncut.done.values())):
        here, after = tmp_path / f"{fail_at}", tmp_path / f"{fail_at} after"
        here.mkdir()
        after.mkdir()
        disk = SqliteDisk(str(here), fail_at=fail_at, error=error)
        ledger = on_sqlite.Ledger()
        ended = _sqlite_life(disk, ledger)
        assert ended is None or isinstance(ended, UnavailableError), (fail_at, ended)
        disk.unregister()
        disk.after_cut(str(after), random.Random(fail_at))
        on_sqlite.look(here, ledger)
        on_sqlite.look(after, ledger)


def _sqlite_life(disk: SqliteDisk, ledger: on_sqlite.Ledger) -> RecoveryError | None:
    """One life that may end by an error; what it was."""
    path = f"{disk.folder}/journal.db"
    ended: RecoveryError | None = None
    store: SqliteStore | None = None
    try:
        store = SqliteStore.open_for_write(path, disk.connect, files=disk)
        on_sqlite.write(store, disk, ledger, random.Random(SEED))
    except RecoveryError as error:
        ended = error
    if store is not None:
        try:
            store.close()
        except RecoveryError as error:
            ended = ended or error
    return ended
