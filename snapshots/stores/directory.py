"""Images as files of a directory, ``dir:PATH``, written so that a power cut at any moment leaves each whole or absent.

``put`` writes a temporary in the image's own folder, syncs it, links it to its name (which fails where the name is
taken; a rename would replace), syncs the folder, and takes the temporary's name away.  A temporary is called
``.<milliseconds>-<host>-<pid>-<random>.tmp``.  What a killed writer left is swept by the next ``put`` in that folder:
the temporaries of this host whose process is gone, and any older than a day.  Sweeping the file of a writer that is
alive after all only makes its link fail, and that is an error to the writer, never a damaged image.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, Final

import xxhash

from journal.errors import StoreUnavailable
from journal.files import FileOps, LocalFiles, kill_point
from snapshots.store import SnapshotStore

_TEMPORARY_MS_MAX: Final = 24 * 3600 * 1000


class DirectorySnapshots(SnapshotStore):
    """A folder of folders of images.  Nothing is made until the first ``put``."""

    durable = True

    def __init__(self, path: str, *, files: FileOps | None = None) -> None:
        self.location = f"dir:{path}"
        self._path = path
        self._files = LocalFiles() if files is None else files

    def put(self, name: str, chunks: Iterable[bytes]) -> bool:
        """Temporary, sync, link, sync, unlink."""
        target = self._file(name)
        folder = os.path.dirname(target)
        temporary = f"{folder}/{_temporary_name()}"
        with self._mapped(name):
            self._files.make_directories(folder)
            self._sweep(folder)
            if os.path.basename(target) in self._files.names(folder):
                self._files.sync_directory(folder)  # its writer may not have come to that yet
                return False
        try:
            self._write(name, temporary, chunks)
            with self._mapped(name):
                return self._publish(temporary, target)
        finally:
            with suppress(OSError):  # a leftover is swept later; what happened above is what counts
                self._files.unlink(temporary)

    def _write(self, name: str, temporary: str, chunks: Iterable[bytes]) -> None:
        with self._mapped(name):
            file = self._files.create(temporary)
        try:
            for chunk in chunks:
                with self._mapped(name):
                    file.write(chunk)
                kill_point("image.write")
            with self._mapped(name):
                file.sync()
        finally:
            file.close()

    def _publish(self, temporary: str, target: str) -> bool:
        kill_point("publish.before")
        try:
            self._files.link(temporary, target)
            written = True
        except FileExistsError:
            written = False
        kill_point("publish.linked")
        self._files.sync_directory(os.path.dirname(target))
        kill_point("publish.after")
        return written

    def open(self, name: str) -> BinaryIO:
        """The file, buffered."""
        with self._mapped(name):
            return self._files.read(self._file(name))

    def names(self, folder: str) -> list[str]:
        """The files of a folder but for temporaries."""
        with self._mapped(folder):
            return sorted(f"{folder}/{file}" for file in self._files.names(self._file(folder)) if file[0] != ".")

    def size(self, name: str) -> int:
        """The file's length."""
        with self._mapped(name):
            return self._files.size(self._file(name))

    def delete(self, name: str) -> None:
        """Unlink, sync."""
        path = self._file(name)
        with self._mapped(name):
            with suppress(FileNotFoundError):
                self._files.unlink(path)
            self._files.sync_directory(os.path.dirname(path))

    def _file(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _sweep(self, folder: str) -> None:
        for file in self._files.names(folder):
            if file[0] == "." and _is_stale(file):
                with suppress(FileNotFoundError):  # swept by another at the same time
                    self._files.unlink(f"{folder}/{file}")

    @contextmanager
    def _mapped(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(
                f"{self._file(name)}: {error.strerror or error}",
                hint="check that the directory is there, writable, and has free space",
            ) from error


def _temporary_name() -> str:
    return f".{time.time_ns() // 10**6}-{_host()}-{os.getpid()}-{secrets.token_hex(8)}.tmp"


def _is_stale(file: str) -> bool:
    """Whether a temporary's writer is gone; False for a name of another form."""
    made_ms, _, rest = file.removeprefix(".").partition("-")
    host, _, rest = rest.partition("-")
    pid = rest.partition("-")[0]
    if not file.endswith(".tmp") or not made_ms.isdecimal() or not pid.isdecimal():
        return False
    if time.time_ns() // 10**6 - int(made_ms) > _TEMPORARY_MS_MAX:
        return True
    return host == _host() and not _is_alive(int(pid))


def _host() -> str:
    """This host as far as process ids go: containers may share a directory and a host name, but not these."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return xxhash.xxh3_64_hexdigest(f"{socket.gethostname()} {namespace}".encode())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # not ours to signal, so it is there
        return True
    return True
