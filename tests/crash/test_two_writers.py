"""Two writers on every store: one stopped for longer than every timeout, and woken.

Where a lock is held for life the second is refused, by name, and the first goes on as if nothing had been.  Where a writer can
be replaced, the woken one commits nothing, acknowledges nothing, and says why.  (``memory:`` has no second process.)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from journal.postgres_schema import migrate
from recovery import Command, JournalInUse, Runtime, open_journal, verify
from tests.crash.worker import stream_of
from tests.engines import Till

ROOT = Path(__file__).parents[2]
WAIT_S = 60
PAUSE_S = 1.0
PAUSE_MAX = "&pause_max_s=0.4&ride_out_s=0.5"


def deposit(request_id: str) -> Command:
    return Command("deposit", {"number": "ada", "cents": 1}, request_id=request_id)


@contextmanager
def writer(journal: str, *more: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process at work, and its first lines; killed at the end."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.writer_worker", journal, "0", "100000", *more],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        yield child, [child.stdout.readline() for _ in range(20)]
    finally:
        child.kill()
        child.communicate()


def require_recorded(journal: str, said: list[str], *, until: int | None = None) -> None:
    """What was acknowledged is recorded under its number, all of it before ``until``."""
    with open_journal(journal) as reader:
        recorded = {entry.request_key: entry.command_id for entry in reader.read()}
    told = [line.split() for line in said if line.strip() and "failed" not in line]
    keys = [command.request_key for command in stream_of(0, int(told[-1][0]) + 1)]
    for index, command_id in told:
        assert recorded[keys[int(index)]] == int(command_id)
        assert until is None or int(command_id) < until


@pytest.mark.parametrize("place", ["sqlite:{}/journal.db", "wal:{}/journal", "wal:{}/journal ship", "postgresql"])
def test_the_second_writer_is_refused_by_name_and_the_stopped_one_goes_on(
    tmp_path: Path, postgres_url: str, place: str
) -> None:
    journal, _, shipped = place.format(tmp_path).partition(" ")
    ship_to = f"sqlite:{tmp_path}/target.db" if shipped else ""
    if journal == "postgresql":
        journal = postgres_url
        migrate(journal)
    with writer(journal, ship_to) as (child, said):
        child.send_signal(signal.SIGSTOP)
        time.sleep(PAUSE_S)
        # With shipping it is the target that has one writer, whatever lies before it.
        there = [(journal, None), (f"wal:{tmp_path}/other", ship_to)] if shipped else [(journal, None)]
        for where, onward in there:
            with pytest.raises(JournalInUse, match=rf"process {child.pid} on .+ since \d{{4}}-"):
                Runtime.open(Till, journal=where, snapshots="memory:", ship_to=onward)
        child.send_signal(signal.SIGCONT)
        assert child.stdout is not None
        said += [child.stdout.readline() for _ in range(20)]
        assert not [line for line in said if "JournalInUse" in line or "Fenced" in line]
    require_recorded(journal, said)
    assert verify(Till, journal).verdict == "verified"
    if shipped:
        require_recorded(ship_to, said)


@pytest.mark.parametrize("shipped", ["", "shipped"])
def test_a_woken_writer_that_was_replaced_writes_nothing_and_says_why(
    tmp_path: Path, postgres_url: str, shipped: str
) -> None:
    migrate(postgres_url)
    target = postgres_url + PAUSE_MAX
    first, onward = (f"wal:{tmp_path}/first", target) if shipped else (target, "")
    second = f"wal:{tmp_path}/second" if shipped else target
    with writer(first, onward) as (child, said):
        child.send_signal(signal.SIGSTOP)
        time.sleep(PAUSE_S)
        with Runtime.open(
            Till, journal=second, snapshots="memory:", seed=7, takeover=True, ship_to=onward or None
        ) as till:
            mine = [till.execute(deposit(f"mine {n}")).command_id for n in range(3)]
            child.send_signal(signal.SIGCONT)
            rest, _ = child.communicate(timeout=WAIT_S)
            said += rest.splitlines()
            mine += [till.execute(deposit(f"mine {n}")).command_id for n in range(3, 6)]
    assert "failed WriterFenced" in said[-1], said[-1]
    assert "taken over by process" in said[-1]
    assert mine == list(range(mine[0], mine[0] + 6)), "the woken writer wrote in between"
    require_recorded(postgres_url, said, until=mine[0])
    assert verify(Till, postgres_url).verdict == "verified"
