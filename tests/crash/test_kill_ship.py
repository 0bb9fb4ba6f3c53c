"""An engine that ships its journal is killed, its target too, its disk is lost, and another takes over while it is stopped.

With ack="both" nothing acknowledged is lost, not with the local disk either; with ack="local" only the lag, and only with the
disk.  Nothing is ever done twice, and both journals are one.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from journal.files import KILL_VARIABLE, SHIP_KILL_POINTS
from journal.postgres_schema import migrate
from journal.reconciliation import compare
from journal.testing.postgres_server import PostgresServer
from recovery import Receipt, open_journal, verify
from tests.crash.ship_worker import open_shipped
from tests.crash.test_kill import AFTERWARDS, COMMANDS, Acknowledged, uninterrupted
from tests.crash.worker import stream_of

ROOT = Path(__file__).parents[2]
RANDOM_KILLS = int(os.environ.get("RECOVERY_SHIP_KILLS", "4"))
WAIT_S = 60


def start(
    folder: Path, target: str, ack: str, kill_at: str = "", *options: str, stdout: int | IO[str] = subprocess.PIPE
) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.ship_worker", str(folder), ack, "0", str(COMMANDS), *options],
        cwd=ROOT,
        env={**os.environ, KILL_VARIABLE: kill_at, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=stdout,
        text=True,
    )
    assert child.stdin is not None
    child.stdin.write(f"{target}\n")
    child.stdin.close()
    return child


def first_lines(child: subprocess.Popen[str], count: int) -> str:
    """What it says first; less where it ends."""
    assert child.stdout is not None
    return "".join(child.stdout.readline() for _ in range(count))


def heard(child: subprocess.Popen[str], acknowledged: Acknowledged, already: str = "") -> str:
    """Wait for its end; why it stopped, empty where it did not."""
    assert child.stdout is not None
    with child.stdout:
        lines = (already + child.stdout.read()).split("\n")
    child.wait(WAIT_S)
    acknowledged.hear("\n".join([line for line in lines if not line.startswith("stopped")]))
    return "".join(line for line in lines if line.startswith("stopped"))


def wipe(folder: Path) -> None:
    """The local disk is lost, images and all."""
    for name in ("journal", "snapshots"):
        shutil.rmtree(folder / name, ignore_errors=True)


def check(folder: Path, target: str, ack: str, acknowledged: Acknowledged) -> None:
    """Everything acknowledged is in the target, once; both journals are one, and the state is that of one life."""
    expected, twin = uninterrupted()
    with open_shipped(str(folder), target, ack) as till:
        outcomes = list(till.execute_many(stream_of(0, COMMANDS + AFTERWARDS)))
        assert list(till.engine.accounts.items()) == list(twin.accounts.items())
    for found, want in zip(outcomes, expected, strict=True):
        if isinstance(found, Receipt):
            assert isinstance(want, Receipt)
            assert found._replace(duplicate=False) == want._replace(duplicate=False)
        else:
            assert str(found) == want
    keys = [command.request_key for command in stream_of(0, COMMANDS)]
    with open_journal(f"wal:{folder}/journal") as here, open_journal(target) as there:
        compare(here, there)
        assert here.head() == there.head()
        assert here.epochs() == there.epochs()
        ids = {entry.request_key: entry.command_id for entry in there.read()}
        assert len(ids) == there.head().command_id
    for index, command_id in acknowledged.ids.items():
        assert ids[keys[index]] == command_id
    assert verify(till.engine.__class__, target, f"dir:{folder}/snapshots").verdict == "verified"


CASES = [("both", point) for point in SHIP_KILL_POINTS] + [("local", "ship.before"), ("local", "ship.after")]


@pytest.mark.parametrize(("ack", "point"), CASES)
def test_kill_at_each_point_of_shipping(tmp_path: Path, ack: str, point: str) -> None:
    target = f"sqlite:{tmp_path}/target.db"
    acknowledged = Acknowledged()
    if point.startswith("seed."):
        heard(start(tmp_path, target, ack, "receipt.before:4"), acknowledged)
        wipe(tmp_path)
    nth = 4 if point in ("ship.before", "ship.after") else 1
    child = start(tmp_path, target, ack, f"{point}:{nth}")
    heard(child, acknowledged)
    assert child.returncode == -signal.SIGKILL, f"{point} was never reached"
    if ack == "both":
        wipe(tmp_path)
    check(tmp_path, target, ack, acknowledged)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of this module's own, which its tests kill."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def target(server: PostgresServer) -> str:
    """A schema that nobody else uses."""
    url = server.start().url(schema=f"s{uuid.uuid4().hex[:8]}", pause_max_s="1")
    migrate(url)
    return url


@pytest.mark.parametrize("ack", ["both", "local"])
def test_random_kills_of_engine_and_server(tmp_path: Path, server: PostgresServer, target: str, ack: str) -> None:
    seed = int(os.environ.get("RECOVERY_TEST_SEED", random.randrange(2**32)))
    print(f"RECOVERY_TEST_SEED={seed}")
    rng = random.Random(seed)
    acknowledged = Acknowledged()
    for number in range(RANDOM_KILLS):
        child = start(tmp_path, target, ack, "", "--patient")
        said = first_lines(child, rng.randrange(20))
        if number % 2:
            server.restart()
            said += first_lines(child, rng.randrange(3))
        time.sleep(rng.uniform(0.0, 0.05))
        child.send_signal(signal.SIGKILL)
        heard(child, acknowledged, said)
        if ack == "both" and rng.random() < 0.5:
            wipe(tmp_path)
    check(tmp_path, target, ack, acknowledged)
    assert acknowledged.ids


def test_with_the_disk_only_the_lag_is_lost(tmp_path: Path) -> None:
    """ack="local": what the target has is the beginning of what was acknowledged."""
    target = f"sqlite:{tmp_path}/target.db"
    acknowledged = Acknowledged()
    heard(start(tmp_path, target, "local", "ship.before:3"), acknowledged)
    with open_journal(f"wal:{tmp_path}/journal") as here, open_journal(target) as there:
        compare(here, there)
        reached, whole = there.head().command_id, here.head().command_id
        chains = [entry.chain for entry in there.read()]
    assert 0 < reached < whole
    wipe(tmp_path)
    with open_shipped(str(tmp_path), target, "local") as till:
        assert till.head.command_id == reached
        outcomes = [one for one in till.execute_many(stream_of(0, COMMANDS)) if isinstance(one, Receipt)]
    assert sum(one.duplicate for one in outcomes) == reached
    with open_journal(target) as there:
        assert [entry.chain for entry in there.read(0, reached)] == chains


@pytest.mark.parametrize("ack", ["both", "local"])
def test_one_that_was_stopped_and_replaced_wakes_to_nothing(tmp_path: Path, target: str, ack: str) -> None:
    said = tmp_path / "said"
    with said.open("w") as file:
        child = start(tmp_path / "first", target, ack, "", "--patient", stdout=file)
    deadline = time.monotonic() + WAIT_S
    while said.read_text().count("\n") < 10:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(signal.SIGSTOP)
    try:
        time.sleep(2.0)  # longer than its lease, and than a transaction may be idle
        with open_shipped(str(tmp_path / "second"), target, ack, takeover=True) as second:
            before = second.head.command_id
            list(second.execute_many(stream_of(100, 120)))
        asleep = said.read_text()
    finally:
        child.send_signal(signal.SIGCONT)
    assert child.wait(WAIT_S) == 0
    *awake, why = said.read_text()[len(asleep) :].splitlines()
    # Stopped in the midst of an append, it cannot know what became of that.
    assert why.startswith(("stopped WriterFenced", "stopped OutcomeUnknown", "stopped WriterPoisoned"))
    assert "taken over by" in why
    # At most the one whose receipt it held when it was stopped.
    assert len([line for line in awake if "failed" not in line]) <= 1, awake
    with open_journal(target) as there:
        assert there.head().command_id > before
        ids = {entry.request_key: entry.command_id for entry in there.read(0, before)}
    keys = [command.request_key for command in stream_of(0, COMMANDS)]
    acknowledged = Acknowledged()
    acknowledged.hear(asleep)
    lost = [index for index, command_id in acknowledged.ids.items() if ids.get(keys[index]) != command_id]
    assert not lost or ack == "local"
    assert len(lost) <= 2  # the lag
