"""``recovery replay --perturb``: a history that verifies here and now, and would not elsewhere."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from recovery.cli.main import run
from recovery.explaining import perturbation, perturbed_range
from recovery.explaining.perturbation import Place

ENGINES = Path(__file__).parents[2]


class Shell:
    """Runs verbs in a folder of its own."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str) -> tuple[int, str]:
        code = run(list(arguments))
        out, err = self._capture.readouterr()
        assert "Traceback" not in err
        return code, out


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECOVERY_JOURNAL", "sqlite:j.db")
    monkeypatch.setenv("RECOVERY_SNAPSHOTS", "dir:s")
    monkeypatch.setattr(perturbation, "AT_ONCE", 1)
    monkeypatch.setattr(perturbed_range, "AT_ONCE", 1)
    return Shell(capsys)


def recorded(shell: Shell, engine: str, types: list[str]) -> None:
    os.environ["RECOVERY_ENGINE"] = f"tests.nondeterminism:{engine}"
    lines = [{"type": type, "data": None, "received_at_ms": 1_700_000_000_000 + at} for at, type in enumerate(types)]
    Path("commands.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, _ = shell("run", "commands.jsonl", "--app-dir", str(ENGINES))
    assert code == 0


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOVERY_ENGINE", "")


def test_a_clean_history_stays_verified(shell: Shell) -> None:
    recorded(shell, "Clean", ["odd", "plain", "odd"])
    code, out = shell("replay", "--perturb", "--json")
    document = json.loads(out)
    assert (code, document["verdict"], document["divergences"], document["not_checked"]) == (0, "verified", [], [])
    assert all(line.endswith(": the same") for line in document["perturbed"])
    assert "PYTHONHASHSEED=" in " ".join(document["perturbed"])


def test_the_first_command_that_would_differ_is_a_finding(shell: Shell) -> None:
    recorded(shell, "TimeZone", ["plain", "plain", "odd", "odd"])
    assert shell("replay")[0] == 0
    code, out = shell("replay", "--perturb", "--json")
    document = json.loads(out)
    assert (code, document["verdict"]) == (1, "diverged")
    (found,) = document["divergences"]
    assert (found["command_id"], found["cause"], found["factor"]) == (3, "not deterministic", "time zone")
    (field,) = found["fields"]
    assert (field["path"], field["recorded"] != field["replayed"]) == ("/notes/3", True)
    assert "(TZ)" in found["explanation"]
    assert found["reproduce"].startswith("recovery replay")
    assert "--perturb" in found["reproduce"]


def test_it_is_told_in_words(shell: Shell) -> None:
    recorded(shell, "ModuleCounter", ["plain", "odd", "odd"])
    code, out = shell("replay", "--perturb")
    assert code == 1
    assert "command 2 (odd) diverges in post_digest: hidden state" in out
    assert "  why: The outcome depends on what ran in the same process before" in out
    assert "  evidence: otherwise with: " in out


def test_it_runs_the_commands(shell: Shell) -> None:
    recorded(shell, "Clean", ["plain"])
    assert shell("replay", "--perturb", "--mode", "redo")[0] == 2
    assert shell("replay", "--perturb", "--no-verify")[0] == 2


def test_a_place_is_the_same_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def of(journal: Any, snapshots: Any = "") -> Place | None:
        return Place.of("m:E", journal, stream="main", snapshots=snapshots, app_dir=".")

    there = of("sqlite:j.db", "dir:s")
    assert there is not None
    assert (there.journal, there.snapshots) == (f"sqlite:{tmp_path}/j.db", f"dir:{tmp_path}/s")
    assert there.app_dir == str(tmp_path)
    url = "postgresql://user@host/db?sslmode=disable"
    there = of(url, "memory:x")
    assert there is not None
    assert (there.journal, there.snapshots) == (url, "")
    assert of("memory:x") is None
    assert of(object()) is None
