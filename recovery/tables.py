"""Table, Cell and Index: the state of a ``TableEngine``, and nothing else is.

A table is a dict, plus a list of its keys in order from the first time that order is asked for.  Each write first notes
the row that was there, once a command, in ``_touched``; rollback and the digest (recovery/state.py) live from these notes.
Order is always that of the keys (Python's ``<``), so no history but the rows themselves can show in an iteration.
"""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, MutableMapping, ValuesView
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Generic, TypeVar, cast, get_args, get_origin, overload
from uuid import UUID

from sortedcontainers import SortedList

from journal import digest, values
from journal.errors import DivergenceError, UsageError, ValueRefused

K = TypeVar("K")
R = TypeVar("R")
T = TypeVar("T")


class Absent:
    """The row that is not there."""

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent()

_SCALARS: Final = (str, int, bytes)
_ROWS: Final = (bool, int, float, str, bytes, Decimal, datetime, UUID, tuple)


class Gate:
    """Shared by the tables of one engine: whether they may be written, and which were touched in this command."""

    __slots__ = ("open", "tables")

    def __init__(self) -> None:
        self.open = False
        self.tables: list[Table[Any, Any]] = []


class Table(MutableMapping[K, R]):
    """Rows by key: ``accounts = Table(str, Account)`` in the body of a ``TableEngine``.

    Keys are str, int, bytes or a tuple of these (``tuple[str, int]``), rows a NamedTuple of plain immutable values or one
    plain scalar.  A mapping, iterated in key order.  Written only inside ``apply``, else UsageError.
    """

    def __init__(self, key_type: type[K], row_type: type[R]) -> None:
        self._key_type = key_type
        self._row_type = _row_class(row_type)
        self._key_class, self._key_items = _key_shape(key_type)
        self._name = ""
        self._name_bytes = b""
        self._digest_label = b""
        self._seed = 0
        self._gate = Gate()
        self._rows: dict[K, R] = {}
        self._touched: dict[K, R | Absent] = {}
        self._order: SortedList[K] | None = None
        self._indexes: tuple[Index[K, R], ...] = ()
        self._layout_changes = 0
        self._sum = 0

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def _bound(self, gate: Gate) -> Table[K, R]:
        """A table of this declaration, for one engine."""
        table = type(self)(self._key_type, self._row_type)
        table._name = self._name
        # Needed for every changed row, or every changed table of every command.
        table._name_bytes = self._name.encode()
        table._digest_label = digest.part_label(self._name)
        table._seed = digest.table_seed(self._name)
        table._gate = gate
        return table

    # Reading

    def __getitem__(self, key: K) -> R:
        return self._rows[key]

    @overload
    def get(self, key: K, /) -> R | None: ...
    @overload
    def get(self, key: K, default: R, /) -> R: ...
    @overload
    def get(self, key: K, default: T, /) -> R | T: ...
    def get(self, key: K, default: object = None, /) -> object:
        """The row, or ``default``."""
        return self._rows.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[K]:
        return self._steady(iter(self._sorted()))

    def __reversed__(self) -> Iterator[K]:
        return self._steady(reversed(self._sorted()))

    def keys(self) -> KeysView[K]:
        """The keys, in order."""
        return KeysView(self)

    def values(self) -> ValuesView[R]:
        """The rows, in the order of their keys."""
        return ValuesView(self)

    def items(self) -> ItemsView[K, R]:
        """Pairs of key and row, in key order."""
        return ItemsView(self)

    def __repr__(self) -> str:
        return f"<Table {self._name}: {len(self._rows)} rows>"

    # Writing

    def __setitem__(self, key: K, row: R) -> None:
        gate = self._gate
        if not gate.open:
            raise self._refusal()
        if type(row) is not self._row_type or type(key) is not self._key_class or self._key_items is not None:
            self._check(key, row)
        rows = self._rows
        old = rows.get(key, ABSENT)
        touched = self._touched
        if key not in touched:
            if not touched:
                gate.tables.append(self)
            touched[key] = old
        self._place(key, old, row)

    def __delitem__(self, key: K) -> None:
        gate = self._gate
        if not gate.open:
            raise self._refusal()
        old = self._rows[key]
        touched = self._touched
        if key not in touched:
            if not touched:
                gate.tables.append(self)
            touched[key] = old
        self._place(key, old, ABSENT)

    def _place(self, key: K, old: R | Absent, new: R | Absent) -> None:
        """Make ``new`` the row of ``key`` instead of ``old``, in the indexes too; or raise and leave all as it was."""
        if self._indexes:
            _move(self._indexes, key, old, new)
        if new is ABSENT:
            del self._rows[key]
            if self._order is not None:
                self._order.remove(key)
            self._layout_changes += 1
            return
        self._rows[key] = cast(R, new)
        if old is ABSENT:
            if self._order is not None:
                self._order.add(key)
            self._layout_changes += 1

    def _check(self, key: K, row: R) -> None:
        if type(row) is not self._row_type:
            raise ValueRefused(f"table {self._name} holds {self._row_type.__name__} rows, not {row!r}")
        if type(key) is not self._key_class:
            raise ValueRefused(f"table {self._name} has {_type_name(self._key_type)} keys, not {key!r}")
        items = self._key_items
        if items is not None:
            kinds = tuple(map(type, cast("tuple[object, ...]", key)))
            if kinds != (items if items[-1:] != (...,) else (items[0],) * len(kinds)):
                raise ValueRefused(f"table {self._name} has {_type_name(self._key_type)} keys, not {key!r}")

    def _refusal(self) -> UsageError:
        if not self._seed:
            return UsageError(f"table {self._name or '(unnamed)'} is only declared: make an engine, and use its own")
        return UsageError(
            f"table {self._name} was written outside apply; state changes only while a command is applied",
            hint="move the write into a @command method, and send that command",
        )

    # Order

    def _sorted(self) -> SortedList[K]:
        if self._order is None:
            self._order = SortedList(self._rows)
        return self._order

    def _steady(self, keys: Iterator[K]) -> Iterator[K]:
        # The sorted list's inner division depends on its past, so what an iteration under changes would see does too.
        expected = self._layout_changes
        for key in keys:
            yield key
            if self._layout_changes != expected:
                raise RuntimeError(
                    f"table {self._name} gained or lost rows while it was iterated; iterate over list(…)"
                )

    # For recovery/state.py

    def _reset(self) -> None:
        self._rows = {}
        self._touched = {}
        self._order = None
        self._sum = 0
        self._layout_changes += 1
        for index in self._indexes:
            index._reset(())

    def _as_row(self, plain: object) -> R:
        """The row of a decoded value."""
        if type(plain) is self._row_type:
            return cast(R, plain)
        make: Callable[[Any, Any], Any] = tuple.__new__
        return cast(R, make(self._row_type, plain))


def _key_shape(key_type: Any) -> tuple[type, tuple[Any, ...] | None]:
    if key_type in _SCALARS:
        return key_type, None
    items = get_args(key_type)
    if get_origin(key_type) is tuple and all(item in _SCALARS or item is ... for item in items):
        return tuple, items
    raise UsageError(f"a table's keys are str, int, bytes or tuple[...] of these, not {_type_name(key_type)}")


def _row_class(row_type: Any) -> Any:
    """The exact class of a table's rows: a tuple of any kind, or a scalar; never what can be changed in place."""
    kind = get_origin(row_type) or row_type
    if kind in _ROWS or (isinstance(kind, type) and issubclass(kind, tuple)):
        return kind
    raise UsageError(
        f"rows are a NamedTuple or a plain scalar, not {_type_name(row_type)}: they may not change in place"
    )


def _type_name(kind: Any) -> str:
    return repr(kind) if get_args(kind) else getattr(kind, "__name__", repr(kind))


class _Top:
    """Greater than everything: bounds a prefix from above."""

    def __lt__(self, other: object) -> bool:
        return False

    def __gt__(self, other: object) -> bool:
        return True


_TOP: Final = _Top()


class Index(Generic[K, R]):
    """The keys of a table in the order of ``key(key, row)``, ties by key; a row for which that is None is left out.

    Kept by the framework at every write, rollback and restore, and never part of the digest.  ``key`` must be a pure function
    whose results compare with ``<``.  All but iteration is O(log n).
    """

    def __init__(self, table: Table[K, R], *, key: Callable[[K, R], Any]) -> None:
        self._declared = table
        self._key = key
        self._items: SortedList[tuple[Any, K]] = SortedList()
        self._layout_changes = 0
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def _bound(self, table: Table[K, R]) -> Index[K, R]:
        index = type(self)(table, key=self._key)
        index._name = self._name
        table._indexes = (*table._indexes, index)
        return index

    def __iter__(self) -> Iterator[K]:
        return self._steady(iter(self._items))

    def __reversed__(self) -> Iterator[K]:
        return self._steady(reversed(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def first(self, prefix: tuple[Any, ...] = ()) -> K | None:
        """The first table key, or the first whose index key begins with ``prefix``; None where there is none."""
        items = self._items
        if not prefix:
            return cast(K, items[0][1]) if items else None
        at = items.bisect_left((prefix,))
        return self._if_prefixed(at, prefix)

    def last(self, prefix: tuple[Any, ...] = ()) -> K | None:
        """The last table key, or the last whose index key begins with ``prefix``; None where there is none."""
        items = self._items
        if not prefix:
            return cast(K, items[-1][1]) if items else None
        at = items.bisect_left(((*prefix, _TOP),)) - 1
        return self._if_prefixed(at, prefix) if at >= 0 else None

    def _if_prefixed(self, at: int, prefix: tuple[Any, ...]) -> K | None:
        if at < len(self._items):
            index_key, key = self._items[at]
            if index_key[: len(prefix)] == prefix:
                return cast(K, key)
        return None

    def range(self, low: Any = None, high: Any = None) -> Iterator[K]:
        """Table keys whose index key is in ``low <= key < high``; None leaves that end open."""
        bottom = None if low is None else (low,)
        top = None if high is None else (high,)
        return self._steady(self._items.irange(bottom, top, inclusive=(True, False)))

    def __repr__(self) -> str:
        return f"<Index {self._name}: {len(self._items)} keys>"

    def _steady(self, items: Iterable[tuple[Any, K]]) -> Iterator[K]:
        expected = self._layout_changes
        for _, key in items:
            yield key
            if self._layout_changes != expected:
                raise RuntimeError(f"index {self._name} changed while it was iterated; iterate over list(…)")

    def _item(self, key: K, row: R | Absent) -> tuple[Any, K] | None:
        if row is ABSENT:
            return None
        index_key = self._key(key, cast(R, row))
        return None if index_key is None else (index_key, key)

    def _exchange(self, old: tuple[Any, K] | None, new: tuple[Any, K] | None) -> None:
        if old is not None:
            try:
                self._items.remove(old)
            except ValueError:
                raise DivergenceError(
                    f"index {self._name} does not hold {old[1]!r} where its row says: the row was changed by no command, "
                    "or the index's key is no pure function",
                    hint="open again: the state is rebuilt from the journal",
                ) from None
        try:
            if new is not None:
                self._items.add(new)
        except BaseException:
            if old is not None:
                self._items.add(old)
            raise
        self._layout_changes += 1

    def _reset(self, rows: Iterable[tuple[K, R]]) -> None:
        items = (self._item(key, row) for key, row in rows)
        self._items = SortedList(item for item in items if item is not None)
        self._layout_changes += 1


def _move(indexes: tuple[Index[K, R], ...], key: K, old: R | Absent, new: R | Absent) -> None:
    """Move a row in all indexes, or raise and leave them as they were."""
    moves = []
    for index in indexes:
        before, after = index._item(key, old), index._item(key, new)
        if before != after:
            moves.append((index, before, after))
    done = 0
    try:
        for index, before, after in moves:
            index._exchange(before, after)
            done += 1
    except BaseException:
        for index, before, after in reversed(moves[:done]):
            index._exchange(after, before)
        raise


class Cell(Generic[R]):
    """One value: ``next_id = Cell(int, 1)``, then ``self.next_id.value``.

    In the digest and in images it is a table of its name with one row, under the key ``()``, while the value is not the default.
    """

    def __init__(self, type: type[R], default: R) -> None:
        self._type = type
        self._default = default
        self._name = ""
        self._default_bytes = values.encode_bare(tuple(default) if isinstance(default, tuple) else default)
        if default.__class__ is not type:
            raise UsageError(f"a Cell's default is {default!r}, not exactly a {type.__name__}")
        self._table: Table[Any, R] = Table(cast(Any, tuple[()]), type)
        self._type = self._table._row_type

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self._table.__set_name__(owner, name)

    def _bound(self, gate: Gate) -> Cell[R]:
        cell = self.__class__(self._type, self._default)
        cell._name = self._name
        cell._table = self._table._bound(gate)
        return cell

    @property
    def value(self) -> R:
        """The value; the default until another is set."""
        return self._table._rows.get((), self._default)

    @value.setter
    def value(self, value: R) -> None:
        if (
            type(value) is self._type
            and values.encode_bare(tuple(value) if isinstance(value, tuple) else value) == self._default_bytes
        ):
            if () in self._table:
                del self._table[()]
            elif not self._table._gate.open:
                raise self._table._refusal()
        else:
            self._table[()] = value

    def __repr__(self) -> str:
        return f"<Cell {self._name}: {self.value!r}>"
