"""SIGKILL at every named point, again during the recovery from each, and at random: nothing acknowledged is lost or doubled.

A killed process keeps the page cache, so this says nothing about fsync: the power-cut tests do.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from journal.files import KILL_POINTS, KILL_VARIABLE
from recovery import Receipt, Runtime, open_journal, verify
from tests.crash.worker import open_till, stream_of
from tests.engines import Till

ROOT = Path(__file__).parents[2]
COMMANDS = 90
AFTERWARDS = 30
RANDOM_KILLS = 200
RANDOM_FOLDERS = 8


class Acknowledged:
    """What the child said before it died."""

    def __init__(self) -> None:
        self.ids: dict[int, int] = {}

    def hear(self, text: str) -> bool:
        lines = text.split("\n")
        for line in lines[:-1]:  # the last is cut, or empty
            if line == "done":
                return True
            index, command_id, _ = line.split()
            if command_id != "failed":
                known = self.ids.setdefault(int(index), int(command_id))
                assert known == int(command_id), f"request {index} was acknowledged as {known} and as {command_id}"
        return False


def start(folder: Path, kill_at: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crash.worker", str(folder), "0", str(COMMANDS)],
        cwd=ROOT,
        env={**os.environ, KILL_VARIABLE: kill_at, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, acknowledged: Acknowledged, kill_at: str = "") -> bool:
    """Run the child to its end; whether it was killed."""
    child = start(folder, kill_at)
    said, _ = child.communicate(timeout=120)
    done = acknowledged.hear(said)
    assert done == (child.returncode == 0), said[-500:]
    assert child.returncode in (0, -signal.SIGKILL)
    return not done


def uninterrupted() -> tuple[list[Receipt | str], Till]:
    """The same stream in one life, in memory."""
    till = Runtime.open(Till, journal="memory:", snapshots="memory:", seed=7)
    outcomes = [
        one if isinstance(one, Receipt) else str(one) for one in till.execute_many(stream_of(0, COMMANDS + AFTERWARDS))
    ]
    till.close(snapshot=False)
    return outcomes, till.engine


def check(folder: Path, acknowledged: Acknowledged) -> None:
    """Everything acknowledged is there once; and the state is that of a life without a crash, now and later."""
    expected, twin = uninterrupted()
    with open_journal(f"sqlite:{folder}/journal.db") as journal:
        ids = {entry.request_key: entry.command_id for entry in journal.read()}
        assert len(ids) == journal.head().command_id
    wanted = {index: command.request_key for index, command in enumerate(stream_of(0, COMMANDS))}
    for index, command_id in acknowledged.ids.items():
        assert ids[wanted[index]] == command_id
    with open_till(str(folder)) as till:
        outcomes = list(till.execute_many(stream_of(0, COMMANDS + AFTERWARDS)))
        for index, (found, want) in enumerate(zip(outcomes, expected, strict=True)):
            if isinstance(found, Receipt):
                assert isinstance(want, Receipt)
                assert found._replace(duplicate=False) == want._replace(duplicate=False), index
            else:
                assert str(found) == want
        engine = till.engine
        assert list(engine.accounts.items()) == list(twin.accounts.items())
        assert list(engine.by_wealth) == list(twin.by_wealth)
        assert engine.deposits.value == twin.deposits.value
    report = verify(Till, f"sqlite:{folder}/journal.db", f"dir:{folder}/snapshots")
    assert report.verdict == "verified", report


@pytest.mark.parametrize("point", [point for point in KILL_POINTS if not point.startswith("wal.")])
def test_kill_at_each_point_and_again_during_recovery(tmp_path: Path, point: str) -> None:
    acknowledged = Acknowledged()
    nth = {"receipt.before": 5, "append.before": 4, "append.after": 4, "commit.before": 4, "commit.after": 4}.get(
        point, 1
    )
    killed = run(tmp_path, acknowledged, f"{point}:{nth}")
    assert killed, f"{point} was never reached"
    for again in ("cold_start.loaded", "cold_start.replayed", "epoch.before", "epoch.after"):
        assert run(tmp_path, acknowledged, again), f"{again} was not reached in the recovery from {point}"
    run(tmp_path, acknowledged, point)
    run(tmp_path, acknowledged)
    check(tmp_path, acknowledged)


@pytest.mark.parametrize("folder_number", range(RANDOM_FOLDERS))
def test_random_kills(tmp_path: Path, folder_number: int) -> None:
    seed = int(os.environ.get("RECOVERY_TEST_SEED", random.randrange(2**32)))
    print(f"RECOVERY_TEST_SEED={seed}")
    rng = random.Random(seed + folder_number)
    acknowledged = Acknowledged()
    for _ in range(RANDOM_KILLS // RANDOM_FOLDERS):
        child = start(tmp_path)
        time.sleep(rng.uniform(0.0, 0.6))
        child.send_signal(signal.SIGKILL)
        said, _ = child.communicate(timeout=120)
        acknowledged.hear(said)
    check(tmp_path, acknowledged)
