"""``sqlite:`` on a disk that loses power at any operation: whatever was acknowledged is there, once, and the chain holds.

The disk is journal.testing.power_cut_sqlite's.  ``guard`` lives up to a cut, lives on from what was found until a second
cut in half of the cases, and then looks with the driver and the disk that users have.
"""

from __future__ import annotations

import os
import random
import shutil
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from journal import digest, values
from journal.errors import RecoveryError
from journal.framing import NO_CHANGES, NO_EVENTS
from journal.journal import Journal
from journal.recorder import Recorder
from journal.records import Entry, Epoch, JournalIdentity, Transition
from journal.stores import sqlite
from journal.stores.sqlite import SqliteStore
from journal.testing.power_cut_sqlite import SqliteDisk

CUTS = 1000
BATCHES = 9
CHECKPOINT_COMMITS = 4
IDENTITY = JournalIdentity(uuid.UUID(int=7), "main", "till", 1, 0, "rows", 3600, 0)

Disk = Callable[[str, int], SqliteDisk]


def plain_disk(folder: str, cut_at: int) -> SqliteDisk:
    return SqliteDisk(folder, cut_at=cut_at)


def transition(number: int) -> Transition:
    """Command ``number``, the same in every life."""
    key, data = number.to_bytes(16, "big"), values.encode({"n": number, "pad": bytes(number % 3 * 900)})
    return Transition(
        key, "write", None, number, data, False, values.encode(None), NO_EVENTS, NO_CHANGES, digest.EMPTY, 0
    )


class Ledger:
    """What was acknowledged, and what more there may be."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.attempted = 0
        self.epochs = 0


def live(disk: SqliteDisk, ledger: Ledger, chance: random.Random) -> None:
    """One life of a writer: open, take over, write in batches, close.  Ends where power does."""
    path = os.path.join(disk.folder, "journal.db")
    try:
        store = SqliteStore.open_for_write(path, disk.connect, files=disk)
    except RecoveryError:
        assert disk.off
        return
    try:
        write(store, disk, ledger, chance)
    except RecoveryError:
        assert disk.off
    finally:
        try:
            store.close()
        except RecoveryError:
            assert disk.off


def write(store: SqliteStore, disk: SqliteDisk, ledger: Ledger, chance: random.Random) -> None:
    """What a writer does between opening and closing."""
    recorder = Recorder.open(store, "main", IDENTITY)
    assert recorder.head.command_id >= ledger.acknowledged
    number = recorder.epoch = len(store.epochs("main")) + 1
    recorder.begin_epoch(
        Epoch(number, "till", 1, 1, b"s", "r", "3", "l", "h", 1, 28, 0, recorder.head.command_id, None)
    )
    ledger.epochs = number
    for _ in range(BATCHES):
        for _ in range(chance.randint(1, 4)):
            recorder.seal(transition(recorder.tip.command_id + 1))
        ledger.attempted = max(ledger.attempted, recorder.tip.command_id)
        recorder.commit()
        if not disk.off:
            ledger.acknowledged = recorder.head.command_id


def look(folder: Path, ledger: Ledger) -> None:
    """Everything promised, as the next start finds it."""
    path = str(folder / "journal.db")
    with closing(SqliteStore.open_for_write(path)) as store:
        store.check()
        journal = Journal(store)
        entries: list[Entry] = list(journal.read()) if journal.exists else []
        epochs = len(journal.epochs()) if journal.exists else 0
    assert ledger.acknowledged <= len(entries) <= ledger.attempted
    assert epochs >= ledger.epochs
    for number, entry in enumerate(entries, 1):
        assert entry[1:10] == transition(number)[:9]


def guard(folder: Path, make_disk: Disk, *, cuts: int, seed: int) -> set[tuple[str, str]]:
    """Live and look this many times, the first cut of each spread evenly over a life; the operations never cut short."""
    (folder / "uncut").mkdir()
    uncut = make_disk(str(folder / "uncut"), -1)
    live(uncut, Ledger(), random.Random(seed))
    uncut.unregister()
    operations = sum(uncut.done.values())
    never = set(uncut.done)
    for number in range(cuts):
        chance = random.Random(seed + number)
        ledger = Ledger()
        here = folder / f"{number}"
        here.mkdir()
        for life, cut_at in enumerate(
            [number * operations // cuts, chance.randrange(operations // 2)][: 1 + number % 2]
        ):
            disk = make_disk(str(here), cut_at)
            # The first life is the uncut one over again, so that the cut falls where it was meant to.
            live(disk, ledger, chance if life else random.Random(seed))
            disk.unregister()
            never.discard(disk.cut or ("", ""))
            here = here / "after"
            here.mkdir()
            disk.after_cut(str(here), chance)
        look(here, ledger)
        shutil.rmtree(folder / f"{number}")
    return never


@pytest.fixture(autouse=True)
def soon_due_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short lives must see checkpoints, and a -wal that begins again at its first frame."""
    monkeypatch.setattr(sqlite, "CHECKPOINT_COMMITS", CHECKPOINT_COMMITS)


def test_a_thousand_power_cuts(tmp_path: Path) -> None:
    seed = int(os.environ.get("RECOVERY_TEST_SEED", random.randrange(2**32)))
    print(f"RECOVERY_TEST_SEED={seed}")
    assert guard(tmp_path, plain_disk, cuts=CUTS, seed=seed) == set()
