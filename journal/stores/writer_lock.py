"""WriterLock: one writer of a file at a time, whoever it is.

The lock is ``flock`` on ``PATH.lock``, held until released or until the process ends, however it ends.  The file stays; it
holds one JSON object naming the last holder::

    {"host": "db-1", "pid": 4711, "since": "2026-11-23T09:17:00+00:00"}

A child made by ``os.fork`` shares the lock and would keep it beyond its parent's death, so the first thing it does is to
close it.  It must not *unlock*: that would take it from the parent.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import weakref
from datetime import UTC, datetime

from journal.errors import JournalInUse, StoreUnavailable


class WriterLock:
    """The hold on ``path``.  JournalInUse names the holder; StoreUnavailable where the lock file cannot be made."""

    def __init__(self, path: str) -> None:
        # One file may be reached by many names; the lock is on the file.
        self.path = os.path.realpath(path) + ".lock"
        try:
            self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise StoreUnavailable(
                f"{path} cannot be opened for write: {self.path}: {error.strerror}",
                hint="check the folder's permissions, or name another path",
            ) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._handle, 4096, 0)
            os.close(self._handle)
            raise in_use(path, holder) from error
        card = holder_card()
        os.pwrite(self._handle, card, 0)
        os.truncate(self._handle, len(card))
        _held.add(self)

    def release(self) -> None:
        """Let another writer in."""
        _held.discard(self)
        fcntl.flock(self._handle, fcntl.LOCK_UN)
        os.close(self._handle)


_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()


def holder_card() -> bytes:
    """The JSON that names this process as the holder."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"host": platform.node(), "pid": os.getpid(), "since": since}).encode()


def in_use(location: str, card: bytes) -> JournalInUse:
    """The refusal of a second writer."""
    try:
        holder = json.loads(card)
        who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        # The holder has locked the file and not yet written its name.
        who = "another process since just now"
    return JournalInUse(
        f"{location} is being written by {who}",
        hint="close that writer first; to look at the journal while it runs, open it for read: recovery status",
    )


def _close_in_child() -> None:
    for lock in list(_held):
        os.close(lock._handle)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
