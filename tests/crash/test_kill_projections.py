"""SIGKILL while tables are projected and filled: nothing is projected twice or lost, and what was acknowledged is there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from journal.backfill import clear
from journal.files import KILL_VARIABLE
from journal.urls import open_writer
from recovery import ProjectionBehind, open_journal, verify
from tests.crash.projection_worker import commands, open_till
from tests.engines import Account, Till
from tests.projections import Totals, require_equal

ROOT = Path(__file__).parents[2]
RANDOM_KILLS = 8


def start(what: str, journal: str, kill_at: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crash.projection_worker", what, journal],
        cwd=ROOT,
        env={**os.environ, KILL_VARIABLE: kill_at, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def run(what: str, journal: str, kill_at: str = "") -> tuple[str, bool]:
    """What the child said, and whether it was killed."""
    child = start(what, journal, kill_at)
    said, _ = child.communicate(timeout=120)
    assert child.returncode in (0, -signal.SIGKILL), said[-500:]
    return said, child.returncode != 0


def finish(journal: str) -> tuple[list[str], dict[str, Account], int]:
    """Run the stream to its end: what became of it, the engine's accounts, the head.  The tables are then the engine's."""
    with open_till(journal) as till:
        kinds = [type(one).__name__ for one in till.execute_many(commands())]
        accounts = dict(till.engine.accounts)
        require_equal(till._recorder.store, accounts, till.head.command_id)
        return kinds, accounts, till.head.command_id


def check(journal: str, told: list[str]) -> None:
    """What was acknowledged is there under the same id; each command is there once; the journal replays.

    A command that was refused has left no trace, so one whose refusal nobody heard may be taken when it is sent again.
    """
    kinds, _, _ = finish(journal)
    assert {"Receipt", "ProjectionFailed"} <= set(kinds), "the stream tries nothing"
    ids = {entry.request_key: entry.command_id for entry in open_journal(journal).read()}
    asked = list(commands())
    for line in told:
        index, *rest = line.split()
        if len(rest) == 1:
            assert ids[asked[int(index)].request_key] == int(rest[0])
    assert verify(Till, open_journal(journal)).verdict == "verified"


@pytest.mark.parametrize(
    "point",
    ["epoch.after", "project.before:5", "commit.before:1", "commit.before:7", "commit.after:7", "receipt.before:4"],
)  # fmt: skip
def test_kill_while_projecting(tmp_path: Path, point: str) -> None:
    journal = f"sqlite:{tmp_path}/journal.db"
    said, killed = run("run", journal, point)
    assert killed, f"{point} was never reached"
    again, _ = run("run", journal, point)
    check(journal, [line for text in (said, again) for line in text.split("\n")[:-1] if line != "done"])


def test_random_kills_while_projecting(tmp_path: Path) -> None:
    seed = int(os.environ.get("RECOVERY_TEST_SEED", random.randrange(2**32)))
    print(f"RECOVERY_TEST_SEED={seed}")
    rng = random.Random(seed)
    journal = f"sqlite:{tmp_path}/journal.db"
    told: list[str] = []
    for _ in range(RANDOM_KILLS):
        child = start("run", journal, rng.choice(["", f"project.before:{rng.randrange(1, 20)}"]))
        time.sleep(rng.uniform(0.0, 0.5))
        child.send_signal(signal.SIGKILL)
        told += child.communicate(timeout=120)[0].split("\n")[:-1]  # the last line is cut, or empty
    check(journal, [line for line in told if line != "done"])


@pytest.mark.parametrize("point", ["project.before:3", "commit.before:1", "commit.after:2"])
def test_kill_while_filling(tmp_path: Path, point: str) -> None:
    journal = f"sqlite:{tmp_path}/journal.db"
    _, accounts, head = finish(journal)
    with closing(open_writer(journal)) as store:
        clear(store, "main", Totals())
    _, killed = run("backfill", journal, point)
    assert killed, f"{point} was never reached"
    with pytest.raises(ProjectionBehind):
        open_till(journal)
    run("backfill", journal, point)
    run("backfill", journal)
    require_equal(open_journal(journal).store, accounts, head)
    open_till(journal).close()
