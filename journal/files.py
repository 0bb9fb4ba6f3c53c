"""The seam between us and the disk, and the named moments at which a test may kill us.

``FileOps`` is everything that file stores ask of a file system, so that a test can put a disk under them that loses
what was not synced (journal/testing.py).  What POSIX promises, and no more: bytes are durable after ``sync``; a
name is durable after ``sync_directory`` of its folder.
"""

from __future__ import annotations

import mmap
import os
import secrets
import signal
from collections.abc import Iterable
from contextlib import suppress
from typing import BinaryIO, Final, Protocol

KILL_VARIABLE: Final = "RECOVERY_KILL_AT"


class NewFile(Protocol):
    """A file being written, from its beginning."""

    def write(self, data: bytes) -> None:
        """Append all of ``data``."""

    def sync(self) -> None:
        """Make what was written durable; the name is not, until ``sync_directory``."""

    def close(self) -> None:
        """Let the file go, without a sync."""


class RandomAccessFile(Protocol):
    """An existing file, read and overwritten at given bytes."""

    def read_at(self, size: int, offset: int) -> bytes:
        """At most ``size`` bytes from ``offset``; fewer only where the file ends."""

    def write_at(self, data: bytes, offset: int) -> None:
        """Put all of ``data`` at ``offset``; where it fails, any part may be there."""

    def sync(self) -> None:
        """Make the bytes durable, and a grown length."""

    def close(self) -> None:
        """Let the file go, without a sync."""


class FileOps(Protocol):
    """A file system.  Paths are absolute or relative to the working directory; errors are OSError."""

    def make_directories(self, path: str) -> None:
        """Make a folder and those above it, durable, unless they are there."""

    def names(self, path: str) -> list[str]:
        """The names in a folder, in no order; none where there is no folder."""

    def create(self, path: str) -> NewFile:
        """Begin a new file.  FileExistsError where the name is taken."""

    def read(self, path: str) -> BinaryIO:
        """Open a file for reading.  FileNotFoundError where there is none."""

    def open_at(self, path: str, mode: str) -> RandomAccessFile:
        """Open an existing file for reading ("r") or for both ("w").  FileNotFoundError where there is none."""

    def view(self, path: str) -> bytes | mmap.mmap:
        """The bytes of a file that no longer changes, without reading them all."""

    def boot(self) -> bytes:
        """16 bytes that are others after the machine was started again; zeros where that is not known."""

    def size(self, path: str) -> int:
        """A file's length in bytes."""

    def rename(self, source: str, target: str) -> None:
        """Give a file another name, in place of a file that may have it."""

    def link(self, source: str, target: str) -> None:
        """Give a file a second name.  FileExistsError where the name is taken."""

    def replace(self, source: str, target: str) -> None:
        """Give a file another name, at once, whatever that named before; not durable until ``sync_directory``."""

    def unlink(self, path: str) -> None:
        """Take a name away.  FileNotFoundError where there is none."""

    def sync_directory(self, path: str) -> None:
        """Make the names in a folder durable, and the absence of those taken away."""


class LocalFile:
    """A ``NewFile`` of this machine."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115 - closed by close()

    def write(self, data: bytes) -> None:
        """Append all of ``data``; an unbuffered write may take less than it is given."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def sync(self) -> None:
        """fsync."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close, without a sync."""
        self._file.close()


# Where there is no fdatasync, fsync does more than is asked.
_sync_data: Final = getattr(os, "fdatasync", os.fsync)


class LocalRandomAccessFile:
    """A ``RandomAccessFile`` of this machine."""

    def __init__(self, path: str, mode: str) -> None:
        self._handle = os.open(path, (os.O_RDWR if mode == "w" else os.O_RDONLY) | os.O_CLOEXEC)

    def read_at(self, size: int, offset: int) -> bytes:
        """pread, as often as it takes."""
        data = os.pread(self._handle, size, offset)
        while 0 < len(data) < size:
            more = os.pread(self._handle, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def write_at(self, data: bytes, offset: int) -> None:
        """pwrite, as often as it takes."""
        written = os.pwrite(self._handle, data, offset)
        while written < len(data):
            written += os.pwrite(self._handle, memoryview(data)[written:], offset + written)

    def sync(self) -> None:
        """fdatasync."""
        _sync_data(self._handle)

    def close(self) -> None:
        """Close, without a sync."""
        os.close(self._handle)


class LocalFiles:
    """The ``FileOps`` of this machine."""

    def make_directories(self, path: str) -> None:
        """Make each missing folder and sync the one it stands in."""
        path = os.path.abspath(path)
        if os.path.isdir(path):
            return
        parent = os.path.dirname(path)
        self.make_directories(parent)
        try:
            os.mkdir(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        self.sync_directory(parent)

    def names(self, path: str) -> list[str]:
        """os.listdir, empty where there is no folder."""
        try:
            return os.listdir(path)
        except FileNotFoundError:
            return []

    def create(self, path: str) -> NewFile:
        """O_EXCL."""
        return LocalFile(path)

    def read(self, path: str) -> BinaryIO:
        """open(path, "rb")."""
        return open(path, "rb")

    def open_at(self, path: str, mode: str) -> RandomAccessFile:
        """os.open."""
        return LocalRandomAccessFile(path, mode)

    def view(self, path: str) -> bytes | mmap.mmap:
        """mmap, which takes no empty file."""
        with open(path, "rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return b""
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def boot(self) -> bytes:
        """Linux's boot id."""
        try:
            with open("/proc/sys/kernel/random/boot_id") as file:
                return bytes.fromhex(file.read().strip().replace("-", ""))
        except (OSError, ValueError):
            return bytes(16)

    def size(self, path: str) -> int:
        """os.path.getsize."""
        return os.path.getsize(path)

    def rename(self, source: str, target: str) -> None:
        """os.replace."""
        os.replace(source, target)

    def link(self, source: str, target: str) -> None:
        """os.link."""
        os.link(source, target)

    def replace(self, source: str, target: str) -> None:
        """os.replace."""
        os.replace(source, target)

    def unlink(self, path: str) -> None:
        """os.unlink."""
        os.unlink(path)

    def sync_directory(self, path: str) -> None:
        """fsync of the folder."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_whole(path: str, chunks: Iterable[bytes], *, over: bool, files: FileOps | None = None) -> int:
    """Write a file that is there whole or not at all, durable on return; how many bytes it holds.

    ``over`` puts it in the place of one that is there; without it, FileExistsError.  Else OSError, and what ``chunks``
    raises; then the name is as it was.  The folder must be there.
    """
    files = LocalFiles() if files is None else files
    folder = os.path.dirname(path) or "."
    temporary = f"{folder}/.{os.path.basename(path)}.{os.getpid()}-{secrets.token_hex(8)}.tmp"
    size = 0
    file = files.create(temporary)
    try:
        try:
            for chunk in chunks:
                file.write(chunk)
                size += len(chunk)
            file.sync()
        finally:
            file.close()
        files.replace(temporary, path) if over else files.link(temporary, path)
    finally:
        with suppress(FileNotFoundError):
            files.unlink(temporary)
    files.sync_directory(folder)
    return size


KILL_POINTS: Final = (
    "append.before",
    "append.after",
    "commit.before",
    "commit.after",
    "image.write",
    "publish.before",
    "publish.linked",
    "publish.after",
    "prune.before",
    "prune.after",
    "migrate.before",
    "migrate.after",
    "create.after",
    "epoch.before",
    "epoch.after",
    "cold_start.loaded",
    "cold_start.replayed",
    "receipt.before",
    "wal.frame.written",
    "wal.index.before",
    "wal.index.after",
    "wal.segment.before",
    "wal.segment.after",
    "wal.tail.copied",
    "wal.tail.zeroed",
    "wal.close.before",
    "wal.close.after",
)
"""The moments between which a crash makes a difference, in the order of a life."""

SHIP_KILL_POINTS: Final = (
    "ship.created",
    "ship.epoch",
    "ship.before",
    "ship.after",
    "seed.created",
    "seed.epochs",
    "seed.before",
    "seed.after",
)
"""The same between two journals, of which one is shipped to the other or filled from it."""

OUTBOX_KILL_POINTS: Final = (
    "deliver.before",
    "deliver.after",
    "cursor.before",
    "cursor.written",
    "cursor.replaced",
    "cursor.after",
)
"""The same of an outbox, which may live in a process of its own."""

_armed, _, _count = os.environ.get(KILL_VARIABLE, "").partition(":")
_passes_left = int(_count or 1)


def kill_point(name: str) -> None:
    """Die here, as if by SIGKILL, at the N-th pass when ``RECOVERY_KILL_AT=name:N`` is in the environment."""
    global _passes_left
    if name == _armed:
        _passes_left -= 1
        if _passes_left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)
