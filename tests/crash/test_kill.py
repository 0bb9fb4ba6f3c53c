"""SIGKILL at every named point, again during the recovery from each, and at random: nothing acknowledged is lost or doubled.

A killed process keeps the page cache, so this says nothing about fsync: the power-cut tests do.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from pathlib import Path

import pytest

from journal.files import KILL_POINTS
from recovery import Receipt, Runtime, open_journal, verify
from tests.crash import worker
from tests.crash.forked import Forked
from tests.crash.worker import open_till, stream_of
from tests.engines import Till

COMMANDS = 90
AFTERWARDS = 30
RANDOM_KILLS = 200
RANDOM_FOLDERS = 8
JOURNALS = {"sqlite": "sqlite:{}/journal.db", "wal": "wal:{}/journal"}


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


_numbers = itertools.count()


def start(folder: Path, journal: str, kill_at: str = "") -> Forked:
    arguments = (str(folder), journal, 0, COMMANDS)
    return Forked(worker.main, arguments, said=folder / f"said-{next(_numbers)}", kill_at=kill_at)


def run(folder: Path, journal: str, acknowledged: Acknowledged, kill_at: str = "") -> bool:
    """Run the child to its end; whether it was killed."""
    child = start(folder, journal, kill_at)
    said = child.communicate()
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


def check(folder: Path, journal_url: str, acknowledged: Acknowledged) -> None:
    """Everything acknowledged is there once; and the state is that of a life without a crash, now and later."""
    expected, twin = uninterrupted()
    with open_journal(journal_url) as journal:
        ids = {entry.request_key: entry.command_id for entry in journal.read()}
        assert len(ids) == journal.head().command_id
    wanted = {index: command.request_key for index, command in enumerate(stream_of(0, COMMANDS))}
    for index, command_id in acknowledged.ids.items():
        assert ids[wanted[index]] == command_id
    with open_till(str(folder), journal_url) as till:
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
    report = verify(Till, journal_url, f"dir:{folder}/snapshots")
    assert report.verdict == "verified", report


def points_of(scheme: str) -> list[str]:
    """All points for the default store; for another those that are its own, or where what it writes is in flight.

    Those of cutting a torn tail need one (below).
    """
    if scheme == "sqlite":
        return [point for point in KILL_POINTS if not point.startswith("wal.")]
    its_own = ("commit.", "epoch.", f"{scheme}.")
    return [point for point in KILL_POINTS if point.startswith(its_own) and not point.startswith("wal.tail.")]


@pytest.mark.parametrize(("scheme", "point"), [(scheme, point) for scheme in JOURNALS for point in points_of(scheme)])
def test_kill_at_each_point_and_again_during_recovery(tmp_path: Path, scheme: str, point: str) -> None:
    journal = JOURNALS[scheme].format(tmp_path)
    acknowledged = Acknowledged()
    nth = {"receipt.before": 5, "append.before": 4, "append.after": 4, "commit.before": 4, "commit.after": 4}.get(
        point, 1
    )
    killed = run(tmp_path, journal, acknowledged, f"{point}:{nth}")
    assert killed, f"{point} was never reached"
    recovery = ("cold_start.loaded", "cold_start.replayed", "epoch.before", "epoch.after")
    for again in recovery if scheme == "sqlite" else recovery[2:3]:
        assert run(tmp_path, journal, acknowledged, again), f"{again} was not reached in the recovery from {point}"
    run(tmp_path, journal, acknowledged, point)
    run(tmp_path, journal, acknowledged)
    check(tmp_path, journal, acknowledged)


@pytest.mark.parametrize("point", [point for point in KILL_POINTS if point.startswith("wal.tail.")])
def test_kill_while_a_torn_tail_is_cut(tmp_path: Path, point: str) -> None:
    """Killed in the middle of a batch, its second sector is not on the disk; then killed again while that is cut."""
    journal = JOURNALS["wal"].format(tmp_path)
    acknowledged = Acknowledged()
    assert run(tmp_path, journal, acknowledged, "wal.frame.written:9")
    place = tmp_path / "journal"
    segment = max(place.glob("*.wal"))
    data = segment.read_bytes()
    end = len(data.rstrip(b"\0"))
    assert end % 512 < 400
    segment.write_bytes(data[: end - end % 512] + bytes(len(data) - end + end % 512))
    assert run(tmp_path, journal, acknowledged, point)
    run(tmp_path, journal, acknowledged, point)
    run(tmp_path, journal, acknowledged)
    assert list(place.glob("*.torn"))
    check(tmp_path, journal, acknowledged)


@pytest.mark.parametrize("folder_number", range(RANDOM_FOLDERS))
def test_random_kills(tmp_path: Path, folder_number: int) -> None:
    seed = int(os.environ.get("RECOVERY_TEST_SEED", random.randrange(2**32)))
    print(f"RECOVERY_TEST_SEED={seed}")
    rng = random.Random(seed + folder_number)
    acknowledged = Acknowledged()
    journal = JOURNALS["sqlite"].format(tmp_path)
    for _ in range(RANDOM_KILLS // RANDOM_FOLDERS):
        child = start(tmp_path, journal)
        time.sleep(rng.uniform(0.0, 0.25))
        child.kill()
        acknowledged.hear(child.communicate())
    check(tmp_path, journal, acknowledged)
