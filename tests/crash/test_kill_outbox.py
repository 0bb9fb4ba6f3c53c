"""SIGKILL of an outbox, at each named moment and at random, beside an engine that is killed too: nothing is left out.

What the consumer has seen is, with repeats struck out, exactly the journal's events in order; and a repeat is always a whole
batch again, never a jump.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from journal.files import KILL_VARIABLE, OUTBOX_KILL_POINTS
from recovery import open_journal
from tests.crash.outbox_worker import BATCH_MAX
from tests.crash.test_kill import COMMANDS, Acknowledged
from tests.crash.test_kill import start as start_engine
from tests.crash.worker import open_till, stream_of

ROOT = Path(__file__).parents[2]
RANDOM_KILLS = 30


def start(folder: Path, journal: str, kill_at: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crash.outbox_worker", str(folder), journal],
        cwd=ROOT,
        env={**os.environ, KILL_VARIABLE: kill_at, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, journal: str, kill_at: str = "") -> bool:
    """Run the child to its end; whether it was killed."""
    child = start(folder, journal, kill_at)
    said, complaints = child.communicate(timeout=60)
    assert child.returncode in (0, -signal.SIGKILL), complaints
    assert (said == "done\n") == (child.returncode == 0)
    return child.returncode != 0


def check(folder: Path, url: str) -> None:
    seen = [
        (line["command_id"], line["index"], line["request_id"])
        for line in map(json.loads, (folder / "seen.jsonl").read_text().splitlines())
    ]
    with open_journal(url) as journal:
        wanted = [
            (entry.command_id, index, str(entry.request_id))
            for entry in journal.read()
            for index, _ in enumerate(entry.events)
        ]
    assert list(dict.fromkeys(seen)) == wanted
    places = {message: at for at, message in enumerate(wanted)}
    for before, after in itertools.pairwise(seen):
        assert places[before] - BATCH_MAX < places[after] <= places[before] + 1


@pytest.mark.parametrize("point", OUTBOX_KILL_POINTS)
def test_kill_at_each_point_and_again_in_the_life_after(tmp_path: Path, point: str) -> None:
    url = f"sqlite:{tmp_path}/journal.db"
    with open_till(str(tmp_path), url) as till:
        list(till.execute_many(stream_of(0, COMMANDS)))
    assert run(tmp_path, url, f"{point}:3"), f"{point} was never reached"
    assert run(tmp_path, url, point), f"{point} was not reached again"
    assert not run(tmp_path, url)
    check(tmp_path, url)


@pytest.mark.parametrize("place", ["sqlite:{}/journal.db", "wal:{}/journal"])
def test_random_kills_of_engine_and_outbox_side_by_side(tmp_path: Path, place: str) -> None:
    url = place.format(tmp_path)
    seed = int(os.environ.get("RECOVERY_TEST_SEED", random.randrange(2**32)))
    print(f"RECOVERY_TEST_SEED={seed}")
    rng = random.Random(seed)
    acknowledged = Acknowledged()
    open_till(str(tmp_path), url).close()
    engine, outbox = start_engine(tmp_path, url), start(tmp_path, url)
    for _ in range(RANDOM_KILLS):
        time.sleep(rng.uniform(0.0, 0.4))
        if rng.random() < 0.4:
            engine.kill()
            acknowledged.hear(engine.communicate())
            engine = start_engine(tmp_path, url)
        else:
            outbox.send_signal(signal.SIGKILL)
            assert outbox.communicate(timeout=60)[1] == ""
            outbox = start(tmp_path, url)
    acknowledged.hear(engine.communicate())
    assert outbox.communicate(timeout=60)[1] == ""
    assert not run(tmp_path, url)
    check(tmp_path, url)
