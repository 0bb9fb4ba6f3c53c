"""The zoo scores: a few of its specimens, a clean engine and a canary here; all of them in scripts/zoo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def zoo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zoology", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "scripts"), str(ROOT)])}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False)


def test_a_few_are_caught_named_and_explained_and_a_canary_is_red() -> None:
    ran = zoo("--quick", "--json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    document = json.loads(ran.stdout)
    assert document["right"]
    assert len(document["specimens"]) >= 3
    assert all(each["command_id"] > 1 and each["said"] for each in document["specimens"])
    assert [each["alarms"] for each in document["clean"]] == [[]]
    assert list(document["canaries"].values()) == [True]
    assert "false alarms 0 in " in document["score"]


def test_the_page_shows_every_animal() -> None:
    listed = zoo("--list").stdout
    rows = [line for line in listed.splitlines() if line.startswith("| ")]
    assert len(rows) >= 2 + 40 + 12, "what the issue asks for"
    assert listed.strip() in (ROOT / "docs" / "zoo.md").read_text(), "scripts/zoo --list > the tables of docs/zoo.md"


@pytest.mark.parametrize("name", ["dragon", "set first,dragon"])
def test_an_unknown_animal_is_refused(name: str) -> None:
    ran = zoo("--only", name)
    assert ran.returncode == 2
    assert "no animal dragon" in ran.stderr
