"""``wal:`` on a disk that loses power at any operation, again and again: what was acknowledged is there, once, and chained.

The disk is journal.testing.power_cut's: sectors torn and reordered, names lost.  ``guard`` lives up to a cut, or a kill that
keeps the page cache, lives on from what was found up to the next, and then looks.  Just before each cut a reader looks too:
what it was shown must be there afterwards.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Callable

import pytest

from journal import digest, values
from journal.errors import StoreUnavailable, TornTail
from journal.framing import NO_CHANGES, NO_EVENTS
from journal.journal import Journal
from journal.recorder import Recorder
from journal.records import Epoch, JournalIdentity, Transition
from journal.stores import wal_writer
from journal.stores.wal import WalStore
from journal.stores.wal_frames import SECTOR_BYTES
from journal.testing.power_cut import PowerCut, PowerCutDisk

CUTS = 1000
BATCHES = 7
FOLDER = "/journal"
IDENTITY = JournalIdentity(uuid.UUID(int=7), "main", "till", 1, 0, "rows", 3600, 0)

Disk = Callable[[int], PowerCutDisk]


class NoLock:
    """One process has this disk to itself."""

    def __init__(self, path: str) -> None:
        """Nothing is locked."""

    def release(self) -> None:
        """Nothing."""


def plain_disk(cut_at: int) -> PowerCutDisk:
    return PowerCutDisk(cut_at=cut_at, sector_bytes=SECTOR_BYTES)


def open_for_write(disk: PowerCutDisk) -> WalStore:
    return WalStore.open_for_write(FOLDER, files=disk, lock=NoLock)


def transition(number: int) -> Transition:
    """Command ``number``, the same in every life; some hold sectors of zeros, some fill none."""
    pad = (bytes(1500), b"", bytes(range(256)) * 7)[number % 3]
    key, data = number.to_bytes(16, "big"), values.encode({"n": number, "pad": pad})
    return Transition(
        key, "write", None, number, data, False, values.encode(None), NO_EVENTS, NO_CHANGES, digest.EMPTY, 0
    )


class Ledger:
    """What was acknowledged, and what more there may be."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.attempted = 0
        self.epochs = 0
        self.torn = 0


def live(disk: PowerCutDisk, ledger: Ledger, chance: random.Random) -> None:
    """One life of a writer: open, take over, write in batches, close.  PowerCut ends it."""
    store = open_for_write(disk)
    ledger.torn += store.torn is not None
    recorder = Recorder.open(store, "main", IDENTITY)
    assert recorder.head.command_id >= ledger.acknowledged
    number = recorder.epoch = len(store.epochs("main")) + 1
    assert number > ledger.epochs
    recorder.begin_epoch(
        Epoch(number, "till", 1, 1, b"s", "r", "3", "l", "h", 1, 28, 0, recorder.head.command_id, None)
    )
    ledger.epochs = number
    for _ in range(BATCHES):
        for _ in range(chance.randint(1, 4)):
            recorder.seal(transition(recorder.tip.command_id + 1))
        ledger.attempted = max(ledger.attempted, recorder.tip.command_id)
        recorder.commit()
        ledger.acknowledged = recorder.head.command_id
    store.close()


def shown(disk: PowerCutDisk) -> int:
    """How many entries a reader is shown."""
    try:
        last = WalStore.open_for_read(FOLDER, files=disk).last("main")
    except StoreUnavailable:
        return 0
    return 0 if last is None else last.command_id


def read(disk: PowerCutDisk) -> int:
    """As ``shown``, after reading them all: each is what was written."""
    try:
        store = WalStore.open_for_read(FOLDER, files=disk)
    except StoreUnavailable:
        return 0
    journal = Journal(store)
    if not journal.exists:
        return 0
    number = 0
    for number, entry in enumerate(journal.read(), 1):
        assert entry[1:10] == transition(number)[:9]
        assert store.find("main", [entry.request_key]) == [entry]
    try:
        store.check()
    except TornTail:
        assert store.torn is not None
    return number


def look(disk: PowerCutDisk, ledger: Ledger) -> None:
    """Everything promised, as the next start finds it."""
    entries = read(disk)
    assert ledger.acknowledged <= entries <= ledger.attempted
    store = open_for_write(disk)
    torn = store.torn
    journal = Journal(store)
    epochs = 0
    if journal.exists:
        assert entries == journal.head().command_id
        epochs = len(journal.epochs())
    assert epochs >= ledger.epochs
    assert (store.cut_torn_tail() is not None) == (torn is not None)
    store.check()
    store.close()
    assert shown(disk) == entries


def guard(make_disk: Disk, *, cuts: int, seed: int) -> int:
    """Live and look this many times, the first cuts spread evenly over a life; how many torn tails were met."""
    uncut = make_disk(-1)
    live(uncut, Ledger(), random.Random(seed))
    torn = 0
    for number in range(cuts):
        chance = random.Random(seed + number)
        ledger = Ledger()
        disk = make_disk(number * uncut.operations // cuts)
        # The first life is the uncut one over again, so that the cut falls where it was meant to.
        lives = random.Random(seed)
        for _ in range(chance.randint(1, 4)):
            try:
                live(disk, ledger, lives)
            except PowerCut:
                pass
            else:
                break
            before = shown(disk.after_kill())
            # A recovery is short: the next cut falls into it, or soon after.
            next_cut = chance.choice((chance.randrange(12), chance.randrange(uncut.operations)))
            is_kill = chance.random() < 0.25
            disk = disk.after_kill(cut_at=next_cut) if is_kill else disk.after_cut(chance, cut_at=next_cut)
            assert before <= shown(disk.after_kill()), "a reader was shown what then was lost"
            lives = chance
        found = disk.after_cut(chance)
        look(found, ledger)
        torn += ledger.torn
    return torn


def make_segments_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short lives must see segments sealed, begun and filled with zeros."""
    monkeypatch.setattr(wal_writer, "SEGMENT_BYTES", 16 * 1024)
    monkeypatch.setattr(wal_writer, "ZEROED_BYTES", 4 * 1024)


def test_a_thousand_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    make_segments_small(monkeypatch)
    seed = int(os.environ.get("RECOVERY_TEST_SEED", random.randrange(2**32)))
    print(f"RECOVERY_TEST_SEED={seed}")
    torn = guard(plain_disk, cuts=CUTS, seed=seed)
    assert torn > CUTS / 50, "the disk tears too little to prove anything"
