"""The demo on a short generated stream: everything it claims must be so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recovery.cli.main import run
from recovery.demo.story import Outcome
from recovery.examples import bitstamp


def test_the_demo_is_right_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["demo", "--workload", "generated", "--commands", "1500", "--dir", str(tmp_path), "--json"]
    assert run(arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema_version"] == 1
    assert (document["commands"], document["acknowledged"], document["kills"]) == (1500, 1500, 3)
    assert (document["lost"], document["doubled"], document["oracle"]) == (0, 0, "none")
    assert document["verdict"] == "verified"
    assert document["cold_start"]["head"] > 0
    divergence = document["divergence"]
    assert divergence["cause"] == "not deterministic"
    assert divergence["command_id"] % 11 == 0
    assert divergence["fields"][0]["replayed"] == divergence["fields"][0]["recorded"] + 1
    assert divergence["reproduce"].startswith("PYTHONHASHSEED=1 recovery replay ")
    assert run(arguments) == 2, "a second demo must not write into the first one's journal"


def test_without_the_recorded_feed_the_workload_is_generated(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bitstamp, "installed", lambda: None)
    assert run(["demo", "--commands", "500", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["workload"], document["acknowledged"]) == ("generated 1", 500)
    assert document["divergence"]["reproduce"] == ""


def test_an_outcome_is_right_only_when_all_of_it_is() -> None:
    right = {"acknowledged": 1, "oracle": "match", "verdict": "verified", "divergence": {"fields": [1]}}
    assert Outcome("w", 1, **right).exit_code == 0
    for wrong, code in [
        ({"acknowledged": 0}, 1),
        ({"lost": 1}, 4),
        ({"doubled": 1}, 4),
        ({"oracle": "mismatch"}, 1),
        ({"oracle": "none"}, 1),
        ({"oracle": "none", "same_as_uninterrupted": False}, 1),
        ({"verdict": "diverged"}, 1),
        ({"divergence": None}, 1),
        ({"divergence": {"fields": []}}, 1),
    ]:
        assert Outcome("w", 1, **(right | wrong)).exit_code == code, wrong
