"""Delta debugging: the part of a sequence that still shows something, from which nothing can be left out (Zeller's ddmin).

Deterministic, and bounded: no subset is tried twice, and where the runs are used up, the smallest found until then is given.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Smallest(NamedTuple, Generic[T]):
    """What was found.  ``exact``: none of its items can be left out; else the runs were used up before that was known."""

    items: list[T]
    runs: int
    exact: bool


class _UsedUp(Exception):
    """No runs are left."""


def smallest(items: Sequence[T], shows: Callable[[list[T]], bool], *, runs_max: int) -> Smallest[T]:
    """The smallest part of ``items``, in order, for which ``shows`` is True, as it is for all of them.

    ``shows`` is called at most ``runs_max`` times.
    """
    tried: dict[tuple[int, ...], bool] = {}
    best = tuple(range(len(items)))

    def keeps(candidate: tuple[int, ...]) -> bool:
        nonlocal best
        known = tried.get(candidate)
        if known is None:
            if len(tried) >= runs_max:
                raise _UsedUp
            known = tried[candidate] = shows([items[at] for at in candidate])
        if known:
            best = candidate
        return known

    exact = True
    try:
        if best and not keeps(()):
            _reduce(best, keeps)
    except _UsedUp:
        exact = False
    return Smallest([items[at] for at in best], len(tried), exact)


def _reduce(current: tuple[int, ...], keeps: Callable[[tuple[int, ...]], bool]) -> None:
    """Halve, then quarter and so on: first try each piece alone, then what is left without it."""
    pieces = 2
    while len(current) > 1:
        chunks = _split(current, pieces)
        alone = next((chunk for chunk in chunks if keeps(chunk)), None) if pieces == 2 else None
        if alone is not None:
            current, pieces = alone, 2
            continue
        without = (tuple(at for at in current if at not in set(chunk)) for chunk in chunks)
        rest = next((candidate for candidate in without if keeps(candidate)), None)
        if rest is not None:
            current, pieces = rest, max(pieces - 1, 2)
        elif pieces >= len(current):
            return
        else:
            pieces = min(pieces * 2, len(current))


def _split(current: tuple[int, ...], pieces: int) -> list[tuple[int, ...]]:
    ends = [len(current) * piece // pieces for piece in range(pieces + 1)]
    return [current[start:end] for start, end in itertools.pairwise(ends) if end > start]
