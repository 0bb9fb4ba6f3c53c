"""TableEngine: an engine whose whole state is declared, so that all of it is digested, recorded and rolled back."""

from __future__ import annotations

from typing import Any, ClassVar

import xxhash

from journal import values
from journal.errors import UsageError
from journal.records import Command
from recovery.dispatch import Handler, dispatch, handlers
from recovery.engine import Context
from recovery.state import State
from recovery.tables import Cell, Index, Table

_Member = Table[Any, Any] | Cell[Any] | Index[Any, Any]


class _Sealing(type):
    """Closes an engine against new attributes when its ``__init__`` is done."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        engine = super().__call__(*args, **kwargs)
        engine.rebuild()
        object.__setattr__(engine, "_sealed", True)
        return engine


class TableEngine(metaclass=_Sealing):
    """Subclass it; declare ``Table``, ``Cell`` and ``Index`` in the body; write ``@command`` methods, or ``apply``.

    Once made, an engine takes no other attribute: what is not declared would not be restored.  Things derived from the
    state, for speed, are made anew in ``rebuild``.
    """

    name: str
    state_version: ClassVar[int] = 1
    logic_version: ClassVar[int] = 1
    projected_events: ClassVar[tuple[str, ...]] = ()
    """Types of events that a durable runtime must be given a projection for (journal/projections.py)."""

    _members: ClassVar[dict[str, _Member]] = {}
    _handlers: ClassVar[dict[str, Handler] | None] = None
    _state: State
    _sealed: bool

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {name: member for name, member in vars(cls).items() if isinstance(member, Table | Cell | Index)}
        cls._members = {**cls._members, **own}
        cls._handlers = None
        for name, member in own.items():
            if isinstance(member, Index) and all(member._declared is not known for known in cls._members.values()):
                raise UsageError(f"{cls.__name__}.{name} is an Index over no Table of {cls.__name__}")

    def __new__(cls, *args: Any, **kwargs: Any) -> TableEngine:
        """Give the engine tables of its own."""
        engine = super().__new__(cls)
        state = State(cls._members)
        object.__setattr__(engine, "_state", state)
        object.__setattr__(engine, "_sealed", False)
        for name, member in state.members.items():
            object.__setattr__(engine, name, member)
        return engine

    def __setattr__(self, name: str, value: object) -> None:
        if name in self._members:
            raise UsageError(f"{type(self).__name__}.{name} is declared; set its rows or its .value, not the attribute")
        if self._sealed:
            raise UsageError(
                f"{type(self).__name__}.{name} is not declared, so it would not be restored: "
                "declare a Table or a Cell, or derive it in rebuild()"
            )
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise UsageError(f"{type(self).__name__}.{name} cannot be deleted")

    def apply(self, context: Context, command: Command) -> Any:
        """Apply one command: by default, by the ``@command`` method of its type."""
        table = type(self)._handlers
        if table is None:
            table = type(self)._handlers = handlers(type(self))
        return dispatch(table, self, context, command)

    def rebuild(self) -> None:
        """Derive again what is kept beside the tables.  Called once made, and after every restore and rollback."""


def state_of(engine: TableEngine) -> State:
    """The framework's side of an engine."""
    return engine._state


def run_rebuild(engine: TableEngine) -> None:
    """Call ``rebuild`` with attributes open, where the engine has one."""
    if type(engine).rebuild is not TableEngine.rebuild:
        object.__setattr__(engine, "_sealed", False)
        try:
            engine.rebuild()
        finally:
            object.__setattr__(engine, "_sealed", True)


def schema_fingerprint(engine_type: type[TableEngine]) -> bytes:
    """16 bytes that change with the tables' names, key types, row fields, and the cells' defaults."""
    lines = []
    for name, member in sorted(engine_type._members.items()):
        if isinstance(member, Table):
            lines.append((name, "table", repr(member._key_type), _fields(member._row_type)))
        elif isinstance(member, Cell):
            lines.append((name, "cell", repr(member._default_bytes), _fields(member._type)))
    return xxhash.xxh3_128_digest(values.encode(tuple(lines)))


def _fields(row_type: type) -> tuple[str, ...]:
    hints = getattr(row_type, "__annotations__", {})
    kinds = (hint if isinstance(hint, str) else getattr(hint, "__name__", repr(hint)) for hint in hints.values())
    named = tuple(f"{name}: {kind}" for name, kind in zip(hints, kinds, strict=True))
    return (row_type.__name__, *named)
