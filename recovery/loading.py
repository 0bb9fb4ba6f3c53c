"""From ``"module:attr"``, a class or a factory to a factory of engines, and to the words an epoch records of its code."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import Any

import xxhash

from journal.errors import EngineImportError
from journal.projections import Projection, Projector
from recovery.stepper import Factory, check_engine_shape

EngineArgument = str | type | Callable[[], Any]


def engine_factory(engine: EngineArgument, *, app_dir: str = ".") -> Factory:
    """A factory whose engines have the right shape.  EngineImportError says what could not be loaded, and why."""
    if isinstance(engine, FunctionType) and "made_by" in engine.__dict__:
        return engine  # made here before; around another, the code's revision would be this file's too
    make = imported(engine, app_dir) if isinstance(engine, str) else engine
    if not callable(make):
        raise EngineImportError(
            f"{engine!r} is a {type(make).__name__}; an engine is given as a class, a factory, or 'module:attr' naming one"
        )

    def factory() -> Any:
        try:
            made = make()
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                raise EngineImportError(f"{_label(make)} cannot be made without arguments: {error}") from error
            raise
        check_engine_shape(made)
        return made

    factory.__dict__["made_by"] = make
    return factory


def load_projections(specs: Iterable[str], *, app_dir: str = ".") -> list[Projection]:
    """The projections of these ``module:attr``, each a Projection or a class of one."""
    found = [imported(spec, app_dir, option="--projection") for spec in specs]
    return list(Projector(found, "").projections)


def imported(spec: str, app_dir: str, *, option: str = "--engine") -> Any:
    """What MODULE:ATTR names; EngineImportError where it cannot be loaded."""
    module_name, colon, attribute = spec.partition(":")
    if not module_name or not colon or not attribute:
        raise EngineImportError(f"{option} {spec!r} is not MODULE:ATTR, such as shop.engine:Till")
    folder = os.path.abspath(app_dir)
    if folder not in map(os.path.abspath, sys.path):
        # Last, so that a file of the user's cannot stand in for a library's.
        sys.path.append(folder)
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise EngineImportError(
                f"there is no module {error.name!r} in {folder} or on the Python path",
                hint=f"check {option} and --app-dir",
            ) from error
        raise _broken(module_name, error) from error
    except Exception as error:
        raise _broken(module_name, error) from error
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise EngineImportError(
                f"module {module_name!r} has no {attribute!r}", hint=f"it is loaded from {_origin(module_name)}"
            ) from error
    return found


def require_within(spec: str, folder: str) -> None:
    """Raise EngineImportError unless an engine's module, which is loaded, is of a file in a folder."""
    found = os.path.realpath(_origin(spec.partition(":")[0]))
    if not found.startswith(os.path.join(os.path.realpath(folder), "")):
        raise EngineImportError(
            f"{spec} is loaded from {found}, and not from {folder}",
            hint="say --app-dir DIR, the folder of its module in the repository; or do not install it where this runs",
        )


def _broken(module_name: str, error: Exception) -> EngineImportError:
    frames = traceback.extract_tb(error.__traceback__)
    where = next(
        (f"{frame.filename}:{frame.lineno}" for frame in reversed(frames) if "importlib" not in frame.filename), ""
    )
    if isinstance(error, SyntaxError):
        where = f"{error.filename}:{error.lineno}"
    return EngineImportError(
        f"module {module_name!r} failed while it was loaded: {type(error).__name__}: {error} ({where})"
    )


def _origin(module_name: str) -> str:
    return str(getattr(sys.modules[module_name], "__file__", module_name))


def _label(make: Any) -> str:
    return str(getattr(make, "__qualname__", repr(make)))


def code_revision(factory: Factory) -> str:
    """What tells two revisions of an engine's code apart: ``RECOVERY_REVISION``, else a hash of its modules' sources."""
    given = os.environ.get("RECOVERY_REVISION")
    if given:
        return given
    hasher = xxhash.xxh3_64()
    for source in sorted(_sources(factory)):
        with open(source, "rb") as file:
            hasher.update(file.read())
    return f"source-{hasher.hexdigest()}"


def _sources(factory: Factory) -> set[str]:
    made_by = factory.__dict__.get("made_by", factory)
    kinds = inspect.getmro(made_by) if isinstance(made_by, type) else (made_by, *inspect.getmro(type(factory())))
    sources = set()
    for kind in kinds:
        if (getattr(kind, "__module__", None) or "builtins").partition(".")[0] in ("builtins", "typing", "abc"):
            continue
        try:
            sources.add(inspect.getsourcefile(kind) or "")
        except TypeError:
            continue
    return {source for source in sources if os.path.isfile(source)}


def engine_spec(factory: Factory) -> str | None:
    """``module:attr`` under which another process can load the same engine; None where there is none."""
    made_by = factory.__dict__.get("made_by", factory)
    module, name = getattr(made_by, "__module__", None), getattr(made_by, "__qualname__", None)
    if not module or not name or "<" in name or module == "__main__":
        return None
    return f"{module}:{name}"
