"""Where an engine depends on the order of a set: its functions compiled anew, with a look at what they iterate.

The order in which a set gives its elements depends on their hashes.  Those of str, bytes, datetimes and plain objects differ
from process to process.  Iterating is an instruction, no call, so no profiler sees it; and only the value itself tells
whether it is a set.  So each function of the engine's modules is given another code object, made from the same source with
one call more around each iterated expression::

    for name in names: …           for name in __recovery_iterated__(names): …

Nothing else changes: lines, closures, names.  What does not depend on the order stays silent: ``sorted(s)``, ``len(s)``,
``x in s``, ``min``/``max``/``any``/``all``/``sum`` of ints, another set made from it, a set of ints, a set of one.  With a
``key``, ``sorted``, ``min`` and ``max`` are silent while no two elements tie.
"""

from __future__ import annotations

import ast
import dataclasses
import datetime
import enum
import functools
import re
import sys
import time
import tokenize
import weakref
from collections.abc import Callable
from itertools import pairwise
from types import CodeType, FunctionType, GeneratorType, ModuleType
from typing import Any, Final

from recovery.guarding import guarded_calls
from recovery.guarding.engine_code import engine_modules, functions_of, nested_code
from recovery.guarding.guarded_calls import watching, words

_PREFIX: Final = "__recovery_"
# Callables that give on what they iterate in its order.
_ORDERED: Final = words(
    "list tuple enumerate iter map filter zip reduce deque islice chain cycle accumulate OrderedDict dict bytes "
    "join extend extendleft fromkeys writelines from_iterable"
)
_SHOWING: Final = frozenset({"str", "repr", "format"})
_PLAIN_NAMES: Final = frozenset({"set", "dict", "list", "tuple", "super", "frozenset", "bytes", "object"})
_ORDER_FREE: Final = frozenset({"sorted", "min", "max", "len", "set", "frozenset", "any", "all", "sum", "Counter"})
_KEYED: Final = frozenset({"sorted", "min", "max"})
_ZONED: Final = frozenset({"fromtimestamp", "astimezone", "timestamp", "gmtime", "strftime"})
_NEVER_SETS: Final = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.ListComp, ast.DictComp, ast.JoinedStr)
_NEVER_RETURN_SETS: Final = _ORDERED | _KEYED | {"range", "reversed", "items", "len", "int", "bool"}


class Instrumented:
    """The functions that were given other code.  ``untouched`` names those that could not be."""

    def __init__(self) -> None:
        self.untouched: list[str] = []
        self._functions: list[FunctionType] = []

    def add(self, function: FunctionType, code: CodeType) -> None:
        """Give a function its other code, or count one user more."""
        known = _replaced.get(id(function))
        if known is None:
            _replaced[id(function)] = (function, function.__code__, 1)
            function.__code__ = code
            function.__globals__.update(_HELPERS)
        else:
            _replaced[id(function)] = (function, known[1], known[2] + 1)
        self._functions.append(function)

    def undo(self) -> None:
        """Give the functions their own code back, where nobody else guards them."""
        for function in self._functions:
            _, own, users = _replaced.pop(id(function))
            if users > 1:
                _replaced[id(function)] = (function, own, users - 1)
            else:
                function.__code__ = own
        self._functions = []


_replaced: dict[int, tuple[FunctionType, CodeType, int]] = {}


def instrument(engine: Any) -> Instrumented:
    """Look at what the functions of an engine and its modules iterate, from now until ``undo``."""
    done = Instrumented()
    for module in engine_modules(engine):
        others = _other_codes(module)
        if others is None:
            done.untouched.append(f"module {module.__name__} (no source)")
            continue
        for function in functions_of(module, engine):
            code = function.__code__
            known = _replaced.get(id(function))
            other = others.get(_code_key(known[1] if known else code))
            if other is not None:
                done.add(function, other)
            elif code.co_filename == module.__file__:
                done.untouched.append(f"{module.__name__}.{function.__qualname__}")
    return done


def _other_codes(module: ModuleType) -> dict[tuple[Any, ...], CodeType] | None:
    """The other code of each function of a module, by its own; None where there is no source."""
    try:
        with tokenize.open(module.__file__ or "") as file:
            return _compiled(module.__file__ or "", file.read())
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None


@functools.lru_cache(maxsize=64)
def _compiled(file_name: str, source: str) -> dict[tuple[Any, ...], CodeType]:
    looked_at = ast.fix_missing_locations(_Looks().visit(ast.parse(source, file_name)))
    found: dict[tuple[Any, ...], CodeType] = {}
    _pair(
        compile(source, file_name, "exec", dont_inherit=True),
        compile(looked_at, file_name, "exec", dont_inherit=True),
        found,
    )
    return found


def _pair(own: CodeType, other: CodeType, found: dict[tuple[Any, ...], CodeType]) -> None:
    found[_code_key(own)] = other
    for ours, theirs in zip(nested_code(own), nested_code(other), strict=True):
        assert ours.co_name == theirs.co_name
        _pair(ours, theirs, found)


def _code_key(code: CodeType) -> tuple[Any, ...]:
    return code.co_qualname, code.co_firstlineno, code.co_code, code.co_linetable


class _Looks(ast.NodeTransformer):
    """Puts the looks in."""

    def __init__(self) -> None:
        self._order_free: set[ast.AST] = set()
        self._functions: list[str] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._functions.append(node.name)
        self.generic_visit(node)
        self._functions.pop()
        return node

    def visit_For(self, node: ast.For) -> ast.AST:
        self.generic_visit(node)
        node.iter = _look("iterated", node.iter)
        return node

    def visit_SetComp(self, node: ast.SetComp) -> ast.AST:
        self.generic_visit(node)
        return node

    def visit_ListComp(self, node: ast.ListComp) -> ast.AST:
        return self._visit_comprehension(node)

    def visit_DictComp(self, node: ast.DictComp) -> ast.AST:
        return self._visit_comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> ast.AST:
        return self._visit_comprehension(node)

    def _visit_comprehension(self, node: ast.ListComp | ast.DictComp | ast.GeneratorExp) -> ast.AST:
        self.generic_visit(node)
        if node not in self._order_free:
            for part in node.generators:
                part.iter = _look("iterated", part.iter)
        return node

    def visit_Set(self, node: ast.Set) -> ast.AST:
        self._order_free.update(node.elts)
        self.generic_visit(node)
        return node

    def visit_Starred(self, node: ast.Starred) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.ctx, ast.Load) and node not in self._order_free:
            node.value = _look("iterated", node.value)
        return node

    def visit_YieldFrom(self, node: ast.YieldFrom) -> ast.AST:
        self.generic_visit(node)
        node.value = _look("iterated", node.value)
        return node

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        self.generic_visit(node)
        if any(isinstance(target, ast.Tuple | ast.List) for target in node.targets):
            node.value = _look("iterated", node.value)
        return node

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        self.generic_visit(node)
        node.value = _look("shown", node.value)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        is_name = isinstance(node.func, ast.Name)
        keyed = any(keyword.arg == "key" for keyword in node.keywords)
        if is_name and name in _ORDER_FREE:
            self._free(node.args, lists_too=not keyed and name != "sum")
        free = node in self._order_free
        self.generic_visit(node)
        for keyword in node.keywords:
            if keyword.arg == "key":
                keyword.value = _look("keyed", keyword.value)
        if name in _ORDERED:
            node.args = node.args if free else [_look("iterated", argument) for argument in node.args]
        elif is_name and name in _SHOWING:
            node.args = [_look("shown", argument) for argument in node.args]
        elif is_name and name == "hash" and self._functions[-1:] != ["__hash__"]:
            node.args = [_look("hashed", argument) for argument in node.args]
        elif name in _ZONED or (is_name and (name == "sum" or (keyed and name in _KEYED))):
            node.args.insert(0, node.func)
            node.func = _helper("zoned" if name in _ZONED else "reduced", node)
        elif isinstance(node.func, ast.Attribute) and not node.args and not node.keywords:
            if name == "pop":
                node.func.value = _look("iterated", node.func.value)
            else:
                node.func = _look("called", node.func)
        elif is_name and not node.args and not node.keywords and name not in _PLAIN_NAMES:
            node.func = _look("called", node.func)
        return node

    def _free(self, arguments: list[ast.expr], *, lists_too: bool) -> None:
        """The order of what these iterate does not show in the result of the call that they are given to."""
        for argument in arguments:
            is_list = isinstance(argument, ast.ListComp) or (
                isinstance(argument, ast.Call) and getattr(argument.func, "id", "") in ("list", "tuple")
            )
            if isinstance(argument, ast.GeneratorExp | ast.Starred) or (is_list and lists_too):
                self._order_free.add(argument)


def _look(helper: str, node: ast.expr) -> ast.expr:
    """The expression, looked at; as it is where it can be no set."""
    if helper == "iterated":
        name = getattr(node.func, "id", getattr(node.func, "attr", "")) if isinstance(node, ast.Call) else ""
        if isinstance(node, _NEVER_SETS) or name in _NEVER_RETURN_SETS:
            return node
    if isinstance(node, ast.Starred) or (isinstance(node, ast.Constant) and helper != "hashed"):
        return node
    return ast.copy_location(ast.Call(_helper(helper, node), [node], []), node)


def _helper(name: str, at: ast.AST) -> ast.expr:
    return ast.copy_location(ast.Name(f"{_PREFIX}{name}__", ast.Load()), at)


# What the functions call.  Each hands on what it was given.


def _iterated(value: Any) -> Any:
    if type(value) in _SETS and len(value) > 1 and any(map(_is_unsteady, value)):
        _note(guarded_calls.SET_ORDER, f"a {type(value).__name__} of {_element(value)} is taken in its order")
    return value


def _shown(value: Any) -> Any:
    kind = type(value)
    if kind in _SETS:
        if len(value) > 1 and any(map(_is_unsteady, value)):
            _note(guarded_calls.SET_ORDER, f"a {kind.__name__} of {_element(value)} is written in its order")
    elif {kind.__str__, kind.__repr__} == _DEFAULT_TEXTS:
        _note(guarded_calls.IDENTITY, f"the text of a {kind.__name__} holds its address")
    return value


def _hashed(value: Any) -> Any:
    if _is_unsteady(value):
        _note(guarded_calls.SET_ORDER, f"hash() of a {type(value).__name__}")
    return value


def _keyed(key: Any) -> Any:
    if key is id:
        _note(guarded_calls.IDENTITY, "key=id")
    return key


def _called(function: Any) -> Any:
    if isinstance(function, weakref.ReferenceType):
        _note(guarded_calls.WEAK_REFERENCE, "a weak reference is followed")
    return function


def _reduced(function: Any, *arguments: Any, **named: Any) -> Any:
    """``sum``, or ``sorted``, ``min``, ``max`` with a key: does the result show the order of a set?"""
    if not arguments or function not in (sum, sorted, min, max):
        return function(*arguments, **named)
    first, *rest = arguments
    elements = _set_behind(first)
    unsteady = elements is not None and len(elements) > 1 and any(map(_is_unsteady, elements))
    key = named.get("key")
    if unsteady and key is not None:
        first = list(first)
        keys = sorted(map(key, first))
        if function is not sorted and keys:
            best = keys[0] if function is min else keys[-1]
            keys = [one for one in keys if one == best]
        if any(one == other for one, other in pairwise(keys)):
            _note(guarded_calls.SET_ORDER, f"{function.__name__}() of a set, whose elements tie under the key")
    result = function(first, *rest, **named)
    if unsteady and function is sum and type(result) is float:
        _note(guarded_calls.SET_ORDER, "sum() of floats in the order of a set")
    return result


def _set_behind(iterable: Any) -> Any:
    """The set itself, or what a generator over a set has still to give; None where there is no set."""
    if type(iterable) in _SETS:
        return iterable
    if type(iterable) is GeneratorType and iterable.gi_frame is not None:
        source = iterable.gi_frame.f_locals.get(".0")
        if type(source) is type(iter(set())):
            return source.__reduce__()[1][0]
    return None


def _zoned(function: Any, *arguments: Any, **named: Any) -> Any:
    """Calls that fall back on the machine's time zone, clock or locale when they are given too little."""
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if name == "gmtime" and owner is time:
        if arguments[:1] in ((), (None,)):
            _note(guarded_calls.CLOCK, "time.gmtime()")
    elif name == "strftime" and (owner is time or isinstance(owner, datetime.date | datetime.time)):
        if _LOCALE_DIRECTIVES.intersection(re.findall("%(.)", str((*arguments, *named.values())[0]))):
            _note(guarded_calls.LOCALE, "strftime() with names in the language of the locale")
    elif name == "fromtimestamp" and isinstance(owner, type) and issubclass(owner, datetime.date):
        if not issubclass(owner, datetime.datetime) or (*arguments, named.get("tz"))[1] is None:
            _note(guarded_calls.TIME_ZONE, f"{owner.__name__}.fromtimestamp() without a time zone")
    elif isinstance(owner, datetime.datetime) and name in ("timestamp", "astimezone"):
        to_local = name == "astimezone" and (*arguments, named.get("tz"))[0] is None
        if owner.tzinfo is None or to_local:
            _note(guarded_calls.TIME_ZONE, f"datetime.{name}() in the machine's time zone")
    return function(*arguments, **named)


def _note(kind: str, what: str) -> None:
    guard = watching()
    if guard is not None:
        guard.note(kind, what, sys._getframe(2))


_HELPERS: Final[dict[str, Callable[..., Any]]] = {
    f"{_PREFIX}{helper.__name__.strip('_')}__": helper
    for helper in (_iterated, _shown, _hashed, _keyed, _called, _reduced, _zoned)
}


# Hashes


def _is_unsteady(value: Any) -> bool:
    """Whether the value's hash may be another one in another process."""
    kind = type(value)
    hashing: Any = kind.__hash__
    if hashing in _UNSTEADY_HASHES:
        return True
    if value is None:
        return sys.version_info < (3, 12)
    if hashing in (tuple.__hash__, frozenset.__hash__):
        return any(map(_is_unsteady, value))
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return any(_is_unsteady(getattr(value, field.name)) for field in fields if field.compare)
    return False


def _element(value: Any) -> str:
    return type(next(one for one in value if _is_unsteady(one))).__name__


_SETS: Final = frozenset({set, frozenset})
_UNSTEADY_HASHES: Final = (
    str.__hash__,
    bytes.__hash__,
    object.__hash__,
    type.__hash__,
    enum.Enum.__hash__,
    datetime.datetime.__hash__,
    datetime.date.__hash__,
    datetime.time.__hash__,
)
_DEFAULT_TEXTS: Final[set[Any]] = {object.__str__, object.__repr__}
_LOCALE_DIRECTIVES: Final = frozenset("aAbBcxXpZ")
