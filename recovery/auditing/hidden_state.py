"""State that no image can hold: what the engine's modules keep outside the engine, and whether a run changed it.

Module globals, class attributes, what closures and default arguments hold, caches of functions, context variables and
thread locals.  ``HiddenState`` remembers them as they are, tells later which have changed, and can put them back, so that
several replays in one process begin as a new process would.
"""

from __future__ import annotations

import ast
import contextvars
import copy
import threading
import tokenize
import types
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final

from recovery.auditing.leaves import LEAVES_MAX, flattened
from recovery.guarding.engine_code import engine_modules, functions_of
from recovery.table_engine import TableEngine
from recovery.tables import Cell, Index, Table

_NO_STATE: Final = (
    types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type, property, staticmethod, classmethod,
    types.GetSetDescriptorType, types.MemberDescriptorType, types.GenericAlias, Table, Cell, Index,
)  # fmt: skip
_NOT_KEPT: Final = object()
_CONTAINERS: Final = (dict, list, set, bytearray, deque)


@dataclass(frozen=True, slots=True)
class HiddenPlace:
    """One place outside the engine: what kind, its name as ``module.name``, where it is set, and whether a run changed it."""

    kind: str
    name: str
    file: str
    line: int
    changed: bool

    def to_dict(self) -> dict[str, Any]:
        """The place as in ``recovery audit --json``."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.kind} {self.name} ({self.file}:{self.line})"


class _Slot:
    """A name in a module or class, a cell of a closure, or a default argument, with what was there at first."""

    def __init__(self, kind: str, name: str, file: str, line: int, holder: Any, key: Any) -> None:
        self.kind, self.name, self.file, self.line = kind, name, file, line
        self._holder, self._key = holder, key
        self.first = flattened(self.get())
        self._kept: Any = _NOT_KEPT
        # What cannot be copied, or is too big, cannot be put back either; it is still told whether it changed.
        with suppress(Exception):
            if len(self.first) < LEAVES_MAX:
                value = self.get()
                self._kept = copy.deepcopy(vars(value) if isinstance(value, threading.local) else value)

    def get(self) -> Any:
        """What is there now."""
        if isinstance(self._holder, types.CellType):
            return self._holder.cell_contents
        return self._holder[self._key] if isinstance(self._holder, tuple) else vars(self._holder).get(self._key)

    @property
    def changed(self) -> bool:
        """Whether something else is there than at first."""
        return flattened(self.get()) != self.first

    def put_back(self) -> bool:
        """Let be there what was at first; False where that cannot be.  A context variable is its context's to put back."""
        value = self.get()
        if hasattr(value, "cache_clear"):
            value.cache_clear()
            return True
        if not self.changed or isinstance(value, contextvars.ContextVar):
            return True
        if self._kept is _NOT_KEPT:
            return False
        kept = copy.deepcopy(self._kept)
        if isinstance(value, threading.local):
            vars(value).clear()
            vars(value).update(kept)
        elif _refilled(value, kept):
            pass
        elif isinstance(self._holder, types.CellType):
            self._holder.cell_contents = kept
        elif isinstance(self._holder, tuple):
            return False
        else:
            setattr(self._holder, self._key, kept)
        return True


class HiddenState:
    """The places outside an engine, as they were when this was made."""

    def __init__(self, engine: Any) -> None:
        self._slots = [slot for module in engine_modules(engine) for slot in _slots(module)]

    def places(self) -> list[HiddenPlace]:
        """All places, and whether they differ from how they were."""
        return [HiddenPlace(slot.kind, slot.name, slot.file, slot.line, slot.changed) for slot in self._slots]

    def put_back(self) -> list[str]:
        """Make every place as it was; the names of those where that cannot be."""
        return [slot.name for slot in self._slots if not slot.put_back()]


def _refilled(value: Any, kept: Any) -> bool:
    """Give a container its former content in place, since others may hold it; False where it is no such container."""
    if type(value) is not type(kept):
        return False
    if isinstance(value, dict | set):
        value.clear()
        value.update(kept)
    elif isinstance(value, list):
        value[:] = kept
    elif type(value).__module__ != "builtins" and hasattr(value, "__dict__"):
        vars(value).clear()
        vars(value).update(vars(kept))
    else:
        return False
    return True


def _slots(module: types.ModuleType) -> Iterator[_Slot]:
    lines, file = _assignments(module), module.__file__ or ""
    owners: list[tuple[str, Any]] = [("", module)]
    owners += [(name, value) for name, value in vars(module).items() if _is_own(module, value, type)]
    for owner_name, owner in owners:
        for name, value in list(vars(owner).items()):
            line = lines.get((owner_name, name), 0)
            kind = _kind(value, "class attribute" if owner_name else "module global")
            if kind and line and name not in vars(TableEngine):
                shown = ".".join(filter(None, (module.__name__, owner_name, name)))
                yield _Slot(kind, shown, file, line, owner, name)
    for function in functions_of(module):
        if function.__code__.co_filename == file:
            yield from _function_slots(module, function)


def _is_own(module: types.ModuleType, value: Any, kind: type) -> bool:
    return isinstance(value, kind) and getattr(value, "__module__", "") == module.__name__


def _kind(value: Any, default: str) -> str:
    """What kind of state a value may be; empty where it can be none."""
    if hasattr(value, "cache_info"):
        return "cache of a function"
    if isinstance(value, contextvars.ContextVar):
        return "context variable"
    if isinstance(value, threading.local):
        return "thread local"
    return "" if isinstance(value, _NO_STATE) or hasattr(type(value), "__get__") else default


def _function_slots(module: types.ModuleType, function: types.FunctionType) -> Iterator[_Slot]:
    code = function.__code__
    where = f"{module.__name__}.{function.__qualname__}"
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # a name that was never set
            if name != "__class__" and _kind(cell.cell_contents, "x"):
                yield _Slot("closure", f"{where}.{name}", code.co_filename, code.co_firstlineno, cell, name)
    names = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    for at, value in enumerate(defaults):
        if isinstance(value, _CONTAINERS):
            name = names[at - len(defaults)]
            yield _Slot("default argument", f"{where}.{name}", code.co_filename, code.co_firstlineno, defaults, at)


def _assignments(module: types.ModuleType) -> dict[tuple[str, str], int]:
    """The line where each name of a module, and of each class in it, is first set; what is imported has none."""
    try:
        with tokenize.open(module.__file__ or "") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, UnicodeDecodeError):
        return {}
    found: dict[tuple[str, str], int] = {}
    scopes: list[tuple[str, ast.AST]] = [("", tree)]
    scopes += [(node.name, node) for node in tree.body if isinstance(node, ast.ClassDef)]
    for scope, within in scopes:
        for node in ast.iter_child_nodes(within):
            if isinstance(node, ast.FunctionDef) and node.decorator_list:
                found.setdefault((scope, node.name), node.lineno)
            elif not isinstance(node, ast.ClassDef | ast.FunctionDef):
                for name in ast.walk(node):
                    if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store):
                        found.setdefault((scope, name.id), name.lineno)
    return found
