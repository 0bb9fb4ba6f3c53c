"""``memory:`` and ``memory:NAME``: a journal gone with its process, held to the same contract as a durable one.

``memory:`` is private and fresh at every opening.  ``memory:NAME`` is one place for the whole process, until it ends, so that a
runtime can be closed and started again on what the one before it wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from journal.errors import CorruptionError, RecoveryError, StoreUnavailable, UsageError, WriterFenced, WriterPoisoned
from journal.records import Entry
from journal.store import JournalStore
from journal.stores.writer_lock import holder_card, in_use


class Stream:
    """One stream's data."""

    def __init__(self, identity: bytes) -> None:
        self.identity = identity
        self.epochs: list[bytes] = []
        self.entries: list[Entry] = []
        self.by_request: dict[bytes, Entry] = {}


class Place:
    """What one URL names: streams, and the card of who writes them."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.holder: bytes | None = None


PLACES: Final[dict[str, Place]] = {}
"""The named places of this process."""


class MemoryStore(JournalStore):
    """Streams in this process's memory.  Opened by ``open_for_read`` or ``open_for_write``."""

    durable = False

    def __init__(self, name: str) -> None:
        self.location = f"memory:{name}"
        self._place = PLACES.setdefault(name, Place()) if name else Place()
        self._writes = False
        self._closed = False
        self._refusal: WriterFenced | WriterPoisoned | None = None

    @classmethod
    def open_for_read(cls, name: str) -> MemoryStore:
        """Look at a place; one that is not there yet is empty."""
        return cls(name)

    @classmethod
    def open_for_write(cls, name: str) -> MemoryStore:
        """Hold a place against other writers.  JournalInUse where it is held."""
        store = cls(name)
        if store._place.holder is not None:
            raise in_use(store.location, store._place.holder)
        store._place.holder = holder_card()
        store._writes = True
        return store

    def identity(self, stream: str) -> bytes | None:
        """The stream's identity, or None."""
        found = self._streams().get(stream)
        return None if found is None else found.identity

    def epochs(self, stream: str) -> list[tuple[int, bytes]]:
        """All epochs by number."""
        found = self._streams().get(stream)
        return [] if found is None else list(enumerate(found.epochs, 1))

    def last(self, stream: str) -> Entry | None:
        """The last entry, or None."""
        entries = self._entries(stream)
        return entries[-1] if entries else None

    def page(self, stream: str, after: int, until: int) -> list[Entry]:
        """The entries with ``after < command_id <= until``: an entry's index is its command id less one."""
        return self._entries(stream)[max(after, 0) : max(until, 0)]

    def newest(self, stream: str, limit: int) -> list[Entry]:
        """The last entries."""
        return self._entries(stream)[-limit:] if limit > 0 else []

    def find(self, stream: str, request_keys: Sequence[bytes]) -> list[Entry]:
        """The entries with these request keys."""
        found = self._streams().get(stream)
        if found is None:
            return []
        return [found.by_request[key] for key in dict.fromkeys(request_keys) if key in found.by_request]

    def request_keys(self, stream: str, since_ms: int) -> Iterator[bytes]:
        """The request keys of entries received at or after a time."""
        return (entry.request_key for entry in self._entries(stream) if entry.received_at_ms >= since_ms)

    def make_durable(self) -> None:
        """Nothing is more durable than it was."""

    def settings(self) -> dict[str, str]:
        """That nothing here is durable."""
        return {"durability": "none: the journal is gone with its process"}

    def check(self) -> None:
        """Whether what is looked up by request is what stands in order."""
        for stream in self._streams().values():
            if list(stream.by_request.values()) != stream.entries:
                raise CorruptionError(
                    "the index of requests is not of the entries", position=self.location, hint="restart"
                )

    def create(self, stream: str, identity: bytes) -> None:
        """Begin a stream."""
        if stream in self._writable():
            raise UsageError(f"{self.location} holds a stream {stream!r} already", hint="open it instead")
        self._writable()[stream] = Stream(identity)

    def append_epoch(self, stream: str, number: int, document: bytes) -> None:
        """Record an epoch."""
        found = self._stream_to_write(stream)
        if number != len(found.epochs) + 1:
            raise self._never_again(WriterFenced(f"epoch {number} does not follow {len(found.epochs)}"))
        found.epochs.append(document)

    def append(self, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        """Write entries that follow the last one: all is checked before any is written."""
        found = self._stream_to_write(stream)
        if epoch != len(found.epochs) or not epoch:
            raise self._never_again(WriterFenced(f"epoch {epoch} is not the newest, {len(found.epochs)}"))
        fresh: dict[bytes, Entry] = {}
        for follows, entry in enumerate(entries, len(found.entries) + 1):
            if entry.command_id != follows:
                message = f"command {entry.command_id} does not follow command {follows - 1}"
                raise self._never_again(WriterPoisoned(message, position=entry.command_id))
            if entry.request_key in found.by_request or entry.request_key in fresh:
                message = f"request {entry.request_id} is recorded already"
                raise self._never_again(WriterPoisoned(message, position=entry.command_id))
            fresh[entry.request_key] = entry
        found.by_request.update(fresh)
        found.entries.extend(entries)

    def close(self) -> None:
        """Let the place go; what it holds stays for the next opening of its name."""
        if self._writes and not self._closed:
            self._place.holder = None
        self._closed = True

    def _streams(self) -> dict[str, Stream]:
        if self._closed:
            raise StoreUnavailable(f"{self.location} is closed", hint="open it again")
        return self._place.streams

    def _entries(self, stream: str) -> list[Entry]:
        found = self._streams().get(stream)
        return [] if found is None else found.entries

    def _writable(self) -> dict[str, Stream]:
        streams = self._streams()
        if not self._writes:
            raise UsageError(f"{self.location} was opened for read", hint="open it for write")
        if self._refusal is not None:
            raise type(self._refusal)(str(self._refusal), hint=self._refusal.hint)
        return streams

    def _stream_to_write(self, stream: str) -> Stream:
        found = self._writable().get(stream)
        if found is None:
            raise UsageError(f"{self.location} holds no stream {stream!r}", hint="create it first")
        return found

    def _never_again(self, refusal: WriterFenced | WriterPoisoned) -> RecoveryError:
        refusal.hint = "close this writer, and open again"
        self._refusal = refusal
        return refusal
