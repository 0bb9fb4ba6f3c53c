"""The demo's engines with one bug planted: now and then they take "the first" of a set of text, whose order is PYTHONHASHSEED's.

Under a seed that happens to put the right one first the bug does not show, which is how such bugs get into production.
"""

from __future__ import annotations

from itertools import islice
from typing import Any, Final

from recovery.engine import Command, Context
from recovery.examples.exchange import Book, Exchange
from recovery.examples.feed_book import FeedBook
from recovery.table_engine import TableEngine

EVERY: Final = 11
CANDIDATES: Final = 8


def _favour_one(engine: Any, command_id: int) -> None:
    table: Any = engine.orders if len(engine.orders) > 1 else getattr(engine, "accounts", ())
    if command_id % EVERY or len(table) < 2:
        return
    keys = {str(key): key for key in islice(table, CANDIDATES)}
    favoured = keys[next(iter(set(keys)))]
    if favoured != next(iter(table)):
        row = table[favoured]
        name = row._fields[1]
        table[favoured] = row._replace(**{name: row[1] + 1})


class PlantedBook(Book):
    """``Book`` with the bug."""

    def apply(self, context: Context, command: Command) -> Any:
        """The command, and then the bug."""
        response = super().apply(context, command)
        _favour_one(self, context.command_id)
        return response


class PlantedExchange(Exchange):
    """``Exchange`` with the bug."""

    def apply(self, context: Context, command: Command) -> Any:
        """The command, and then the bug."""
        response = super().apply(context, command)
        _favour_one(self, context.command_id)
        return response


class PlantedFeedBook(FeedBook):
    """``FeedBook`` with the bug."""

    def apply(self, context: Context, command: Command) -> Any:
        """The command, and then the bug."""
        response = super().apply(context, command)
        _favour_one(self, context.command_id)
        return response


PLANTED: Final[dict[str, type[TableEngine]]] = {
    engine.name: engine for engine in (PlantedBook, PlantedExchange, PlantedFeedBook)
}


def planted_spec(name: str) -> str:
    """``module:attr`` of the engine of this name with the bug planted."""
    return f"{__name__}:{PLANTED[name].__name__}"
