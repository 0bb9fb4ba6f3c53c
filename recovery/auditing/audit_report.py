"""What an audit says: findings, which are proven; notes, which are what it cannot see; and what it did not check."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from recovery.auditing.hidden_state import HiddenPlace
from recovery.report import SCHEMA_VERSION, guard_line

CLEAN: Final = "clean"
FOUND: Final = "findings"
NOTHING: Final = "nothing"
SUSPECTS_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """One thing proven wrong.  ``check`` is replay, restore, round trip, reject, digest or alias.

    ``suspects`` may be why: what differs after the restore, or changed outside the engine, in words by name.  ``also`` are
    the commands at which the same was found again.
    """

    check: str
    command_id: int
    what: str
    suspects: dict[str, str] = field(default_factory=dict)
    also: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON."""
        return {
            "check": self.check,
            "command_id": self.command_id,
            "what": self.what,
            "suspects": dict(self.suspects),
            "also": list(self.also),
        }

    def __str__(self) -> str:
        lines = [f"{self.check}, command {self.command_id}: {self.what}".replace("\n", "\n  ")]
        lines += [f"    perhaps because of {suspect}" for suspect in list(self.suspects.values())[:SUSPECTS_MAX]]
        more = len(self.suspects) - SUSPECTS_MAX
        lines += [f"    … and {more} more"] if more > 0 else []
        lines += [f"    the same at {len(self.also)} more commands, such as {self.also[0]}"] if self.also else []
        return "\n".join(lines)


@dataclass(slots=True)
class AuditReport:
    """The outcome of an audit over commands 1 to ``commands``."""

    engine: str
    commands: int = 0
    findings: list[AuditFinding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    hidden: list[HiddenPlace] = field(default_factory=list)
    guard: dict[str, Any] = field(default_factory=lambda: {"mode": "warn", "findings": [], "not_seen": []})
    checked: dict[str, int] = field(default_factory=dict)
    not_checked: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """``clean``, ``findings``, or ``nothing`` where there was no command to look at."""
        if self.findings or self.guard["findings"]:
            return FOUND
        return CLEAN if self.commands else NOTHING

    @property
    def exit_code(self) -> int:
        """0 clean, 1 findings, 5 nothing looked at."""
        return {CLEAN: 0, FOUND: 1, NOTHING: 5}[self.verdict]

    def count(self, check: str, by: int = 1) -> None:
        """Something was checked."""
        self.checked[check] = self.checked.get(check, 0) + by

    def merge(self) -> None:
        """Let one finding stand for all restores with the same suspects, and for all that say the same."""
        merged: dict[tuple[str, ...], AuditFinding] = {}
        for finding in self.findings:
            key = (finding.check, *finding.suspects) if finding.check == "restore" else (finding.check, finding.what)
            first = merged.setdefault(key, finding)
            if first is not finding:
                merged[key] = replace(first, also=(*first.also, finding.command_id))
        self.findings = list(merged.values())

    def to_dict(self) -> dict[str, Any]:
        """The document of ``recovery audit --json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "verdict": self.verdict,
            "engine": self.engine,
            "commands": self.commands,
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": list(self.notes),
            "hidden_state": [place.to_dict() for place in self.hidden],
            "guard": self.guard,
            "checked": dict(self.checked),
            "not_checked": list(self.not_checked),
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        changed = [place for place in self.hidden if place.changed]
        lines = [f"{self.verdict}: {self.engine}, {self.commands} commands audited in {self.seconds:.1f} s"]
        lines += ["  checked: " + ", ".join(f"{count} {name}" for name, count in self.checked.items())]
        lines += [f"  finding: {finding}" for finding in self.findings]
        lines += [f"  not deterministic: {guard_line(finding)}" for finding in self.guard["findings"]]
        lines += [f"  note: {note}" for note in self.notes]
        lines += [f"  note: no image holds {place}, and it changed while the commands ran" for place in changed]
        if len(self.hidden) > len(changed):
            lines.append(f"  outside the engine, unchanged: {len(self.hidden) - len(changed)} (--json lists them)")
        lines += [f"  not checked: {line}" for line in (*self.not_checked, *self.guard["not_seen"])]
        return "\n".join(lines)
