"""Cursors of ``memory:`` journals: gone with the process, as the journal is."""

from __future__ import annotations

from typing import Final

from journal.cursors import CursorHold, CursorStore
from journal.errors import JournalInUse


class CursorPlace:
    """What one name of ``memory:NAME`` holds: documents, and which are held; by (stream, name)."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], bytes] = {}
        self.held: set[tuple[str, str]] = set()


CURSOR_PLACES: Final[dict[str, CursorPlace]] = {}
"""The named places of this process."""


class MemoryCursors(CursorStore):
    """The cursors of one place; of a fresh one for the empty name."""

    def __init__(self, name: str) -> None:
        self.location = f"memory:{name}"
        self._place = CURSOR_PLACES.setdefault(name, CursorPlace()) if name else CursorPlace()

    def names(self, stream: str) -> list[str]:
        """The names of the stream's cursors."""
        return sorted(name for held_stream, name in self._place.documents if held_stream == stream)

    def read(self, stream: str, name: str) -> bytes | None:
        """What is stored."""
        return self._place.documents.get((stream, name))

    def hold(self, stream: str, name: str) -> CursorHold:
        """Hold it within this process."""
        return MemoryHold(self._place, (stream, name))

    def close(self) -> None:
        """Nothing to let go."""


class MemoryHold(CursorHold):
    """The hold on one cursor of a place."""

    def __init__(self, place: CursorPlace, key: tuple[str, str]) -> None:
        self._place = place
        self._key = key
        if key in place.held:
            raise JournalInUse(
                f"outbox {key[1]!r} is being delivered by this process",
                hint="one consumer of a name at a time: close that one, or deliver under another name",
            )
        place.held.add(key)
        self._released = False

    def read(self) -> bytes | None:
        """What is stored."""
        return self._place.documents.get(self._key)

    def write(self, document: bytes) -> None:
        """Replace it."""
        self._place.documents[self._key] = document

    def remove(self) -> None:
        """Take it away."""
        self._place.documents.pop(self._key, None)

    def release(self) -> None:
        """Let another one in."""
        if not self._released:
            self._released = True
            self._place.held.discard(self._key)
