"""SnapshotStore: what images ask of a place to lie in.  This is the contract; ``snapshots.testing`` checks it.

A store maps names to bytes that never change.  A name is ``FOLDER/FILE``: two parts of ASCII letters, digits and
``%._~-``, neither beginning with a dot.  The store knows nothing of images; snapshots/catalog.py gives the names::

    <stream>/<command id, 20 digits>-<first 16 hex digits of the chain>.image    an image
    <the same>.bad                                                               its quarantine marker: JSON, with why

**Put if absent.**  ``put`` writes all of its chunks under a free name or nothing; a name that is taken is left as it
is.  Of two at the same time one writes.  No reader ever sees a part of it under its name.

**Durability.**  When ``put`` or ``delete`` returns on a store whose ``durable`` is True, what it did survives a power
cut; also where ``put`` found the name taken, what is there does.

**Errors.**  StoreUnavailable, naming the place and the reason, where it cannot be done now or there is no such name.
After a ``put`` that raised, the name is free or holds all of its chunks.  An exception out of ``chunks`` passes
through, and the name stays free.  The driver's own exception is the ``__cause__``.  Reading a file once opened raises
OSError.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Protocol

from journal.records import Entry


class SnapshotStore(ABC):
    """Bytes by name, written once.  See the contract above."""

    durable: bool
    """Whether what ``put`` wrote survives a power cut."""

    location: str
    """Where it is, for messages; never with a password."""

    @abstractmethod
    def put(self, name: str, chunks: Iterable[bytes]) -> bool:
        """Write ``chunks`` under ``name``: True where it did, False where the name was taken."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """A buffered reader of what is under ``name``, for the caller to close."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """The names in a folder, sorted."""

    @abstractmethod
    def size(self, name: str) -> int:
        """How many bytes are under ``name``."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Free ``name``; a free one stays free."""


class JournalView(Protocol):
    """What images ask of the journal that they are images of.  Raises that journal's errors."""

    def entry(self, command_id: int) -> Entry | None:
        """The durable entry of one command, its checksum checked; None where there is none."""

    def entries_after(self, command_id: int, until: int) -> Iterator[Entry]:
        """The entries with ``command_id < id <= until``, in order, each whole and continuing the chain."""
