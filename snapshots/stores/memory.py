"""Images in this process's memory: ``memory:`` of its own, ``memory:NAME`` shared by all who say NAME."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import BinaryIO, Final

from journal.errors import StoreUnavailable
from snapshots.store import SnapshotStore

_shared: Final[dict[str, dict[str, bytes]]] = {}


class MemorySnapshots(SnapshotStore):
    """A dict that is put into only once complete.  Single dict operations are atomic, so threads may share it."""

    durable = False

    def __init__(self, shared_name: str = "") -> None:
        self.location = f"memory:{shared_name}"
        self._images = _shared.setdefault(shared_name, {}) if shared_name else {}

    def put(self, name: str, chunks: Iterable[bytes]) -> bool:
        """Join, then set."""
        if name in self._images:
            return False
        data = b"".join(chunks)
        return self._images.setdefault(name, data) is data

    def open(self, name: str) -> BinaryIO:
        """A BytesIO."""
        return io.BytesIO(self._get(name))

    def names(self, folder: str) -> list[str]:
        """The keys below ``folder/``."""
        return sorted(name for name in list(self._images) if name.startswith(f"{folder}/"))

    def size(self, name: str) -> int:
        """len."""
        return len(self._get(name))

    def delete(self, name: str) -> None:
        """pop."""
        self._images.pop(name, None)

    def _get(self, name: str) -> bytes:
        data = self._images.get(name)
        if data is None:
            raise StoreUnavailable(f"there is no {name} in {self.location}")
        return data
