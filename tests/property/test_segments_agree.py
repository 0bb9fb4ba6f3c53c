"""What a verification finds does not depend on how it is done: in one process, or in segments, whatever their cuts.

Random histories with images here and there, engines with seeded bugs, and damage: the whole report but for the time it took.
"""

from __future__ import annotations

import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery import Command, Runtime, open_journal, open_snapshots, verify
from recovery.verifying import range_replay
from tests.buggy import BUGS

KINDS = ("row", "row", "event", "response", "raise")
COMMANDS = 40
TIMES = ("seconds", "commands_per_second", "segments")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cut pays."""
    monkeypatch.setattr("recovery.verifying.segments.START", 0)


def recorded(folder: Path, engine: str, draw: random.Random) -> dict[str, str]:
    """A history of the engine, with images at some commands."""
    where = {"journal": f"sqlite:{folder}/j.db", "snapshots": f"dir:{folder}/s"}
    options: dict[str, Any] = {"digest_every": draw.choice([3, 7, 50])} if engine.endswith("Counter") else {}
    with Runtime.open(engine, **where, snapshot_every=0, keep=1000, **options) as runtime:
        for _ in range(COMMANDS):
            if engine.endswith("Counter"):
                command = Command(
                    draw.choice(["count", "reject"]), {"name": draw.choice("xyz"), "by": draw.getrandbits(3)}
                )
            else:
                number = draw.choice("abc")
                command = draw.choice([
                    Command("deposit", {"number": number, "cents": draw.randint(-20, 40)}),
                    Command("draw", {"number": number}),
                    Command("close_account", {"number": number}),
                ])  # fmt: skip
            list(runtime.execute_many([command]))
            if draw.random() < 0.15:
                runtime.snapshot()
        runtime.close(snapshot=False)
    return where


def damaged(folder: Path, draw: random.Random) -> None:
    """Some bytes of some entries flipped."""
    with sqlite3.connect(f"{folder}/j.db") as connection:
        for command_id in draw.sample(range(1, COMMANDS + 1), draw.choice([1, 1, 2])):
            connection.execute("UPDATE entries SET data_bytes = zeroblob(7) WHERE command_id = ?", (command_id,))
    connection.close()


@pytest.mark.parametrize("engine", ["tests.buggy:BuggyTill", "tests.buggy:BuggyCounter"])
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_report_is_the_same_in_one_process_and_in_segments(
    tmp_path_factory: pytest.TempPathFactory, engine: str, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("agree")
    draw = random.Random(seed)
    BUGS.clear()
    where = recorded(folder, engine, draw)
    BUGS.update((draw.randint(1, COMMANDS), draw.choice(KINDS)) for _ in range(draw.choice([0, 1, 3, 6])))
    if draw.random() < 0.4:
        damaged(folder, draw)
    options: dict[str, Any] = {
        "explain": False,  # which is an experiment in other processes, where the bugs are not planted
        "keep_going": draw.random() < 0.7,
        "mode": draw.choice(["execute", "execute", "redo"]) if engine.endswith("Till") else "execute",
        "after": draw.choice([0, 0, draw.randrange(COMMANDS)]),
        "until": draw.choice([None, None, draw.randint(1, COMMANDS)]),
    }
    listed = draw.choice([1000, 2])
    with ThreadPoolExecutor(2) as executor, mock.patch.object(range_replay, "LISTED_MAX", listed):
        alone = verify(engine, **where, **options)
        assert len(alone.divergences) <= listed
        for jobs in (2, 5):
            together = verify(engine, **where, jobs=jobs, executor=executor, **options)
            assert plain(together) == plain(alone)
    BUGS.clear()


def plain(report: Any) -> dict[str, Any]:
    return {name: value for name, value in report.to_dict().items() if name not in TIMES}


def test_segments_are_made_here(tmp_path: Path) -> None:
    """That the property above is about more than one segment."""
    where = recorded(tmp_path, "tests.buggy:BuggyTill", random.Random(1))
    with ThreadPoolExecutor(2) as executor:
        report = verify("tests.buggy:BuggyTill", **where, jobs=4, executor=executor)
    assert (report.verdict, report.commands) == ("verified", COMMANDS)
    assert report.segments >= 4
    with open_journal(where["journal"]) as journal:
        assert journal.head().command_id == COMMANDS
    assert open_snapshots(where["snapshots"]).images()
