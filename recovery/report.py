"""Report: what a verification looked at, what it found, and what it did not check.  A result, not an exception."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from recovery.divergence import Divergence

SCHEMA_VERSION: Final = 1
VERIFIED: Final = "verified"
DIVERGED: Final = "diverged"
DAMAGED: Final = "damaged"
NOTHING: Final = "nothing"


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a replay over commands ``first`` to ``last``."""

    verdict: str
    engine: str
    state_version: int
    logic_version: int
    first: int
    last: int
    commands: int
    checked: dict[str, int]
    not_checked: tuple[str, ...]
    snapshot: int
    seconds: float
    divergences: tuple[Divergence, ...] = ()
    damage: str = ""
    segments: int = 1
    guard: dict[str, Any] | None = None
    """What the determinism guard found and could not see (recovery/determinism.py); None where the engine ran without."""
    perturbed: tuple[str, ...] = ()
    """What was replayed under other conditions, and what that showed; a line each."""

    @property
    def commands_per_second(self) -> int:
        """How fast it went."""
        return round(self.commands / self.seconds) if self.seconds else 0

    def exit_code(self, *, strict: bool = False) -> int:
        """0 verified, 1 diverged, 4 damaged, 5 nothing verified, or with ``strict`` not everything."""
        code = {VERIFIED: 0, DIVERGED: 1, DAMAGED: 4, NOTHING: 5}[self.verdict]
        unseen = self.not_checked or (self.guard is not None and self.guard["not_seen"])
        return 5 if code == 0 and strict and unseen else code

    def to_dict(self) -> dict[str, Any]:
        """The document of ``recovery replay --json``."""
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.verdict,
            "engine": self.engine,
            "state_version": self.state_version,
            "logic_version": self.logic_version,
            "first": self.first,
            "last": self.last,
            "commands": self.commands,
            "checked": dict(self.checked),
            "not_checked": list(self.not_checked),
            "snapshot": {"command_id": self.snapshot},
            "segments": self.segments,
            "seconds": round(self.seconds, 3),
            "commands_per_second": self.commands_per_second,
            "divergences": [divergence.to_dict() for divergence in self.divergences],
        }
        if self.damage:
            document["damage"] = self.damage
        if self.guard is not None:
            document["guard"] = self.guard
        if self.perturbed:
            document["perturbed"] = list(self.perturbed)
        return document

    def __str__(self) -> str:
        span = f"commands {self.first} to {self.last}" if self.commands else "no command"
        lines = [
            f"{self.verdict}: {self.engine}, {span}, "
            f"{self.commands} replayed in {self.seconds:.1f} s ({self.commands_per_second}/s) from command {self.snapshot}",
            "  checked: " + ", ".join(f"{count} {name}" for name, count in self.checked.items()),
        ]
        lines += [f"  not checked: {line}" for line in self.not_checked]
        lines += [f"  damage: {self.damage}"] if self.damage else []
        if self.guard is not None:
            lines += [f"  guard: {guard_line(finding)}" for finding in self.guard["findings"]] or [
                "  guard: nothing found"
            ]
            lines += [f"  guard does not see: {line}" for line in self.guard["not_seen"]]
        lines += [f"  perturbed: {line}" for line in self.perturbed]
        lines += [str(divergence) for divergence in self.divergences]
        return "\n".join(lines)


def guard_line(finding: dict[str, Any]) -> str:
    """One finding of the guard in words."""
    met = finding["commands"]
    times = "in" if met == 1 else f"in {met} commands, first in"
    return (
        f"{finding['kind']}: {finding['what']} at {finding['file']}:{finding['line']} in {finding['function']}, "
        f"{times} command {finding['first_command']}"
    )
