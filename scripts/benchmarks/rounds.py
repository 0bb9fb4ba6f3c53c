"""Measuring by turns: each round measures every side once, so that a ratio compares neighbours in time, on a noisy machine."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

Figures = dict[str, list[float]]


@dataclass
class Table:
    """What one benchmark found: for each side its figures, and for some the ratio to a base with what was aimed at."""

    title: str
    unit: str
    figures: Figures
    base: str = ""
    aims: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    upside_down: bool = False
    """Whether a ratio is base to side: so that of times it says how many times faster the side is."""

    def ratio(self, side: str) -> float:
        """The median over the rounds of side to base."""
        return self.ratio_of(side, self.base)

    def ratio_of(self, side: str, base: str) -> float:
        """The median over the rounds of one side to another."""
        pairs = zip(self.figures[side], self.figures[base], strict=True)
        return median(base / mine if self.upside_down else mine / base for mine, base in pairs)

    def to_dict(self) -> dict[str, object]:
        """The table as JSON."""
        sides = {}
        for side, found in self.figures.items():
            sides[side] = {"median": median(found), "min": min(found), "max": max(found), "rounds": found}
            if self.base and side != self.base:
                sides[side]["ratio"] = self.ratio(side)
            if side in self.aims:
                sides[side]["aim"] = self.aims[side]
        return {"title": self.title, "unit": self.unit, "base": self.base, "sides": sides, "notes": self.notes}

    def __str__(self) -> str:
        lines = [f"{self.title}  [{self.unit}]", f"  {'':44}{'median':>12}{'min':>12}{'max':>12}{'ratio':>8}  aim"]
        for side, found in self.figures.items():
            ratio = f"{self.ratio(side):.2f}" if self.base and side != self.base else ""
            numbers = "".join(f"{figure:>12,.2f}" for figure in (median(found), min(found), max(found)))
            lines.append(f"  {side:44}{numbers}{ratio:>8}  {self.aims.get(side, '')}".rstrip())
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def by_turns(sides: Mapping[str, Callable[[], float]], rounds: int) -> Figures:
    """Each side's figure in each round, after one that does not count."""
    figures: Figures = {name: [] for name in sides}
    for number in range(-1, rounds):
        for name, measure in sides.items():
            gc.collect()
            figure = measure()
            if number >= 0:
                figures[name].append(figure)
    return figures
