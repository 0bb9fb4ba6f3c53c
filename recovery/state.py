"""The declared state of one engine: what may be written, its digest, its changes, and how to go back.

A command's life: ``begin`` opens the tables; ``finish`` reads the notes of what was touched, encodes and hashes each changed
row once on either side, and returns the changes and the digest after; ``rollback`` puts the rows back instead.
``finish`` also returns the notes, with which ``undo`` takes back a step that was finished but never became durable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple

import msgspec

from journal import digest, values
from journal.errors import ValueRefused
from journal.framing import CHANGE, HAD_ROW, HAS_ROW, NO_CHANGES, VERSION, Change
from recovery.tables import ABSENT, Cell, Gate, Index, Table

_pack: Final = msgspec.msgpack.Encoder().encode
_DIRECT: Final = frozenset({type(None), bool, int, str, bytes})
_row_hash = digest.row_hash


class Undo(NamedTuple):
    """What takes one finished step back: old rows by table, and the digest before."""

    touched: list[tuple[Table[Any, Any], dict[Any, Any]]]
    sums: list[tuple[Table[Any, Any], int]]
    digest_bytes: bytes


class Finished(NamedTuple):
    """One finished step."""

    changes_bytes: bytes
    digest_bytes: bytes
    undo: Undo


class State:
    """The tables and cells of one engine, by name, behind one gate."""

    def __init__(self, declared: Mapping[str, Table[Any, Any] | Cell[Any] | Index[Any, Any]]) -> None:
        self.gate = Gate()
        self.members: dict[str, Table[Any, Any] | Cell[Any] | Index[Any, Any]] = {}
        tables = {}
        bound = {}
        for name, member in declared.items():
            if isinstance(member, Table):
                tables[name] = bound[id(member)] = self.members[name] = member._bound(self.gate)
            elif isinstance(member, Cell):
                cell = self.members[name] = member._bound(self.gate)
                tables[name] = cell._table
        for name, member in declared.items():
            if isinstance(member, Index):
                self.members[name] = member._bound(bound[id(member._declared)])
        self.tables: dict[str, Table[Any, Any]] = {name: tables[name] for name in sorted(tables, key=str.encode)}
        self._parts: dict[str, bytes] = dict.fromkeys(self.tables, b"")
        self.digest_bytes = digest.EMPTY

    # A command

    def begin(self) -> None:
        """Open the tables for writing."""
        self.gate.open = True

    def rollback(self) -> None:
        """Put back every row touched since ``begin``, and close."""
        gate = self.gate
        gate.open = False
        for table in gate.tables:
            _put_back(table, table._touched)
            table._touched = {}
        gate.tables.clear()

    def finish(self) -> Finished:
        """Close, and account for what changed.  ValueRefused where a row is not plain: then roll back."""
        gate = self.gate
        gate.open = False
        touched_tables = gate.tables
        if not touched_tables:
            return Finished(NO_CHANGES, self.digest_bytes, Undo([], [], self.digest_bytes))
        if len(touched_tables) > 1:
            touched_tables.sort(key=_by_name)
        parts = [VERSION]
        sums = [(table, table._sum) for table in touched_tables]
        deltas = [_account(table, parts) for table in touched_tables]
        # Nothing raises from here on: a refused row has left sums and notes as they were.
        undo = Undo([(table, table._touched) for table in touched_tables], sums, self.digest_bytes)
        for table, delta in zip(touched_tables, deltas, strict=True):
            table._touched = {}
            if delta is not None:
                table._sum = (table._sum + delta) % digest.MODULUS
                self._repack(table)
        gate.tables = []
        self.digest_bytes = digest.pack_tables(self._parts.values())
        return Finished(b"".join(parts), self.digest_bytes, undo)

    def undo(self, undo: Undo) -> None:
        """Take back the newest finished step."""
        for table, touched in undo.touched:
            _put_back(table, touched)
        for table, total in undo.sums:
            table._sum = total
            self._repack(table)
        self.digest_bytes = undo.digest_bytes

    def _repack(self, table: Table[Any, Any]) -> None:
        rows = len(table._rows)
        self._parts[table._name] = table._digest_label + digest.part_figures(rows, table._sum) if rows else b""

    # Restore, redo, capture

    def clear(self) -> None:
        """Make every table empty."""
        for table in self.tables.values():
            table._reset()
            self._parts[table._name] = b""
        self.digest_bytes = digest.EMPTY

    def load(
        self, blocks: Iterable[tuple[str, Sequence[Any], Sequence[Any]]], state_digest: digest.StateDigest
    ) -> None:
        """Replace the state by decoded rows, given as (table, keys, plain rows), whose digest has been verified."""
        self.clear()
        for name, keys, rows in blocks:
            table = self.tables[name]
            table._rows.update(zip(keys, _made(table, rows), strict=True))
        for name, table in self.tables.items():
            found = state_digest.tables.get(name)
            if found is not None:
                table._sum = found.hash
                self._repack(table)
            for index in table._indexes:
                index._reset(table._rows.items())
        self.digest_bytes = digest.pack_tables(self._parts.values())

    def redo(self, changes: Iterable[Change]) -> Finished:
        """Write recorded rows; the caller compares what comes out with the record."""
        self.begin()
        try:
            for change in changes:
                table = self.tables[change.table]
                if change.row_bytes is not None:
                    table[change.key] = table._as_row(change.row)
                elif change.key in table:
                    del table[change.key]
            return self.finish()
        except BaseException:
            self.rollback()
            raise

    def rows(self) -> Iterator[tuple[str, Iterator[tuple[bytes, bytes]]]]:
        """Every non-empty table with its rows as bytes, in name and key order: what an image holds."""
        for name, table in self.tables.items():
            if table._rows:
                yield name, _row_bytes(table)

    def recomputed(self) -> bytes:
        """The digest's bytes from all rows, not from what was kept up to date."""
        parts = []
        for name, table in self.tables.items():
            if table._rows:
                hashes = [_row_hash(key + row, table._seed) for key, row in _row_bytes(table)]
                parts.append(digest.TableDigest(len(hashes), sum(hashes) % digest.MODULUS).pack(name))
        return digest.pack_tables(parts)


def _by_name(table: Table[Any, Any]) -> bytes:
    return table._name_bytes


def _put_back(table: Table[Any, Any], touched: Mapping[Any, Any]) -> None:
    rows = table._rows
    for key, old in touched.items():
        now = rows.get(key, ABSENT)
        if now is not old:
            table._place(key, now, old)


def _account(table: Table[Any, Any], parts: list[bytes]) -> int | None:
    """Append a table's change frames to ``parts`` (journal/framing.py); the change of its sum, or None where nothing changed."""
    touched, rows, seed = table._touched, table._rows, table._seed
    name = table._name_bytes
    name_size = len(name)
    pack = CHANGE.pack
    delta = 0
    before = len(parts)
    for key in touched if len(touched) == 1 else sorted(touched):
        old, new = touched[key], rows.get(key, ABSENT)
        if old is new:
            continue
        key_bytes = values.encode_bare(key)
        if new is ABSENT:
            old_hash = _row_hash(key_bytes + encode_row(old), seed)
            parts += (pack(HAD_ROW, name_size, len(key_bytes), 0), old_hash.to_bytes(16, "big"), name, key_bytes)
            delta -= old_hash
            continue
        row_bytes = encode_row(new)
        if old is ABSENT:
            parts += (pack(HAS_ROW, name_size, len(key_bytes), len(row_bytes)), name, key_bytes, row_bytes)
        else:
            old_bytes = encode_row(old)
            if old_bytes == row_bytes:
                continue
            old_hash = _row_hash(key_bytes + old_bytes, seed)
            frame = pack(HAD_ROW | HAS_ROW, name_size, len(key_bytes), len(row_bytes))
            parts += (frame, old_hash.to_bytes(16, "big"), name, key_bytes, row_bytes)
            delta -= old_hash
        delta += _row_hash(key_bytes + row_bytes, seed)
    return delta if len(parts) > before else None


def encode_row(row: Any) -> bytes:
    """A row's canonical bytes: a NamedTuple is stored as the plain tuple of its fields."""
    if isinstance(row, tuple):
        if _DIRECT.issuperset(map(type, row)):
            try:
                return _pack(row)
            except (OverflowError, UnicodeEncodeError):
                pass
        _refuse_mutable(row)
        return values.encode_bare(tuple(row))
    return values.encode_bare(row)


def _refuse_mutable(row: tuple[Any, ...], path: str = "row") -> None:
    for at, item in enumerate(row):
        if type(item) in (list, dict):
            raise ValueRefused(
                f"{path}[{at}] is a {type(item).__name__}: rows are immutable; use a tuple, or a table of its own"
            )
        if type(item) is tuple:
            _refuse_mutable(item, f"{path}[{at}]")


def _made(table: Table[Any, Any], rows: Sequence[Any]) -> Iterable[Any]:
    if issubclass(table._row_type, tuple):
        return map(tuple.__new__, repeat(table._row_type), rows)
    return rows


def _row_bytes(table: Table[Any, Any]) -> Iterator[tuple[bytes, bytes]]:
    rows = table._rows
    for key in table._sorted():
        yield values.encode_bare(key), encode_row(rows[key])
