"""Everything public, which ``recovery`` gives: imported when the first of it is asked for (recovery/__init__.py)."""

from __future__ import annotations

from journal.delivery import Message
from journal.errors import (
    BrokenChain,
    ChecksumMismatch,
    ClockAhead,
    CorruptionError,
    DeliveryFailed,
    DivergenceError,
    EngineImportError,
    EngineMismatch,
    EvidenceAhead,
    Gap,
    JournalInUse,
    NewerSchema,
    Nondeterminism,
    NothingVerified,
    OrphanedTail,
    OutcomeUnknown,
    Overloaded,
    ProjectionBehind,
    ProjectionFailed,
    RecoveryError,
    RequestConflict,
    StoreUnavailable,
    TornTail,
    Trimmed,
    UnavailableError,
    UnknownFormat,
    UnknownScheme,
    UsageError,
    ValueRefused,
    WorkerLost,
    WriterFenced,
    WriterPoisoned,
)
from journal.journal import Journal
from journal.outbox import Outbox
from journal.projections import Projection
from journal.records import Command, Event, Receipt, Reject
from journal.urls import open_reader
from recovery.bisection import bisect
from recovery.divergence import Divergence
from recovery.engine import Context, Engine, command
from recovery.observer import Observer
from recovery.report import Report
from recovery.runtime import Runtime
from recovery.table_engine import TableEngine
from recovery.tables import Cell, Index, Table
from recovery.verification import verify
from recovery.version import VERSION as __version__
from snapshots.catalog import Catalog
from snapshots.urls import open_snapshot_store


def open_journal(url: str, *, stream: str = "main") -> Journal:
    """The record of a stream, for reading: ``open_journal("sqlite:till.db").read(after=0)`` yields its entries."""
    return Journal(open_reader(url), stream)


def open_snapshots(url: str, *, stream: str = "main") -> Catalog:
    """The images of a stream."""
    return Catalog(open_snapshot_store(url), stream)


__all__ = [
    "BrokenChain",
    "Cell",
    "ChecksumMismatch",
    "ClockAhead",
    "Command",
    "Context",
    "CorruptionError",
    "DeliveryFailed",
    "Divergence",
    "DivergenceError",
    "Engine",
    "EngineImportError",
    "EngineMismatch",
    "Event",
    "EvidenceAhead",
    "Gap",
    "Index",
    "Journal",
    "JournalInUse",
    "Message",
    "NewerSchema",
    "Nondeterminism",
    "NothingVerified",
    "Observer",
    "OrphanedTail",
    "Outbox",
    "OutcomeUnknown",
    "Overloaded",
    "Projection",
    "ProjectionBehind",
    "ProjectionFailed",
    "Receipt",
    "RecoveryError",
    "Reject",
    "Report",
    "RequestConflict",
    "Runtime",
    "StoreUnavailable",
    "Table",
    "TableEngine",
    "TornTail",
    "Trimmed",
    "UnavailableError",
    "UnknownFormat",
    "UnknownScheme",
    "UsageError",
    "ValueRefused",
    "WorkerLost",
    "WriterFenced",
    "WriterPoisoned",
    "__version__",
    "bisect",
    "command",
    "open_journal",
    "open_snapshots",
    "verify",
]
