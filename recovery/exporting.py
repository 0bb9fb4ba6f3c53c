"""export_history(): a journal, or a part of it, as one file (journal/history_file.py), with the images it is replayed from.

A part that does not begin at command 1 is given the image of the command before it: else nobody could replay it.  Images that
are not there are made: redone from recorded rows, or, where none are recorded, by executing the engine up to there.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, BinaryIO, Final, NamedTuple

from journal.errors import EngineMismatch, StoreUnavailable, UsageError
from journal.files import write_whole
from journal.history_file import HistoryHeader, write_history
from journal.journal import Journal
from journal.records import Entry, JournalIdentity
from recovery.images import capture_image, open_catalog, place
from recovery.loading import engine_factory
from recovery.redaction import Redact, redacted_entry
from recovery.replayer import Replayer
from recovery.stepper import make_stepper
from snapshots.catalog import Catalog, StepDown
from snapshots.snapshotter import make_image
from snapshots.store import SnapshotStore

_CHUNK_BYTES: Final = 2**20


class Exported(NamedTuple):
    """What was written.  ``images`` are the commands whose images it holds."""

    path: str
    engine: str
    stream: str
    after: int
    last: int
    commands: int
    images: tuple[int, ...]
    chain: str
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As in ``recovery export --json``."""
        return self._asdict() | {"images": list(self.images)}


def export_history(
    journal: Journal,
    catalog: Catalog | None,
    path: str,
    *,
    after: int | None = None,
    until: int | None = None,
    with_image: bool = True,
    image_every: int = 0,
    engine: str = "",
    app_dir: str = ".",
    over: bool = False,
    redact: Redact | None = None,
    report: Callable[[StepDown], None] = lambda step: None,
) -> Exported:
    """Write the commands with ``after < id <= until`` (None: all that are kept) to ``path``, whole or not at all.

    ``with_image`` gives a part the image of its beginning; ``image_every`` commands, one more.  ``over`` writes over a
    file; without it UsageError where there is one.  ``redact`` replaces the payloads (recovery/redaction.py): what is exported is
    then read and not replayed, and carries no image.  EvidenceAhead where the journal lost its end, CorruptionError where it
    is damaged: what is exported was read and checked.
    """
    identity, start, head = journal.identity, journal.start().command_id, journal.head().command_id
    first = start if after is None else after
    last = head if until is None else min(until, head)
    if until is None:
        journal.require_end()
    if not start <= first <= last:
        raise UsageError(f"there are no commands after {first} and up to {last}; the journal is kept after {start}")
    anchor = _anchor(journal, first)
    wanted = [first] if first and with_image and redact is None else []
    if image_every and redact is None:
        wanted += [at for at in range(image_every, last + 1, image_every) if at > first]
    header = HistoryHeader(identity.pack(), _epochs(journal, last), first, journal.store.redacted or redact is not None)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path) or ".", prefix=".export-") as scratch:
        images = _Images(journal, catalog, identity, scratch, engine, app_dir, report)
        entries: Iterable[Entry] = itertools.chain(anchor, journal.read(first, last))
        if redact is not None:
            entries = (redacted_entry(entry, redact) for entry in entries)
        try:
            size = write_whole(path, write_history(header, entries, map(images.at, wanted)), over=over)
        except FileExistsError as error:
            raise UsageError(f"{path} is there already", hint="say --force to write over it") from error
        except OSError as error:
            raise StoreUnavailable(f"{path} cannot be written: {error.strerror or error}") from error
    chain = (journal.start() if last == start else _entry(journal, last).head).chain
    return Exported(path, identity.engine, identity.stream, first, last, last - first, tuple(wanted), chain.hex(), size)


def _entry(journal: Journal, command_id: int) -> Entry:
    found = journal.entry(command_id)
    if found is None:
        raise UsageError(f"the journal holds no command {command_id}")
    return found


def _anchor(journal: Journal, first: int) -> list[Entry]:
    return [_entry(journal, first)] if first else []


def _epochs(journal: Journal, last: int) -> tuple[bytes, ...]:
    """The epochs that began by the last command: a later one would say that the history lost its end."""
    return tuple(epoch.pack() for epoch in journal.epochs() if epoch.head <= last)


class _Images:
    """Images of a journal at any command: found, or made in a folder that goes with the export."""

    def __init__(
        self,
        journal: Journal,
        catalog: Catalog | None,
        identity: JournalIdentity,
        scratch: str,
        engine: str,
        app_dir: str,
        report: Callable[[StepDown], None],
    ) -> None:
        made = open_catalog(f"dir:{scratch}/images", identity.stream)
        assert made is not None
        self._journal = journal
        self._identity = identity
        self._store = _Beside(made.store, None if catalog is None else catalog.store)
        self._catalog = Catalog(self._store, identity.stream)
        self._engine = engine
        self._app_dir = app_dir
        self._report = report

    def at(self, command_id: int) -> tuple[str, Iterator[bytes]]:
        """The name and the bytes of the image after a command, proven."""
        chain = _entry(self._journal, command_id).chain
        if self._identity.changes == "rows":
            self._redo(command_id)
        else:
            self._execute(command_id)
        name = self._catalog.name_of(command_id, chain)
        return name, _chunks(self._store.open(name))

    def _redo(self, command_id: int) -> None:
        epoch = self._journal.epochs()[_entry(self._journal, command_id).epoch - 1]
        make_image(
            self._journal,
            self._catalog,
            identity=self._identity,
            state_version=epoch.state_version,
            logic_version=epoch.logic_version,
            schema=epoch.schema,
            command_id=command_id,
            created_at_ms=time.time_ns() // 1_000_000,
            report=self._report,
        )

    def _execute(self, command_id: int) -> None:
        if not self._engine:
            raise UsageError(
                f"the journal of {self._identity.engine} records no rows, so an image of it takes the engine",
                hint="say --engine MODULE:ATTR",
            )
        identity, journal = self._identity, self._journal
        stepper = make_stepper(
            engine_factory(self._engine, app_dir=self._app_dir), identity.seed, identity.digest_every
        )
        if stepper.name != identity.engine:
            raise EngineMismatch(f"the journal is of engine {identity.engine!r}, not {stepper.name!r}")
        placed = place(stepper, self._catalog, journal, command_id)
        if placed.command_id != command_id:
            Replayer(stepper, journal.epochs()).rebuild(journal.read(placed.command_id, command_id))
            capture_image(stepper, self._catalog, journal, identity, at=_entry(journal, command_id).head)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


class _Beside(SnapshotStore):
    """A store that is only read, and a folder of our own beside it that takes what is written."""

    def __init__(self, own: SnapshotStore, there: SnapshotStore | None) -> None:
        self.durable = False
        self.location = own.location if there is None else there.location
        self._own = own
        self._there = there

    def put(self, name: str, chunks: Iterable[bytes]) -> bool:
        """Into our own."""
        return name not in self.names(name.partition("/")[0]) and self._own.put(name, chunks)

    def open(self, name: str) -> BinaryIO:
        """Ours, else theirs."""
        with suppress(StoreUnavailable):
            return self._own.open(name)
        return self._other().open(name)

    def names(self, folder: str) -> list[str]:
        """Of both."""
        theirs = [] if self._there is None else self._there.names(folder)
        return sorted({*self._own.names(folder), *theirs})

    def size(self, name: str) -> int:
        """Ours, else theirs."""
        with suppress(StoreUnavailable):
            return self._own.size(name)
        return self._other().size(name)

    def delete(self, name: str) -> None:
        """Ours; theirs stay."""
        self._own.delete(name)

    def _other(self) -> SnapshotStore:
        return self._own if self._there is None else self._there
