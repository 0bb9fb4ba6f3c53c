"""A disk that loses power: ``FileOps`` (journal/files.py) in memory, which keeps what was synced and chance's pick of the rest.

Of bytes that no sync covered, each sector is as it was before or as it was written, in any order, and a file that has grown
ends anywhere.  Of a name that was given or taken away since its folder was last synced, either state is found.

The disk can fail as well: the operation ``fail_at`` that changes it, or the reading ``fail_read_at``, raises ``error``.
"""

from __future__ import annotations

import errno
import io
import itertools
import random
from typing import BinaryIO, Final

from journal.files import NewFile, RandomAccessFile

SECTOR_BYTES: Final = 64
"""Smaller than a real one, so that small files are torn too."""

_boots = itertools.count(1)


class PowerCut(BaseException):
    """The machine is off; nothing in the program may catch it."""


class Inode:
    """A file's bytes as the program sees them, as the last sync made them durable, and where they were written since."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.durable = data
        self.since: list[tuple[int, bytes]] = []

    def write(self, data: bytes, offset: int) -> None:
        """Put bytes in place; a gap before them is zeros."""
        _put(self.data, data, offset)
        self.since.append((offset, data))

    def sync(self) -> None:
        """All that was written since the last sync, and not lost by one that failed, is durable."""
        durable = bytearray(self.durable)
        for offset, data in self.since:
            _put(durable, data, offset)
        self.durable, self.since = bytes(durable), []

    def after_cut(self, chance: random.Random, sector_bytes: int) -> bytes:
        """The bytes as they are found at the next start."""
        found = bytearray(self.durable)
        likelihood = chance.choice((0.0, 0.5, 0.5, 0.9, 1.0))
        for offset, data in self.since:
            end = offset + len(data)
            cuts = [offset, *range(offset - offset % sector_bytes + sector_bytes, end, sector_bytes), end]
            for low, high in itertools.pairwise(cuts):
                if chance.random() < likelihood:
                    _put(found, data[low - offset : high - offset], low)
        grown = len(found) - len(self.durable)
        if grown > 0 and chance.random() < 0.5:
            del found[len(self.durable) + chance.randint(0, grown) :]
        return bytes(found)


def _put(file: bytearray, data: bytes, offset: int) -> None:
    file.extend(bytes(max(0, offset + len(data) - len(file))))
    file[offset : offset + len(data)] = data


class PowerCutFile:
    """A ``NewFile`` of the disk below."""

    def __init__(self, disk: PowerCutDisk, inode: Inode) -> None:
        self._disk = disk
        self._inode = inode

    def write(self, data: bytes) -> None:
        """Append; where it fails, a part may have been written."""
        self._disk.write(self._inode, bytes(data), len(self._inode.data))

    def sync(self) -> None:
        """Make all bytes durable; where it fails, they stay in the page cache, as clean, and never reach the disk."""
        try:
            self._disk.operation()
        except OSError:
            self._inode.since = []
            raise
        self._inode.sync()

    def close(self) -> None:
        """Nothing."""


class PowerCutRandomAccessFile(PowerCutFile):
    """A ``RandomAccessFile`` of the disk below."""

    def read_at(self, size: int, offset: int) -> bytes:
        """The bytes as they are now."""
        self._disk.reading()
        return bytes(self._inode.data[offset : offset + size])

    def write_at(self, data: bytes, offset: int) -> None:
        """Overwrite; where it fails, a part may have been written."""
        self._disk.write(self._inode, data, offset)


class PowerCutDisk:
    """``FileOps`` in memory: power goes after ``cut_at`` operations, and operation ``fail_at`` raises ``error``."""

    def __init__(
        self,
        *,
        cut_at: int = -1,
        fail_at: int = -1,
        fail_read_at: int = -1,
        error: int = errno.EIO,
        sector_bytes: int = SECTOR_BYTES,
    ) -> None:
        self.operations = 0
        self.readings = 0
        self._cut_at = cut_at
        self._fail_at = fail_at
        self._fail_read_at = fail_read_at
        self._error = error
        self._sector_bytes = sector_bytes
        self._boot = next(_boots).to_bytes(16, "big")
        self._names: dict[str, Inode] = {}
        self._durable_names: dict[str, Inode] = {}

    def operation(self) -> None:
        """Count what changes the disk."""
        self.operations += 1
        if 0 <= self._cut_at < self.operations:
            raise PowerCut
        if self.operations == self._fail_at:
            raise OSError(self._error, "made to fail")

    def reading(self) -> None:
        """Count what reads a part of a file."""
        self.readings += 1
        if self.readings == self._fail_read_at:
            raise OSError(errno.EIO, "made to fail")

    def write(self, inode: Inode, data: bytes, offset: int) -> None:
        """Write to a file; where it fails, the sectors of the first half are there."""
        try:
            self.operation()
        except OSError:
            middle = offset + len(data) // 2
            inode.write(data[: max(0, middle - middle % self._sector_bytes - offset)], offset)
            raise
        inode.write(data, offset)

    def after_cut(self, chance: random.Random, *, cut_at: int = -1) -> PowerCutDisk:
        """The disk as it is found at the next start, which may be cut in turn."""
        disk = type(self)(cut_at=cut_at, sector_bytes=self._sector_bytes)
        for path in sorted(self._names.keys() | self._durable_names.keys()):
            inode = chance.choice([self._names.get(path), self._durable_names.get(path)])
            if inode is not None:
                found = Inode(inode.after_cut(chance, self._sector_bytes))
                disk._names[path] = disk._durable_names[path] = found
        return disk

    def after_kill(self, *, cut_at: int = -1) -> PowerCutDisk:
        """The disk as another process finds it in the same boot: nothing is lost yet, and nothing more is durable."""
        disk = type(self)(cut_at=cut_at, sector_bytes=self._sector_bytes)
        disk._boot, disk._names, disk._durable_names = self._boot, self._names, self._durable_names
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

    def open_at(self, path: str, mode: str) -> RandomAccessFile:
        """A file that is there."""
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "not there")
        return PowerCutRandomAccessFile(self, self._names[path])

    def view(self, path: str) -> bytes:
        """All of a file."""
        return self.read(path).read()

    def boot(self) -> bytes:
        """Another after each cut."""
        return self._boot

    def read(self, path: str) -> BinaryIO:
        """A file's bytes as they are now."""
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, "not there")
        return io.BytesIO(bytes(self._names[path].data))

    def size(self, path: str) -> int:
        """A file's length."""
        return len(self.read(path).read())

    def rename(self, source: str, target: str) -> None:
        """Another name, not durable yet."""
        self.operation()
        self._names[target] = self._names.pop(source)

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
