"""Leaves of live objects: what an object holds, path by path, and the same with one leaf changed.

``flattened`` looks into containers, attributes, generators, iterators and caches, and gives each leaf as text with its type, so
that ``1`` and ``"1"`` are two.  ``changes`` and ``settings`` give the ways in which one leaf can be another.
"""

from __future__ import annotations

import contextvars
import enum
import inspect
import random
import re
import threading
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

import xxhash

LEAVES_MAX: Final = 20_000
OPAQUE: Final = "opaque "
ORDER: Final = " (order)"
"""Ends the path under which the order of a dict's keys is given."""
ORDER_KEYS_MAX: Final = 1000

_SCALARS: Final = (type(None), bool, int, float, complex, str, bytes, Decimal, datetime, UUID, enum.Enum)
_NAMED: Final = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type)


def flattened(value: Any, *, but: frozenset[str] = frozenset()) -> dict[str, str]:
    """The leaves of an object by path, at most LEAVES_MAX; ``but`` are attributes of the object itself to leave out."""
    found: dict[str, str] = {}
    waiting: list[tuple[str, Any]] = [("", value)]
    seen: dict[int, str] = {}
    while waiting and len(found) < LEAVES_MAX:
        path, one = waiting.pop()
        if isinstance(one, _SCALARS):
            found[path] = f"{type(one).__qualname__} {one!r}"
            continue
        if isinstance(one, _NAMED):
            found[path] = getattr(one, "__qualname__", getattr(one, "__name__", "?"))
        if id(one) in seen:
            found[path] = f"the same as {seen[id(one)] or 'the whole'}"
            continue
        if not isinstance(one, tuple | frozenset):  # sharing these cannot be told from equality
            seen[id(one)] = path
        if hasattr(one, "cache_info"):
            found[path] = str(one.cache_info())
        elif path not in found:
            parts = _parts(one)
            if parts is None:
                found[path] = OPAQUE + type(one).__qualname__
                continue
            found[path] = type(one).__qualname__
            if isinstance(one, dict) and len(one) > 1:
                found[path + ORDER] = ", ".join(f"{key!r:.30}" for key in [*one][:ORDER_KEYS_MAX])
            waiting += [(path + step, part) for step, part in parts if path or step[1:] not in but]
    return found


def _parts(one: Any) -> list[tuple[str, Any]] | None:
    """What an object holds, with the step to each; None for what cannot be looked into."""
    if isinstance(one, Mapping):
        return [(f"[{key!r}]" if isinstance(key, _SCALARS) else f"[{n}]", part) for n, (key, part) in _pairs(one)]
    if isinstance(one, set | frozenset):
        return [("{}", tuple(sorted(str(flattened(item)) for item in one)))]
    if isinstance(one, list | tuple | deque):
        names = getattr(one, "_fields", None)
        items = [(f".{names[n]}" if names else f"[{n}]", item) for n, item in enumerate(one)]
        return items + _attributes(one)
    if isinstance(one, random.Random):
        return [(".getstate()", xxhash.xxh3_64_hexdigest(repr(one.getstate()).encode()))]
    if isinstance(one, types.GeneratorType):
        frame = one.gi_frame
        return [(".at", -1 if frame is None else frame.f_lasti)] + (
            [] if frame is None else [(f".{name}", part) for name, part in frame.f_locals.items()]
        )
    if isinstance(one, contextvars.ContextVar):
        return [(".get()", one.get(None))]
    if isinstance(one, types.CellType):
        return [("()", one.cell_contents)]
    found = _attributes(one)
    if found or hasattr(one, "__dict__"):
        return found
    return _reduced(one)


def _pairs(one: Mapping[Any, Any]) -> list[tuple[int, tuple[Any, Any]]]:
    try:
        return list(enumerate(one.items()))
    except RuntimeError:  # another thread is at it
        return []


def _attributes(one: Any) -> list[tuple[str, Any]]:
    slots = [name for kind in type(one).__mro__ for name in _slot_names(kind)]
    named = {name: getattr(one, name) for name in slots if hasattr(one, name)}
    return [(f".{name}", part) for name, part in {**named, **getattr(one, "__dict__", {})}.items()]


def _slot_names(kind: type) -> tuple[str, ...]:
    names = vars(kind).get("__slots__", ())
    names = (names,) if isinstance(names, str) else tuple(names)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _reduced(one: Any) -> list[tuple[str, Any]] | None:
    """What an iterator or another object in C says of itself for copying."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            said = one.__reduce_ex__(2)
    except Exception:  # locks, sockets, files: each refuses in its own way
        return None
    return [(f"<{n}>", part) for n, part in enumerate(said[1:], 1)] if isinstance(said, tuple) else None


def differing(live: dict[str, str], other: dict[str, str]) -> dict[str, str]:
    """The attributes in which two objects differ, each with its outermost difference in words; mere orders of keys come last."""
    paths = [path for path in live.keys() | other.keys() if live.get(path) != other.get(path)]
    found: dict[str, list[str]] = {}
    for path in sorted(paths, key=lambda path: (path.endswith(ORDER), path.count(".") + path.count("["), path)):
        found.setdefault(root(path), []).append(path)
    return {
        name: f"{within[0].lstrip('.')}: {live.get(within[0], 'nothing'):.80} live, "
        f"{other.get(within[0], 'nothing'):.80} restored"
        + (f" (and {len(within) - 1} more)" if len(within) > 1 else "")
        for name, within in found.items()
    }


def root(path: str) -> str:
    """The attribute of the object itself that a path begins with."""
    return re.split(r"[.\[{(< ]", path.lstrip("."), maxsplit=1)[0] or path


# One leaf changed


def other_scalar(value: Any) -> Any:
    """Another value of the same type; None where there is none to be had."""
    kind = type(value)
    if kind is bool:
        return not value
    if kind in (int, float, Decimal):
        return value + 1 if value + 1 != value else -value
    if kind is str:
        return value + "x"
    if kind is bytes:
        return value + b"x"
    if kind is datetime:
        return value + timedelta(microseconds=1) if value.year < 9999 else value - timedelta(microseconds=1)
    if kind is UUID:
        return UUID(int=value.int ^ 1)
    return None


def changes(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """A plain value with one leaf changed, for each of its leaves: the path and the changed value."""
    kind = type(value)
    if isinstance(value, tuple):
        names = getattr(value, "_fields", None)
        for at, item in enumerate(value):
            for step, changed in changes(item, f"{path}.{names[at]}" if names else f"{path}[{at}]"):
                yield step, tuple.__new__(kind, (*value[:at], changed, *value[at + 1 :]))
    elif kind is list:
        for at, item in enumerate(value):
            for step, changed in changes(item, f"{path}[{at}]"):
                yield step, [*value[:at], changed, *value[at + 1 :]]
    elif kind is dict:
        for key, item in value.items():
            for step, changed in changes(item, f"{path}[{key!r}]"):
                yield step, {**value, key: changed}
    else:
        other = other_scalar(value)
        if other is not None:
            yield path, other


class Setting(NamedTuple):
    """One leaf of a live object, and how to make it another value and what it was."""

    path: str
    put: Callable[[], None]
    back: Callable[[], None]


def settings(engine: Any) -> Iterator[Setting]:
    """Every leaf of an engine's attributes that can be changed in place."""
    waiting: list[tuple[str, Any]] = [("", engine)]
    seen: set[int] = set()
    while waiting:
        path, holder = waiting.pop()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        for step, key, part in _holdings(holder):
            if isinstance(part, (*_SCALARS, tuple)):
                for inner, changed in changes(part):
                    yield Setting(path + step + inner, _putter(holder, key, changed), _putter(holder, key, part))
            elif not isinstance(part, (*_NAMED, threading.local)):
                waiting.append((path + step, part))


def _holdings(holder: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(holder, dict):
        return [(f"[{key!r}]", key, part) for key, part in list(holder.items())]
    if isinstance(holder, list | deque):
        return [(f"[{n}]", n, part) for n, part in enumerate(holder)]
    if inspect.ismodule(holder):
        return []
    return [(f".{name}", name, part) for name, part in list(getattr(holder, "__dict__", {}).items())]


def _putter(holder: Any, key: Any, value: Any) -> Callable[[], None]:
    def put() -> None:
        if isinstance(holder, dict | list | deque):
            holder[key] = value
        else:
            vars(holder)[key] = value

    return put
