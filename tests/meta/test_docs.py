"""The examples in docs/ are run, block after block of one document in one folder, and print what they say they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def printed(text: str) -> list[str]:
    """What the comments behind ``print`` say comes out: up to ``:`` where more is said."""
    return [line.split(": ")[0] for line in re.findall(r"^ *print\(.*\)  # (.+)$", text, re.MULTILINE)]


def typed(folder: Path, *arguments: str) -> str:
    """What a program prints that is run in a folder."""
    found = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize("name", ["events.md", "projections.md"])
def test_the_examples_run(tmp_path: Path, name: str) -> None:
    text = (ROOT / "docs" / name).read_text()
    blocks = re.findall(r"^```(python|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for number, (kind, block) in enumerate(blocks):
        if kind == "console":
            for line, shown in re.findall(r"^\$ recovery (.*)\n((?:[^$].*\n)*)", block, re.MULTILINE):
                assert typed(tmp_path, "-m", "recovery.cli.main", *shlex.split(line)) == shown
            continue
        named = re.match(r"# (\w+\.py)\n", block)
        script = tmp_path / (named.group(1) if named else f"block{number}.py")
        script.write_text(block)
        said = typed(tmp_path, "-W", "error", script.name)
        for line in printed(block):
            assert line in said
