"""Which code is the engine's: the author's modules, apart from the standard library, installed packages and ourselves.

The guard names lines in it and looks at the sets it iterates; the audit looks for state in it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
import sysconfig
from collections.abc import Iterator
from itertools import islice
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any, Final, Literal

from recovery.tables import Index

Origin = Literal["engine", "installed", "standard", "ours", "generated"]

_OURS: Final = tuple(
    os.path.join(os.path.dirname(os.path.abspath(str(package.__file__))), "")
    for package in map(importlib.import_module, ("recovery", "snapshots", "journal"))
)
# Engines that we ship are engines like any other.
_OUR_ENGINES: Final = tuple(os.path.join(_OURS[0], name, "") for name in ("examples", "demo"))
_STANDARD: Final = tuple(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib"))
_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_DEPTH_MAX: Final = 8
_PARTS_MAX: Final = 10_000
_SCALARS: Final = (int, float, str, bytes, type(None))


@functools.lru_cache(maxsize=4096)
def origin(file_name: str) -> Origin:
    """Whose code a file holds, by its place; "generated" where there is no file."""
    if file_name.startswith("<frozen "):
        return "standard"
    if file_name.startswith("<"):
        return "generated"
    path = os.path.abspath(file_name)
    if path.startswith(_OURS):
        return "engine" if path.startswith(_OUR_ENGINES) else "ours"
    if any(part in path for part in _INSTALLED):
        return "installed"
    return "standard" if path.startswith(_STANDARD) else "engine"


def engine_modules(engine: Any) -> list[ModuleType]:
    """The author's modules that an engine is made of: those of its classes, and those they refer to, in name order."""
    waiting = [name for kind in type(engine).__mro__ if (name := getattr(kind, "__module__", None))]
    found: dict[str, ModuleType] = {}
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        if name in found or module is None or origin(getattr(module, "__file__", None) or "<none>") != "engine":
            continue
        found[name] = module
        for value in list(vars(module).values()):
            if isinstance(value, ModuleType):
                waiting.append(value.__name__)
            elif isinstance(value, type | FunctionType) and value.__module__:
                waiting.append(value.__module__)
    return [found[name] for name in sorted(found)]


def functions_of(module: ModuleType, engine: Any = None) -> Iterator[FunctionType]:
    """Every function of a module that can be reached: methods, properties, what decorators and partials hold, index keys.

    From an engine too, whose class may have been made inside a function.
    """
    seen: set[int] = set()
    for holder in (vars(module), list(type(engine).__mro__), getattr(engine, "__dict__", {})):
        yield from _functions(holder, module.__name__, seen, 0)


def _functions(holder: Any, module_name: str, seen: set[int], depth: int) -> Iterator[FunctionType]:
    if id(holder) in seen or depth > _DEPTH_MAX:
        return
    seen.add(id(holder))
    if isinstance(holder, FunctionType) and holder.__module__ == module_name:
        yield holder
    for part in _parts(holder, module_name):
        yield from _functions(part, module_name, seen, depth + 1)


def _parts(holder: Any, module_name: str) -> list[Any]:
    """Where functions may be, one step from here."""
    if isinstance(holder, FunctionType):
        return [cell.cell_contents for cell in holder.__closure__ or () if _filled(cell)] + [
            holder.__dict__.get("__wrapped__"),
            holder.__defaults__,
        ]
    if isinstance(holder, type):
        return list(vars(holder).values()) if holder.__module__ == module_name else []
    if isinstance(holder, dict | list | tuple):
        parts = holder.values() if isinstance(holder, dict) else holder
        return [part for part in islice(parts, _PARTS_MAX) if not isinstance(part, _SCALARS)]
    if isinstance(holder, property):
        return [holder.fget, holder.fset, holder.fdel]
    if isinstance(holder, Index):
        return [holder._key]
    names = ("__func__", "__wrapped__", "func")  # static and class methods, caches, partials and cached properties
    return [inspect.getattr_static(holder, name, None) and getattr(holder, name, None) for name in names]


def _filled(cell: CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:  # a name that was never set
        return False


def nested_code(code: CodeType) -> list[CodeType]:
    """The code objects within one, in the order of their constants."""
    return [constant for constant in code.co_consts if isinstance(constant, CodeType)]
