"""Explanation: from a divergence and what experiments showed to a cause, a factor, and a sentence.

``from_record`` reads the divergence alone and costs nothing.  ``explain`` runs experiments (explaining/perturbation.py) besides.
A cause is one of recovery/divergence.py; a factor, one of explaining/conditions.py, says on what the outcome was *shown* to
depend.  "unknown" is an answer.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from journal.journal import Journal
from journal.records import Entry, Epoch
from journal.urls import open_reader
from recovery import divergence as words
from recovery.divergence import Divergence
from recovery.explaining.conditions import FACTORS, PROCESS, RESTORE_POINT
from recovery.explaining.perturbation import Findings, Laboratory, Place, Run, Study
from recovery.images import open_catalog
from recovery.json_values import to_json

__all__ = ["FACTORS", "explain", "from_record"]

QUICK_S: Final = 30.0
"""How long the experiments after a plain replay may take."""
EARLIER_MAX: Final = 5000
"""How many commands before the divergence are executed to let hidden state pile up."""
IMAGES_MAX: Final = 2
EXPLAINED_MAX: Final = 4
"""With how many divergences of one replay experiments are run."""

_BY_RECORD: Final = {
    words.LOGIC_CHANGED: "The code is of another revision than the one recorded, and by it the command comes out otherwise.",
    words.NOT_DETERMINISTIC: "The same command on the same state came out in two ways.",
    words.TOUCHED_OUTSIDE: (
        "The state was not what the command before had left: a row was written outside a command, behind the framework."
    ),
    words.HIDDEN_STATE: (
        "The rows are as recorded and only the answer differs: it depends on something that is in no table, "
        "or on a setting outside the engine."
    ),
    words.ORDER_ONLY: "Both sides hold the same elements in another order: something is walked through in no fixed order.",
    words.RECORDER_FAULT: (
        "Writing the recorded rows does not give the recorded digest, although all checksums hold: "
        "the record was wrong when it was written."
    ),
    words.CHANGES_INCOMPLETE: (
        "The command comes out as recorded, but the recorded rows are not what it changes: the record of rows is wrong."
    ),
    words.RESTORE_HOLE: "It depends on where the replay began: the engine has state that an image does not hold.",
    words.UNKNOWN: "The same code gives another result than recorded; why is not known.",
}
_BY_FACTOR: Final = {
    "memory addresses": "on where objects lie in memory (id(), the default hash, or the order of a set of objects)",
    "hash seed": "on PYTHONHASHSEED: on the order of a set of texts, or on hash()",
    "time zone": "on the time zone of the machine (TZ)",
    "locale": "on the locale",
    "clock": "on the clock of the machine; context.now_ms is the time that is recorded",
    "random": "on random numbers that are not recorded; context.random and context.new_uuid() are",
    "garbage collection": "on when garbage is collected (weak references, __del__)",
    "decimal context": "on the default decimal context",
    "thread": "on which thread it runs on",
    "environment": "on a variable of the environment",
    "working directory": "on the working directory, or on a file found from there",
    "optimization": "on python -O, which takes asserts out",
    "process": "on what ran in the same process before (a module global, a class attribute, a cache), or on the process id",
    "restore point": "on where the engine was started: it keeps state that is in no table and no capture",
}


def from_record(divergence: Divergence) -> Divergence:
    """The divergence with the cause that it shows by itself, and its sentence."""
    cause = divergence.cause
    if cause in (words.UNKNOWN, words.HIDDEN_STATE, words.LOGIC_CHANGED) and order_only(divergence):
        cause = words.ORDER_ONLY
    return replace(divergence, cause=cause, explanation=_BY_RECORD[cause])


def order_only(divergence: Divergence) -> bool:
    """Whether both sides hold the same elements everywhere, and only their order differs."""
    pairs = [(part.get("recorded"), part.get("replayed")) for part in divergence.parts.values()]
    by_field: dict[tuple[str, str], list[tuple[Any, Any]]] = {}
    for each in divergence.fields:
        if each.recorded is words.ABSENT or each.replayed is words.ABSENT:
            return False
        by_field.setdefault((each.table, each.field), []).append((to_json(each.recorded), to_json(each.replayed)))
    if not pairs and not by_field:
        return False
    # The same values under each other's keys are an order too: of who came first.
    swapped = all(_same_elements(rows) or all(map(_reordered, rows)) for rows in by_field.values())
    return swapped and all(map(_reordered, pairs))


def _same_elements(rows: Sequence[tuple[Any, Any]]) -> bool:
    ours, theirs = (Counter(json.dumps(row[side]) for row in rows) for side in (0, 1))
    return len(ours) > 1 and ours == theirs


def _reordered(pair: tuple[Any, Any]) -> bool:
    recorded, replayed = pair
    return json.dumps(recorded) != json.dumps(replayed) and _sorted(recorded) == _sorted(replayed)


def _sorted(value: Any) -> Any:
    """A JSON value as text, the elements of every list in one order."""
    if isinstance(value, list):
        return "[" + ",".join(sorted(map(_sorted, value))) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{_sorted(value[key])}" for key in sorted(value)) + "}"
    return json.dumps(value)


def explained(
    divergences: Sequence[Divergence], place: Place | None, *, seconds: float | None = QUICK_S
) -> list[Divergence]:
    """The divergences of one replay, each with its sentence: the first few by ``explain``, as long as there is time for it, the
    others from the record alone."""
    ends = None if seconds is None else time.monotonic() + seconds
    found: list[Divergence] = []
    for each in divergences:
        left = None if ends is None else ends - time.monotonic()
        if each.explanation:
            found.append(each)
        elif place is None or not found or (len(found) < EXPLAINED_MAX and (left is None or left > 0)):
            found.append(explain(each, place, seconds=left))
        else:
            found.append(_not_studied(each))
    return found


def _not_studied(divergence: Divergence) -> Divergence:
    known = from_record(divergence)
    if known.cause in _SETTLED:
        return known
    reason = f"no experiment was run with it: that is done with the first {EXPLAINED_MAX}, as far as there is time"
    return replace(known, evidence=(*known.evidence, reason))


_SETTLED: Final = (words.TOUCHED_OUTSIDE, words.RECORDER_FAULT, words.CHANGES_INCOMPLETE)
"""Causes that redo has proven: no experiment with the engine can say more."""


def explain(divergence: Divergence, place: Place | None, *, seconds: float | None = QUICK_S) -> Divergence:
    """The divergence with its cause, factor, explanation and evidence, from experiments in child processes.

    Costs, two processes at a time: about 10 experiments where nothing matters, 40 where something does, each the start of a
    Python process, the engine's, the load of an image, and the redo of the rows since (of an engine without tables, the
    execution of the commands since); some of up to ``EARLIER_MAX`` commands more.  After ``seconds`` (None: however long it
    takes) what was not run is said so.  With ``place`` None nothing is run.
    """
    known = from_record(divergence)
    if place is None:
        reason = "no experiment was run: another process cannot load the engine or its history as they are here"
        return replace(known, evidence=(*known.evidence, reason))
    if known.cause in _SETTLED:
        return known
    laboratory = Laboratory(place, seconds=seconds)
    with Journal(open_reader(place.journal), place.stream) as journal:
        return explained_by(known, *study(laboratory, journal, divergence.command_id))


def study(
    laboratory: Laboratory, journal: Journal, command_id: int, *, after: int | None = None, at_most: int = EARLIER_MAX
) -> tuple[Findings, Entry, Epoch | None]:
    """What is found about one command: alone, and where only its past seems to matter, with the commands since ``after``.

    Without ``after`` these are the commands since the earliest place to begin that is at most ``at_most`` commands back.
    """
    (entry,) = journal.read(command_id - 1, command_id)
    epoch = next((each for each in journal.epochs() if each.number == entry.epoch), None)
    earlier = earlier_runs(laboratory.place, journal, command_id, at_most=at_most)
    recorded_s = entry.received_at_ms / 1000
    alone = Run(command_id - 1, command_id)
    found = Study(laboratory, alone, recorded_s=recorded_s, earlier=earlier).findings()
    by_past = found.ran and found.steady and bool(found.factors) and found.factors.keys() <= {PROCESS, RESTORE_POINT}
    longer = [run for run in earlier if run.until - run.after > 1] if after is None else [Run(after, command_id)]
    if longer and (by_past or (after is not None and not found.factors and not found.suspected)):
        # What is hidden may itself depend on something: on when garbage is collected, on the clock when it was filled.
        further = Study(laboratory, longer[0], recorded_s=recorded_s).findings()
        if further.ran and (further.factors or not further.steady or further.suspected):
            if by_past and further.factors.keys() <= found.factors.keys():
                return found, entry, epoch
            evidence = [*found.evidence, f"the same experiments with commands {longer[0].after + 1} to {command_id}:"]
            further.factors = further.factors | found.factors
            further.evidence[:0] = evidence
            return further, entry, epoch
    return found, entry, epoch


def earlier_runs(place: Place, journal: Journal, command_id: int, *, at_most: int = EARLIER_MAX) -> list[Run]:
    """Runs that end with a command and begin further back: at the beginning and at images, within reach."""
    runs = []
    if 1 < command_id <= at_most:
        runs.append(Run(0, command_id, start=0))
    catalog = open_catalog(place.snapshots or None, place.stream)
    images = catalog.images(journal.identity.journal_id) if catalog is not None else []
    ids = [image.command_id for image in images if image.command_id < command_id]
    near = [start for start in sorted(set(ids)) if command_id - start <= at_most]
    runs += [Run(start, command_id, start=start) for start in near[-IMAGES_MAX:]]
    return runs


def explained_by(known: Divergence, findings: Findings, entry: Entry, epoch: Epoch | None) -> Divergence:
    """The divergence with what a study of its command found."""
    evidence = (*known.evidence, *findings.evidence)
    if not findings.ran:
        return replace(known, evidence=evidence)
    if not findings.steady:
        sentence = "It differs by itself: identical processes, with all held still that can be, do not agree."
        return replace(known, cause=words.NOT_DETERMINISTIC, explanation=sentence, evidence=evidence)
    factor = next(iter(findings.factors), "")
    parts = {*known.parts, *(each.path for each in known.fields)} or {"post_digest"}
    suspected = findings.suspected
    if (factor or suspected) and not findings.moved & (parts | {"post_digest"}):
        moved = ", ".join(sorted(findings.moved))
        evidence += (f"what moves with {factor or 'these'} is {moved}, and that is not what differs here",)
        factor, suspected = "", []
    if factor:
        cause = {PROCESS: words.HIDDEN_STATE, RESTORE_POINT: words.RESTORE_HOLE}.get(factor, words.NOT_DETERMINISTIC)
        setting = findings.factors[factor]
        sentence = f"The outcome depends {_BY_FACTOR[factor]}: with {setting} it is another."
        return replace(known, cause=cause, factor=factor, explanation=sentence, evidence=evidence)
    if suspected:
        sentence = f"The outcome was another with one of these, and which was not told: {', '.join(suspected)}."
        return replace(known, cause=words.NOT_DETERMINISTIC, explanation=sentence, evidence=evidence)
    if findings.recorded:
        sentence = (
            "In a fresh process the command comes out as recorded, so it depends on something that no experiment moved."
        )
        return replace(known, cause=words.NOT_DETERMINISTIC, explanation=sentence, evidence=evidence)
    return replace(known, evidence=evidence, explanation=" ".join((known.explanation, *_changed_since(known, epoch))))


def _changed_since(known: Divergence, epoch: Epoch | None) -> list[str]:
    import platform

    if epoch is None or known.cause not in (words.UNKNOWN, words.LOGIC_CHANGED, words.HIDDEN_STATE):
        return []
    here = platform.python_version()
    return [f"It was recorded under Python {epoch.python}, and this is {here}."] if epoch.python != here else []
