"""Where commands lie on a line of fixed width: images and divergences of any number, in a bounded number of marks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Mark(NamedTuple):
    """Some commands that fall on one place: ``x`` in 0 … width, the first and last id, and how many commands."""

    x: int
    first: int
    last: int
    commands: int

    def label(self, one: str, many: str) -> str:
        """What a mark stands for, in words."""
        if self.commands == 1:
            return f"{one} {self.first}"
        return f"{self.commands} {many}, {self.first} to {self.last}"


def marks(command_ids: Iterable[int], *, first: int, last: int, width: int, apart: int = 1) -> list[Mark]:
    """The commands within ``first`` to ``last`` (which may be equal), from left to right; marks are ``apart`` or more."""
    span = max(last - first, 1)
    places: list[Mark] = []
    for command_id in sorted(command_ids):
        if not first <= command_id <= last:
            continue
        x = round((command_id - first) * width / span)
        if places and x - places[-1].x < apart:
            places[-1] = places[-1]._replace(last=command_id, commands=places[-1].commands + 1)
        else:
            places.append(Mark(x, command_id, command_id, 1))
    return places
