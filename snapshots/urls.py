"""Which URL is which place for images.  The only file that names an adapter, and imports it only when asked for it."""

from __future__ import annotations

from journal.errors import UnknownScheme, UsageError
from snapshots.store import SnapshotStore


def open_snapshot_store(url: str) -> SnapshotStore:
    """The store of ``memory:``, ``memory:NAME`` or ``dir:PATH``; else UnknownScheme, or UsageError for its form."""
    scheme, colon, rest = url.partition(":")
    if not colon or scheme not in ("memory", "dir"):
        raise UnknownScheme(
            f"{scheme + colon if colon else url!r} is no place for snapshots that this release knows",
            expected="memory:, memory:NAME or dir:PATH",
            hint="say dir:PATH for a directory",
        )
    if scheme == "memory":
        from snapshots.stores.memory import MemorySnapshots

        return MemorySnapshots(rest)
    if not rest or rest.startswith("//"):
        path = rest.removeprefix("//") or "PATH"
        raise UsageError(f"{url} names no directory: it is written dir:PATH", hint=f"say dir:{path}")
    from snapshots.stores.directory import DirectorySnapshots

    return DirectorySnapshots(rest)
