"""Entries as the rows of SQLite's table, and back, their types checked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from journal.errors import CorruptionError
from journal.records import Entry, unchecked_entry

RESTORE: Final = "restore a copy"

_B: Final = frozenset({bytes})
_I: Final = frozenset({int})
_T: Final = frozenset({str})
_NB: Final = frozenset({bytes, type(None)})
_NT: Final = frozenset({str, type(None)})
_TYPES: Final = (_I, _B, _T, _NT, _I, _B, _I, _B, _B, _NB, _NB, _NB, _B, _B, _I, _I, _I, _I, _B)
"""The types that an entry's columns may come back with; any other is damage."""
_TRUTHS: Final = (Entry._fields.index("rejected"), Entry._fields.index("events_reduced"))


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
    if not rows:
        return []
    # By columns, so that the loops over the rows run in C.
    columns: list[Iterable[Any]] = list(zip(*rows, strict=True))
    for column, types in zip(columns, _TYPES, strict=True):
        if not types.issuperset(map(type, column)):
            raise CorruptionError(
                "the entry has a column of another type than was written, or lies in another's place", hint=RESTORE
            )
    for at in _TRUTHS:
        columns[at] = map(bool, columns[at])
    return list(map(unchecked_entry, zip(*columns, strict=True)))
