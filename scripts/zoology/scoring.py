"""One specimen: recorded, replayed as a user would, worked out by brute force, and the two answers compared."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoology.hosting import Task
from zoology.running import Ended, Place
from zoology.specimen import Specimen

EXPLAIN_S = 150
MARKS = ("caught", "command", "place", "field", "cause")


@dataclass
class Score:
    """What was right of one specimen; a mark that does not apply is left out."""

    name: str
    marks: dict[str, bool] = field(default_factory=dict)
    command_id: int = 0
    said: str = ""
    wrong: list[str] = field(default_factory=list)
    divergences: int = 0
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        """Whether nothing was missed."""
        return not self.wrong and all(self.marks.values())


def examine(specimen: Specimen, folder: Path, flows: Path, *, sabotage: str = "", why: bool = True) -> Score:
    """Record, replay, work out, compare.  ``why``: the cause too."""
    began = time.perf_counter()
    score = Score(specimen.name)
    place = Place(folder, flows)
    try:
        document, truth = _both_answers(specimen, place, sabotage, why)
        mark(score, specimen, truth, document)
        if not why:
            score.marks.pop("cause", None)
    except Ended as error:
        score.marks["caught"] = False
        score.wrong.append(str(error))
    score.seconds = time.perf_counter() - began
    return score


def _both_answers(
    specimen: Specimen, place: Place, sabotage: str, why: bool
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    recorded, replayed = specimen.recorded, specimen.replayed
    before = Task.of(specimen, place.folder, place.flows, recorded=True)
    after = Task.of(specimen, place.folder, place.flows, recorded=False)
    traces = [str(place.folder / name) for name in ("recorded.trace", "replayed.trace")]
    place.module("zoology.recorder", before, recorded, *([] if specimen.spoilt else traces[:1]), trace=traces[0])
    # However long it takes: the machine may be busy with another specimen.
    arguments = [
        "replay",
        "--explain-s",
        f"{EXPLAIN_S if why else 0}",
        *specimen.replay,
        *(["--after", str(specimen.after)] if specimen.after else []),
    ]
    world = recorded if "--perturb" in specimen.replay else replayed
    document, _, process = place.verb(specimen.engine, *arguments, world=world, trace=traces[1], sabotage=sabotage)
    (place.folder / "report.json").write_text(json.dumps(document))
    if specimen.spoilt:
        truth = json.loads((place.folder / "spoilt.json").read_text())
    else:
        truth = json.loads(place.module("zoology.truth", after, replayed, traces[1], str(process)))
    (place.folder / "truth.json").write_text(json.dumps(truth))
    return document, truth


def mark(score: Score, specimen: Specimen, truth: list[dict[str, Any]], document: dict[str, Any]) -> None:
    """Compare what is right with what was said."""
    found = document["divergences"]
    score.divergences = len(truth)
    score.marks["caught"] = document["verdict"] == "diverged"
    if not truth:
        score.wrong.append("the bug does not show: both runs are the same by brute force")
        return
    right = truth if specimen.keep_going else truth[:1]
    score.command_id = right[0]["command_id"]
    ids = [each["command_id"] for each in found]
    score.marks["command"] = ids == [each["command_id"] for each in right]
    if not score.marks["command"]:
        score.wrong.append(f"commands {ids[:10]}, not {[each['command_id'] for each in right][:10]}")
    exact = "--perturb" not in specimen.replay
    if any(each["fields"] for each in right):
        score.marks["place"] = list(map(_places, found)) == list(map(_places, right))
    score.marks["field"] = [_parts(each, exact) for each in found] == [_parts(each, exact) for each in right]
    if not score.marks["field"] and score.marks["command"]:
        pairs = zip(found, right, strict=True)
        one, other = next((a, b) for a, b in pairs if _parts(a, exact) != _parts(b, exact))
        score.wrong.append(f"fields: said {_parts(one, exact)}, right {_parts(other, exact)}"[:1500])
    if found:
        factor = found[0].get("factor", "")
        score.said = found[0]["cause"] + (f" ({factor})" if factor else "")
        causes = all(each["cause"] in specimen.causes for each in found)
        score.marks["cause"] = causes and factor in specimen.factors
        if not score.marks["cause"]:
            others = {each["cause"] for each in found}
            score.wrong.append(
                f"cause {', '.join(sorted(others))} ({factor or 'no factor'}), "
                f"not {' or '.join(specimen.causes)} ({' or '.join(each or 'no factor' for each in specimen.factors)})"
            )
    else:
        score.marks["cause"] = False


def _places(divergence: dict[str, Any]) -> list[str]:
    return sorted({_text([each["table"], each["key"]]) for each in divergence["fields"]})


def _parts(divergence: dict[str, Any], exact: bool) -> list[str]:
    """Every field and part that differs, with both sides; without what they are where another world is compared."""
    fields = [
        _text([each["table"], each["key"], each.get("field", ""), *(_sides(each) if exact else ())])
        for each in divergence["fields"]
    ]
    parts = divergence.get("parts") or {part: divergence[part] for part in ("response", "events") if part in divergence}
    return sorted(fields) + [_text([part, *(_sides(parts[part]) if exact else ())]) for part in sorted(parts)]


def _sides(document: dict[str, Any]) -> list[Any]:
    return [[side, document[side]] for side in ("recorded", "replayed") if side in document]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
