"""Entries as the rows of SQLite's table, and back, their types checked."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Final

from journal.errors import CorruptionError
from journal.records import Entry

RESTORE: Final = "restore a copy"

_B: Final = (bytes,)
_I: Final = (int,)
_NB: Final = (bytes, type(None))
_SHAPES: Final = frozenset(
    itertools.product(
        *(_I, _B, (str,), (str, type(None)), _I, _B, _I, _B, _B, _NB, _NB, _NB, _B, _B, _I, _I, _I, _I, _B)
    )
)
"""The types that an entry's columns may come back with; any other is damage."""


def parameters_of(entries: Sequence[Entry], at: int) -> list[tuple[object, ...]]:
    """Entries, each behind its position, which is counted from ``at``, as the driver takes them fastest.

    ``sqlite3`` looks for an adapter for each value but int, float, str and bytearray, which doubles the cost of an insert.
    """
    b = bytearray
    # fmt: off
    return [
        (at + i, i, b(k), t, e, r, b(d), +j, b(x), b(v), c and b(c), p and b(p), q and b(q), b(h), b(w), +z, o, n, m, b(s))
        for i, k, t, e, r, d, j, x, v, c, p, q, h, w, z, o, n, m, s in entries
    ]
    # fmt: on


def entries_of(rows: list[tuple[Any, ...]]) -> list[Entry]:
    """Rows as entries, their types checked.  CorruptionError, without a position, where one is not as it was written."""
    make = Entry._make
    shapes = _SHAPES
    entries = []
    for row in rows:
        if tuple(map(type, row)) not in shapes:
            raise CorruptionError(
                "the entry has a column of another type than was written, or lies in another's place", hint=RESTORE
            )
        entries.append(make((*row[:6], row[6] != 0, *row[7:14], row[14] != 0, *row[15:])))
    return entries
