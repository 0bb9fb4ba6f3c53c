"""``recovery log`` finds commands by request and by entity in every store that keeps a journal, reduced events among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from journal.urls import migrate_journal
from recovery import Command, Runtime
from recovery.cli.main import run
from tests.engines import Till


@pytest.fixture(params=["sqlite", "wal", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param != "postgresql":
        return f"{request.param}:{tmp_path}/journal"
    url: str = request.getfixturevalue("postgres_url")
    migrate_journal(url)
    return url


def test_log_by_request_and_by_entity(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for level in ("full", "summary"):
        with Runtime.open(Till, journal=url, snapshots="memory:", events=level) as till:
            for number in ("ada", "bob"):
                data = {"number": number, "cents": 5}
                till.execute(Command("deposit", data, request_id=f"{level} {number}", entity_id=f"of {number}"))
    for options, found in (
        (["--request-id", "summary bob"], [(4, True)]),
        (["--request-id", "never"], []),
        (["--entity", "of bob"], [(2, False), (4, True)]),
        (["--entity", "of bob", "--after", "2"], [(4, True)]),
        (["--entity", "of eve"], []),
        ([], [(1, False), (2, False), (3, True), (4, True)]),
    ):
        assert run(["log", "--json", "--journal", url, *options]) == 0
        entries = json.loads(capsys.readouterr().out)["entries"]
        assert [(entry["command_id"], entry["events_reduced"]) for entry in entries] == found
