"""Canaries: each leaves out one thing, and the test that guards it must then fail.  A guard that stays green guards nothing."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from journal.delivery import Delivery, Message
from journal.errors import RecoveryError
from journal.files import NewFile
from journal.journal import Journal
from journal.postgres_schema import migrate
from journal.recorder import Recorder
from journal.records import Entry
from journal.shipped_store import ShippedStore
from journal.shipper import Shipper
from journal.stores import postgres, sqlite, wal_writer
from journal.testing.power_cut import PowerCutDisk, PowerCutFile
from journal.testing.power_cut_sqlite import Inode, SqliteDisk
from recovery.shipping import Shipping
from tests.crash import test_file_faults as faults
from tests.crash import test_power_cut_snapshots as on_dir
from tests.crash import test_power_cut_sqlite as on_sqlite
from tests.crash import test_power_cut_wal as on_wal
from tests.unit import (
    test_journal,
    test_outbox,
    test_postgres_store,
    test_projections,
    test_shipping,
    test_unknown_outcome,
)

# One sync left out, under dir:


class _FileWithoutSync(PowerCutFile):
    def sync(self) -> None:
        """Left out."""


class WithoutFileSync(PowerCutDisk):
    """An image's bytes are not synced before it gets its name."""

    def create(self, path: str) -> NewFile:
        """A file that is never synced."""
        super().create(path)
        return _FileWithoutSync(self, self._names[path])


class WithoutDirectorySync(PowerCutDisk):
    """Names are not synced."""

    def sync_directory(self, path: str) -> None:
        """Left out."""


class WithoutSyncOfDeletions(PowerCutDisk):
    """The folder is not synced after a name was taken away."""

    _deleted = False

    def unlink(self, path: str) -> None:
        """Remember that this was a deletion, not the end of a temporary."""
        self._deleted = not path.endswith(".tmp")
        super().unlink(path)

    def sync_directory(self, path: str) -> None:
        """Left out after a deletion."""
        if not self._deleted:
            super().sync_directory(path)
        self._deleted = False


@pytest.mark.parametrize("canary", [WithoutFileSync, WithoutDirectorySync, WithoutSyncOfDeletions])
def test_a_sync_left_out_of_dir_is_found(canary: type[PowerCutDisk]) -> None:
    with pytest.raises((AssertionError, RecoveryError)):
        on_dir.guard(lambda cut_at: canary(cut_at=cut_at), cuts=on_dir.CUTS)


# One sync left out, or one other thing, under wal:


def without_sync_in(function: str) -> Callable[[PowerCutFile], None]:
    """A sync that is left out where a function of the writer asks for it."""

    def sync(file: PowerCutFile) -> None:
        file._disk.operation()
        if sys._getframe(1).f_code.co_name != function:
            file._inode.sync()

    return sync


@pytest.mark.parametrize("function", ["append", "_zero", "_fill"])
def test_a_sync_left_out_of_wal_is_found(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    on_wal.make_segments_small(monkeypatch)
    monkeypatch.setattr(PowerCutFile, "sync", without_sync_in(function))
    with pytest.raises((AssertionError, RecoveryError)):
        on_wal.guard(on_wal.plain_disk, cuts=on_wal.CUTS, seed=0)


def test_a_sync_of_the_folder_left_out_of_wal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    on_wal.make_segments_small(monkeypatch)
    with pytest.raises((AssertionError, RecoveryError)):
        on_wal.guard(
            lambda cut_at: WithoutDirectorySync(cut_at=cut_at, sector_bytes=on_wal.SECTOR_BYTES),
            cuts=on_wal.CUTS,
            seed=0,
        )


def test_a_torn_tail_that_is_not_zeroed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(writer: wal_writer.LogWriter) -> None:
        writer.log.torn = None
        writer._zeroed_to = wal_writer.SEGMENT_BYTES

    on_wal.make_segments_small(monkeypatch)
    monkeypatch.setattr(wal_writer.LogWriter, "cut_tail", forget)
    with pytest.raises((AssertionError, RecoveryError)):
        on_wal.guard(on_wal.plain_disk, cuts=on_wal.CUTS, seed=0)


class AlwaysAnotherBoot(PowerCutDisk):
    """Readers take all that they find for durable."""

    def boot(self) -> bytes:
        """Never the mark's."""
        return os.urandom(16)


def test_a_reader_that_goes_beyond_the_mark_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    on_wal.make_segments_small(monkeypatch)
    with pytest.raises((AssertionError, RecoveryError)):
        on_wal.guard(
            lambda cut_at: AlwaysAnotherBoot(cut_at=cut_at, sector_bytes=on_wal.SECTOR_BYTES), cuts=on_wal.CUTS, seed=0
        )


def settle_by_sync_alone(writer: wal_writer.LogWriter) -> None:
    """The last frame is synced, but not written again."""
    writer._zeroed_to = writer.log.open_segment.end
    writer._file.sync()
    writer._files.sync_directory(writer.log.folder)


def test_a_failed_sync_that_is_believed_later_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    on_wal.make_segments_small(monkeypatch)
    monkeypatch.setattr(wal_writer.LogWriter, "_settle", settle_by_sync_alone)
    with pytest.raises((AssertionError, RecoveryError)):
        faults.guard_against_lies_of_the_cache(errno.EIO)


# One sync left out, under sqlite:


class WithoutWalSync(SqliteDisk):
    """A commit is not synced."""

    def sync_file(self, name: str, inode: Inode) -> None:
        """Left out for the -wal."""
        if not name.endswith("-wal"):
            super().sync_file(name, inode)


class WithoutDatabaseSync(SqliteDisk):
    """A checkpoint is not synced before the -wal begins again."""

    def sync_file(self, name: str, inode: Inode) -> None:
        """Left out for the database."""
        if name.endswith("-wal"):
            super().sync_file(name, inode)


class WithoutFolderSync(SqliteDisk):
    """The name of a new database is not synced, neither by us nor by SQLite."""

    def sync_names(self) -> None:
        """Left out."""


@pytest.mark.parametrize("canary", [WithoutWalSync, WithoutDatabaseSync, WithoutFolderSync])
def test_a_sync_left_out_of_sqlite_is_found(
    tmp_path: Path, canary: type[SqliteDisk], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "CHECKPOINT_COMMITS", on_sqlite.CHECKPOINT_COMMITS)
    with pytest.raises((AssertionError, RecoveryError)):
        on_sqlite.guard(tmp_path, lambda folder, cut_at: canary(folder, cut_at=cut_at), cuts=on_sqlite.CUTS, seed=0)


# The chain check left out


class WithoutChainCheck(Journal):
    """A reader that believes every entry whose own checksum holds."""

    def read(self, after: int = 0, until: int | None = None) -> Iterator[Entry]:
        """All that the store gives."""
        last = self.head().command_id if until is None else until
        for entry in self.store.page(self.stream, after, last):
            entry.verify()
            yield entry


@pytest.mark.parametrize(
    "guard", [test_journal.guard_against_a_rewritten_entry, test_journal.guard_against_a_spliced_tail]
)
def test_a_chain_check_left_out_is_found(guard: Callable[[type[Journal]], None]) -> None:
    guard(Journal)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        guard(WithoutChainCheck)


# The lookup of request ids left out


class WithoutLookup(Recorder):
    """A writer that never finds what is recorded."""

    def recorded(self, request_keys: object) -> dict[bytes, Entry]:
        """Nothing."""
        return {}


def test_a_lookup_left_out_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    test_journal.guard_against_doing_twice()
    monkeypatch.setattr("recovery.cold_start.Recorder", WithoutLookup)
    with pytest.raises((AssertionError, RecoveryError)):
        test_journal.guard_against_doing_twice()


# The cursor moved before the delivery


class CursorFirst(Delivery):
    """Moves the cursor, and then hands the messages out."""

    def _deliver(self, entries: list[Entry], messages: list[Message]) -> None:
        self._move(entries, len(messages))
        super()._deliver(entries, messages)


def test_a_cursor_moved_before_the_delivery_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError):
        test_outbox.guard_at_least_once(CursorFirst, monkeypatch)


@pytest.mark.parametrize("canary", [WithoutFileSync, WithoutDirectorySync])
def test_a_sync_left_out_of_a_cursor_is_found(tmp_path: Path, canary: type[PowerCutDisk]) -> None:
    with pytest.raises((AssertionError, RecoveryError)):
        test_outbox.guard_power_cuts(lambda cut_at: canary(cut_at=cut_at), str(tmp_path))


# The progress of a projection left out


def test_a_progress_left_out_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "with").mkdir()
    test_projections.guard_progress(f"sqlite:{tmp_path}/with/journal.db")
    monkeypatch.setattr("recovery.cold_start.Projector", test_projections.WithoutProgress)
    with pytest.raises((AssertionError, RecoveryError, pytest.fail.Exception)):
        test_projections.guard_progress(f"sqlite:{tmp_path}/journal.db")


# Tables written after the journal's transaction, in one of their own


def test_tables_written_apart_from_the_entries_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = sqlite.SqliteStore.append

    def apart(store: sqlite.SqliteStore, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        hook = store._hooks.pop(stream)
        append(store, stream, epoch, entries)
        store._hooks[stream] = hook
        store.transact(lambda cursor: hook(cursor, entries))

    (tmp_path / "with").mkdir()
    test_projections.guard_together(f"sqlite:{tmp_path}/with/journal.db")
    monkeypatch.setattr(sqlite.SqliteStore, "append", apart)
    with pytest.raises((AssertionError, RecoveryError)):
        test_projections.guard_together(f"sqlite:{tmp_path}/journal.db")


# The fence of PostgreSQL read without its lock, and an unknown commit resolved without a new epoch


@pytest.mark.parametrize(("constant", "count"), [("_BEGIN", 3), ("_LONE", 1)])
def test_a_fence_that_is_not_read_for_share_is_found(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, constant: str, count: int
) -> None:
    migrate(postgres_url)
    monkeypatch.setattr(postgres, constant, getattr(postgres, constant).replace(" FOR SHARE", ""))
    with (
        test_postgres_store.writing(postgres_url) as store,
        pytest.raises(AssertionError, match="not read FOR SHARE"),
    ):
        test_postgres_store.test_an_append_that_waits_for_a_takeover_writes_nothing(postgres_url, store, count)


def test_an_unknown_commit_resolved_without_a_new_epoch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = test_unknown_outcome.test_every_command_is_recorded_once_and_answered
    guard("with a new epoch", [False])
    monkeypatch.setattr(Recorder, "_renew_epoch", lambda self: None)
    with pytest.raises((AssertionError, RecoveryError)):
        guard("without", [False])


# A receipt before the target has the command; one by a writer that slept and did not ask; messages before they are shipped


def append_here_alone(store: ShippedStore, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
    """The target is left out."""
    store._local.append(stream, epoch, entries)


def test_a_receipt_before_the_target_has_it_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShippedStore, "_append_both", append_here_alone)
    with pytest.raises(AssertionError):
        test_shipping.guard_both_have_it(test_shipping.Places(tmp_path, f"sqlite:{tmp_path}/target.db"), monkeypatch)


def test_messages_ahead_of_the_target_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Shipping, "published", lambda shipping, head: head.command_id)
    with pytest.raises(AssertionError):
        test_shipping.guard_an_outbox_waits(test_shipping.Places(tmp_path, f"sqlite:{tmp_path}/target.db"), monkeypatch)


def test_a_sleeper_that_does_not_ask_is_found(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(postgres_url)
    monkeypatch.setattr(Shipper, "confirm", lambda shipper: None)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test_shipping.guard_a_sleeper_asks(
            test_shipping.Places(tmp_path, postgres_url), tmp_path / "elsewhere", monkeypatch
        )
