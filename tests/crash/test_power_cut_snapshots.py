"""``dir:`` on a disk that forgets: what was not synced is lost, torn or kept as chance has it, files and names alike.

The disk here is the model of what journal/files.py promises and no more.  ``guard`` plays one life of a catalog up to
a cut and checks what is there afterwards; the canaries leave out one sync each, and ``guard`` must find each of them.
"""

from __future__ import annotations

import errno
import io
import random
from collections.abc import Callable
from typing import BinaryIO

import pytest

from journal.errors import CorruptionError, StoreUnavailable
from journal.files import NewFile
from snapshots.catalog import Catalog, StepDown
from snapshots.image import ImageReader, write_image
from snapshots.retention import Retention
from snapshots.stores.directory import DirectorySnapshots
from snapshots.testing import NAME, RowHistory

KEEP = 2
CUTS = 1000


class PowerCut(BaseException):
    """The machine is off; nothing in the program may catch it."""


class Inode:
    """A file's bytes as the program sees them, and how many of them a sync has made durable."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.synced = 0


class ForgetfulFile:
    """A ``NewFile`` of the disk below."""

    def __init__(self, disk: ForgetfulDisk, inode: Inode) -> None:
        self._disk = disk
        self._inode = inode

    def write(self, data: bytes) -> None:
        """Append; where it fails, a part may have been written."""
        try:
            self._disk.operation()
        except OSError:
            self._inode.data += data[: len(data) // 2]
            raise
        self._inode.data += data

    def sync(self) -> None:
        """Make all bytes durable."""
        self._disk.operation()
        self._inode.synced = len(self._inode.data)

    def close(self) -> None:
        """Nothing."""


class ForgetfulDisk:
    """``FileOps`` in memory: power goes after ``cut_at`` operations, and operation ``fail_at`` raises ``error``."""

    def __init__(self, *, cut_at: int = -1, fail_at: int = -1, error: int = errno.EIO) -> None:
        self.operations = 0
        self._cut_at = cut_at
        self._fail_at = fail_at
        self._error = error
        self._names: dict[str, Inode] = {}
        self._durable_names: dict[str, Inode] = {}

    def operation(self) -> None:
        """Count what changes the disk."""
        self.operations += 1
        if 0 <= self._cut_at < self.operations:
            raise PowerCut
        if self.operations == self._fail_at:
            raise OSError(self._error, "made to fail")

    def after_cut(self, chance: random.Random) -> ForgetfulDisk:
        """The disk as it is found at the next start."""
        disk = ForgetfulDisk()
        for path in self._names.keys() | self._durable_names.keys():
            inode = chance.choice([self._names.get(path), self._durable_names.get(path)])
            if inode is not None:
                found = disk._names[path] = disk._durable_names[path] = Inode()
                found.data[:] = inode.data[: inode.synced] + _remains(bytes(inode.data[inode.synced :]), chance)
                found.synced = len(found.data)
        return disk

    def make_directories(self, path: str) -> None:
        """Folders are as old as the disk here."""

    def names(self, path: str) -> list[str]:
        """The names in a folder."""
        return [name.removeprefix(f"{path}/") for name in self._names if name.startswith(f"{path}/")]

    def create(self, path: str) -> NewFile:
        """A new file."""
        self.operation()
        if path in self._names:
            raise FileExistsError(errno.EEXIST, "taken")
        inode = self._names[path] = Inode()
        return ForgetfulFile(self, inode)

    def read(self, path: str) -> BinaryIO:
        """A file's bytes as they are now."""
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "not there")
        return io.BytesIO(bytes(self._names[path].data))

    def size(self, path: str) -> int:
        """A file's length."""
        return len(self.read(path).read())

    def link(self, source: str, target: str) -> None:
        """A second name, not durable yet."""
        self.operation()
        if target in self._names:
            raise FileExistsError(errno.EEXIST, "taken")
        self._names[target] = self._names[source]

    def unlink(self, path: str) -> None:
        """One name less, not durable yet."""
        self.operation()
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "not there")
        del self._names[path]

    def sync_directory(self, path: str) -> None:
        """Make the names of a folder durable."""
        self.operation()
        below = f"{path}/"
        self._durable_names = {name: inode for name, inode in self._durable_names.items() if not name.startswith(below)}
        self._durable_names |= {name: inode for name, inode in self._names.items() if name.startswith(below)}


def _remains(data: bytes, chance: random.Random) -> bytes:
    """What is left of bytes that no sync covered: each sector written or zero, and the file cut anywhere."""
    sectors = [data[at : at + 64] for at in range(0, len(data), 64)]
    torn = b"".join(sector if chance.random() < 0.5 else bytes(len(sector)) for sector in sectors)
    return torn[: chance.randint(0, len(torn))]


class _NoFileSync(ForgetfulFile):
    def sync(self) -> None:
        """Left out."""


class WithoutFileSync(ForgetfulDisk):
    """Canary: an image's bytes are not synced before it gets its name."""

    def create(self, path: str) -> NewFile:
        """A file that is never synced."""
        super().create(path)
        return _NoFileSync(self, self._names[path])


class WithoutDirectorySync(ForgetfulDisk):
    """Canary: names are not synced."""

    def sync_directory(self, path: str) -> None:
        """Left out."""


class WithoutSyncOfDeletions(ForgetfulDisk):
    """Canary: the folder is not synced after a name was taken away."""

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


HISTORY = RowHistory()
for _id in range(1, 9):
    HISTORY.command({("t", _id): ("row", _id), ("t", _id // 2): None})
IMAGES = {_id: b"".join(write_image(HISTORY.header(_id), HISTORY.tables(_id))) for _id in range(1, 9)}


def in_pieces(data: bytes) -> list[bytes]:
    return [data[at : at + 100] for at in range(0, len(data), 100)]


class Life:
    """A catalog at work, and what it was told is done."""

    def __init__(self, disk: ForgetfulDisk) -> None:
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

    def check(self, disk: ForgetfulDisk) -> None:
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


def guard(make_disk: Callable[[int], ForgetfulDisk], *, cuts: int) -> None:
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
    guard(lambda cut_at: ForgetfulDisk(cut_at=cut_at), cuts=CUTS)


@pytest.mark.parametrize("canary", [WithoutFileSync, WithoutDirectorySync, WithoutSyncOfDeletions])
def test_the_guard_finds_every_sync_that_is_left_out(canary: type[ForgetfulDisk]) -> None:
    with pytest.raises((AssertionError, CorruptionError)):
        guard(lambda cut_at: canary(cut_at=cut_at), cuts=CUTS)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_put_that_fails_at_any_operation_leaves_nothing_or_all(error: int) -> None:
    data = IMAGES[8]
    whole = ForgetfulDisk()
    assert DirectorySnapshots("/images", files=whole).put(NAME, in_pieces(data))
    outcomes = []
    for fail_at in range(1, whole.operations + 1):
        disk = ForgetfulDisk(fail_at=fail_at, error=error)
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
