"""Cursors as small files beside a journal of files: ``PREFIXcursor-NAME@STREAM``.

For ``sqlite:till.db`` the prefix is ``till.db.``, for ``wal:DIR`` it is ``DIR/``.  STREAM is quoted as in a URL, dots too.  The
file is the cursor's bytes (journal/cursors.py) and nothing else; its checksum is their last 16.

It is written whole under the name of the cursor with ``.tmp`` behind it, synced, renamed, and the folder synced: after a power
cut at any moment the old cursor is there, or the new one.  The hold is a lock on the file of that name with ``.lock`` behind it
(writer_lock.py); beside a cursor of its own, an outbox writes nothing where the journal is.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from journal.cursors import CursorHold, CursorStore
from journal.errors import JournalInUse, StoreUnavailable
from journal.files import FileOps, LocalFiles, kill_point
from journal.stores.writer_lock import WriterLock


class FileCursors(CursorStore):
    """The cursors whose files begin with a prefix.  Nothing is made until one is held."""

    def __init__(self, prefix: str, *, files: FileOps | None = None) -> None:
        self.location = f"{prefix}cursor-*"
        self._folder, self._begins = os.path.split(f"{prefix}cursor-")
        self._folder = self._folder or "."
        self._files = LocalFiles() if files is None else files

    def names(self, stream: str) -> list[str]:
        """The files of this stream."""
        ends = f"@{_quoted(stream)}"
        with _mapped(self._folder):
            found = self._files.names(self._folder)
        cursors = (name for name in found if name.startswith(self._begins) and name.endswith(ends))
        return sorted(name[len(self._begins) : -len(ends)] for name in cursors)

    def read(self, stream: str, name: str) -> bytes | None:
        """The file's bytes."""
        return read_file(self._files, self._path(stream, name))

    def hold(self, stream: str, name: str) -> CursorHold:
        """Lock the file's lock."""
        return FileHold(self._files, self._path(stream, name), name)

    def close(self) -> None:
        """Nothing is kept open."""

    def _path(self, stream: str, name: str) -> str:
        return os.path.join(self._folder, f"{self._begins}{name}@{_quoted(stream)}")


class FileHold(CursorHold):
    """The hold on one file."""

    def __init__(self, files: FileOps, path: str, name: str) -> None:
        self._files = files
        self._path = path
        try:
            self._lock: WriterLock | None = WriterLock(path)
        except JournalInUse as error:
            error.message = error.message.replace("being written", "being delivered")
            error.hint = f"one consumer of {name!r} at a time: stop that one, or deliver under another --name"
            raise

    def read(self) -> bytes | None:
        """The file's bytes."""
        return read_file(self._files, self._path)

    def write(self, document: bytes) -> None:
        """Temporary, sync, rename, sync of the folder."""
        temporary = f"{self._path}.tmp"
        kill_point("cursor.before")
        with _mapped(self._path):
            with suppress(FileNotFoundError):  # of a consumer that was killed
                self._files.unlink(temporary)
            file = self._files.create(temporary)
            try:
                file.write(document)
                file.sync()
            finally:
                file.close()
            kill_point("cursor.written")
            self._files.replace(temporary, self._path)
            kill_point("cursor.replaced")
            self._files.sync_directory(os.path.dirname(self._path))
        kill_point("cursor.after")

    def remove(self) -> None:
        """Unlink, sync of the folder."""
        with _mapped(self._path):
            with suppress(FileNotFoundError):
                self._files.unlink(self._path)
            self._files.sync_directory(os.path.dirname(self._path))

    def release(self) -> None:
        """Unlock; the lock's file stays."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def read_file(files: FileOps, path: str) -> bytes | None:
    """A file's bytes; None where there is none."""
    with _mapped(path):
        try:
            with files.read(path) as file:
                return file.read()
        except FileNotFoundError:
            return None


def _quoted(stream: str) -> str:
    # Not a dot either: what follows one tells a lock and a temporary from a cursor.
    return urllib.parse.quote(stream, safe="").replace(".", "%2E")


@contextmanager
def _mapped(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(
            f"{path}: {error.strerror or error}", hint="check that the folder is there, writable, and has free space"
        ) from error
