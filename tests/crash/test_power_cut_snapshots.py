"""``dir:`` on a disk that forgets: what was not synced is lost, torn or kept as chance has it, files and names alike.

The disk is journal.testing.power_cut's: what journal/files.py promises and no more.  ``guard`` plays one life of a catalog up to
a cut and checks what is there afterwards; tests/meta/test_canaries.py shows that it finds every sync that is left out.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import pytest

from journal.errors import StoreUnavailable
from journal.testing.power_cut import PowerCut, PowerCutDisk
from snapshots.catalog import Catalog, StepDown
from snapshots.image import ImageReader, write_image
from snapshots.retention import Retention
from snapshots.stores.directory import DirectorySnapshots
from snapshots.testing import NAME, RowHistory

KEEP = 2
CUTS = 1000


HISTORY = RowHistory()
for _id in range(1, 9):
    HISTORY.command({("t", _id): ("row", _id), ("t", _id // 2): None})
IMAGES = {_id: b"".join(write_image(HISTORY.header(_id), HISTORY.tables(_id))) for _id in range(1, 9)}


def in_pieces(data: bytes) -> list[bytes]:
    return [data[at : at + 100] for at in range(0, len(data), 100)]


class Life:
    """A catalog at work, and what it was told is done."""

    def __init__(self, disk: PowerCutDisk) -> None:
        self.disk = disk
        self.catalog = Catalog(DirectorySnapshots("/images", files=disk))
        self.published: set[int] = set()
        self.attempted: set[int] = set()
        self.going: set[int] = set()
        self.gone: set[int] = set()

    def publish(self, command_id: int) -> None:
        self.attempted.add(command_id)
        self.gone.discard(command_id)
        self.catalog.publish(HISTORY, HISTORY.header(command_id), in_pieces(IMAGES[command_id]))
        self.published.add(command_id)
        self.going.discard(command_id)

    def prune(self) -> None:
        journal_id = HISTORY.identity.journal_id
        steps: list[StepDown] = []
        going = self.catalog.expendable(HISTORY, Retention(KEEP), journal_id=journal_id, now_ms=0, report=steps.append)
        for image in going:
            self.going.add(image.command_id)
            self.catalog.delete([image])
            self.gone.add(image.command_id)
        assert steps == []

    def live(self, seed: int) -> None:
        chance = random.Random(seed)
        for command_id in IMAGES:
            self.publish(command_id)
            if chance.random() < 0.6:
                self.prune()

    def check(self, disk: PowerCutDisk) -> None:
        """Everything promised, on the disk as it was found."""
        store = DirectorySnapshots("/images", files=disk)
        found = {int(name[5:25]): name for name in store.names("main")}
        assert self.published - self.going <= found.keys() <= self.attempted - self.gone
        for command_id, name in found.items():
            with store.open(name) as file:
                assert file.read() == IMAGES[command_id], "something half-written is seen under its name"
            with store.open(name) as file:
                ImageReader(file, name).verify()
        assert len(found) >= min(KEEP, len(self.published))


def guard(make_disk: Callable[[int], PowerCutDisk], *, cuts: int) -> None:
    """Live, cut at a random operation, look; then live on from what was found, to the end."""
    uncut = make_disk(-1)
    Life(uncut).live(0)
    for seed in range(cuts):
        chance = random.Random(seed)
        life = Life(make_disk(chance.randrange(uncut.operations)))
        with pytest.raises(PowerCut):
            life.live(0)
        found = life.disk.after_cut(chance)
        life.check(found)
        if seed % 20 == 0:
            second = Life(found)
            second.live(seed)
            second.attempted |= life.attempted
            second.check(found)


def test_a_thousand_power_cuts() -> None:
    guard(lambda cut_at: PowerCutDisk(cut_at=cut_at), cuts=CUTS)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_put_that_fails_at_any_operation_leaves_nothing_or_all(error: int) -> None:
    data = IMAGES[8]
    whole = PowerCutDisk()
    assert DirectorySnapshots("/images", files=whole).put(NAME, in_pieces(data))
    outcomes = []
    for fail_at in range(1, whole.operations + 1):
        disk = PowerCutDisk(fail_at=fail_at, error=error)
        store = DirectorySnapshots("/images", files=disk)
        if fail_at == whole.operations:
            assert store.put(NAME, in_pieces(data))
            outcomes.append("done")
        else:
            with pytest.raises(StoreUnavailable, match=r"/images/main/.*: made to fail") as unavailable:
                store.put(NAME, in_pieces(data))
            assert isinstance(unavailable.value.__cause__, OSError)
            outcomes.append("refused, whole" if store.names("main") else "refused")
        for name in store.names("main"):
            with store.open(name) as file:
                assert file.read() == data
        left = [name for name in disk.names("/images/main") if name.startswith(".")]
        assert len(left) == (fail_at == whole.operations), "only a failed unlink may leave a temporary"
        assert store.put(NAME, in_pieces(data)) is (outcomes[-1] == "refused")
        with store.open(NAME) as file:
            assert file.read() == data
    assert outcomes[-2:] == ["refused, whole", "done"]
    assert set(outcomes[:-2]) == {"refused"}
