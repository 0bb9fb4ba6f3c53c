"""Evidence: one file for each mismatch, which is enough to see it again elsewhere, and says nothing that it should not."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from recovery import Command, DivergenceError, Runtime, open_journal
from recovery import evidence as evidence_module
from recovery.cli.main import run

ROOT = Path(__file__).parents[2]
SHOP = """
from recovery import Cell, Context, Reject, Table, TableEngine, command

class Shop(TableEngine):
    name = "shop"
    stock = Table(str, int)
    puts = Cell(int, 0)

    @command
    def put(self, context: Context, item: str, count: int):
        self.puts.value += 1
        self.stock[item] = self.stock.get(item, 0) + count
        context.emit("Put", {"item": item}, key=item)
        return self.stock[item]
"""
BENT = SHOP.replace("+ count", "+ count + (self.puts.value == 40)")
SECRET = "swordfish"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with 60 commands of a shop, and another shop, bent, that differs at command 40."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("RECOVERY_EVIDENCE", "bundles")
    for module in ("good", "bent", "hider"):
        sys.modules.pop(module, None)
    Path("good.py").write_text(SHOP)
    Path("bent.py").write_text(BENT)
    Path("hider.py").write_text("def hide(what, value):\n    return f'<{what}>' if what != 'row' else 0\n")
    with Runtime.open("good:Shop", journal="sqlite:j.db", snapshots="dir:s", snapshot_every=0) as runtime:
        for n in range(60):
            runtime.execute(Command("put", {"item": f"{SECRET} {n % 7}", "count": 1}, entity_id=SECRET))
    return tmp_path


WHERE = ["--journal", "sqlite:j.db", "--snapshots", "dir:s"]


def contents(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as bundle:
        assert bundle.testzip() is None
        return {
            name: json.loads(bundle.read(name)) if name.endswith(".json") else bundle.read(name)
            for name in bundle.namelist()
        }


def the_bundle() -> Path:
    (found,) = Path("bundles").iterdir()
    return found


def test_a_replay_keeps_what_it_takes_to_see_it_again(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["replay", *WHERE, "--engine", "bent:Shop"]) == 1
    path = the_bundle()
    assert f"evidence: {path}" in capsys.readouterr().err
    found = contents(path)
    assert set(found) == {"README.txt", "report.json", "rows.json", "environment.json", "history.journal"}
    divergence = found["report.json"]["divergence"]
    assert (divergence["command_id"], divergence["fields"][0]["replayed"]) == (
        40,
        divergence["fields"][0]["recorded"] + 1,
    )
    assert found["report.json"]["where"] == "replay"
    (cell, row) = found["rows.json"]["rows"]
    assert (cell["table"], cell["before"], cell["recorded"]) == ("puts", 39, 40)
    assert (row["key"], row["before"], row["recorded"]) == (f"{SECRET} 4", 5, 6)
    assert row["fields"][0]["replayed"] == 7
    environment = found["environment.json"]
    assert environment["recorded_by"]["engine"] == "shop"
    assert environment["recorded_by"]["code_revision"] != environment["replayed_by"]["code_revision"]
    assert environment["replayed_by"]["libraries"]["msgspec"]
    (line,) = [line.strip() for line in found["README.txt"].decode().splitlines() if "zipfile -e" in line]
    extract, replay = (shlex.split(part) for part in line.split(" && "))
    # Elsewhere: nothing is there but the bundle and the engine's module.
    elsewhere = shop / "elsewhere"
    elsewhere.mkdir()
    for name in (path, Path("bent.py")):
        (elsewhere / name.name).write_bytes(name.read_bytes())
    subprocess.run([sys.executable, *extract[1:]], cwd=elsewhere, check=True)
    again = subprocess.run(
        [sys.executable, "-m", "recovery.cli.main", *replay[1:], "--evidence", "off", "--json"],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert again.returncode == 1, again.stderr
    assert json.loads(again.stdout)["divergences"][0]["fields"] == divergence["fields"]
    assert not (elsewhere / "bundles").exists()


def test_the_same_finding_is_kept_once(shop: Path) -> None:
    for _ in range(3):
        assert run(["replay", *WHERE, "--engine", "bent:Shop"]) == 1
    the_bundle()
    assert run(["replay", *WHERE, "--engine", "good:Shop"]) == 0
    the_bundle()


def test_off_keeps_nothing(shop: Path) -> None:
    assert run(["replay", *WHERE, "--engine", "bent:Shop", "--evidence", "off"]) == 1
    assert not Path("bundles").exists()


def test_a_cold_start_that_refuses_keeps_it(shop: Path) -> None:
    for image in Path("s/main").iterdir():
        image.unlink()
    with pytest.raises(DivergenceError, match="was not started"):
        Runtime.open("bent:Shop", journal="sqlite:j.db", snapshots="dir:s")
    assert contents(the_bundle())["report.json"]["where"] == "cold start"
    Runtime.open("good:Shop", journal="sqlite:j.db", snapshots="dir:s").close()


def test_a_runtime_that_stops_keeps_it(shop: Path) -> None:
    runtime = Runtime.open("good:Shop", journal="sqlite:j.db", snapshots="dir:s")
    table = runtime.engine.stock
    for key in list(table):
        table._rows[key] = 1_000_000  # behind the framework's back
    with pytest.raises(DivergenceError):
        for n in range(500):
            runtime.execute(Command("put", {"item": f"{SECRET} {n % 7}", "count": 1}))
    runtime.close()
    for _ in range(200):
        if list(Path("bundles").glob("*.zip")):
            break
        time.sleep(0.05)
    found = contents(next(Path("bundles").glob("*.zip")))
    assert (found["report.json"]["where"], found["report.json"]["error"]) == ("live", "DivergenceError")


def test_payloads_are_redacted_by_a_hook(shop: Path) -> None:
    assert run(["replay", *WHERE, "--engine", "bent:Shop", "--redact", "hider:hide"]) == 1
    path = the_bundle()
    found = contents(path)
    with zipfile.ZipFile(path) as bundle:
        bundle.extractall("out")
        for name in bundle.namelist():
            assert SECRET.encode() not in bundle.read(name), name
    assert found["report.json"]["divergence"]["command_id"] == 40
    assert "payloads are redacted" in found["README.txt"].decode()
    with open_journal("file:out/history.journal") as journal:
        entries = list(journal.read())
        assert {entry.data for entry in entries} == {"<data>"}
        assert SECRET not in repr(entries)
    with open_journal("sqlite:j.db") as recorded:
        assert [entry.chain for entry in recorded.read(0, len(entries))] == [entry.chain for entry in entries]
    where = ["--journal", "file:out/history.journal"]
    assert run(["check", *where]) == 0
    assert run(["log", *where]) == 0
    assert run(["replay", *where, "--engine", "good:Shop"]) == 2
    assert run(["state", *where, "--at", "5"]) == 2
    assert run(["import", "out/history.journal", "--journal", "sqlite:new.db"]) == 2


def test_what_is_too_large_is_left_out_and_said(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_module, "BYTES_MAX", 1)
    assert run(["replay", *WHERE, "--engine", "bent:Shop"]) == 1
    found = contents(the_bundle())
    assert "history.journal" not in found
    assert "Left out: the history." in found["README.txt"].decode()


def test_it_never_fails_its_caller(shop: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path("file").write_text("")
    assert run(["replay", *WHERE, "--engine", "bent:Shop", "--evidence", "file/below"]) == 1
    assert "no evidence was kept" in caplog.text
    assert run(["replay", *WHERE, "--engine", "bent:Shop", "--redact", "missing:hook"]) == 1
    assert not Path("bundles").exists()


def test_no_environment_and_no_password_is_in_it(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@h/db")
    monkeypatch.setenv("RECOVERY_JOURNAL", "postgresql://u:hunter2@h/db")
    assert run(["replay", *WHERE, "--engine", "bent:Shop"]) == 1
    with zipfile.ZipFile(the_bundle()) as bundle:
        for name in bundle.namelist():
            assert b"hunter2" not in bundle.read(name), name
