"""Projections: tables of the user's, written in the journal's own transaction, so exactly once.

A ``Projection`` says which tables it owns and which statements an entry means for them.  ``Projector`` does the rest:

* what can be known before, is: ``statements`` runs when an entry is sealed, and what it raises refuses the command as a failed
  ``apply`` does;
* the statements of a batch run in the transaction of its ``append``, after the entries, in order;
* a row of ``projection_progress`` moves with them, in the same transaction, from the command before the batch to its last.  It
  must be found where the batch begins, so no command can be projected twice, or passed over.

::

    projection_progress  name (primary key), stream, version, command_id: the last command the tables hold

A projection belongs to one stream.  What it holds and what the journal holds are compared at every opening.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Final, NamedTuple

from journal.errors import (
    EvidenceAhead,
    ProjectionBehind,
    ProjectionFailed,
    UsageError,
    WriterPoisoned,
)
from journal.event_detail import EventDetail
from journal.files import kill_point
from journal.records import Entry, JournalIdentity, check_text
from journal.sql import check_statement
from journal.store import JournalStore, SqlCursor, SqlJournalStore

Statement = tuple[str, Sequence[object]]
"""One statement that changes rows, with a ``?`` for each of its parameters, and these."""

_MADE: Final = (
    "CREATE TABLE IF NOT EXISTS projection_progress "
    "(name VARCHAR(255) PRIMARY KEY, stream VARCHAR(255) NOT NULL, version BIGINT NOT NULL, command_id BIGINT NOT NULL)"
)
_FOUND: Final = "SELECT name, stream, version, command_id FROM projection_progress ORDER BY name"
_BEGUN: Final = "INSERT INTO projection_progress (name, stream, version, command_id) VALUES (?, ?, ?, 0)"
_MOVED: Final = (
    "UPDATE projection_progress SET command_id = ? WHERE name = ? AND stream = ? AND version = ? AND command_id = ? "
    "RETURNING command_id"
)
PROGRESS_ENDED: Final = "DELETE FROM projection_progress WHERE name = ?"


class Projection(ABC):
    """Tables of yours, and what each entry means for them.  Subclass it; give an instance, or the class, to the runtime."""

    name: ClassVar[str]
    """Under which its progress is kept."""

    version: ClassVar[int] = 1
    """To be raised with every change of the tables or of what is written to them: they are then filled anew."""

    tables: ClassVar[tuple[str, ...]]
    """The tables it owns; nobody else writes to them."""

    required_types: ClassVar[tuple[str, ...]] = ()
    """The types of events it handles."""

    requires_changes: ClassVar[bool] = False
    """Whether it reads the rows that an entry changed, which a journal made with ``changes="none"`` does not record."""

    @abstractmethod
    def schema(self, dialect: str) -> Sequence[str]:
        """The statements that make its tables; ``dialect`` is "sqlite" or "postgresql"."""

    @abstractmethod
    def statements(self, entry: Entry) -> Iterable[Statement]:
        """What to write for one entry, in order: from the entry alone.  What it raises refuses the command.

        Statements of the same text that follow each other are run together, so the fewer texts, the faster.
        """


class Progress(NamedTuple):
    """How far a projection's tables have come."""

    name: str
    stream: str
    version: int
    command_id: int


def progress_of(store: JournalStore) -> dict[str, Progress]:
    """The progress of every projection in a store, by name; none where it holds none, or is no database."""
    if not isinstance(store, SqlJournalStore) or not store.has_table("projection_progress"):
        return {}
    return {row[0]: Progress(*row) for row in store.query(_FOUND)}


class Projector:
    """The projections of one stream, as its writer drives them."""

    def __init__(self, given: Iterable[Projection | type[Projection]], stream: str) -> None:
        self.projections = tuple(one() if isinstance(one, type) else one for one in given)
        self._stream = stream
        self._prepared: dict[int, list[list[Statement]]] = {}
        for one in self.projections:
            _check_declared(one)
        for what, names in (
            ("name", [one.name for one in self.projections]),
            ("table", [table.lower() for one in self.projections for table in one.tables]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise UsageError(f"two projections have one {what}: {', '.join(twice)}")

    @property
    def handled(self) -> frozenset[str]:
        """The types of events that some projection handles."""
        return frozenset(name for one in self.projections for name in one.required_types)

    # Opening

    def check(self, store: JournalStore, identity: JournalIdentity, detail: EventDetail, head: int) -> None:
        """Refuse what could not be projected, before anything is written.

        UsageError for a store that is no database, events that are not kept, rows that are not recorded, or a projection of
        another stream or version; ProjectionBehind where its tables do not reach ``head``; EvidenceAhead where they are beyond.
        """
        if not self.projections:
            return
        sql_store(store)
        detail.require_full("projections")
        found = progress_of(store)
        for one in self.projections:
            check_rows(one, identity)
            progress = found.get(one.name)
            if progress is not None:
                check_progress(one, progress, self._stream, head)
            if head and (progress is None or progress.command_id < head):
                has = f"ends at command {progress.command_id}" if progress else "was never filled"
                raise ProjectionBehind(
                    f"projection {one.name!r} {has}, and the journal at command {head}",
                    hint=f"fill it: {_backfill(one, store, self._stream)}",
                )

    def attach(self, store: JournalStore) -> None:
        """Make what is missing, in one transaction, and be called in every append from now on."""
        if not self.projections:
            return
        found = progress_of(store)
        database = sql_store(store)
        missing = [one for one in self.projections if one.name not in found]
        if missing:
            database.transact(lambda cursor: begin(cursor, missing, self._stream))
        database.attach(self._stream, self.project)

    # The path of a command

    def prepare(self, entry: Entry) -> None:
        """Work out what an entry means.  ProjectionFailed where a projection raises, or gives what cannot be run."""
        if not self.projections:
            return
        prepared: list[list[Statement]] = []
        for one in self.projections:
            try:
                statements = [_checked(sql, parameters) for sql, parameters in one.statements(entry)]
            except Exception as error:
                raise ProjectionFailed(
                    f"projection {one.name!r} refuses {entry.type}: {type(error).__name__}: {error}",
                    position=entry.command_id,
                    hint="nothing was recorded; mend the projection, or what the command brings",
                ) from error
            prepared.append(statements)
        self._prepared[entry.command_id] = prepared

    def project(self, cursor: SqlCursor, entries: Sequence[Entry]) -> None:
        """Write what was prepared, in the transaction of the append.  ProjectionFailed; with a position for a lone entry."""
        kill_point("project.before")
        for at, one in enumerate(self.projections):
            with _naming([one], entries):
                for sql, rows in _runs(self._prepared[entry.command_id][at] for entry in entries):
                    if len(rows) == 1:
                        cursor.execute(sql, rows[0])
                    else:
                        cursor.executemany(sql, rows)
            self._move(cursor, one, entries)
        with _naming(self.projections, entries):
            cursor.check_deferred()

    def _move(self, cursor: SqlCursor, one: Projection, entries: Sequence[Entry]) -> None:
        before, after = entries[0].command_id - 1, entries[-1].command_id
        if not cursor.execute(_MOVED, (after, one.name, self._stream, one.version, before)):
            raise WriterPoisoned(
                f"projection {one.name!r} is not at command {before}: something else has written its progress",
                position=before + 1,
                hint="open again: it says where the projection stands",
            )

    def forget(self) -> None:
        """What was prepared is written, or was given up."""
        self._prepared.clear()


def _checked(sql: str, parameters: Sequence[object]) -> Statement:
    """The statement, if it can be run, with parameters that nobody else can change before it is."""
    check_statement(sql, parameters)
    return sql, tuple(parameters)


def _runs(prepared: Iterable[list[Statement]]) -> Iterator[tuple[str, list[Sequence[object]]]]:
    """Statements in order, those of one text that follow each other together."""
    text = ""
    rows: list[Sequence[object]] = []
    for statements in prepared:
        for sql, parameters in statements:
            if sql != text and rows:
                yield text, rows
                rows = []
            text = sql
            rows.append(parameters)
    if rows:
        yield text, rows


@contextmanager
def _naming(projections: Sequence[Projection], entries: Sequence[Entry]) -> Iterator[None]:
    """A refusal of the database with the projection that it was of, and the command where there is but one."""
    try:
        yield
    except ProjectionFailed as failed:
        raise ProjectionFailed(
            f"projection {' or '.join(repr(one.name) for one in projections)}: {failed.message}",
            position=entries[0].command_id if len(entries) == 1 else None,
            hint="nothing was recorded; its tables do not take what the command means for them",
        ) from failed.__cause__


def begin(cursor: SqlCursor, projections: Iterable[Projection], stream: str) -> None:
    """Make the tables of projections, and the row of each that says they hold nothing yet."""
    cursor.execute(_MADE)
    for one in projections:
        try:
            for sql in one.schema(cursor.dialect):
                cursor.execute(sql)
        except ProjectionFailed as failed:
            raise UsageError(
                f"the tables of projection {one.name!r} cannot be made: {failed.message}",
                hint="a table of that name may be there already, and belong to something else",
            ) from failed.__cause__
        cursor.execute(_BEGUN, (one.name, stream, one.version))


def sql_store(store: JournalStore) -> SqlJournalStore:
    """The store as a database.  UsageError where it is none."""
    if not isinstance(store, SqlJournalStore):
        raise UsageError(
            f"projections need an SQL store, and {store.location} is none",
            hint="keep the journal in sqlite:PATH or postgresql://…",
        )
    return store


def _check_declared(one: object) -> None:
    if not isinstance(one, Projection):
        raise UsageError(f"{one!r} is a {type(one).__name__}, not a Projection")
    kind = type(one).__name__
    check_text(getattr(one, "name", None), f"{kind}.name")
    tables = getattr(one, "tables", None)
    if not one.name or not isinstance(tables, tuple) or not tables:
        raise UsageError(f"{kind} must have a name, and tables: the tuple of the names of those it owns")
    if type(one.version) is not int or isinstance(one.required_types, str):
        raise UsageError(f"{kind}.version is an int, and required_types a tuple of event types")


def check_rows(one: Projection, identity: JournalIdentity) -> None:
    """Raise UsageError where a projection needs the changed rows and the journal has none."""
    if one.requires_changes and identity.changes != "rows":
        raise UsageError(f"projection {one.name!r} needs the changed rows, and this journal records none")


def check_progress(one: Projection, found: Progress, stream: str, head: int) -> None:
    """Raise UsageError or EvidenceAhead where a projection's tables are not of this stream, version and history."""
    check_stream(one, found, stream)
    if found.version != one.version:
        raise UsageError(
            f"the tables of projection {one.name!r} are of version {found.version}, and this is version {one.version}",
            hint=f"fill them anew: recovery backfill --anew --projection {spec_of(one)}",
        )
    if found.command_id > head:
        raise EvidenceAhead(
            f"projection {one.name!r} holds command {found.command_id}, and the journal ends at command {head}: "
            "the journal lost its end",
            position=found.command_id,
            hint=f"restore the journal; or let go of what was lost: recovery backfill --anew --projection {spec_of(one)}",
        )


def check_stream(one: Projection, found: Progress, stream: str) -> None:
    """Raise UsageError where a projection's tables are of another stream."""
    if found.stream != stream:
        raise UsageError(
            f"projection {one.name!r} is of stream {found.stream!r}, not {stream!r}",
            hint="give the projection of another stream a name and tables of its own",
        )


def spec_of(one: Projection) -> str:
    """MODULE:ATTR of a projection's class."""
    return f"{type(one).__module__}:{type(one).__qualname__}"


def _backfill(one: Projection, store: JournalStore, stream: str) -> str:
    of_stream = f" --stream {stream}" if stream != "main" else ""
    return f"recovery backfill --journal {store.location}{of_stream} --projection {spec_of(one)}"


def require_handled(handled: frozenset[str], engine: str, wanted: Iterable[str]) -> None:
    """Raise UsageError where an engine emits events that must be projected, and no projection handles them."""
    missing = sorted(set(wanted) - handled)
    if missing:
        raise UsageError(
            f"engine {engine!r} emits {', '.join(missing)}, which must be projected, and no projection handles them",
            hint="open it with projections=(…)",
        )
