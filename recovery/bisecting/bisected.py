"""Bisection: what a search for the first divergence found, how, and what the finding rests on.  A result, no exception."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from recovery.divergence import Divergence
from recovery.plain_text import visible
from recovery.report import DAMAGED, DIVERGED, NOTHING, SCHEMA_VERSION, VERIFIED

RECORD: Final = "recorded history"
ENGINES: Final = "two engines"
JOURNALS: Final = "two journals"
REVISIONS: Final = "two revisions"
"""The methods: what is compared with what."""


@dataclass(frozen=True, slots=True)
class Bisection:
    """What was found.

    ``steps`` counts what was looked at to find it: segments replayed, commands compared, pairs of entries read, revisions
    judged, by the method.  ``monotone`` says whether what was searched stays as it is from the divergence on, so that halving
    alone proves it; where it does not, ``evidence`` says what does.  ``proven`` is False where something before the divergence
    was not checked.  ``details`` are further fields of the document, the method's own.
    """

    method: str
    verdict: str
    first_divergence: Divergence | None
    commands_replayed: int
    steps: int
    monotone: bool
    evidence: str
    sides: tuple[str, str]
    """What *recorded* and *replayed* stand for."""
    proven: bool = True
    notes: tuple[str, ...] = ()
    not_checked: tuple[str, ...] = ()
    damage: str = ""
    engine: str = ""
    seconds: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 no divergence, 1 one was found, 4 damaged, 5 there was nothing to compare."""
        return {VERIFIED: 0, DIVERGED: 1, DAMAGED: 4, NOTHING: 5}[self.verdict]

    def to_dict(self) -> dict[str, Any]:
        """The document of ``recovery bisect --json``."""
        found = self.first_divergence
        document: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.verdict,
            "first_divergence": None if found is None else found.to_dict(),
            "method": self.method,
            "commands_replayed": self.commands_replayed,
            "steps": self.steps,
            "monotone": self.monotone,
            "proven": self.proven,
            "evidence": self.evidence,
            "sides": dict(zip(("recorded", "replayed"), self.sides, strict=True)),
            "notes": list(self.notes),
            "not_checked": list(self.not_checked),
            "seconds": round(self.seconds, 3),
        }
        document |= {"engine": self.engine} if self.engine else {}
        document |= {"damage": self.damage} if self.damage else {}
        return document | self.details

    def __str__(self) -> str:
        words = {
            VERIFIED: "no divergence",
            DIVERGED: "first divergence" if self.proven else "a divergence, and perhaps not the first",
            DAMAGED: "damaged",
            NOTHING: "nothing was compared",
        }
        lines = [
            f"{words[self.verdict]}: {self.method}, {self.steps} steps, "
            f"{self.commands_replayed} commands replayed in {self.seconds:.1f} s",
            *self._commit_lines(),
            f"  recorded: {self.sides[0]}",
            f"  replayed: {self.sides[1]}",
            f"  evidence: {self.evidence}",
        ]
        lines += [f"  note: {line}" for line in self.notes]
        lines += [f"  not checked: {line}" for line in self.not_checked]
        lines += [f"  damage: {self.damage}"] if self.damage else []
        lines += [str(self.first_divergence)] if self.first_divergence is not None else []
        return "\n".join(lines)

    def _commit_lines(self) -> list[str]:
        if "first_bad_commit" not in self.details:
            return []
        if self.details["first_bad_commit"] is None:
            return ["  the first bad commit is one of:", *(f"    {each}" for each in self.details["candidates"])]
        commit = self.details["commit"]
        return [visible(f"  first bad commit: {commit['hash']}, {commit['author_date']}, {commit['subject']}")]
