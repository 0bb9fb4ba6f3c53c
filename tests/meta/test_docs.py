"""The examples in docs/ are run, block after block of one document in one folder, and print what they say they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def printed(text: str) -> list[str]:
    """What the comments behind ``print`` say comes out: up to ``:`` where more is said."""
    return [line.split(": ")[0] for line in re.findall(r"^ *print\(.*\)  # (.+)$", text, re.MULTILINE)]


@pytest.mark.parametrize("name", ["events.md"])
def test_the_examples_run(tmp_path: Path, name: str) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / name).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        script = tmp_path / f"block{number}.py"
        script.write_text(block)
        found = subprocess.run(
            [sys.executable, "-W", "error", script.name],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert found.returncode == 0, found.stderr
        for line in printed(block):
            assert line in found.stdout, found.stdout
