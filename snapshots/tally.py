"""The digest of rows that come in the order of an image, and the proof that they do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice, repeat
from operator import lt
from typing import Any

from journal import digest
from journal.errors import UnknownFormat


class Tally:
    """Counts rows as they come, in the order of an image; ``rows`` is how many."""

    def __init__(self) -> None:
        self.rows = 0
        self._parts: list[bytes] = []
        self._table: str | None = None
        self._table_rows = 0
        self._sum = 0
        self._last_key: Any = None

    def add(self, table: str, keys: Sequence[Any], pairs: Iterable[bytes]) -> None:
        """Count rows of ``table``, at least one, given as decoded keys and as key and row bytes joined.

        UnknownFormat where they do not follow those before.
        """
        if table != self._table:
            if self._table is not None and table.encode() <= self._table.encode():
                raise UnknownFormat(f"table {table!r} comes after table {self._table!r}, not in the order of names")
            self._close_table()
            self._table = table
        elif not _ascend((self._last_key, keys[0])):
            raise _out_of_order(table)
        if not _ascend(keys):
            raise _out_of_order(table)
        self._last_key = keys[-1]
        self.rows += len(keys)
        self._table_rows += len(keys)
        self._sum += sum(map(digest.row_hash, pairs, repeat(digest.table_seed(table))))

    def digest_bytes(self) -> bytes:
        """The packed StateDigest of all rows counted; asked for once, at the end."""
        self._close_table()
        return digest.pack_tables(self._parts)

    def _close_table(self) -> None:
        if self._table is not None:
            self._parts.append(digest.TableDigest(self._table_rows, self._sum % digest.MODULUS).pack(self._table))
        self._table_rows = self._sum = 0


def _ascend(keys: Sequence[Any]) -> bool:
    try:
        return all(map(lt, keys, islice(keys, 1, None)))
    except TypeError:  # keys of two types
        return False


def _out_of_order(table: str) -> UnknownFormat:
    return UnknownFormat(f"keys of table {table!r} are not in ascending order")
