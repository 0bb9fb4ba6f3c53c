"""When the next image is due: after so many commands, or so many seconds.  Pure."""

from __future__ import annotations

from typing import NamedTuple


class Schedule(NamedTuple):
    """An image every ``every`` commands, or once ``seconds`` have gone by with a command in them; None is never."""

    every: int | None = None
    seconds: float | None = None


class Moment(NamedTuple):
    """A point in the life of a journal: how far it was, at what time of one steady clock."""

    command_id: int
    seconds: float


def is_due(schedule: Schedule, *, last: Moment, now: Moment) -> bool:
    """Whether an image is due, ``last`` being that of the newest one (or of the start, at command 0)."""
    commands = now.command_id - last.command_id
    if commands <= 0:
        return False
    if schedule.every is not None and commands >= schedule.every:
        return True
    return schedule.seconds is not None and now.seconds - last.seconds >= schedule.seconds
