"""Restore holes: a command that comes out as recorded from one start and not from another.

An image, or recorded rows, hold the declared state.  What an engine keeps beside it (module globals, caches that ``rebuild``
does not derive again, attributes that ``capture`` leaves out) is lost where it is restored.  So the command at which a replay
diverged is executed again from other starts, in processes of their own: from the image before, from the beginning, or, where
the replay began before the newest image, from that.  Where one start agrees with the record and the first does not, under
several hash seeds, the restore is the cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from journal.errors import RecoveryError
from recovery.divergence import (
    HIDDEN_STATE,
    LOGIC_CHANGED,
    NOT_DETERMINISTIC,
    ORDER_ONLY,
    RESTORE_HOLE,
    UNKNOWN,
    Divergence,
)
from recovery.explaining.conditions import RESTORE_POINT
from recovery.verifying.processes import environment, replay_elsewhere
from recovery.verifying.range_replay import Range
from recovery.verifying.segment_replay import outcome_of

HASH_SEEDS: Final = ("1", "2")
FROM_BEGINNING_MAX: Final = 250_000
"""From the beginning is tried where the command lies within this many."""
MAY_BE: Final = (UNKNOWN, LOGIC_CHANGED, HIDDEN_STATE, ORDER_ONLY, NOT_DETERMINISTIC)

Task = dict[str, Any]


def with_restore_hole(found: Divergence, names: Task, *, began: int, images: Sequence[int]) -> Divergence:
    """The divergence, its cause corrected where a restore is shown to be it.

    ``names`` are the task's names of verifying/segment_replay.py, ``began`` the command after which the replay began to
    execute, ``images`` the commands of the images, ascending.
    """
    if found.cause not in MAY_BE:
        return found
    try:
        for other in _other_starts(found.command_id, began, images):
            if _agrees(names, other, found.command_id, HASH_SEEDS[0]):
                return _named(found, began, other) if _confirmed(names, began, other, found.command_id) else found
    except RecoveryError:  # an experiment that could not be made shows nothing
        return found
    return found


def _other_starts(command_id: int, began: int, images: Sequence[int]) -> list[int]:
    newest = max((image for image in images if image < command_id), default=0)
    before = max((image for image in images if image < began), default=0)
    starts = [newest] if newest > began else []
    starts += [before] if 0 < before < began else []
    starts += [0] if began and command_id <= FROM_BEGINNING_MAX else []
    return starts


def _confirmed(names: Task, began: int, other: int, command_id: int) -> bool:
    """Whether each start does the same whatever the hash seed: what comes out by chance is no restore's doing."""
    return all(_agrees(names, other, command_id, seed) for seed in HASH_SEEDS[1:]) and not any(
        _agrees(names, began, command_id, seed) for seed in HASH_SEEDS
    )


def _agrees(names: Task, start: int, command_id: int, hash_seed: str) -> bool:
    """Whether a command comes out as recorded where the replay executes from a start on."""
    wanted = Range(start, command_id, keep_going=True, cut=start > 0)
    answer = replay_elsewhere(names | wanted._asdict(), variables=environment(PYTHONHASHSEED=hash_seed))
    outcome = outcome_of(answer)
    last_diverged = max([each.command_id for each in outcome.divergences] + [outcome.unlisted.last])
    return outcome.placed and outcome.last == command_id and last_diverged < command_id


def _named(found: Divergence, began: int, other: int) -> Divergence:
    restored = max(other, began)
    if other > began:
        why = f"the record agrees with an engine that was restored at command {restored}, and not with one that was not"
    else:
        why = f"what was restored at command {restored} does not hold all that the command depends on"
    return replace(
        found,
        cause=RESTORE_HOLE,
        factor=RESTORE_POINT,
        explanation=f"{why}; declare it in a Table or Cell, capture it, or derive it in rebuild()",
        evidence=(
            *found.evidence,
            f"executed from {_place(other)}: as recorded",
            f"executed from {_place(began)}: not as recorded",
        ),
    )


def _place(command_id: int) -> str:
    return f"the state restored at command {command_id}" if command_id else "the beginning"
