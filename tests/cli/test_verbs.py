"""The verbs from end to end, in one process: what they print, and with which exit code they end."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recovery import Runtime
from recovery.cli.main import VERBS, recovery, run
from tests.engines import Counter, Till

ROOT = Path(__file__).parents[2]
LINES = [
    {"type": "deposit", "data": {"number": "ada", "cents": 5}, "request_id": "r1", "received_at_ms": 1_700_000_000_000},
    {"type": "deposit", "data": {"number": "bob", "cents": 7}, "request_id": "r2", "received_at_ms": 1_700_000_001_000},
    {
        "type": "deposit",
        "data": {"number": "ada", "cents": -9},
        "request_id": "r3",
        "received_at_ms": 1_700_000_002_000,
    },
    {"type": "close_account", "data": {"number": "bob"}, "request_id": "r4", "entity_id": "bob"},
]


class Shell:
    """Runs verbs on the till in a folder of its own."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capture = capture

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        out, err = self._capture.readouterr()
        assert "Traceback" not in err
        return code, out, err

    def json(self, *arguments: str, code: int = 0) -> Any:
        found, out, err = self(*arguments, "--json")
        assert found == code, err
        document = json.loads(out)
        assert document["schema_version"] == 1
        return document


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECOVERY_ENGINE", "tests.engines:Till")
    monkeypatch.setenv("RECOVERY_JOURNAL", "sqlite:j.db")
    monkeypatch.setenv("RECOVERY_SNAPSHOTS", "dir:s")
    return Shell(tmp_path, capsys)


@pytest.fixture
def till(shell: Shell) -> Shell:
    """A till that has seen LINES."""
    (shell.folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    code, out, _ = shell("run", "in.jsonl")
    assert code == 0
    receipts = [json.loads(line) for line in out.splitlines()]
    assert [receipt["command_id"] for receipt in receipts] == [1, 2, 3, 4]
    assert receipts[2]["rejection"] == {"code": "insufficient", "message": "ada holds 5"}
    return shell


def test_help_names_every_verb_and_exit_code() -> None:
    with recovery.make_context("recovery", ["status", "--help"], resilient_parsing=True) as context:
        text = recovery.get_help(context)
        for verb in VERBS:
            assert verb in text
            command = recovery.get_command(context, verb)
            assert command is not None
            assert f"recovery {verb}" in (command.help or ""), f"{verb} shows no example"
    for code in ("0  ", "1  ", "2  ", "3  ", "4  ", "5  ", "130"):
        assert code in text


def test_run_is_resumable(till: Shell) -> None:
    code, out, _ = till("run", "in.jsonl")
    assert code == 0
    assert all(json.loads(line)["duplicate"] for line in out.splitlines())


def test_run_answers_a_producer_that_waits_for_its_receipt(till: Shell) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "recovery.cli.main", "run", "-", "-q"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    for cents in (1, 2, 3):
        child.stdin.write(json.dumps({"type": "deposit", "data": {"number": "eve", "cents": cents}}) + "\n")
        child.stdin.flush()
        assert json.loads(child.stdout.readline())["events"][0]["data"]["delta"] == cents
    child.stdin.close()
    child.stdout.close()
    assert child.wait(60) == 0


def test_run_says_which_line_is_wrong_after_the_receipts_before_it(till: Shell) -> None:
    (till.folder / "bad.jsonl").write_text(json.dumps(LINES[0]) + "\n{not json}\n")
    code, out, err = till("run", "bad.jsonl")
    assert code == 2
    assert len(out.splitlines()) == 1
    assert "line 2: not JSON" in err


def test_run_ends_with_2_when_the_engine_refused_a_command(till: Shell) -> None:
    (till.folder / "bad.jsonl").write_text('{"type": "unheard", "data": {}}\n')
    code, out, _ = till("run", "bad.jsonl")
    assert code == 2
    assert json.loads(out)["error"]["kind"] == "UsageError"


def test_replay_verifies(till: Shell) -> None:
    document = till.json("replay")
    assert document["verdict"] == "verified"
    assert document["checked"] == dict.fromkeys(("pre_digest", "post_digest", "response", "events"), 4)
    assert (document["first"], document["last"], document["commands"]) == (1, 4, 4)
    assert till.json("replay", "--after", "2", "--until", "3")["commands"] == 1
    assert till.json("replay", "--mode", "redo", "--strict")["verdict"] == "verified"
    assert till.json("replay", "--no-verify")["verdict"] == "nothing"
    assert till.json("replay", "--after", "4", code=5)["verdict"] == "nothing"
    assert till.json("replay", "--from", "4", "--after", "4", code=5)["verdict"] == "nothing"


def test_replay_names_what_diverges(till: Shell) -> None:
    (till.folder / "bent.py").write_text(
        "from tests.engines import *\n"
        "class Bent(Till):\n"
        "    @command\n"
        "    def deposit(self, context: Context, number: str, cents: int):\n"
        "        answer = super().deposit(context, number, cents)\n"
        "        if number == 'bob':\n"
        "            self.accounts[number] = Account(number, 8)\n"
        "        return answer\n"
    )
    document = till.json("replay", "--engine", "bent:Bent", code=1)
    (found,) = document["divergences"]
    assert (found["command_id"], found["what"], found["cause"]) == (2, ["post_digest"], "logic changed")
    field = {
        "table": "accounts",
        "key": "bob",
        "field": "cents",
        "path": "/accounts/bob/cents",
        "recorded": 7,
        "replayed": 8,
    }
    assert found["fields"] == [field]
    assert document["not_checked"]
    (again,) = till.json(*shlex.split(found["reproduce"])[1:], code=1)["divergences"]
    assert again == found


def test_log_state_and_diff(till: Shell) -> None:
    entries = till.json("log")["entries"]
    assert [entry["type"] for entry in entries] == ["deposit", "deposit", "deposit", "close_account"]
    changed = till.json("log", "--table", "accounts", "--key", "bob")["entries"]
    assert [entry["command_id"] for entry in changed] == [2, 4]
    assert [entry["command_id"] for entry in till.json("log", "--entity", "bob")["entries"]] == [4]
    assert [entry["command_id"] for entry in till.json("log", "--request-id", "r3")["entries"]] == [3]
    assert till.json("state", "--at", "2", "--table", "accounts", "--key", "bob")["tables"] == {
        "accounts": [{"key": "bob", "row": {"$tuple": ["bob", 7]}}]
    }
    assert till.json("state", "--at", "2023-11-14T22:13:21Z")["command_id"] == 2
    assert till.json("diff", "3", "4")["rows"] == [{"table": "accounts", "key": "bob", "a": {"$tuple": ["bob", 7]}}]
    assert till("state", "--at", "99")[0] == 2
    assert till("state", "--at", "yesterday")[0] == 2


def test_snapshots_are_taken_listed_and_pruned(till: Shell) -> None:
    till.json("snapshot", "take")
    (image,) = till.json("snapshot", "list")["images"]
    assert (image["command_id"], image["state"]) == (4, "good")
    (till.folder / "more.jsonl").write_text(
        json.dumps({"type": "deposit", "data": {"number": "eve", "cents": 1}}) + "\n"
    )
    till("run", "more.jsonl")
    assert [i["command_id"] for i in till.json("snapshot", "prune", "--keep", "1")["images"]] == [4]
    assert len(till.json("snapshot", "list")["images"]) == 2
    till("snapshot", "prune", "--keep", "1", "--yes")
    assert [i["command_id"] for i in till.json("snapshot", "list")["images"]] == [5]


def test_check_status_migrate_and_doctor(till: Shell) -> None:
    assert till.json("check") == {
        "schema_version": 1, "verdict": "sound", "commands": 4, "last_good": 4, "images": 1, "damage": [],
    }  # fmt: skip
    status = till.json("status", "--check")
    assert (status["head"]["command_id"], status["snapshot"]["command_id"], status["healthy"]) == (4, 4, True)
    assert till.json("migrate", "--check")["behind"] is False
    assert "CREATE TABLE" in till("migrate", "--sql")[1]
    doctor = till.json("doctor")
    assert doctor["problems"] == []
    assert doctor["settings"]["journal"] == {"value": "sqlite:j.db", "from": "RECOVERY_JOURNAL"}


def test_damage_is_named_with_the_last_good_command(till: Shell) -> None:
    with sqlite3.connect("j.db") as raw:
        raw.execute("UPDATE entries SET result_bytes = x'0105' WHERE command_id = 3")
    raw.close()
    document = till.json("check", code=4)
    assert document["last_good"] == 2
    assert "command 3" in document["damage"][0]
    assert till.json("replay", code=4)["verdict"] == "damaged"
    log = till.json("log", code=4)
    assert [entry["command_id"] for entry in log["entries"]] == [1, 2]
    assert "command 3" in log["error"]["message"]


def test_an_empty_journal_verifies_nothing(shell: Shell) -> None:
    Runtime.open(Till, journal="sqlite:j.db", snapshots="dir:s").close()
    assert shell.json("replay", code=5)["verdict"] == "nothing"
    assert shell.json("check", code=5)["verdict"] == "nothing"


def test_settings_come_from_a_toml_file(till: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENGINE", "JOURNAL", "SNAPSHOTS"):
        monkeypatch.delenv(f"RECOVERY_{name}")
    (till.folder / "recovery.toml").write_text(
        'engine = "tests.engines:Till"\njournal = "sqlite:j.db"\nsnapshots = "dir:s"\n'
    )
    assert till.json("replay")["commands"] == 4
    (till.folder / "recovery.toml").write_text('jurnal = "sqlite:j.db"\n')
    code, _, err = till("replay")
    assert code == 2
    assert "jurnal" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["status", "--journal", "sqlite://j.db"], 2, "sqlite:PATH"),
        (["status", "--journal", "mysql:x"], 2, "mysql"),
        (["status", "--snapshots", "ftp:x"], 2, "ftp"),
        (["status", "--journal", "sqlite:missing.db"], 3, "missing.db"),
        (["status", "--stream", "other"], 3, "no stream 'other'"),
        (["replay", "--engine", "tests.engines:Counter"], 2, "engine 'till', not 'counter'"),
        (["run", "in.jsonl", "--engine", "tests.engines:Counter"], 2, "engine 'till', not 'counter'"),
        (["replay", "--engine", "tests.engines:Missing"], 3, "no 'Missing'"),
        (["replay", "--engine", "missing:Till"], 3, "no module 'missing'"),
        (["replay", "--engine", "till"], 3, "MODULE:ATTR"),
        (["replay", "--engine", "broken:Till"], 3, "ZeroDivisionError: division by zero"),
        (["replay", "--engine", "tests.engines:LINES"], 3, "LINES"),
        (["run", "in.jsonl", "--journal", "sqlite:in.jsonl/j.db"], 3, "in.jsonl"),
        (["run", "missing.jsonl"], 3, "missing.jsonl"),
        (["replay", "--from", "3"], 2, "no verified image at command 3"),
        (["replay", "--from", "x"], 2, "neither genesis"),
        (["state", "--at", "1", "--key", "x"], 2, "--key needs --table"),
        (["nonsense"], 2, "No such command"),
        (["replay", "--nonsense"], 2, "No such option"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(till: Shell, arguments: list[str], code: int, said: str) -> None:
    (till.folder / "broken.py").write_text("1 / 0\n")
    found, _, err = till(*arguments)
    assert said in err
    assert found == code


def test_errors_are_a_document_too(till: Shell) -> None:
    document = till.json("replay", "--journal", "sqlite:missing.db", code=3)
    assert document["error"]["kind"] == "StoreUnavailable"


def test_a_journal_in_use_names_its_holder(till: Shell) -> None:
    with Runtime.open(Till, journal="sqlite:j.db", snapshots="dir:s"):
        code, _, err = till("run", "in.jsonl")
        assert code == 3
        assert str(os.getpid()) in err
        assert till.json("replay")["verdict"] == "verified", "readers are not in anybody's way"


def test_a_newer_schema_is_not_touched(till: Shell) -> None:
    raw = sqlite3.connect("j.db")
    raw.execute("PRAGMA user_version = 99")
    raw.close()
    code, _, err = till("replay")
    assert code == 3
    assert "99" in err


@pytest.mark.parametrize("name", ["journal", "snapshots"])
def test_a_module_that_shadows_ours_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text("")
    for command in (["-m", "recovery.cli.main", "status"], ["-c", "import recovery"]):
        child = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"{name}.py is imported in its place: rename" in child.stderr
        if command[0] == "-m":
            assert child.returncode == 3
            assert child.stderr.count("\n") == 1


def test_an_engine_without_tables_needs_the_engine_for_its_state(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOVERY_ENGINE", "tests.engines:Counter")
    lines = [{"type": "count", "data": {"name": "a"}} for _ in range(3)]
    (shell.folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert shell("run", "in.jsonl")[0] == 0
    assert shell.json("state", "--at", "2")["value"]["totals"] == {"a": 2}
    assert shell.json("replay", "--strict", code=5)["verdict"] == "verified"
    assert shell.json("snapshot", "take")["command_id"] == 3
    monkeypatch.delenv("RECOVERY_ENGINE")
    code, _, err = shell("state", "--at", "2")
    assert code == 2
    assert "--engine" in err
    assert Counter.name in err


def test_what_a_sender_wrote_cannot_forge_a_line(shell: Shell) -> None:
    sent = {"type": "deposit", "data": {"number": "a\x1b[31m\u202e\n::error::x", "cents": 5}}
    (shell.folder / "in.jsonl").write_text(json.dumps(sent) + "\n")
    assert shell("run", "in.jsonl")[0] == 0
    for verb in (["log"], ["state", "--at", "1"], ["diff", "0", "1"]):
        code, out, _ = shell(*verb)
        assert code == 0
        assert "\\u202e" in out
        assert all(line.isprintable() for line in out.split("\n"))


def test_a_replay_is_reported_to_people_and_to_ci(till: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOVERY_SNAPSHOTS", "dir:s")
    assert till("snapshot", "take")[0] == 0
    assert till("replay", "--html", "out/page.html", "--junit-xml", "out/junit.xml")[0] == 0
    page, junit = ((till.folder / "out" / name).read_text() for name in ("page.html", "junit.xml"))
    assert 'class="verdict verified"' in page
    assert "image at command 4" in page
    assert 'tests="1"' in junit
    assert 'failures="0"' in junit
