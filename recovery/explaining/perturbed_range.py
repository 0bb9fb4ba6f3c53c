"""A whole range replayed under other conditions: does any command of it depend on anything but its command?

A history that verifies here and now may still not verify on another machine.  The range is replayed in child processes:
untouched, twice in one process; with everything changed at once, several times; with the heap shuffled; from the beginning and
from images.  Where one of them parts from the untouched one, the first such command is studied alone, and is a finding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from journal.journal import Journal
from journal.urls import open_reader
from recovery import report as verdicts
from recovery.divergence import HIDDEN_STATE, NOT_DETERMINISTIC, RESTORE_HOLE, Divergence
from recovery.explaining.conditions import Setting, at_once, settings, variable_settings
from recovery.explaining.explanation import explained_by, from_record, study
from recovery.explaining.perturbation import AT_ONCE, Failed, Laboratory, Observed, Place, Run, Seen
from recovery.images import open_catalog
from recovery.report import Report

STARTS_MAX: Final = 4
"""From how many images the range is replayed again."""
_LONG: Final = 5000
_AT_ONCE_LONG: Final = 3
_LAYOUTS: Final = (1, 2)
_ANYWHERE: Final = 10**18


def perturbed(report: Report, place: Place | None) -> Report:
    """A verified report, with what the perturbed replays of its commands showed; diverged where they part.

    Costs about ten replays of the range, two at a time, and where something is found, some forty experiments with its command.
    """
    if report.verdict != verdicts.VERIFIED:
        return report
    if place is None:
        line = "perturbation: the engine or its history cannot be loaded by another process"
        return replace(report, not_checked=(*report.not_checked, line))
    sweep = _Sweep(Laboratory(place), report.first - 1, report.last)
    found = sweep.first()
    report = replace(report, perturbed=tuple(sweep.lines), not_checked=(*report.not_checked, *sweep.not_run))
    return report if found is None else replace(report, verdict=verdicts.DIVERGED, divergences=(found,))


class _Sweep:
    """One range under other conditions.  ``lines`` says what was run, ``not_run`` what could not be."""

    def __init__(self, laboratory: Laboratory, after: int, until: int) -> None:
        self.lines: list[str] = []
        self.not_run: list[str] = []
        self._laboratory = laboratory
        self._whole = Run(after, until)

    def first(self) -> Divergence | None:
        """The first command that came out otherwise under some condition, explained; None where none did."""
        lab, whole = self._laboratory, self._whole
        with Journal(open_reader(lab.place.journal), lab.place.stream) as journal:
            base = lab.observe((), [whole, whole])
            if isinstance(base, Failed):
                self.not_run.append(f"perturbation: {base.reason}")
                return None
            parted = sorted(self._parted(journal, base), key=lambda each: each[0])
            if not parted:
                return None
            command_id, divergence, cause, label = parted[0]
            self.lines.append(f"command {command_id} comes out otherwise with {label}")
            return self._studied(journal, command_id, replace(divergence, cause=cause))

    def _parted(self, journal: Journal, base: Observed) -> Iterator[tuple[int, Divergence, str, str]]:
        """Where replays part from the untouched one: the command, the divergence there, its cause so far, the condition."""
        still, again = base.runs
        yield from self._compared(still, again, HIDDEN_STATE, "the range replayed before in the same process")
        experiments = self._experiments(journal, base)
        observed = self._laboratory.observe_all((changed, runs) for _, _, changed, runs in experiments)
        for (label, cause, _, runs), each in zip(experiments, observed, strict=True):
            if isinstance(each, Failed):
                self.not_run.append(f"perturbation with {label}: {each.reason}")
                continue
            for run, seen in zip(runs, each.runs, strict=True):
                yield from self._compared(still, seen, cause, label, after=max(run.after, self._whole.after))

    def _experiments(self, journal: Journal, base: Observed) -> list[tuple[str, str, list[Setting], list[Run]]]:
        whole = self._whole
        (entry,) = journal.read(whole.until - 1, whole.until)
        groups = settings(clock_s=self._laboratory.clock_s, recorded_s=entry.received_at_ms / 1000)
        asked_for = variable_settings(base.variables)
        times = AT_ONCE if whole.until - whole.after <= _LONG else _AT_ONCE_LONG
        found: list[tuple[str, str, list[Setting], list[Run]]] = []
        for number in range(times):
            chosen = [*at_once(groups, number, at_birth=False), *at_once(groups, number, at_birth=True)]
            chosen += asked_for[number % 2 :: 2]
            label = "everything changed at once: " + ", ".join(setting.label for setting in chosen)
            found.append((label, NOT_DETERMINISTIC, chosen, [whole]))
        layouts = [whole._replace(layout=number) for number in _LAYOUTS]
        found.append(("objects at other addresses", NOT_DETERMINISTIC, [], layouts))
        for start in self._starts(journal):
            origin = f"the image at {start}" if start else "the beginning"
            after = max(start, whole.after) if start else 0
            found.append((f"a start from {origin}", RESTORE_HOLE, [], [Run(after, whole.until, start=start)]))
        return found

    def _starts(self, journal: Journal) -> list[int]:
        place = self._laboratory.place
        catalog = open_catalog(place.snapshots or None, place.stream)
        images = catalog.images(journal.identity.journal_id) if catalog is not None else []
        ids = sorted({image.command_id for image in images if image.command_id < self._whole.until})
        # Spread over the range: the first, the last, and some between.
        step = max(1, -(-len(ids) // STARTS_MAX))
        return [0, *ids[::-1][::step][::-1]] if ids or self._whole.after else []

    def _compared(
        self, still: Seen, seen: Seen, cause: str, label: str, *, after: int = 0
    ) -> Iterator[tuple[int, Divergence, str, str]]:
        command_id = still.first_difference(seen, after=after)
        if command_id is None:
            self.lines.append(f"with {label}: the same")
            return
        divergence = seen.divergences.get(command_id) or still.divergences.get(command_id)
        if divergence is not None:
            yield command_id, divergence, cause, label

    def _studied(self, journal: Journal, command_id: int, divergence: Divergence) -> Divergence:
        """The divergence explained: from its command alone, and where that shows nothing, from the range up to it."""
        known = from_record(divergence)
        findings, entry, epoch = study(
            self._laboratory, journal, command_id, after=self._whole.after, at_most=_ANYWHERE
        )
        return explained_by(known, findings, entry, epoch)
