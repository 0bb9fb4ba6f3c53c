"""``scripts/zoo``: every specimen, clean engine and canary, or those named; a table and a score, or one JSON document."""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoology import ambient, captured, hidden, logic, records  # noqa: F401 - they fill SPECIMENS
from zoology import clean as clean_engines  # noqa: F401 - it fills CLEAN
from zoology.canaries import CANARIES, Canary
from zoology.flows import write_flows
from zoology.scoring import MARKS, Score, examine
from zoology.specimen import CLEAN, SPECIMENS, Specimen
from zoology.watching import Watched, clean_specimen, watch

QUICK = ("set first", "change dropped", "touched outside")
QUICK_CLEAN = ("own digest",)
QUICK_CANARIES = 1
LABELS = {
    "caught": "caught",
    "command": "at the command",
    "place": "table and key",
    "field": "field",
    "cause": "cause",
}


class Zoo:
    """One visit."""

    def __init__(self, folder: Path, *, jobs: int, quiet: bool, why: bool, generated: bool) -> None:
        self.folder = folder
        self.flows = folder / "flows"
        self.flows.mkdir()
        self.feed = write_flows(self.flows, generated=generated)
        self.scores: list[Score] = []
        self.watched: list[Watched] = []
        self.canaries: dict[str, bool] = {}
        self._jobs = jobs
        self._quiet = quiet
        self._why = why
        self._visited = 0

    def _place(self) -> Path:
        self._visited += 1
        return self.folder / f"{self._visited:03}"

    def visit(self, names: Iterable[str], clean: Iterable[str], canaries: Iterable[Canary], *, quick: bool) -> None:
        """See all of these, some at a time."""
        with ThreadPoolExecutor(self._jobs) as pool:
            scores = [pool.submit(examine, SPECIMENS[name], self._place(), self.flows, why=self._why) for name in names]
            healthy = [clean_specimen(name) for name in clean]
            if not quick and healthy:
                healthy.append(clean_specimen("plain exchange", long=True))
            watched = [pool.submit(watch, each, self._place(), self.flows, quick=quick) for each in healthy]
            singing = [(canary, pool.submit(self._sabotaged, canary, self._place())) for canary in canaries]
            for score in scores:
                self.scores.append(score.result())
                self._say(line_of(self.scores[-1]))
            for each in watched:
                found = each.result()
                self.watched.append(found)
                self._say(f"{found.name:28} clean, {found.scenarios} scenarios: {'; '.join(found.alarms) or 'silent'}")
            for canary, red in singing:
                self.canaries[canary.sabotage] = red.result()
                said = "red, as it must be" if red.result() else "GREEN: the score does not see it"
                self._say(f"canary: {canary.sabotage} ({canary.animal}): {said}")

    def _sabotaged(self, canary: Canary, folder: Path) -> bool:
        if canary.clean:
            seen = watch(clean_specimen(canary.animal), folder, self.flows, quick=True, sabotage=canary.sabotage)
            return bool(seen.alarms)
        specimen: Specimen = SPECIMENS[canary.animal]
        return not examine(specimen, folder, self.flows, sabotage=canary.sabotage).right

    def _say(self, line: str) -> None:
        if not self._quiet:
            print(line, flush=True)

    @property
    def right(self) -> bool:
        """Whether nothing was missed, nothing was said for nothing, and every canary was red."""
        silent = not any(each.alarms for each in self.watched)
        return all(score.right for score in self.scores) and silent and all(self.canaries.values())

    def line(self) -> str:
        """The score."""
        parts = []
        for mark in MARKS:
            marked = [score.marks.get(mark, False) for score in self.scores if mark in score.marks]
            parts.append(f"{LABELS[mark]} {sum(marked)}/{len(marked)}")
        alarms = sum(len(each.alarms) for each in self.watched)
        scenarios = sum(each.scenarios for each in self.watched)
        parts.append(f"false alarms {alarms} in {scenarios} scenarios")
        parts.append(f"canaries {sum(self.canaries.values())}/{len(self.canaries)} red")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON."""
        return {
            "schema_version": 1,
            "flow": self.feed,
            "score": self.line(),
            "right": self.right,
            "specimens": [asdict(score) | {"right": score.right} for score in self.scores],
            "clean": [asdict(each) for each in self.watched],
            "canaries": self.canaries,
        }


def line_of(score: Score) -> str:
    """A line of the table."""
    marks = "".join({True: "+", False: "-", None: " "}[score.marks.get(mark)] for mark in MARKS)
    wrong = "".join(f"\n    {line}" for line in score.wrong)
    return f"{score.name:28} {marks:6} command {score.command_id:<6} {score.said:40} {score.seconds:5.1f} s{wrong}"


def main() -> int:
    """0 where all is right, 1 where anything was missed."""
    parser = argparse.ArgumentParser(prog="scripts/zoo", description=__doc__)
    parser.add_argument(
        "--only", metavar="NAME,NAME", help="these specimens, clean engines and canaries' animals alone"
    )
    parser.add_argument("--quick", action="store_true", help="a few of each, in about 20 s")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--list", action="store_true", help="the table of docs/zoo.md")
    parser.add_argument("--jobs", type=int, default=2, help="how many at a time (default 2)")
    parser.add_argument("--generated", action="store_true", help="leave out the recorded feed")
    parser.add_argument("--no-causes", action="store_true", help="leave out the experiments that tell why")
    parser.add_argument("--keep", metavar="DIR", help="work there, and leave what was recorded and said")
    asked = parser.parse_args()
    if asked.list:
        print("\n".join(table()))
        return 0
    names, clean, canaries = list(SPECIMENS), list(CLEAN), list(CANARIES)
    if asked.quick:
        names, clean, canaries = list(QUICK), list(QUICK_CLEAN), canaries[-QUICK_CANARIES:]
    if asked.only:
        only = asked.only.split(",")
        unknown = [name for name in only if name not in SPECIMENS and name not in CLEAN and name != "canaries"]
        if unknown:
            parser.error(f"no animal {', '.join(unknown)}; scripts/zoo --list names them")
        names, clean = [n for n in names if n in only], [n for n in clean if n in only]
        canaries = canaries if "canaries" in only else []
    began = time.perf_counter()
    folder = Path(asked.keep) if asked.keep else Path(tempfile.mkdtemp(prefix="zoo-"))
    folder.mkdir(exist_ok=True)
    try:
        zoo = Zoo(
            folder.resolve(), jobs=asked.jobs, quiet=asked.json, why=not asked.no_causes, generated=asked.generated
        )
        zoo.visit(names, clean, canaries, quick=asked.quick or bool(asked.only and not clean))
    finally:
        if not asked.keep:
            shutil.rmtree(folder)
    if asked.json:
        print(json.dumps(zoo.to_dict()))
    else:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        took = f"{time.perf_counter() - began:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of a core"
        print(f"\nover {zoo.feed}, in {took}\n{zoo.line()}")
    return 0 if zoo.right else 1


def table() -> Iterable[str]:
    """Markdown: every specimen, and every clean engine."""
    yield "| specimen | bug | cause | factor |"
    yield "|---|---|---|---|"
    for name, each in SPECIMENS.items():
        factors = " or ".join(factor or "none" for factor in each.factors)
        yield f"| {name} | {each.bug} | {' or '.join(each.causes)} | {factors} |"
    yield ""
    yield "| clean | careful about |"
    yield "|---|---|"
    for name, (why, _, _) in CLEAN.items():
        yield f"| {name} | {why} |"


if __name__ == "__main__":
    sys.exit(main())
