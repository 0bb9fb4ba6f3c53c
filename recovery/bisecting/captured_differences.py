"""Two captured values of an engine without tables: the leaves in which they differ, in the words for tables.

The first step into the value is the *table*, the second the *key*, the rest the *field*, its steps joined by dots; a value
that is not a dict is under the table ``state``.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from journal import values
from recovery.divergence import ABSENT, FieldDifference

DIFFERENCES_MAX: Final = 1000


def captured_differences(recorded: Any, replayed: Any) -> tuple[FieldDifference, ...]:
    """The leaves that differ, in order, at most ``DIFFERENCES_MAX``."""
    return tuple(islice((_named(*leaf) for leaf in _leaves((), recorded, replayed)), DIFFERENCES_MAX))


def _leaves(path: tuple[Any, ...], recorded: Any, replayed: Any) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    if recorded is not ABSENT and replayed is not ABSENT:
        if values.encode_bare(recorded) == values.encode_bare(replayed):
            return
        pair = _children(recorded), _children(replayed)
        if type(recorded) is type(replayed) and pair[0] is not None and pair[1] is not None:
            for step in {**pair[0], **pair[1]}:
                yield from _leaves((*path, step), pair[0].get(step, ABSENT), pair[1].get(step, ABSENT))
            return
    yield path, recorded, replayed


def _children(value: Any) -> dict[Any, Any] | None:
    if isinstance(value, dict):
        return value
    return dict(enumerate(value)) if isinstance(value, list | tuple) else None


def _named(path: tuple[Any, ...], recorded: Any, replayed: Any) -> FieldDifference:
    if not path or not isinstance(path[0], str):
        path = ("state", *path)
    return FieldDifference(path[0], path[1] if len(path) > 1 else (), ".".join(map(str, path[2:])), recorded, replayed)
