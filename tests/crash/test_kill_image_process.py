"""The process that makes an image dies at each of its points: the engine does not notice, and the next image makes up for it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from journal.files import KILL_VARIABLE
from recovery import Command, Runtime, open_snapshots, verify
from tests.engines import Till

POINTS = ("image.write", "publish.before", "publish.linked", "publish.after", "prune.before", "prune.after")
EVERY = 10
TIMEOUT_S = 60


def deposit_until_due(till: Runtime) -> None:
    """One image's worth of commands, and wait for the image that they make due."""
    for _ in range(EVERY):
        till.execute(Command("deposit", {"number": "ada", "cents": 1}))
    deadline = time.monotonic() + TIMEOUT_S
    while till.status()["image_in_progress"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("point", POINTS)
def test_the_engine_outlives_the_process_that_makes_its_images(
    tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, snapshots = f"sqlite:{tmp_path}/journal.db", f"dir:{tmp_path}/snapshots"
    with Runtime.open(Till, journal=journal, snapshots=snapshots, snapshot_every=EVERY, keep=1) as till:
        deposit_until_due(till)
        assert till.status()["problems"] == []
        # Read when a process starts, so this arms the next image's process and not this one.
        monkeypatch.setenv(KILL_VARIABLE, point)
        deposit_until_due(till)
        (problem,) = till.status()["problems"]
        assert "the last image was not made" in problem
        monkeypatch.delenv(KILL_VARIABLE)
        deposit_until_due(till)
        assert till.status()["problems"] == []
        assert till.status()["snapshot"]["command_id"] == 3 * EVERY
    assert [image.command_id for image in open_snapshots(snapshots).images()] == [3 * EVERY]
    with Runtime.open(Till, journal=journal, snapshots=snapshots) as till:
        assert till.engine.accounts["ada"].cents == 3 * EVERY
        assert till.cold_start.image == 3 * EVERY
        assert till.cold_start.steps_down == ()
    assert verify(Till, journal, snapshots).verdict == "verified"
