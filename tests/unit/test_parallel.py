"""Segments in processes of their own and on Dask: workers that die, starts that disagree, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest

from journal.errors import UsageError, WorkerLost
from recovery import Command, Runtime, open_journal, verify
from recovery.divergence import RESTORE_HOLE, Divergence
from recovery.explaining import restore_hole
from recovery.replayer import Span
from recovery.verifying.range_replay import Outcome
from tests.buggy import BUGS, Forgetful
from tests.engines import Till

ROOT = Path(__file__).parents[2]
COMMANDS = 30
Where = dict[str, str]


@pytest.fixture(autouse=True)
def _cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also small histories are cut."""
    monkeypatch.setattr("recovery.verifying.segments.START", 0)
    BUGS.clear()


def recorded(folder: Path, engine: str, *, images: tuple[int, ...] = (), **options: Any) -> Where:
    where = {"journal": f"sqlite:{folder}/j.db", "snapshots": f"dir:{folder}/s"}
    with Runtime.open(engine, **where, snapshot_every=0, keep=1000, **options) as runtime:
        for number in range(1, COMMANDS + 1):
            runtime.execute(Command("deposit", {"number": "abc"[number % 3], "cents": number}))
            if number in images:
                runtime.snapshot()
        runtime.close(snapshot=False)
    return where


def test_processes_verify_with_and_without_images(tmp_path: Path) -> None:
    where = recorded(tmp_path, "tests.engines:Till", images=(10,))
    seen: list[tuple[int, int]] = []
    report = verify("tests.engines:Till", **where, jobs=2, progress=lambda *told: seen.append(told))
    assert (report.verdict, report.commands, report.not_checked) == ("verified", COMMANDS, ())
    assert report.segments >= 2
    assert report.to_dict()["segments"] == report.segments
    assert seen == sorted(seen)
    bare = verify(Till, where["journal"], jobs=2)
    assert (bare.verdict, bare.segments) == ("verified", 2)
    assert not Path(tmp_path, "t").exists()


def test_what_cannot_travel_is_refused(tmp_path: Path) -> None:
    where = recorded(tmp_path, "tests.engines:Till")

    class Local(Till):
        """Of no module."""

    refused: list[dict[str, Any]] = [
        {"engine": Local, "journal": where["journal"]},
        {"engine": Till, "journal": "memory:x"},
        {"engine": Till, "journal": open_journal(where["journal"])},
        {"engine": Till, "journal": where["journal"], "executor": "ray:there"},
        {"engine": Till, "journal": where["journal"], "executor": "dask:"},
    ]
    for asked in refused:
        with pytest.raises(UsageError):
            verify(asked.pop("engine"), asked.pop("journal"), **{"jobs": 2, **asked})
    with pytest.raises(UsageError, match="jobs"):
        verify(Till, where["journal"], jobs=0)


# Workers that die


def mortal(monkeypatch: pytest.MonkeyPatch, folder: Path, **environment: str) -> Where:
    where = recorded(folder, "tests.buggy:Mortal")
    marker = folder / "alive"
    marker.touch()
    for name, value in {"MORTAL_MARKER": str(marker), "MORTAL_AT": "25", **environment}.items():
        monkeypatch.setenv(name, value)
    return where


def test_a_segment_whose_worker_dies_is_replayed_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    where = mortal(monkeypatch, tmp_path)
    report = verify("tests.buggy:Mortal", **where, jobs=2)
    assert (report.verdict, report.commands) == ("verified", COMMANDS)
    assert not (tmp_path / "alive").exists()


def test_a_segment_that_kills_every_worker_is_never_verified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    where = mortal(monkeypatch, tmp_path, MORTAL_ALWAYS="1")
    with pytest.raises(WorkerLost, match="SIGKILL") as caught:
        verify("tests.buggy:Mortal", **where, jobs=2)
    assert caught.value.exit_code == 3


def test_an_executor_whose_workers_are_lost_is_helped_out_here(tmp_path: Path) -> None:
    class Lossy(Executor):
        """Loses all that it is given."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(RuntimeError("the worker went away"))
            return future

    where = recorded(tmp_path, "tests.engines:Till")
    report = verify("tests.engines:Till", **where, jobs=2, executor=Lossy())
    assert (report.verdict, report.commands, report.segments) == ("verified", COMMANDS, 2)


def test_segments_that_do_not_meet_prove_nothing(tmp_path: Path) -> None:
    class Lying(Executor):
        """Says of a later segment that it began in another state."""

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            answer = fn(*args)
            if args[0]["cut"]:
                answer["outcome"]["begin"][1] = "00"
            future: Future[Any] = Future()
            future.set_result(answer)
            return future

    where = recorded(tmp_path, "tests.engines:Till", images=(15,))
    report = verify("tests.engines:Till", **where, jobs=2, executor=Lying())
    assert (report.verdict, report.damage) == ("damaged", "command 15: its record is another than when it was replayed")


# Starts that disagree


def test_what_no_image_holds_is_a_restore_hole(tmp_path: Path) -> None:
    where = recorded(tmp_path, "tests.buggy:Forgetful", images=(15,))
    assert verify(Forgetful, **where).verdict == "verified"
    report = verify(Forgetful, **where, jobs=2)
    (found,) = report.divergences
    assert (report.verdict, found.command_id, found.cause) == ("diverged", 16, RESTORE_HOLE)
    assert found.factor == "restore point"
    assert "otherwise with: the engine started at the beginning (and then as recorded)" in found.evidence
    assert found.reproduce.endswith("--after 15 --until 16")
    alone = verify(Forgetful, **where, after=15)
    assert [(each.command_id, each.cause) for each in alone.divergences] == [(16, RESTORE_HOLE)]


def test_a_writer_that_was_restored_shows_from_the_beginning(tmp_path: Path) -> None:
    where = recorded(tmp_path, "tests.buggy:Forgetful", images=(COMMANDS,))
    with Runtime.open("tests.buggy:Forgetful", **where, snapshot_every=0, keep=1000) as runtime:
        assert runtime.execute(Command("deposit", {})).response == 1
        runtime.close(snapshot=False)
    report = verify(Forgetful, **where)
    (found,) = report.divergences
    assert (found.command_id, found.cause) == (COMMANDS + 1, RESTORE_HOLE)
    assert found.factor == "restore point"
    assert found.evidence[0].endswith("came out as recorded")
    assert "otherwise with: the engine started at the beginning" in found.evidence
    assert "--from genesis" in found.reproduce


@pytest.mark.parametrize(("last", "cause"), [(15, RESTORE_HOLE), (16, "unknown")])
def test_a_divergence_that_is_only_counted_is_one_too(monkeypatch: pytest.MonkeyPatch, last: int, cause: str) -> None:
    def answer(task: dict[str, Any], **rest: Any) -> dict[str, Any]:
        """From the beginning, many diverge, up to ``last``; from 15 on, the one."""
        counted = Span(9, 7, last) if task["after"] == 0 else Span(1, 16, 16)
        return {"outcome": Outcome(task["after"], 16, last=16, unlisted=counted).to_dict()}

    monkeypatch.setattr(restore_hole, "replay_elsewhere", answer)
    found = Divergence(16, "r", "deposit", ("response",), "unknown")
    assert restore_hole.with_restore_hole(found, {}, began=15, images=[15]).cause == cause


# Damage


def test_damage_in_one_segment_leaves_the_others_judged(tmp_path: Path) -> None:
    where = recorded(tmp_path, "tests.engines:Till", images=(10, 20))
    with sqlite3.connect(tmp_path / "j.db") as connection:
        connection.execute("UPDATE entries SET data_bytes = zeroblob(3) WHERE command_id IN (5, 13)")
    connection.close()
    for jobs in (1, 3):
        report = verify("tests.engines:Till", **where, jobs=jobs)
        assert (report.verdict, report.exit_code(), report.commands) == ("damaged", 4, 4 + 2 + 10)
        assert "command 5:" in report.damage
        assert "command 13:" in report.damage
        assert report.not_checked == (
            "6 commands from 5 to 10: the record is damaged there",
            "8 commands from 13 to 20: the record is damaged there",
        )


# The command line


def recovery(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = [sys.executable, "-m", "recovery.cli.main", "replay", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(code, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_git_bisect_is_told_what_cannot_be_judged(tmp_path: Path) -> None:
    where = recorded(tmp_path, "tests.engines:Till")
    asked = ("--journal", where["journal"], "--snapshots", where["snapshots"], "--git-bisect", "--json")
    good = recovery(tmp_path, "--engine", "tests.engines:Till", "--jobs", "2", *asked)
    assert (good.returncode, json.loads(good.stdout)["verdict"]) == (0, "verified")
    assert recovery(tmp_path, "--engine", "tests.nothing:Till", *asked).returncode == 125
    assert recovery(tmp_path, "--engine", "tests.engines:Till", "--after", "30", *asked).returncode == 125
    assert recovery(tmp_path, "--engine", "tests.engines:Till", "--jobs", "0", *asked).returncode == 125


# Dask


@pytest.fixture
def scheduler() -> Any:
    """A Dask scheduler and two workers, in processes of their own, on the loopback."""
    command = [sys.executable, "-m", "tests.dask_cluster"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as cluster:
        assert cluster.stdout is not None
        timer = threading.Timer(60, cluster.send_signal, [signal.SIGKILL])
        timer.start()
        try:
            yield cluster.stdout.readline().strip()
        finally:
            timer.cancel()
            assert cluster.stdin is not None
            cluster.stdin.close()
            try:
                cluster.wait(20)
            except subprocess.TimeoutExpired:
                cluster.kill()


def test_dask_workers_verify(tmp_path: Path, scheduler: str) -> None:
    where = recorded(tmp_path, "tests.engines:Till", images=(10, 20))
    began = time.monotonic()
    report = verify("tests.engines:Till", **where, executor=f"dask:{scheduler}")
    assert (report.verdict, report.commands) == ("verified", COMMANDS)
    assert report.segments >= 2
    assert time.monotonic() - began < 60
