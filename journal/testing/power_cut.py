"""A disk that loses power: ``FileOps`` (journal/files.py) in memory, which keeps what was synced and chance's pick of the rest.

Of bytes that no sync covered, each sector is there or zero, and the file ends anywhere.  Of a name that was given or taken
away since its folder was last synced, either state is found.
"""

from __future__ import annotations

import errno
import io
import random
from typing import BinaryIO, Final

from journal.files import NewFile

SECTOR_BYTES: Final = 64
"""Smaller than a real one, so that small files are torn too."""


class PowerCut(BaseException):
    """The machine is off; nothing in the program may catch it."""


class Inode:
    """A file's bytes as the program sees them, and how many of them a sync has made durable."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.synced = 0


class PowerCutFile:
    """A ``NewFile`` of the disk below."""

    def __init__(self, disk: PowerCutDisk, inode: Inode) -> None:
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


class PowerCutDisk:
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

    def after_cut(self, chance: random.Random) -> PowerCutDisk:
        """The disk as it is found at the next start."""
        disk = PowerCutDisk()
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
        return PowerCutFile(self, inode)

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

    def replace(self, source: str, target: str) -> None:
        """Another name, not durable yet."""
        self.operation()
        if source not in self._names:
            raise FileNotFoundError(errno.ENOENT, "not there")
        self._names[target] = self._names.pop(source)

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
    sectors = [data[at : at + SECTOR_BYTES] for at in range(0, len(data), SECTOR_BYTES)]
    torn = b"".join(sector if chance.random() < 0.5 else bytes(len(sector)) for sector in sectors)
    return torn[: chance.randint(0, len(torn))]
