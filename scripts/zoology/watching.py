"""Clean engines in every scenario: whatever is said of one is a false alarm."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoology.hosting import Task
from zoology.running import Ended, Place
from zoology.specimen import CLEAN, LONG, Specimen, World

IMAGES = (220, 330)
"""With the one at the restart three, which is how many are kept."""
LONG_IMAGES = (2_000, 4_000, 6_000)
RESTART = 261
WORLDS = {
    "another hash seed, time zone and folder": World({"PYTHONHASHSEED": "1", "TZ": "EST5EDT"}, {"fee.txt": "1"}),
    "another hash seed and locale": World({"PYTHONHASHSEED": "2", "LC_ALL": "C", "PYTHONUTF8": "0"}),
    "another hash seed, python -O": World({"PYTHONHASHSEED": "3", "PYTHONOPTIMIZE": "1", "FEE_BPS": "1"}),
}


@dataclass
class Watched:
    """One clean engine: in how many scenarios it was seen, and what was said where nothing should have been."""

    name: str
    scenarios: int = 0
    alarms: list[str] = field(default_factory=list)


def clean_specimen(name: str, *, long: bool = False) -> Specimen:
    """A clean engine as a specimen with nothing to find."""
    why, engine, flow = CLEAN[name]
    images = LONG_IMAGES if long else IMAGES
    return Specimen(name, why, engine, LONG if long else flow, (), (), images=images, restarts=(RESTART,))


def watch(specimen: Specimen, folder: Path, flows: Path, *, quick: bool = False, sabotage: str = "") -> Watched:
    """Record, and replay in every scenario.  ``quick``: only what takes no experiments."""
    watched = Watched(specimen.name)
    place = Place(folder, flows)
    try:
        place.module("zoology.recorder", Task.of(specimen, folder, flows, recorded=True), World())
    except Ended as error:
        watched.alarms.append(str(error))
        return watched
    for label, verb, world in _scenarios(specimen, quick):
        watched.scenarios += 1
        try:
            document, code, _ = place.verb(specimen.engine, *verb, world=world, sabotage=sabotage)
            if code or document.get("divergences") or document.get("findings") or _guarded(document):
                watched.alarms.append(f"{label}: exit code {code}, {_said(document)}")
        except Ended as error:
            watched.alarms.append(f"{label}: {error}")
    return watched


def _scenarios(specimen: Specimen, quick: bool) -> Iterator[tuple[str, list[str], World]]:
    if specimen.flow == LONG:
        yield "two jobs", ["replay", "--jobs", "2", "--strict"], World()
        return
    for label, world in list(WORLDS.items())[: 1 if quick else None]:
        yield label, ["replay"], world
    for image in (*IMAGES, RESTART - 1)[: 1 if quick else None]:
        yield f"from the image at {image}", ["replay", "--after", str(image)], World({"PYTHONHASHSEED": "4"})
    if quick:
        return
    yield "two jobs, keep going", ["replay", "--jobs", "2", "--keep-going"], World()
    yield "guard", ["replay", "--guard", "strict"], World()
    yield "audit", ["audit"], World()
    yield "perturbed", ["replay", "--perturb"], World()
    if not _without_tables(specimen):
        yield "redone", ["replay", "--mode", "redo"], World()


def _without_tables(specimen: Specimen) -> bool:
    from zoology.hosting import load

    return not hasattr(load(specimen.engine), "_members")


def _guarded(document: dict[str, Any]) -> bool:
    return bool((document.get("guard") or {}).get("findings"))


def _said(document: dict[str, Any]) -> str:
    if document.get("divergences"):
        first = document["divergences"][0]
        return f"command {first['command_id']}: {first['cause']} in {', '.join(first['what'])}"
    return str(document.get("findings") or document.get("guard") or document.get("damage") or document)[:600]
