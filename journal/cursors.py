"""Cursor: how far an outbox has delivered a stream; and CursorStore, what an outbox asks of the place that keeps it.

A cursor is stored as ``records.sealed`` of a dict of its fields: ``values.encode`` and xxh3_128 of that, 16 bytes.  Its fields::

    name, stream    whose it is, and of what
    journal_id      the journal that was delivered (records.JournalIdentity)
    command_id      every message of the commands up to here was accepted
    chain           that command's chain: it tells this history from another of the same length
    messages        how many messages were accepted in all
    moved_at_ms     when that was last so, milliseconds since 1970
    failure         why the outbox stopped; None while nothing is wrong
"""

from __future__ import annotations

import re
import uuid
from abc import ABC, abstractmethod
from typing import Final, NamedTuple

from journal.errors import ChecksumMismatch, UnknownFormat, UsageError
from journal.records import sealed, unsealed

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Cursor(NamedTuple):
    """How far an outbox has come.  Position 0 is before the first command."""

    name: str
    stream: str
    journal_id: uuid.UUID
    command_id: int
    chain: bytes
    messages: int
    moved_at_ms: int
    failure: str | None

    def pack(self) -> bytes:
        """The bytes described at the head of this file."""
        return sealed(self._asdict())

    @classmethod
    def unpack(cls, data: bytes, where: str) -> Cursor:
        """Read ``pack``'s bytes.  ChecksumMismatch or UnknownFormat with the position ``where``, and the way on."""
        try:
            document = unsealed(data, where)
        except ChecksumMismatch as error:
            error.hint = _WAY_ON
            raise
        if document.keys() != set(cls._fields):
            raise UnknownFormat("it is no cursor of this release", position=where, hint=_WAY_ON)
        return cls(**document)


_WAY_ON: Final = (
    "say where to go on: recovery outbox --name NAME --reset --after N; what comes after N is delivered again"
)


def check_name(name: str) -> None:
    """Refuse a name that cannot be part of a file's."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} names no outbox: letters, digits, _ - and . are allowed, at most 64, no . first")


class CursorHold(ABC):
    """One consumer's hold on one cursor, against every other consumer, until released or until its process ends."""

    @abstractmethod
    def read(self) -> bytes | None:
        """What was last written; None for a cursor that is new."""

    @abstractmethod
    def write(self, document: bytes) -> None:
        """Replace what is stored, at once and durably.  StoreUnavailable: the old or the new is there, whole.

        WriterFenced where another consumer has taken the hold over.
        """

    @abstractmethod
    def remove(self) -> None:
        """Take the cursor away, durably."""

    @abstractmethod
    def release(self) -> None:
        """Let another consumer in.  Twice is once."""


class CursorStore(ABC):
    """Where the cursors of a journal's outboxes lie.  It knows nothing of what the bytes mean."""

    location: str
    """Where it is, for messages; never with a password."""

    @abstractmethod
    def names(self, stream: str) -> list[str]:
        """The names of the stream's outboxes, sorted."""

    @abstractmethod
    def read(self, stream: str, name: str) -> bytes | None:
        """What is stored, whoever holds it; None where there is no such cursor."""

    @abstractmethod
    def hold(self, stream: str, name: str) -> CursorHold:
        """Hold a cursor against every other consumer.  JournalInUse names the holder."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is open; whatever is asked later opens it again.  Twice is once.  Holds are not concerned."""
