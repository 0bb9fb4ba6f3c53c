"""The house rules as tests: sizes, docstrings, banned words, where things stand."""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("journal", "snapshots", "recovery")
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70
# Written in two halves, so that this file is not its own finding.
BANNED = (
    "TO" + "DO",
    "FIX" + "ME",
    "NotImplemented" + "Error",
    "pytest." + "skip",
    "x" + "fail(",
    "import pick" + "le",
)
TOP_LEVEL = {
    "recovery", "journal", "snapshots", "tests", "scripts", "docs", ".ci",
    "pyproject.toml", "README.md", "LICENSE", ".gitignore",
}  # fmt: skip


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in sorted((ROOT / folder).rglob("*.py")))


PRODUCTION = list(sources(*PACKAGES))


@pytest.mark.parametrize("path", PRODUCTION, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_production_file(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert text.count("\n") <= FILE_LINES_MAX
    assert ast.get_docstring(tree), "a module says what it owns"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES_MAX, f"{node.name} is long"
    for node in tree.body:
        check_public(node, "")


def check_public(node: ast.AST, within: str) -> None:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith(
        ("_", "test_")
    ):
        return
    decorators = {getattr(one, "id", getattr(one, "attr", "")) for one in node.decorator_list}
    if not decorators & {"overload", "setter"}:
        assert ast.get_docstring(node), f"{within}{node.name} has no docstring"
    if isinstance(node, ast.ClassDef):
        for inner in node.body:
            check_public(inner, f"{node.name}.")


def test_nothing_is_left_for_later() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in [*PRODUCTION, *sources("tests", "scripts")]
        for word in BANNED
        if word in path.read_text()
        and path != Path(__file__)
        and not (word.startswith("import") and "tests" in path.parts)
    ]
    assert not found


def test_only_the_command_line_prints() -> None:
    allowed = ("cli", "examples", "demo")
    entry_points = ("image_process.py", "experiment.py")
    for path in PRODUCTION:
        if set(allowed) & set(path.parts) or path.name in entry_points:
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if getattr(call.func, "id", "") == "print"], path


def test_the_top_level_holds_what_it_should() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert names <= TOP_LEVEL


@pytest.mark.parametrize("path", [ROOT / ".ci" / "run", *(ROOT / "scripts").iterdir()], ids=lambda path: path.name)
def test_scripts_can_be_run(path: Path) -> None:
    assert path.is_dir() or os.access(path, os.X_OK)


def test_importing_recovery_imports_no_driver_and_no_test_library() -> None:
    names = "('psycopg', 'pytest', 'hypothesis', 'apsw', 'click')"
    code = f"import sys, recovery; recovery.Runtime; print(*(n for n in {names} if n in sys.modules))"
    found = subprocess.run(
        ["python", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=environment()
    )
    assert found.stdout.split() == []


def environment() -> dict[str, str]:
    import sys

    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
