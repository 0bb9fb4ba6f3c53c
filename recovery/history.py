"""The state as it was, and how two points differ: from images and recorded rows, without the engine.

An engine without tables records no rows: its state is its captured value, and getting there takes the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from journal import values
from journal.errors import UsageError
from journal.journal import Journal
from recovery.images import place
from recovery.loading import engine_factory
from recovery.replayer import Replayer
from recovery.stepper import CaptureStepper, make_stepper
from snapshots.catalog import Candidate, Catalog
from snapshots.redo import merge, net_changes

Rows = dict[str, dict[bytes, bytes]]


class RowDifference(NamedTuple):
    """One row that differs between two points; None where there is no row."""

    table: str
    key: Any
    before: Any
    after: Any


def rows_at(
    journal: Journal, catalog: Catalog | None, command_id: int, *, tables: frozenset[str] | None = None
) -> Rows:
    """All rows after a command, as bytes by table and key bytes, in order; only of these tables where some are named."""
    _require_recorded(journal, command_id)
    rows: Rows = {}
    for table, pairs in _redone(journal, catalog, command_id):
        if tables is None or table in tables:
            rows[table] = dict(pairs)
        else:
            for _ in pairs:  # the stream goes by, in order
                pass
    return rows


def _redone(journal: Journal, catalog: Catalog | None, command_id: int) -> Iterator[tuple[str, Any]]:
    base = _base(journal, catalog, command_id)
    if base is None:
        changes = net_changes(journal.read(0, command_id), after=0, digest_bytes=None)
        yield from merge((), changes)
        return
    header = base.header
    entries = journal.read(header.command_id, command_id)
    changes = net_changes(entries, after=header.command_id, digest_bytes=header.post_digest_bytes)
    with base.open() as reader:
        yield from merge(reader.rows(), changes)


def _base(journal: Journal, catalog: Catalog | None, command_id: int) -> Candidate | None:
    if catalog is None:
        return None
    identity = journal.identity
    candidates = catalog.newest(
        journal,
        journal_id=identity.journal_id,
        engine=identity.engine,
        at_or_before=command_id,
        report=lambda step: None,
    )
    return next(candidates, None)


def _require_recorded(journal: Journal, command_id: int) -> None:
    identity, head = journal.identity, journal.head().command_id
    if not 0 <= command_id <= head:
        raise UsageError(f"the journal ends at command {head}; there is no state at {command_id}")
    if journal.store.redacted:
        raise UsageError(f"{journal.store.location} is redacted: its rows are not those that were recorded")
    if identity.changes != "rows" or identity.digest_every:
        raise UsageError(
            f"the journal of {identity.engine} records no rows, so its state is only known to the engine",
            hint="say --engine MODULE:ATTR: its commands are executed",
        )


def captured_at(journal: Journal, catalog: Catalog | None, command_id: int, engine: str, *, app_dir: str) -> Any:
    """The captured value of an engine without tables after a command, by executing from the newest image."""
    identity = journal.identity
    stepper = make_stepper(engine_factory(engine, app_dir=app_dir), identity.seed, identity.digest_every)
    if not isinstance(stepper, CaptureStepper):
        raise UsageError(f"{stepper.name} has tables, but its journal records no rows")
    placed = place(stepper, catalog, journal, command_id)
    Replayer(stepper, journal.epochs()).rebuild(journal.read(placed.command_id, command_id))
    return values.decode(stepper.capture_bytes())


def differences(before: Rows, after: Rows) -> Iterator[RowDifference]:
    """The rows that differ, by table and key."""
    for table in sorted(before.keys() | after.keys(), key=str.encode):
        ours, theirs = before.get(table, {}), after.get(table, {})
        changed = [key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]
        for key, key_bytes in sorted((values.decode_bare(key), key) for key in changed):
            yield RowDifference(table, key, _row(ours.get(key_bytes)), _row(theirs.get(key_bytes)))


def _row(row_bytes: bytes | None) -> Any:
    return None if row_bytes is None else values.decode_bare(row_bytes)
