"""SpotCheck: a few live rows after each batch, so that rows changed behind the framework's back are found.

A pass over a table proves the sum of its row hashes as it was when the pass began: a row that a command has touched since
counts with the hash that command found, any other with the hash of what is there now.  So each row is read once a pass, and a
row that was changed by no command makes the pass end in another sum, whenever it was changed.  It finds the table; a replay
finds the row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from journal import digest, framing, values
from journal.errors import DivergenceError
from recovery.state import State, encode_row
from recovery.tables import ABSENT, Table


class SpotCheck:
    """Passes over the tables of a state, one table after the other, for ever."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._names: Iterator[str] = iter(())
        self._table: Table[Any, Any] | None = None
        self._keys: list[Any] = []
        self._touched: dict[bytes, int] = {}
        self._expected = 0
        self._sum = 0

    def note(self, changes_bytes: bytes | None) -> None:
        """A command changed rows: remember what the table under the pass held before."""
        if self._table is None or changes_bytes is None or len(changes_bytes) == 1:
            return
        for change in framing.unpack_changes(changes_bytes):
            if change.table == self._table._name:
                self._touched.setdefault(change.key_bytes, change.old_hash or 0)

    def run(self, rows: int) -> None:
        """Read this many rows.  DivergenceError names the table in which a row is not what commands made it."""
        for _ in range(rows):
            if self._keys:
                self._sum += self._hash(self._keys.pop())
            elif self._table is None:
                self._next_table()
            else:
                self._end_pass(self._table)

    def _hash(self, key: Any) -> int:
        assert self._table is not None
        key_bytes = values.encode_bare(key)
        known = self._touched.get(key_bytes)
        if known is not None:
            return known
        row = self._table._rows.get(key, ABSENT)
        return 0 if row is ABSENT else digest.row_hash(key_bytes + encode_row(row), self._table._seed)

    def _next_table(self) -> None:
        name = next(self._names, None)
        if name is None:
            self._names = iter(self._state.tables)
            return
        table = self._state.tables[name]
        self._table, self._keys = table, list(table._rows)
        self._expected, self._sum, self._touched = table._sum, 0, {}

    def _end_pass(self, table: Table[Any, Any]) -> None:
        self._table = None
        if self._sum % digest.MODULUS != self._expected:
            raise DivergenceError(
                f"a row of table {table._name} was changed by no command",
                expected=f"{self._expected:032x}",
                found=f"{self._sum % digest.MODULUS:032x}",
                hint="open again: the state is rebuilt from the journal; then run recovery replay --verify",
            )
