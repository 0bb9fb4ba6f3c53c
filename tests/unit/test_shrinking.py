"""Divergences shrunk to a test: which is small, fails on the engine that diverged and passes on the good one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from journal.urls import open_history
from recovery import Command, Runtime, UsageError
from recovery.cli.main import run
from recovery.reducing.emitted_test import emit_pytest
from recovery.shrinking import NOT_DETERMINISTIC, NOT_RESTORABLE, RECORDED, TWO_ENGINES, Shrunk

ROOT = Path(__file__).parents[2]

SHOP = """
from recovery import Context, Reject, Table, TableEngine, command

class Shop(TableEngine):
    name = "shop"
    stock = Table(str, int)
    blocked = Table(str, int)

    @command
    def put(self, context: Context, item: str, count: int):
        if item in self.blocked and <condition>:
            raise Reject("blocked", item)
        self.stock[item] = self.stock.get(item, 0) + count
        <line>
        return <answer>

    @command
    def block(self, context: Context, item: str):
        self.blocked[item] = context.command_id
"""
GOOD = {"condition": "True", "line": "pass", "answer": "self.stock[item]"}

COUNTER = """
class Counter:
    name = "counter"

    def __init__(self):
        self.ticks = 0
        self.seen = []

    def apply(self, context, command):
        self.ticks += command.type == "tick"
        self.seen.append(command.data)
        return self.ticks

    def capture(self):
        return <capture>

    def restore(self, value):
        <restore>
"""
FORGETFUL = {"capture": "list(self.seen)", "restore": "self.seen = list(value)"}
MINDFUL = {"capture": "[self.ticks, list(self.seen)]", "restore": "self.ticks, self.seen = value"}


class Workshop:
    """A folder with engines, a journal of one of them, and tests emitted for another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, module: str, text: str, **parts: str) -> None:
        for name, part in parts.items():
            text = text.replace(f"<{name}>", part)
        (self.folder / f"{module}.py").write_text(text)

    def record(self, engine: str, commands: list[Command], **options: Any) -> None:
        with Runtime.open(engine, journal="sqlite:j.db", snapshots="dir:s", snapshot_every=0, **options) as runtime:
            list(runtime.execute_many(commands))

    def emit(self, engine: str, command_id: int, **options: Any) -> Shrunk:
        return emit_pytest(
            "test_it.py", engine=engine, journal="sqlite:j.db", snapshots="dir:s", command_id=command_id, **options
        )

    def outcome(self, module: str = "", instead: str = "") -> subprocess.CompletedProcess[str]:
        """Run the emitted test by itself, elsewhere; with another engine under the module's name where one is given."""
        elsewhere = self.folder / f"elsewhere {module}"
        elsewhere.mkdir(exist_ok=True)
        for name in ("test_it.py", "test_it.journal"):
            (elsewhere / name).write_bytes((self.folder / name).read_bytes())
        for source in self.folder.glob("*.py"):
            if source.name != "test_it.py":
                (elsewhere / source.name).write_bytes(source.read_bytes())
        if module:
            (elsewhere / f"{instead}.py").write_bytes((self.folder / f"{module}.py").read_bytes())
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
            cwd=elsewhere,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("good", "bad", "counter"):
        sys.modules.pop(module, None)
    found = Workshop(tmp_path)
    found.write("good", SHOP, **GOOD)
    return found


def puts(count: int) -> list[Command]:
    return [
        Command(
            "block" if n == 30 else "put", {"item": f"n{n % 20}"} | ({} if n == 30 else {"count": 1}), received_at_ms=n
        )
        for n in range(1, count + 1)
    ]


def test_against_the_record_the_state_before_is_kept_whole(workshop: Workshop) -> None:
    workshop.write("bad", SHOP, **GOOD | {"condition": "False"})
    workshop.record("good:Shop", puts(60))
    shrunk = workshop.emit("bad:Shop", 50)
    assert (shrunk.judge, shrunk.commands, shrunk.rows, shrunk.exact) == (RECORDED, 1, 21, True)
    failed = workshop.outcome()
    assert failed.returncode == 1
    assert "/stock/n10: recorded 1, replayed 2" in failed.stdout
    assert workshop.outcome("good", "bad").returncode == 0


def test_against_another_engine_only_what_matters_is_kept(workshop: Workshop) -> None:
    workshop.write("bad", SHOP, **GOOD | {"condition": "False"})
    workshop.record("good:Shop", puts(60))
    shrunk = workshop.emit("bad:Shop", 50, against="good:Shop")
    assert (shrunk.judge, shrunk.commands, shrunk.rows, shrunk.exact) == (TWO_ENGINES, 1, 1, True)
    with open_history(shrunk.path) as history:
        assert [entry.command_id for entry in history.read()] == [50]
    assert run(["check", "--journal", f"file:{shrunk.path}"]) == 0
    assert run(["state", "--journal", f"file:{shrunk.path}", "--at", "49", "--json"]) == 0
    assert workshop.outcome().returncode == 1
    assert workshop.outcome("good", "bad").returncode == 0


def test_against_another_revision_of_the_same_module(workshop: Workshop) -> None:
    """Each side sees its own folder, whatever this process has on its path."""
    workshop.record("good:Shop", puts(60))
    Path("former").mkdir()
    Path("former/good.py").write_bytes(Path("good.py").read_bytes())
    workshop.write("good", SHOP, **GOOD | {"condition": "False"})
    shrunk = workshop.emit("good:Shop", 50, against="good:Shop", against_app_dir="former")
    assert (shrunk.judge, shrunk.commands, shrunk.rows, shrunk.exact) == (TWO_ENGINES, 1, 1, True)
    assert workshop.outcome().returncode == 1


def test_what_two_hash_seeds_part_is_shrunk_with_two_hash_seeds(workshop: Workshop) -> None:
    workshop.write("bad", SHOP, **GOOD | {"answer": "[*{str(n) for n in range(9)}][0] if self.stock[item] > 1 else ''"})
    workshop.record("bad:Shop", puts(60))
    shrunk = workshop.emit("bad:Shop", 26)
    assert (shrunk.judge, shrunk.commands, shrunk.rows, shrunk.exact) == (NOT_DETERMINISTIC, 1, 1, True)
    failed = workshop.outcome()
    assert failed.returncode == 1
    assert "does two things with command 1" in failed.stdout
    assert "PYTHONHASHSEED=" in failed.stdout
    assert workshop.outcome("good", "bad").returncode == 0


def test_state_that_no_capture_holds_is_shrunk_to_the_commands_that_make_it(workshop: Workshop) -> None:
    workshop.write("counter", COUNTER, **FORGETFUL)
    workshop.write("mindful", COUNTER, **MINDFUL)
    ticks = [Command("tick" if n % 9 == 4 else "look", n, received_at_ms=n) for n in range(60)]
    workshop.record("counter:Counter", ticks, digest_every=10)
    shrunk = workshop.emit("counter:Counter", 45)
    assert (shrunk.judge, shrunk.commands, shrunk.exact) == (NOT_RESTORABLE, 2, True)
    failed = workshop.outcome()
    assert failed.returncode == 1
    assert "restored before the last command" in failed.stdout
    assert workshop.outcome("mindful", "counter").returncode == 0


def test_what_does_not_show_again_is_not_made_a_test(workshop: Workshop) -> None:
    workshop.record("good:Shop", puts(20))
    with pytest.raises(UsageError, match="does not show again") as refused:
        workshop.emit("good:Shop", 15)
    assert refused.value.hint
    for name in ("test_it.txt", "it.py"):
        with pytest.raises(UsageError, match="no test that pytest collects"):
            emit_pytest(name, engine="good:Shop", journal="sqlite:j.db", snapshots="dir:s", command_id=1)
    assert not Path("test_it.py").exists()


def test_the_verb_writes_it_and_the_plugin_leaves_its_history_alone(workshop: Workshop) -> None:
    workshop.write("bad", SHOP, **GOOD | {"condition": "False"})
    workshop.record("good:Shop", puts(60))
    where = ["--journal", "sqlite:j.db", "--snapshots", "dir:s"]
    assert run(["replay", *where, "--engine", "bad:Shop", "--emit-pytest", "test_it.py"]) == 1
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "recovery.pytest_plugin",
            "--collect-only",
            "-p",
            "no:cacheprovider",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert "test_it.py::test_put_50" in found.stdout
    assert ".journal" not in found.stdout
    assert run(["replay", *where, "--engine", "good:Shop", "--emit-pytest", "test_other.py"]) == 0
    assert not Path("test_other.py").exists()


def test_a_sender_cannot_write_code_into_the_test(workshop: Workshop) -> None:
    from recovery.reducing.emitted_test import _text

    shrunk = Shrunk(RECORDED, "p", 1, '"""\nimport os; os.abort()\n"""\\', 1, 0, 1, True)
    text = _text(shrunk, "a:B", ".", "")
    assert [line for line in text.splitlines() if line.startswith("import")] == []
    compile(text, "emitted", "exec")
