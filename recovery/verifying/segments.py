"""The plan of a verification in parallel: which segments, so that all end at about the same time.  Pure.

Work is counted in commands executed.  A segment begins where the state is known: where an image lies, at no cost but loading
it; or, where rows are recorded, anywhere, after folding the rows since the newest image before it, which goes ``FOLD_SPEED``
times as fast as executing (measured: 5 to 9 times; scripts/bench --only verify).  So a history without images is cut too:
later segments are shorter by what getting there costs.  A cut pays where the whole ends sooner by it; a segment costs
``START`` commands besides, for a process, its imports and the image.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

FOLD_SPEED: Final = 5
START: Final = 2_500
FINER: Final = (1, 2, 4)
"""Segments a worker, by choice: more of them even out what commands cost, where they cost little to begin."""
NEAR: Final = 0.1
"""A cut is moved to an image that is nearer than this part of a segment."""


class Segment(NamedTuple):
    """The commands with ``after < id <= until``."""

    after: int
    until: int


def plan(after: int, last: int, images: Sequence[int], *, jobs: int, can_fold: bool) -> list[Segment]:
    """Segments that make up the commands with ``after < id <= last``, in order; one where cutting does not pay.

    ``images`` are the commands at which verified images lie, ascending; ``can_fold`` whether rows are recorded.
    """
    inside = [image for image in images if image < last]
    best = [Segment(after, last)]
    best_ends: float = last - after  # here, where nothing is to be started
    for finer in FINER if jobs > 1 else ():
        cuts = _cuts(after, last, inside, jobs * finer, can_fold)
        segments = [Segment(*pair) for pair in zip([after, *cuts], [*cuts, last], strict=True)]
        ends = _ends(segments, inside, jobs)
        # Finer is better where it ends about as soon: what was assumed of the costs is then less missed.
        if ends < best_ends * (1.02 if finer > 1 and len(best) > 1 else 1):
            best, best_ends = segments, min(ends, best_ends)
    return best


def _way(at: int, images: Sequence[int]) -> float:
    """What getting to a command costs."""
    place = bisect_right(images, at)
    return (at - (images[place - 1] if place else 0)) / FOLD_SPEED


def _ends(segments: Sequence[Segment], images: Sequence[int], jobs: int) -> float:
    """When the last segment ends, taken in order by whoever is free."""
    free = [0.0] * jobs
    for segment in segments:
        way = _way(segment.after, images) if segment is not segments[0] else 0
        heapq.heapreplace(free, free[0] + START + way + segment.until - segment.after)
    return max(free)


def _cuts(after: int, last: int, images: Sequence[int], parts: int, can_fold: bool) -> list[int]:
    """Cuts that make at most ``parts`` segments of about equal cost, the way to each included."""
    low, high = (last - after) // parts, last - after
    while low < high:
        middle = (low + high) // 2
        if _walk(after, last, images, middle, parts, can_fold) is None:
            low = middle + 1
        else:
            high = middle
    return _walk(after, last, images, high, parts, can_fold) or []


def _walk(after: int, last: int, images: Sequence[int], cost: int, parts: int, can_fold: bool) -> list[int] | None:
    """The cuts of segments that cost at most about ``cost``; None where more than ``parts`` would be needed."""
    cuts: list[int] = []
    at = after
    while True:
        length = cost - (round(_way(at, images)) if cuts else 0)
        if length <= 0:
            return None
        if at + length >= last:
            return cuts
        if len(cuts) + 1 == parts:
            return None
        at = _cut(at, last, images, length, can_fold)
        if at >= last:
            return cuts
        cuts.append(at)


def _cut(at: int, last: int, images: Sequence[int], length: int, can_fold: bool) -> int:
    """Where a segment of about this length ends: at an image that is near, else, where rows can be folded, just there."""
    wanted = at + length
    place = bisect_right(images, wanted)
    around = [image for image in images[max(0, place - 1) : place + 1] if image > at]
    nearest = min(around, key=lambda image: abs(image - wanted), default=last)
    if not can_fold or abs(nearest - wanted) <= length * NEAR:
        return nearest
    return wanted
