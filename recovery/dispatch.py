"""From a command to the ``@command`` method that handles it, its fields checked against the method's parameters."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, Union, get_args, get_origin

from journal.errors import UsageError
from journal.records import Command
from recovery.engine import Context

_SHAPES_MAX: Final = 4096


class Handler:
    """One ``@command`` method and the fields it takes."""

    def __init__(self, method: Callable[..., Any], owner: str) -> None:
        self.method = method
        self._where = f"{owner}.{method.__name__}"
        hints = typing.get_type_hints(method)
        self._kinds: dict[str, tuple[type, ...] | None] = {}
        self._required: set[str] = set()
        for name, parameter in list(inspect.signature(method).parameters.items())[2:]:
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise UsageError(f"{self._where} takes *{name}; a command's fields are named one by one")
            self._kinds[name] = _kinds(hints.get(name, Any))
            if parameter.default is parameter.empty:
                self._required.add(name)
        self._accepted: set[tuple[Any, ...]] = set()

    def __call__(self, engine: object, context: Context, command: Command) -> Any:
        """Check the command's data and apply it."""
        data = command.data
        if data.__class__ is not dict:
            raise UsageError(f"command {command.type}: data is a {type(data).__name__}, not a dict of {self._fields()}")
        # Equal names with equal types were found right before: once for each shape, not for each command.
        shape = (*data, *map(type, data.values()))
        if shape not in self._accepted:
            self._check(command, data)
            if len(self._accepted) < _SHAPES_MAX:
                self._accepted.add(shape)
        return self.method(engine, context, **data)

    def _check(self, command: Command, data: Mapping[str, Any]) -> None:
        missing = sorted(self._required - data.keys())
        extra = sorted(map(repr, data.keys() - self._kinds.keys()))
        if missing or extra:
            said = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has no field {', '.join(extra)}"] * bool(extra)
            raise UsageError(f"command {command.type} {' and '.join(said)}; it takes {self._fields()}")
        for name, value in data.items():
            kinds = self._kinds[name]
            if kinds is not None and type(value) not in kinds:
                wanted = " or ".join(kind.__name__ for kind in kinds)
                raise UsageError(f"command {command.type}: {name} is {value!r}, a {type(value).__name__}, not {wanted}")

    def _fields(self) -> str:
        return ", ".join(self._kinds) or "no fields"


def _kinds(hint: Any) -> tuple[type, ...] | None:
    """The exact types that a hint allows; None where it says nothing that can be checked."""
    if hint is None:
        return (type(None),)
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        parts = [_kinds(part) for part in get_args(hint)]
        return None if None in parts else tuple(kind for part in parts if part for kind in part)
    if origin is not None:
        hint = origin
    return (hint,) if isinstance(hint, type) and hint is not object else None


def handlers(engine_type: type) -> dict[str, Handler]:
    """The ``@command`` methods of an engine class, inherited ones among them, by the command type they handle."""
    found = {}
    for name in dir(engine_type):
        method = inspect.getattr_static(engine_type, name)
        if getattr(method, "_is_command", False):
            found[name] = Handler(method, engine_type.__name__)
    return found


def dispatch(table: Mapping[str, Handler], engine: object, context: Context, command: Command) -> Any:
    """Apply a command by its handler; UsageError where its type has none."""
    handler = table.get(command.type)
    if handler is None:
        known = ", ".join(sorted(table)) or "none: it has no @command method"
        raise UsageError(f"{type(engine).__name__} knows no command {command.type!r}; it knows {known}")
    return handler(engine, context, command)
