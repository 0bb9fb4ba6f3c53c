"""The pytest plugin, run as its users run it: in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from recovery import Command, Runtime
from recovery.cli.main import run

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[2]
Pytest = Callable[..., pytest.RunResult]

GOOD = """
from recovery import Context, Table, TableEngine, command

class Shop(TableEngine):
    name = "shop"
    stock = Table(str, int)

    @command
    def put(self, context: Context, item: str, count: int):
        self.stock[item] = self.stock.get(item, 0) + count
        return self.stock[item]
"""
BAD = GOOD.replace("+ count", "+ count + (item == 'figs' and self.stock.get(item, 0) > 20)")


@pytest.fixture
def shop(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Pytest:
    """An exported history of 30 commands with an image at every tenth, and how to run pytest on it."""
    pytester.makepyfile(shop=GOOD)
    monkeypatch.setenv("RECOVERY_SNAPSHOTS", "dir:s")
    monkeypatch.syspath_prepend(pytester.path)
    sys.modules.pop("shop", None)
    with Runtime.open("shop:Shop", journal="sqlite:j.db", snapshots="dir:s", snapshot_every=0) as runtime:
        for n in range(30):
            item = ("figs", "dates")[n % 2]
            runtime.execute(Command("put", {"item": item, "count": 2}, received_at_ms=n))
    sys.modules.pop("shop", None)
    assert run(["export", "shop.journal", "--journal", "sqlite:j.db", "--image-every", "10"]) == 0
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini("[pytest]\nrecovery_engine = shop:Shop\nfilterwarnings = error\n")

    def go(*arguments: str) -> pytest.RunResult:
        run_pytest = pytester.runpytest_subprocess if "xdist" in arguments else pytester.runpytest_inprocess
        return run_pytest("-p", "recovery.pytest_plugin", *arguments)

    return go


def test_one_test_a_segment(shop: Pytest) -> None:
    result = shop("-v")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        ["shop.journal::1-10 PASSED*", "shop.journal::11-20 PASSED*", "shop.journal::21-30 PASSED*"]
    )
    shop("-k", "11-20").assert_outcomes(passed=1, deselected=2)
    shop("shop.journal::21-30").assert_outcomes(passed=1)
    shop("-o", "recovery_segment_commands=4").assert_outcomes(passed=9)


def test_a_failure_shows_the_finding(shop: Pytest, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(shop=BAD)
    before = (pytester.path / "shop.journal").read_bytes()
    result = shop("--junit-xml=junit.xml", "-rA")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*command 23 (put) diverges in post_digest, response: logic changed*",
            "*/stock/figs: recorded 24, replayed 25*",
            "*again: recovery replay --engine shop:Shop --journal file:shop.journal --after 22 --until 23*",
        ]
    )
    assert 'name="recovery_divergence" value="23"' in (pytester.path / "junit.xml").read_text()
    assert (pytester.path / "shop.journal").read_bytes() == before
    assert "Traceback" not in result.stdout.str()
    result = shop("--recovery-evidence", "bundles")
    (bundle,) = (pytester.path / "bundles").iterdir()
    result.stdout.fnmatch_lines([f"*bundle: bundles/{bundle.name}"])
    assert bundle.name.startswith("shop-23-pytest-")


def test_a_live_journal_is_replayed_too(shop: Pytest, pytester: pytest.Pytester) -> None:
    (pytester.path / "shop.journal").unlink()
    result = shop("-v", "--recovery-journal", "sqlite:j.db", "-o", "recovery_segment_commands=15")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*sqlite:j.db::1-15 PASSED*", "*sqlite:j.db::16-30 PASSED*"])
    assert shop().ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result = shop("--recovery-journal", "sqlite:missing.db")
    assert result.ret != 0
    assert "missing.db" in result.stdout.str() + result.stderr.str()


def test_under_xdist(shop: Pytest) -> None:
    result = shop("-p", "xdist", "-n", "2", "--recovery-journal", "sqlite:j.db")
    result.assert_outcomes(passed=4)


def test_what_cannot_be_replayed_fails_and_says_why(shop: Pytest, pytester: pytest.Pytester) -> None:
    (pytester.path / "cut.journal").write_bytes((pytester.path / "shop.journal").read_bytes()[:-1])
    (pytester.path / "none.journal").write_bytes(b"")
    result = shop()
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(["*cut.journal*does not end as a history does*", "*none.journal*is cut at byte 0*"])
    result = shop("-o", "recovery_engine=", "shop.journal")
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        ["*the history is of the engine 'shop', and of the engines none is named*", "*hint: set*"]
    )
    shop("-o", "recovery_engine=", "--recovery-engine", "shop:Shop", "shop.journal").assert_outcomes(passed=3)
    (pytester.path / "recovery.toml").write_text('engine = "shop:Shop"\n')
    shop("-o", "recovery_engine=", "shop.journal").assert_outcomes(passed=3)


def test_an_empty_history_is_not_green(shop: Pytest, pytester: pytest.Pytester) -> None:
    assert run(["export", "empty.journal", "--journal", "sqlite:j.db", "--until", "0"]) == 0
    result = shop("empty.journal")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*there is nothing to verify*"])


def test_it_is_registered_and_light() -> None:
    with open(ROOT / "pyproject.toml", "rb") as file:
        assert tomllib.load(file)["project"]["entry-points"]["pytest11"] == {"recovery": "recovery.pytest_plugin"}
    code = (
        "import sys, recovery.pytest_plugin;"
        "print(*(n for n in ('psycopg', 'msgspec', 'zstandard', 'hypothesis', 'journal.records') if n in sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
