"""Which URL is which place for images.  The only file that names an adapter, and imports it only when asked for it."""

from __future__ import annotations

from typing import Final

from journal.errors import UnknownScheme, UsageError
from journal.redaction import redacted
from snapshots.store import SnapshotStore

POSTGRESQL: Final = ("postgresql", "postgres", "postgresql+psycopg")


def open_snapshot_store(url: str) -> SnapshotStore:
    """The store of ``memory:``, ``memory:NAME``, ``dir:PATH``, ``postgresql://…`` or ``file:PATH``.

    UnknownScheme, UsageError; StoreUnavailable where a server is asked and cannot be reached.
    """
    scheme, colon, rest = url.partition(":")
    if scheme in POSTGRESQL and rest.startswith("//"):
        from snapshots.stores.postgres import PostgresSnapshots

        return PostgresSnapshots.connect(url)
    if not colon or scheme not in ("memory", "dir", "file"):
        raise UnknownScheme(
            f"{scheme + colon if colon else url!r} is no place for snapshots that this release knows",
            expected="memory:, memory:NAME, dir:PATH, postgresql://USER@HOST/DATABASE, "
            "or file:PATH for the images in an exported history",
            hint="say dir:PATH for a directory",
        )
    if scheme == "memory":
        from snapshots.stores.memory import MemorySnapshots

        return MemorySnapshots(rest)
    if not rest or rest.startswith("//"):
        path, what = rest.removeprefix("//") or "PATH", "directory" if scheme == "dir" else "file"
        if redacted(url) != url:  # what holds a password is no path
            path = "PATH"
        raise UsageError(f"{redacted(url)} names no {what}: it is written {scheme}:PATH", hint=f"say {scheme}:{path}")
    if scheme == "file":
        from snapshots.stores.history import HistoryImages

        return HistoryImages(rest)
    from snapshots.stores.directory import DirectorySnapshots

    return DirectorySnapshots(rest)
