"""``recovery backfill`` from end to end, and ``run`` with projections."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from journal.projections import progress_of
from journal.records import Entry
from recovery import Command, Runtime, open_journal
from recovery.cli.main import run
from tests.engines import Account, Till
from tests.projections import CENTS_MAX, Totals, require_equal

SPEC = "tests.projections:Totals"


class Newer(Totals):
    version = 2


class Lower(Totals):
    """Refuses what another version of the tables took."""

    def statements(self, entry: Entry) -> Iterator[tuple[str, tuple[object, ...]]]:
        if entry.command_id == 700:
            yield "INSERT INTO totals (number, cents) VALUES (?, ?)", ("too much", CENTS_MAX + 1)
        yield from super().statements(entry)


class Shell:
    """Runs verbs on one journal."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.path = f"{folder}/journal.db"
        self.url = f"sqlite:{self.path}"
        self._capture = capture

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = run([*arguments, "--journal", self.url])
        out, err = self._capture.readouterr()
        assert "Traceback" not in err
        return code, out, err

    def open(self, **options: Any) -> Runtime:
        return Runtime.open(Till, journal=self.url, snapshots="memory:", **options)

    def record(self, count: int) -> dict[str, Account]:
        """Deposits and withdrawals of 50 accounts, a cent each in turn; what the engine then holds."""
        with self.open() as till:
            commands = (
                Command("deposit", {"number": f"n{n % 50}", "cents": 1 if n // 50 % 2 == 0 else -1})
                for n in range(count)
            )
            assert all(not isinstance(one, Exception) for one in till.execute_many(commands))
            return dict(till.engine.accounts)


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


def test_history_is_filled_in_and_the_engine_then_opens(shell: Shell) -> None:
    accounts = shell.record(1234)
    code, out, _ = shell("backfill", "--projection", SPEC)
    assert (code, out) == (0, "totals: 1234 commands, now at command 1234\n")
    require_equal(open_journal(shell.url).store, accounts, 1234)
    with shell.open(projections=[Totals]) as till:
        till.execute(Command("deposit", {"number": "ada", "cents": 1}))
        require_equal(till._recorder.store, dict(till.engine.accounts), 1235)


def test_again_does_nothing_and_says_so(shell: Shell) -> None:
    shell.record(3)
    shell("backfill", "--projection", SPEC)
    code, out, _ = shell("backfill", "--projection", SPEC, "--json")
    assert code == 0
    assert json.loads(out) == {"schema_version": 1, "projections": [{"name": "totals", "after": 3, "command_id": 3}]}


def test_it_is_resumed_where_it_stopped_and_names_what_is_refused(shell: Shell) -> None:
    accounts = shell.record(1200)
    code, _, err = shell("backfill", "--projection", "tests.cli.test_backfill:Lower")
    assert code == 2
    assert "command 700: projection 'totals': " in err
    assert progress_of(open_journal(shell.url).store)["totals"].command_id == 699
    code, out, _ = shell("backfill", "--projection", SPEC)
    assert (code, out) == (0, "totals: 501 commands, now at command 1200\n")
    require_equal(open_journal(shell.url).store, accounts, 1200)


def test_another_version_is_filled_anew(shell: Shell) -> None:
    accounts = shell.record(60)
    shell("backfill", "--projection", SPEC)
    newer = "tests.cli.test_backfill:Newer"
    code, _, err = shell("backfill", "--projection", newer)
    assert code == 2
    assert f"--anew --projection {newer}" in err
    code, out, _ = shell("backfill", "--anew", "--projection", newer)
    assert (code, out) == (0, "totals: 60 commands, now at command 60\n")
    require_equal(open_journal(shell.url).store, accounts, 60)


def test_loss_that_was_accepted_is_let_go_anew(shell: Shell) -> None:
    shell.record(5)
    shell("backfill", "--projection", SPEC)
    with closing(sqlite3.connect(shell.path)) as db, db:
        db.execute("UPDATE projection_progress SET command_id = 9")
    assert shell("backfill", "--projection", SPEC)[0] == 4
    assert shell("backfill", "--anew", "--projection", SPEC)[0] == 0
    shell.open(projections=[Totals]).close()


def test_history_with_reduced_events_cannot_be_projected(shell: Shell) -> None:
    with shell.open(events="summary") as till:
        till.execute(Command("deposit", {"number": "ada", "cents": 1}))
    code, _, err = shell("backfill", "--projection", SPEC)
    assert code == 2
    assert "command 1: projection 'totals' needs every event" in err


def test_it_is_refused_beside_a_running_engine(shell: Shell) -> None:
    with shell.open():
        code, _, err = shell("backfill", "--projection", SPEC)
    assert code == 3
    assert "process" in err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 2),
        (("--projection", "nowhere:Nothing"), 3),
        (("--projection", "tests.engines:Till"), 2),
        (("--projection", SPEC), 3),
    ],
)
def test_what_cannot_be_done_makes_no_journal(shell: Shell, arguments: tuple[str, ...], code: int) -> None:
    assert shell("backfill", *arguments)[0] == code
    assert not Path(shell.path).exists()


def test_a_store_that_is_no_database_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"wal:{tmp_path}/wal"
    with Runtime.open(Till, journal=url, snapshots="memory:") as till:
        till.execute(Command("deposit", {"number": "ada", "cents": 1}))
    assert run(["backfill", "--journal", url, "--projection", SPEC]) == 2
    assert "projections need an SQL store" in capsys.readouterr().err
    assert run(["run", "--engine", "tests.engines:Till", "--journal", url, "--projection", SPEC, "/dev/null"]) == 2


def test_run_projects_and_status_shows_it(shell: Shell, tmp_path: Path) -> None:
    lines = tmp_path / "in.jsonl"
    lines.write_text(
        "".join(
            json.dumps({"type": "deposit", "data": {"number": "ada", "cents": n}}) + "\n" for n in (1, CENTS_MAX, 2)
        )
    )
    images = f"dir:{tmp_path}/images"
    code, out, _ = shell(
        "run", "--engine", "tests.engines:Till", "--projection", SPEC, "--snapshots", images, "-q", str(lines)
    )
    assert code == 2
    assert [json.loads(line).get("error", {}).get("kind") for line in out.splitlines()] == [
        None,
        "ProjectionFailed",
        None,
    ]
    _, out, _ = shell("status", "--snapshots", images)
    assert "  projection totals: command 2, 0 behind the head\n" in out
