"""What the README shows is what happens: its code is run, its sessions are typed, and their output compared."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import recovery
from recovery.cli.main import VERBS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found
    return found


def typed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the reader has saved and run the example."""
    folder = tmp_path_factory.mktemp("reader")
    example, (settings,) = blocks("python")[0], blocks("toml")
    (folder / "till.py").write_text(example)
    bent = example.replace("cents=old.cents + cents)", 'cents=old.cents + cents + (number == "ada"))')
    assert bent != example
    (folder / "bent.py").write_text(bent)
    (folder / "recovery.toml").write_text(settings)
    first = typed(folder, "till.py")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[1:] == [
        "{'cents': 500} False",
        "2",
        *(f"{{'cents': {cents}}}" for cents in range(450, -1, -50)),
        "bob",
    ]
    return folder


def test_a_second_run_of_the_example_changes_nothing(session: Path) -> None:
    again = typed(session, "till.py")
    assert again.returncode == 0, again.stderr
    assert "{'cents': 500} True" in again.stdout
    assert "at command 12" in again.stdout


def plain(output: str) -> str:
    """Output without what differs from run to run: times and speeds."""
    output = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "TIME", output)
    return re.sub(r"in [\d.]+ s \(\d+/s\)", "in SECONDS", output)


@pytest.mark.parametrize("console", blocks("console"))
def test_the_sessions_print_what_is_shown(session: Path, console: str) -> None:
    for step in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
        line, _, shown = step.partition("\n")
        program, *arguments = shlex.split(line)
        assert program == "recovery"
        found = typed(session, "-m", "recovery.cli.main", *arguments)
        assert plain(found.stdout) == plain(shown), found.stderr


def test_the_other_examples_run(session: Path) -> None:
    names: dict[str, Any] = {}
    sys.path.append(str(session))
    try:
        import till  # type: ignore[import-not-found]

        names.update(vars(till), __name__="readme")
        for block in blocks("python")[1:]:
            exec(compile(block, "README.md", "exec"), names)
        names["test_deposit"]()
        names["test_till_is_deterministic"]()
        with names["trial"](names["Counter"]) as counter:
            assert counter.execute(recovery.Command("seen", 2)).response == 2
    finally:
        sys.path.remove(str(session))
        sys.modules.pop("till", None)


def test_every_verb_is_named() -> None:
    assert [verb for verb in VERBS if f"`recovery {verb}" not in README] == []


def test_every_error_that_is_named_exists() -> None:
    table = README[README.index("| it says |") : README.index("**What is durable.**")]
    names = re.findall(r"^\| `(\w+?Error|\w+?)`s? \|", table, re.MULTILINE)
    assert len(names) >= 8
    assert [name for name in names if name not in recovery.__all__] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []
