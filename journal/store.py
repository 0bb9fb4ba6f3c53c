"""JournalStore: what a journal asks of a database.  This docstring is the contract; ``journal.testing`` checks it.

A store holds *streams*, each a sequence of entries with gapless ``command_id`` from 1, or from the one that ``start`` gives,
besides an identity (bytes, written once) and epochs (bytes, numbered from 1).  It knows nothing of chains, digests or what
the bytes mean.

**Order.**  Entries come back in the order of ``command_id``, field for field as given.

An entry's own ``epoch`` says who recorded it, which after an import is not who writes it: that is ``append``'s.

**Atomicity.**  ``append`` writes all of its entries or none, and ``create`` and ``append_epoch`` likewise.

**Durability.**  When ``append``, ``create`` or ``append_epoch`` returns on a store whose ``durable`` is True, what it wrote
survives a power cut.

**One writer.**  A store opened for write holds its stream against every other writer; a second one is refused with
JournalInUse, naming the holder.  ``append`` under an epoch that is not the newest is refused with WriterFenced.

**Errors.**  ``append`` refuses with

* StoreUnavailable: nothing was written, and the store goes on; ``position`` names the command where one entry is to blame;
* WriterFenced: nothing was written, and this writer may never write again;
* OutcomeUnknown: the entries may or may not be written; only a new epoch makes it known;
* WriterPoisoned: a write failed in a way that says nothing about the disk (an I/O error), or an assertion of the store
  failed (a ``command_id`` that does not follow, a ``request_key`` that is there already); from then on every write
  raises it again.

**Projections.**  A store that is an SQL database may be a ``SqlJournalStore`` besides: tables of the user's are then written in
the very transaction of ``append``.  A statement of theirs that the database refuses makes ``append`` raise ProjectionFailed:
nothing was written, and the store goes on.

Reads raise StoreUnavailable, and CorruptionError where the store finds its own bytes damaged.  The driver's own exception is
the ``__cause__``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from journal.records import Entry


class JournalStore(ABC):
    """Read and, when opened for write, append to streams of entries.  See the contract above."""

    durable: bool
    """Whether what ``append`` wrote survives a power cut."""

    location: str
    """Where it is, for messages; never with a password."""

    redacted: bool = False
    """Whether payloads were replaced on the way here, so that it can be read and not replayed."""

    @abstractmethod
    def identity(self, stream: str) -> bytes | None:
        """The stream's identity; None where the stream was never created."""

    @abstractmethod
    def epochs(self, stream: str) -> list[tuple[int, bytes]]:
        """All epochs by number."""

    def start(self, stream: str) -> Entry | None:
        """The entry up to which the stream is not kept, itself kept; None, as here, where all is kept from command 1."""
        return None

    @abstractmethod
    def last(self, stream: str) -> Entry | None:
        """The entry with the greatest ``command_id``."""

    @abstractmethod
    def page(self, stream: str, after: int, until: int) -> list[Entry]:
        """The entries with ``after < command_id <= until``, in order.  Callers keep the range small enough for memory."""

    def newest(self, stream: str, limit: int) -> list[Entry]:
        """The last entries, at most so many, in order.  A store that can ask for them at once overrides this."""
        last = self.last(stream)
        return [] if last is None or limit < 1 else self.page(stream, max(0, last.command_id - limit), last.command_id)

    @abstractmethod
    def find(self, stream: str, request_keys: Sequence[bytes]) -> list[Entry]:
        """The entries with these request keys, in no order."""

    @abstractmethod
    def request_keys(self, stream: str, since_ms: int) -> Iterator[bytes]:
        """The request keys of entries with ``received_at_ms >= since_ms``, in no order."""

    @abstractmethod
    def make_durable(self) -> None:
        """Return only when all that reads have shown so far is durable, whoever wrote it; else StoreUnavailable.

        Who passes on what was read, and did not write it, asks for this first: a writer may have been killed between its
        write and its sync.  Nothing to do for a store whose reads show only what is durable.
        """

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """The settings that durability rests on, and versions, for status and doctor."""

    @abstractmethod
    def check(self) -> None:
        """Look at every byte of its own structure; CorruptionError where it is damaged.  Entries are not its to prove."""

    @abstractmethod
    def create(self, stream: str, identity: bytes) -> None:
        """Begin a stream.  UsageError where it is there already."""

    @abstractmethod
    def append_epoch(self, stream: str, number: int, document: bytes) -> None:
        """Record an epoch; ``number`` must be one more than the newest, else WriterFenced."""

    @abstractmethod
    def append(self, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        """Write entries that follow the last one.  See the contract."""

    def require_hold(self, stream: str) -> None:
        """Raise WriterFenced where another writer has taken the stream over, as ``append`` would; StoreUnavailable.

        Here, where a lock is held for life, whether it can be read.
        """
        self.identity(stream)

    @abstractmethod
    def close(self) -> None:
        """Let everything go, the hold on the stream too.  Twice is once."""


class SqlCursor(Protocol):
    """Statements within one transaction of a store, in its own dialect; a ``?`` stands for each parameter (journal/sql.py).

    ProjectionFailed where the database refuses the statement for what it says: a constraint, a table that is not there.  The
    transaction must then not go on.  Any other error is the store's, as in its contract.
    """

    dialect: str
    """"sqlite" or "postgresql"."""

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return all of its rows."""

    def executemany(self, sql: str, rows: Sequence[Sequence[object]]) -> None:
        """Run one statement for each row of parameters."""

    def check_deferred(self) -> None:
        """Look now at what would be looked at when the transaction is committed; nothing follows it there."""


Hook = Callable[[SqlCursor, Sequence[Entry]], None]


class SqlJournalStore(JournalStore):
    """A store whose database may hold tables of others, written together with its entries."""

    dialect: str

    @abstractmethod
    def attach(self, stream: str, hook: Hook) -> None:
        """From now on, run ``hook(cursor, entries)`` in the transaction of every ``append`` to the stream, after its entries.

        What it raises undoes the entries too.
        """

    @abstractmethod
    def transact(self, work: Callable[[SqlCursor], None]) -> None:
        """One transaction for tables that are not the store's own: ``work`` within it, durable on return, undone by an exception.

        Where a server was lost and nothing was committed, ``work`` may be called again.  OutcomeUnknown where that is not known;
        UsageError where the store was opened for read.
        """

    @abstractmethod
    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of one statement that only reads, as committed."""

    @abstractmethod
    def has_table(self, name: str) -> bool:
        """Whether there is a table of this name."""
