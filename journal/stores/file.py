"""``file:PATH``: an exported history (journal/history_file.py), read in place.  It is never written.

A file holds one stream.  Where it is a part of one, it begins with its anchor, which is an entry like the others: ``start``
says that nothing before it is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from journal.errors import StoreUnavailable, UsageError
from journal.history_file import HistoryFile, block_of
from journal.records import Entry, JournalIdentity
from journal.store import JournalStore

_CACHED_BLOCKS: Final = 2


class FileStore(JournalStore):
    """One exported history.  Opened by ``open_for_read``."""

    durable = True

    def __init__(self, path: str) -> None:
        self.location = f"file:{path}"
        self._closed = False
        self._cache: dict[int, list[Entry]] = {}
        with self._mapped():
            self._file = HistoryFile(path)
        self.redacted = self._file.header.redacted
        self._stream = JournalIdentity.unpack(self._file.header.identity, f"{path}, header").stream

    @classmethod
    def open_for_read(cls, path: str) -> FileStore:
        """Open a history.  StoreUnavailable where there is none, CorruptionError where it is damaged at its ends."""
        return cls(path)

    @property
    def stream(self) -> str:
        """The stream it holds."""
        return self._stream

    def identity(self, stream: str) -> bytes | None:
        """The stream's identity.  StoreUnavailable where it is of another stream: nobody can create one here."""
        if not self._holds(stream):
            raise StoreUnavailable(
                f"{self.location} holds the stream {self._stream!r}, not {stream!r}",
                hint=f"say --stream {self._stream}",
            )
        return self._file.header.identity

    def epochs(self, stream: str) -> list[tuple[int, bytes]]:
        """All epochs by number."""
        return list(enumerate(self._file.header.epochs, 1)) if self._holds(stream) else []

    def start(self, stream: str) -> Entry | None:
        """The anchor of a part; None for a whole stream."""
        if not self._holds(stream) or not self._file.header.after:
            return None
        return self._entries(0)[0]

    def last(self, stream: str) -> Entry | None:
        """The last entry, or None."""
        blocks = self._file.blocks
        return self._entries(len(blocks) - 1)[-1] if self._holds(stream) and blocks else None

    def page(self, stream: str, after: int, until: int) -> list[Entry]:
        """The entries with ``after < command_id <= until``."""
        found: list[Entry] = []
        blocks = self._file.blocks
        if not self._holds(stream):
            return found
        for number in range(block_of(blocks, after + 1), len(blocks)):
            first = blocks[number].first
            if first > until:
                break
            found += self._entries(number)[max(after + 1 - first, 0) : until + 1 - first]
        return found

    def find(self, stream: str, request_keys: Sequence[bytes]) -> list[Entry]:
        """The entries with these request keys; a pass over the whole file, in constant memory."""
        if not self._holds(stream) or not request_keys:
            return []
        with self._mapped():
            return list(self._file.find(set(request_keys)))

    def request_keys(self, stream: str, since_ms: int) -> Iterator[bytes]:
        """The request keys of entries received at or after a time."""
        for number in range(len(self._file.blocks) if self._holds(stream) else 0):
            yield from (entry.request_key for entry in self._entries(number) if entry.received_at_ms >= since_ms)

    def settings(self) -> dict[str, str]:
        """That it is a file, written whole."""
        return {"durability": "an exported history: written whole and synced before it had its name; read only"}

    def check(self) -> None:
        """Every byte of the file."""
        self._require_open()
        with self._mapped():
            self._file.check()

    def create(self, stream: str, identity: bytes) -> None:
        """Refused."""
        raise self._read_only()

    def append_epoch(self, stream: str, number: int, document: bytes) -> None:
        """Refused."""
        raise self._read_only()

    def append(self, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        """Refused."""
        raise self._read_only()

    def make_durable(self) -> None:
        """Nothing is left to do: the file was synced before it had its name."""
        self._require_open()

    def close(self) -> None:
        """Let the file go."""
        self._closed = True
        self._cache = {}
        self._file.close()

    def _entries(self, number: int) -> list[Entry]:
        # Who reads in pages asks for a block again, until its pages have passed it.
        found = self._cache.get(number)
        if found is None:
            with self._mapped():
                found = self._file.entries(self._file.blocks[number])
            kept = list(self._cache.items())[-(_CACHED_BLOCKS - 1) :]
            self._cache = {**dict(kept), number: found}
        return found

    def _holds(self, stream: str) -> bool:
        self._require_open()
        return stream == self._stream

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(f"{self.location} is closed", hint="open it again")

    def _read_only(self) -> UsageError:
        self._require_open()
        return UsageError(
            f"{self.location} is an exported history, which is only read",
            hint="to go on from it, make a journal of it: recovery import",
        )

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreUnavailable(
                f"{self.location} cannot be read: {error.strerror or error}", hint="check --journal: file:PATH"
            ) from error
