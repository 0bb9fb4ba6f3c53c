"""``recovery bisect``: what it prints and writes, and its exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from recovery import Command, Runtime
from recovery.cli.main import run

HALF_MS = 1_700_000_000_000


class Shell:
    """Runs ``recovery bisect`` in a folder."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = run(["bisect", *arguments])
        out, err = self._capture.readouterr()
        assert "Traceback" not in err
        return code, out, err

    def json(self, *arguments: str, code: int) -> Any:
        found, out, err = self(*arguments, "--json")
        assert found == code, err
        document = json.loads(out)
        assert document["schema_version"] == 1
        return document


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECOVERY_ENGINE", "tests.cancelling:Straight")
    monkeypatch.setenv("RECOVERY_JOURNAL", "sqlite:j.db")
    monkeypatch.setenv("RECOVERY_SNAPSHOTS", "dir:s")
    recorded("sqlite:j.db", range(1, 21))
    return Shell(capsys)


def recorded(journal: str, numbers: Any, engine: str = "tests.cancelling:Straight") -> None:
    with Runtime.open(engine, journal=journal, snapshots="memory:", snapshot_every=0, seed=1) as runtime:
        for number in numbers:
            runtime.execute(Command("add", {"by": number}, request_id=f"r{number}", received_at_ms=HALF_MS + number))


def test_history_that_comes_out_the_same(shell: Shell) -> None:
    document = shell.json(code=0)
    assert document["first_divergence"] is None
    assert (document["method"], document["commands_replayed"], document["steps"]) == ("recorded history", 20, 1)
    assert document["proven"]
    code, out, _ = shell()
    assert code == 0
    assert out.startswith("no divergence: recorded history, ")
    assert shell("--after", "20")[0] == 5


def test_the_first_divergence_as_text_page_and_test_results(shell: Shell, tmp_path: Path) -> None:
    engine = ("--git-bisect", "--engine", "tests.cancelling:There")
    code, out, err = shell(*engine, "--html", "b.html", "--junit-xml", "b.xml")
    assert code == 1
    assert "command 11 (add) diverges in post_digest" in out
    assert "/total: recorded 66, replayed 67" in out
    assert err.startswith("command 11 (add) diverges in post_digest\n")
    assert "evidence: each of the 10 commands before it was replayed, and agrees with its record" in out
    page = (tmp_path / "b.html").read_text()
    assert "recorded history" in page
    assert "diverged" in page
    assert 'failures="2"' in (tmp_path / "b.xml").read_text()


def test_the_range_is_searched_alone(shell: Shell) -> None:
    document = shell.json("--git-bisect", "--engine", "tests.cancelling:There", "--after", "12", code=1)
    assert document["first_divergence"]["command_id"] == 13
    assert (
        shell.json("--git-bisect", "--engine", "tests.cancelling:There", "--after", "13", code=0)["commands_replayed"]
        == 7
    )


def test_against_another_engine(shell: Shell) -> None:
    document = shell.json("--against", "tests.cancelling:There", code=1)
    first = document["first_divergence"]
    assert (first["command_id"], document["method"], document["steps"]) == (11, "two engines", 11)
    assert document["sides"] == {"recorded": "tests.cancelling:There", "replayed": "tests.cancelling:Straight"}
    assert first["fields"] == [
        {"table": "total", "key": {"$tuple": []}, "path": "/total", "recorded": 67, "replayed": 66}
    ]


def test_two_journals(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded("sqlite:other.db", range(1, 21), engine="tests.cancelling:There")
    document = shell.json("--other-journal", "sqlite:other.db", code=1)
    first = document["first_divergence"]
    assert (first["command_id"], first["what"]) == (11, ["post_digest"])
    assert [field["path"] for field in first["fields"]] == ["/total"]
    assert (document["monotone"], document["commands_replayed"]) == (True, 0)
    assert 0 < document["steps"] <= 8
    assert document["entries_read"] <= 30
    recorded("sqlite:inputs.db", [*range(1, 7), 99, *range(8, 25)])
    other = shell.json("--other-journal", "sqlite:inputs.db", code=1)
    assert other["first_divergence"]["what"] == ["inputs"]
    assert other["first_divergence"]["cause"] == "different inputs"
    assert other["first_divergence"]["inputs"]["replayed"]["data"] == {"by": 99}
    assert other["notes"] == ["the journal ends at command 20, the other journal at 24; compared up to 20"]
    code, out, _ = shell("--other-journal", "sqlite:inputs.db")
    assert code == 1
    assert re.search(r'inputs replayed: .*"by": 99', out)
    monkeypatch.delenv("RECOVERY_ENGINE")
    assert shell("--other-journal", "sqlite:other.db")[0] == 1, "no engine is needed"


def test_a_journal_that_is_the_beginning_of_the_other(shell: Shell) -> None:
    recorded("sqlite:longer.db", range(1, 31))
    document = shell.json("--other-journal", "sqlite:longer.db", code=0)
    assert document["first_divergence"] is None
    assert document["notes"] == ["the journal ends at command 20, the other journal at 30; compared up to 20"]
    assert document["evidence"] == "the chains are equal at command 20, and so is all up to it"


def test_what_is_asked_wrongly_is_refused(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = shell("--against", "tests.cancelling:There", "--other-journal", "sqlite:j.db")
    assert (code, "two questions" in err) == (2, True)
    recorded("sqlite:other.db", range(1, 21), engine="tests.cancelling:There")
    code, _, err = shell("--other-journal", "sqlite:other.db", "--after", "15")
    assert (code, "differ at command 15 already" in err) == (2, True)
    assert shell("--engine", "no_such:Engine", "--git-bisect")[0] == 125
    monkeypatch.delenv("RECOVERY_ENGINE")
    code, _, err = shell()
    assert (code, "no engine is named" in err) == (2, True)


def test_an_exported_history_may_be_the_other_journal(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "half.journal", "--until", "12", "-q"]) == 0
    capsys.readouterr()
    document = shell.json("--other-journal", "file:half.journal", code=0)
    assert "the other journal ends at command 12, the journal at 20; compared up to 12" in document["notes"]


def test_a_test_is_written_of_two_engines(shell: Shell, tmp_path: Path) -> None:
    code, _, err = shell("--against", "tests.cancelling:There", "--emit-pytest", "test_parted.py")
    assert (code, "test_parted.py" in err) == (1, True)
    assert (tmp_path / "test_parted.py").exists()
    assert shell("--other-journal", "sqlite:j.db", "--emit-pytest", "test_none.py")[0] == 2
