"""The benchmarks run, and say what they measure.  Their figures mean nothing here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/benchmarks", "--dir", str(folder), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.parametrize("names", ["append,read", "live", "replay,digest", "cold_start", "images", "verify", "bisect"])
def test_every_benchmark_runs(tmp_path: Path, names: str) -> None:
    ran = bench(tmp_path, "--quick", "--rounds", "1", "--json", "--only", names)
    assert ran.returncode == 0, ran.stderr
    document = json.loads(ran.stdout)
    assert document["schema_version"] == 1
    assert list(document["benchmarks"]) == names.split(",")
    for tables in document["benchmarks"].values():
        for table in tables:
            assert all(side["median"] > 0 for side in table["sides"].values())
    assert list(tmp_path.iterdir()) == [], "files were left behind"


def test_an_unknown_benchmark_is_refused(tmp_path: Path) -> None:
    ran = bench(tmp_path, "--only", "speed")
    assert ran.returncode == 2
    assert "no benchmark speed" in ran.stderr


def test_the_page_of_results_names_every_benchmark() -> None:
    page = (ROOT / "docs" / "BENCHMARKS.md").read_text()
    for letter in "abcdefghi":
        assert f"## ({letter})" in page
