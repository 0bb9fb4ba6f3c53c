"""The recovery framework that proves itself.

Everything public is importable from here.
"""

from __future__ import annotations

from journal.records import Command, Event, Receipt, Reject
from recovery.engine import Context, Engine, command
from recovery.table_engine import TableEngine
from recovery.tables import Cell, Index, Table

__all__ = ["Cell", "Command", "Context", "Engine", "Event", "Index", "Receipt", "Reject", "Table", "TableEngine", "command"]
