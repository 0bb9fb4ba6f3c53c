"""The order-flow file, version 1, and its commands for ``exchange:Book``.

An xz stream of one line of JSON, and then four columns of ``count`` entries each, without anything between or after::

    code       u8       kind | side << 2 | ioc << 3; kind 0 new, 1 cancel, 2 modify; side 0 buy, 1 sell
    quantity   u8       lots; of no meaning for a cancel
    order_id   i32le    minus the one in the row before (0 before the first)
    price      i32le    ticks, likewise; of no meaning for a cancel

The line holds ``format`` ("orderflow-v1"), ``count``, ``scenario``, ``seed``, and the right answer: ``resting``, how many
orders are open at the end, and ``reports_sha256``, of the text of all reports.  That text is one line a report, joined by
``\\n``: the report's first number, the row number from 0, and the report's other numbers, joined by commas.  A refused
cancel is ``4,ROW,ORDER_ID``, a refused modify ``5,ROW,ORDER_ID``.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import sys
from array import array
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice
from os import PathLike
from typing import Any, Final, Literal

from recovery import Command, Receipt, UsageError
from recovery.examples.exchange import Book
from recovery.examples.request_ids import numbered

FORMAT: Final = "orderflow-v1"
HEADER_BYTES_MAX: Final = 64 * 2**10
COUNT_MAX: Final = 2**24
BEGAN_MS: Final = 1_700_000_000_000
"""The rows carry no time: they are given one a millisecond from here on."""

_ROW_BYTES: Final = 10
_KIND: Final = 0b11
_IOC: Final = 0b1000
_CODES: Final = bytes((0, 4, 8, 12, 1, 5, 2, 6))
_REFUSALS: Final = {"cancel_rejected": 4, "modify_rejected": 5}


class OrderFlow:
    """A workload read from such a file, whole, at ten bytes a command.  UsageError where the file is not one."""

    engine = "recovery.examples.exchange:Book"

    def __init__(self, path: str | PathLike[str], *, commands: int | None = None) -> None:
        header, columns = _read(path)
        self.total: int = header["count"]
        self.count = self.total if commands is None else min(commands, self.total)
        self.name = f"{FORMAT} {header.get('scenario', '')} {header.get('seed', '')}".rstrip()
        self._resting: int | None = header.get("resting")
        self._sha256: str | None = header.get("reports_sha256")
        self._codes = columns[: self.total]
        self._quantities = columns[self.total : 2 * self.total]
        self._id_steps = _int32(columns[2 * self.total : 6 * self.total])
        self._price_steps = _int32(columns[6 * self.total :])

    def commands(self, after: int = 0) -> Iterator[Command]:
        """The commands after the first ``after``."""
        request_id = numbered(self.name)
        rows = zip(
            self._codes, self._quantities, accumulate(self._id_steps), accumulate(self._price_steps), strict=True
        )
        for row, (code, quantity, order_id, price) in enumerate(islice(rows, after, self.count), after):
            kind = code & _KIND
            data: dict[str, Any]
            if kind == 0:
                type = "new"
                data = {"order_id": order_id, "side": code >> 2 & 1, "price": price, "quantity": quantity}
                if code & _IOC:
                    data["ioc"] = True
            elif kind == 1:
                type, data = "cancel", {"order_id": order_id}
            else:
                type, data = "modify", {"order_id": order_id, "price": price, "quantity": quantity}
            yield Command(type, data, request_id=request_id(row), received_at_ms=BEGAN_MS + row)

    def right_answer(self, engine: Book, receipts: Iterable[Receipt]) -> Literal["match", "mismatch", "none"]:
        """Whether the reports are the published ones; "none" for a part of the file, or where none are published.

        ``receipts``: of all commands, in order.  ``engine``: as it is after them.
        """
        if self._sha256 is None or self.count < self.total:
            return "none"
        if self._resting is not None and len(engine.orders) != self._resting:
            return "mismatch"
        return "match" if reports_sha256(receipts) == self._sha256 else "mismatch"


def reports_sha256(receipts: Iterable[Receipt]) -> str:
    """The digest of the reports' text, in hexadecimal.  Command 1 is row 0."""
    text = hashlib.sha256()
    between = ""
    for receipt in receipts:
        lines = list(report_lines(receipt))
        if lines:
            text.update((between + "\n".join(lines)).encode())
            between = "\n"
    return text.hexdigest()


def report_lines(receipt: Receipt) -> Iterator[str]:
    """The reports of one command as lines of the published text."""
    row = receipt.command_id - 1
    if receipt.rejection is not None:
        code, message = receipt.rejection
        # A rejection the format has no line for shows as one that no right answer holds.
        yield f"{_REFUSALS.get(code, code)},{row},{message}"
        return
    for kind, *rest in receipt.response:
        yield f"{kind},{row},{','.join(map(str, rest))}"


def _read(path: str | PathLike[str]) -> tuple[dict[str, Any], bytes]:
    try:
        with lzma.open(path) as file:
            header = _header(file.readline(HEADER_BYTES_MAX))
            size = _ROW_BYTES * header["count"]
            columns = file.read(size + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (lzma.LZMAError, EOFError) as error:
        raise UsageError(f"{path} is no order-flow file, or not whole: {error}") from error
    except _BadHeader as error:
        raise UsageError(f"{path} is no order-flow file: {error}") from error
    if len(columns) != size:
        found = f"{len(columns)}" if len(columns) < size else "more"
        raise UsageError(f"{path} holds {found} bytes after its first line, not {size} for its {header['count']} rows")
    if columns[: header["count"]].translate(None, _CODES):
        raise UsageError(f"{path} holds a row that is no new, cancel or modify")
    return header, columns


class _BadHeader(Exception):
    """What is wrong with the first line."""


def _header(line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except ValueError:
        raise _BadHeader("its first line is not JSON") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise _BadHeader(f"its first line does not say {FORMAT}")
    count, digest = header.get("count"), header.get("reports_sha256")
    if type(count) is not int or not 0 < count <= COUNT_MAX:
        raise _BadHeader(f"its count is {count!r}, not 1 to {COUNT_MAX}")
    if digest is not None and type(digest) is not str:
        raise _BadHeader(f"its reports_sha256 is {digest!r}, not text")
    return header


def _int32(column: bytes) -> array[int]:
    numbers = array("i", column)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
