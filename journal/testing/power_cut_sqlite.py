"""A disk that loses power, under SQLite: an apsw VFS over one folder, which knows what was synced and when.

SQLite works on real files.  Beside each, the disk keeps the bytes that the last sync made durable and the writes since; at
the cut, each sector of those is taken or not, in any order, and each name that was given or taken away since the folder was
last synced is found in either state.  SQLite syncs the folder itself when it first syncs a new -wal, and when it deletes one.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
from collections import Counter
from types import TracebackType
from typing import Any, Final

import apsw

from journal.files import LocalFiles
from journal.testing.apsw_connection import ApswConnection

SECTOR_BYTES: Final = 512

_numbers = itertools.count()


class Inode:
    """What a cut would leave of a file: its durable bytes, and what was done since; an int is a truncation to so many."""

    def __init__(self, durable: bytes = b"") -> None:
        self.durable = durable
        self.since: list[tuple[int, bytes] | int] = []

    def sync(self, data: bytes) -> None:
        """All that was done is durable."""
        self.durable = data
        self.since = []

    def after_cut(self, chance: random.Random) -> bytes:
        """The bytes as they are found at the next start."""
        found = bytearray(self.durable)
        likelihood = chance.choice((0.0, 0.5, 0.9, 1.0))
        for done in self.since:
            if isinstance(done, int):
                if chance.random() < likelihood:
                    del found[done:]
                continue
            for at, sector in _sectors(*done):
                if chance.random() < likelihood:
                    found.extend(bytes(max(0, at + len(sector) - len(found))))
                    found[at : at + len(sector)] = sector
        return bytes(found)


class SqliteDisk(LocalFiles):
    """The disk of one folder: a VFS by the name ``vfs``, and the ``FileOps`` that goes with it.

    Power goes at the operation ``cut_at`` (the first is 0); from then on each raises, and none counts.  ``done`` counts
    the operations by file and kind, such as ``("-wal", "sync")``, and ``cut`` is the one that was not done.  The operation
    ``fail_at`` alone fails, with the errno ``error``.
    """

    def __init__(self, folder: str, *, cut_at: int = -1, fail_at: int = -1, error: int = errno.EIO) -> None:
        self.folder = os.path.abspath(folder)
        self._fail_at = fail_at
        self._error = error
        self.off = False
        self.done: Counter[tuple[str, str]] = Counter()
        self.cut: tuple[str, str] | None = None
        self._cut_at = cut_at
        self._names = {
            name: Inode(self._read(name))
            for name in os.listdir(folder)
            if os.path.isfile(os.path.join(folder, name)) and not name.endswith("-shm")
        }
        self._durable_names = dict(self._names)
        self.vfs = f"power cut {next(_numbers)}"
        self._vfs = _Vfs(self)

    def connect(self, uri: str) -> ApswConnection:
        """A connection whose file lies on this disk: what ``SqliteStore.open_for_write`` takes."""
        return ApswConnection(uri, self.vfs)

    def after_cut(self, folder: str, chance: random.Random) -> None:
        """Put the files into another folder as they are found at the next start."""
        for name in sorted(self._names.keys() | self._durable_names.keys()):
            inode = chance.choice([self._names.get(name), self._durable_names.get(name)])
            if inode is not None:
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(inode.after_cut(chance))

    def unregister(self) -> None:
        """Take the VFS away from SQLite."""
        self._vfs.unregister()

    # FileOps

    def make_directories(self, path: str) -> None:
        """The folder is as old as the disk."""

    def sync_directory(self, path: str) -> None:
        """Make the names durable."""
        try:
            self.sync_names()
        except apsw.Error as error:
            raise OSError(self._error, str(error)) from error

    # For the VFS

    def sync_names(self) -> None:
        """The same, where SQLite syncs its folder."""
        self.operation("folder", "sync")
        self._durable_names = dict(self._names)

    def operation(self, file: str, kind: str) -> None:
        """Count what changes the disk; raise once power is off."""
        what = (_suffix(file), kind)
        if self.off or sum(self.done.values()) == self._cut_at:
            if not self.off:
                self.off, self.cut = True, what
            raise apsw.IOError("power is off")
        self.done[what] += 1
        if sum(self.done.values()) - 1 == self._fail_at:
            # Of a sync SQLite says no more than that it failed.
            kind_of = apsw.FullError if self._error == errno.ENOSPC and kind != "sync" else apsw.IOError
            raise kind_of("made to fail")

    def inode(self, name: str, *, is_new: bool) -> Inode:
        """The inode of a file that is opened."""
        if is_new:
            self.operation(name, "create")
            self._names[name] = Inode()
        return self._names[name]

    def sync_file(self, name: str, inode: Inode) -> None:
        """Make the bytes of a file durable; where it fails, they stay in the page cache, as clean, and never reach the disk."""
        try:
            self.operation(name, "sync")
        except apsw.Error:
            inode.since = []
            raise
        inode.sync(self._read(name))

    def forget(self, name: str) -> None:
        """A name was taken away."""
        self._names.pop(name, None)

    def _read(self, name: str) -> bytes:
        with open(os.path.join(self.folder, name), "rb") as file:
            return file.read()


class _Vfs(apsw.VFS):
    def __init__(self, disk: SqliteDisk) -> None:
        self._disk = disk
        super().__init__(disk.vfs, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        return apsw.VFSFile("", name, flags) if path is None else _File(self._disk, path, name, flags)

    def xDelete(self, path: str, sync_directory: bool) -> None:
        name = os.path.basename(path)
        self._disk.operation(name, "delete")
        super().xDelete(path, False)
        self._disk.forget(name)
        if sync_directory:
            self._disk.sync_names()

    def excepthook(
        self, etype: type[BaseException] | None, evalue: BaseException | None, etraceback: TracebackType | None
    ) -> bool:
        """SQLite is told by its result code, and that is enough."""
        return True


class _File(apsw.VFSFile):
    def __init__(self, disk: SqliteDisk, path: str, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._name = os.path.basename(path)
        self._is_new = not os.path.exists(path) and bool(flags[0] & apsw.SQLITE_OPEN_CREATE)
        self._inode = disk.inode(self._name, is_new=self._is_new)
        super().__init__("", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.operation(self._name, "write")
        super().xWrite(data, offset)
        self._inode.since.append((offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        self._disk.operation(self._name, "truncate")
        super().xTruncate(size)
        self._inode.since.append(size)

    def xSync(self, flags: int) -> None:
        # The machine's own disk need not sync: only the model counts.
        self._disk.sync_file(self._name, self._inode)
        if self._is_new and _suffix(self._name):
            self._disk.sync_names()
            self._is_new = False

    def excepthook(
        self, etype: type[BaseException] | None, evalue: BaseException | None, etraceback: TracebackType | None
    ) -> bool:
        """SQLite is told by its result code, and that is enough."""
        return True


def _sectors(offset: int, data: bytes) -> list[tuple[int, bytes]]:
    """A write cut at the boundaries of sectors."""
    end = offset + len(data)
    cuts = [offset, *range(offset - offset % SECTOR_BYTES + SECTOR_BYTES, end, SECTOR_BYTES), end]
    return [(at, data[at - offset : next_at - offset]) for at, next_at in itertools.pairwise(cuts)]


def _suffix(name: str) -> str:
    """``-wal`` and ``-journal`` of SQLite's own files, "" for the database, "folder" as it is."""
    return name if name == "folder" else name[name.rfind("-") :] if name.endswith(("-wal", "-journal")) else ""
