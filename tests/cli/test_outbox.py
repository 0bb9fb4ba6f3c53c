"""``recovery outbox`` as typed: to a command, once and following, refused, reset, forgotten; and what status says of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from recovery import Command, Runtime
from tests.engines import Till

ROOT = Path(__file__).parents[2]
MAIN = (sys.executable, "-m", "recovery.cli.main")
PYTHON = (sys.executable, "-c")
APPEND = "import sys; open('seen', 'a').write(sys.stdin.read())"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    deposit(tmp_path, 5)
    return tmp_path


def deposit(folder: Path, count: int) -> None:
    with Runtime.open(Till, journal=f"sqlite:{folder}/till.db", snapshots=f"dir:{folder}/images") as till:
        for _ in range(count):
            till.execute(Command("deposit", {"number": "ada", "cents": 1}))


def environment(folder: Path) -> dict[str, str]:
    urls = {"RECOVERY_JOURNAL": "sqlite:till.db", "RECOVERY_SNAPSHOTS": "dir:images"}
    return {**os.environ, **urls, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


def typed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAIN, *arguments],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def outbox(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return typed(folder, "outbox", "--name", "mail", *arguments)


def seen(folder: Path) -> list[int]:
    file = folder / "seen"
    return [json.loads(line)["command_id"] for line in file.read_text().splitlines()] if file.exists() else []


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_command_gets_every_event_once(folder: Path) -> None:
    first = outbox(folder, "--batch-max", "2", "--", *PYTHON, APPEND)
    assert first.returncode == 0, first.stderr
    assert "5 messages accepted" in first.stderr
    assert first.stdout == ""
    assert seen(folder) == [1, 2, 3, 4, 5]
    line = json.loads((folder / "seen").read_text().splitlines()[2])
    assert line.keys() == {
        "command_id", "index", "type", "data", "key", "sequence", "received_at_ms", "request_id", "epoch",
    }  # fmt: skip
    assert (line["command_id"], line["index"], line["data"]) == (3, 0, {"number": "ada", "delta": 1})
    deposit(folder, 1)
    assert outbox(folder, "--", *PYTHON, APPEND).returncode == 0
    assert seen(folder) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import sys; sys.stdin.read(); sys.exit(7)", "exited 7"),
        ("import os, sys; sys.stdin.read(); os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("import sys, time; sys.stdin.read(); time.sleep(60)", "did not end within 0.5 s"),
    ],
)
def test_what_is_not_accepted_stays_and_status_says_so(folder: Path, program: str, says: str) -> None:
    refused = outbox(folder, "--attempts-max", "2", "--timeout-s", "0.5", "--", *PYTHON, program)
    assert refused.returncode == 3, refused.stderr
    assert says in refused.stderr
    status = typed(folder, "status", "--json", "--check")
    assert status.returncode == 3
    (lag,) = json.loads(status.stdout)["outboxes"]
    assert (lag["name"], lag["command_id"], lag["commands_behind"]) == ("mail", 0, 5)
    assert says in lag["failure"]
    assert "outbox mail: after command 0, 5 commands and" in typed(folder, "status").stdout
    assert outbox(folder, "--", *PYTHON, APPEND).returncode == 0
    assert seen(folder) == [1, 2, 3, 4, 5]
    assert typed(folder, "status", "--check").returncode == 0


def test_a_command_that_does_not_read_all_has_not_accepted_all(folder: Path) -> None:
    with Runtime.open(Till, journal=f"sqlite:{folder}/till.db", snapshots=f"dir:{folder}/images") as till:
        commands = [Command("deposit", {"number": "a" * 200, "cents": 1}) for _ in range(400)]
        assert len(list(till.execute_many(commands))) == 400
    refused = outbox(folder, "--attempts-max", "1", "--", *PYTHON, "pass")
    assert refused.returncode == 3
    assert "before it had read every message" in refused.stderr


def test_following_ends_after_the_batch_under_way(folder: Path) -> None:
    child = subprocess.Popen(
        [*MAIN, "outbox", "--name", "mail", "--follow", "--", *PYTHON, f"import time; time.sleep(0.3); {APPEND}"],
        cwd=folder,
        env=environment(folder),
    )
    try:
        wait_for(lambda: seen(folder) == [1, 2, 3, 4, 5])
        assert outbox(folder, "--", "true").returncode == 3  # one consumer at a time
        deposit(folder, 1)
        time.sleep(0.1)
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 0
    finally:
        child.kill()
        child.wait()
    assert outbox(folder, "--", *PYTHON, APPEND).returncode == 0
    assert seen(folder) == [1, 2, 3, 4, 5, 6]


def test_a_cursor_is_begun_put_back_and_forgotten(folder: Path) -> None:
    append = ("--", *PYTHON, APPEND)
    assert outbox(folder, "--after", "head", *append).returncode == 0
    assert seen(folder) == []
    assert outbox(folder, "--reset", "--after", "3").returncode == 0
    assert outbox(folder, *append).returncode == 0
    assert seen(folder) == [4, 5]
    assert outbox(folder, "--forget").returncode == 0
    assert json.loads(typed(folder, "status", "--json").stdout)["outboxes"] == []
    assert outbox(folder, *append).returncode == 0
    assert seen(folder) == [4, 5, 1, 2, 3, 4, 5]


def test_a_lost_end_is_found_by_check_and_by_the_engine(folder: Path) -> None:
    backup = (folder / "till.db").read_bytes()
    deposit(folder, 2)
    assert outbox(folder, "--", "cat").returncode == 0
    (folder / "till.db").write_bytes(backup)
    checked = typed(folder, "check")
    assert checked.returncode == 4
    assert "outbox 'mail' has delivered it" in checked.stdout
    assert typed(folder, "status", "--check").returncode == 3


def test_wrong_calls(folder: Path) -> None:
    for arguments in ((), ("--forget", "--reset"), ("--forget", "--", "cat"), ("--reset", "--after", "99")):
        assert outbox(folder, *arguments).returncode == 2, arguments
    missing = outbox(folder, "--", "no-such-command")
    assert missing.returncode == 2
    assert "no-such-command cannot be run" in missing.stderr
    assert typed(folder, "outbox", "--name", "../x", "--", "cat").returncode == 2
