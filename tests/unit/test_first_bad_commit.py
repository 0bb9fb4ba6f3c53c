"""Revisions of an engine's repository: which commit is the first bad one, through merges and past what cannot be judged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from journal.errors import EngineImportError, UnavailableError, UsageError
from recovery import Command, Runtime, bisect
from recovery.bisection import find_divergence
from recovery.cli.main import run

ROOT = Path(__file__).parents[2]
ENGINE = "git_shop.engine:Shop"
SOURCE = """\
from recovery import Cell, TableEngine, command

class Shop(TableEngine):
    name = "shop"
    sold = Cell(int, 0)

    @command
    def sell(self, context, pieces: int):
        self.sold.value += pieces
        return self.sold.value
"""
BENT = SOURCE.replace("+= pieces", "+= pieces + (pieces == 7)")
BROKEN = SOURCE + "\nthis is no Python\n"


class Repo:
    """A git repository with an engine, and a journal beside it that its first revision has written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "src" / "git_shop").mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.file = folder / "src" / "git_shop" / "engine.py"
        self.number = 0

    @property
    def app_dir(self) -> str:
        return str(self.folder / "src")

    def git(self, *arguments: str) -> str:
        settings = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        variables |= {"GIT_AUTHOR_DATE": "2026-01-02T03:04:05+00:00", "GIT_CONFIG_GLOBAL": os.devnull}
        ran = subprocess.run(
            ["git", *settings, *arguments], cwd=self.folder, env=variables, capture_output=True, text=True, check=True
        )
        return ran.stdout.strip()

    def commit(self, subject: str, source: str | None = None) -> str:
        """A commit; its hash.  Without a source it touches another file."""
        self.number += 1
        if source is None:
            (self.folder / f"notes{self.number}").write_text(subject)
        else:
            self.file.write_text(source)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", subject)
        return self.git("rev-parse", "HEAD")

    def left_clean(self) -> bool:
        """Whether no worktree is left, in git's eyes or on the disk."""
        here = len(self.git("worktree", "list").splitlines()) == 1
        return here and not list(Path(tempfile.gettempdir()).glob("recovery-bisect-*"))


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "t").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "repo").mkdir()
    made = Repo(tmp_path / "repo")
    made.commit("the shop", SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(made.app_dir)
    with Runtime.open(ENGINE, journal="sqlite:j.db", snapshots="dir:s", snapshot_every=0) as runtime:
        for pieces in range(1, 13):
            runtime.execute(Command("sell", {"pieces": pieces}))
    yield made
    for name in ("git_shop", "git_shop.engine"):
        sys.modules.pop(name, None)
    assert made.left_clean()


def found_in(repo: Repo, good: str, bad: str, **options: Any) -> Any:
    return find_divergence(ENGINE, "sqlite:j.db", "dir:s", app_dir=repo.app_dir, good=good, bad=bad, **options)


def with_a_merge(repo: Repo) -> tuple[str, str]:
    """The bug came in by a branch; on the main line one revision does not load.  The good commit and the first bad one."""
    good = repo.commit("one")
    repo.git("checkout", "--quiet", "-b", "side")
    repo.commit("side, good")
    wanted = repo.commit("side: sell seven", BENT)
    repo.commit("side, more")
    repo.git("checkout", "--quiet", "main")
    repo.commit("broken", BROKEN)
    repo.commit("mended", SOURCE)
    repo.git("merge", "--quiet", "--no-ff", "-m", "merge side", "side")
    repo.commit("after")
    return good, wanted


def test_the_first_bad_commit_is_found_through_a_merge(repo: Repo) -> None:
    good, wanted = with_a_merge(repo)
    lines: list[str] = []
    found = found_in(repo, good, "HEAD", told=lines.append)
    assert found.details["first_bad_commit"] == wanted
    commit = found.details["commit"]
    assert (commit["hash"], commit["author_date"][:19], commit["subject"]) == (
        wanted, "2026-01-02T03:04:05", "side: sell seven",
    )  # fmt: skip
    assert found.details["candidates"] == [wanted]
    assert found.proven
    first = found.first_divergence
    assert first is not None
    assert (first.command_id, first.what, first.cause) == (7, ("post_digest", "response"), "logic changed")
    assert [(each.path, each.recorded, each.replayed) for each in first.fields] == [("/sold", 28, 29)]
    assert first.reproduce == (
        f"git checkout {wanted[:12]} && recovery replay --engine {ENGINE} --journal sqlite:j.db "
        f"--app-dir {repo.app_dir} --snapshots dir:s --after 6 --until 7"
    )
    assert found.steps == len(lines) == len(found.details["revisions"]) <= 7
    assert found.commands_replayed >= 12
    told = bisect(ENGINE, "sqlite:j.db", "dir:s", app_dir=repo.app_dir, good=good, bad=wanted, jobs=2)
    assert told is not None
    assert told.command_id == 7


def test_what_cannot_be_judged_is_passed_over_and_said(repo: Repo) -> None:
    broken = [repo.commit("one", BROKEN), repo.commit("two")]
    bad = repo.commit("bent", BENT)
    repo.commit("later")
    found = found_in(repo, "HEAD~4", "HEAD")
    assert found.details["first_bad_commit"] is None
    assert sorted(found.details["candidates"]) == sorted([*broken, bad])
    assert not found.proven
    assert "cannot be judged is the first bad one" in found.evidence
    assert {each["verdict"] for each in found.details["revisions"]} == {"good", "bad", "cannot be judged"}
    assert any("SyntaxError" in each.get("reason", "") for each in found.details["revisions"])


def test_the_ends_must_be_what_they_are_said_to_be(repo: Repo) -> None:
    bad = repo.commit("bent", BENT)
    more = repo.commit("more")
    with pytest.raises(UsageError, match=r"HEAD~1 is not good: .*\n.*command 7"):
        found_in(repo, "HEAD~1", "HEAD")
    good = repo.commit("mended", SOURCE)
    with pytest.raises(UsageError, match=r"HEAD is not bad: .* reproduces all 12 commands"):
        found_in(repo, f"{bad}~1", "HEAD")
    with pytest.raises(UsageError, match="one commit"):
        found_in(repo, "HEAD", "main")
    with pytest.raises(UsageError, match="names no commit"):
        found_in(repo, "--all", "HEAD")
    with pytest.raises(UsageError, match="mended on the way"):
        repo.git("checkout", "--quiet", "-b", "other", more)
        found_in(repo, good, repo.commit("other", BENT + "\n"))
    with pytest.raises(EngineImportError, match="cannot be judged"):
        found_in(repo, f"{bad}~1", repo.commit("broken", BROKEN))


def test_code_from_elsewhere_is_not_taken_for_the_revision(repo: Repo, tmp_path: Path) -> None:
    """The engine's module comes out of a folder beside the repository: each revision would seem to do the same."""
    repo.commit("bent", BENT)
    with pytest.raises(EngineImportError, match="is loaded from"):
        find_divergence("tests.engines:Till", "sqlite:j.db", app_dir=repo.app_dir, good="HEAD~1", bad="HEAD")
    with pytest.raises(UsageError, match="no git repository"):
        find_divergence(ENGINE, "sqlite:j.db", app_dir=str(tmp_path), good="HEAD~1", bad="HEAD")
    with pytest.raises(UsageError, match="one revision is given"):
        find_divergence(ENGINE, "sqlite:j.db", app_dir=repo.app_dir, good="HEAD~1")


def test_the_command_line_names_the_commit(repo: Repo, capsys: pytest.CaptureFixture[str]) -> None:
    repo.commit("bent", BENT)
    asked = [
        "bisect",
        "--engine",
        ENGINE,
        "--app-dir",
        repo.app_dir,
        "--journal",
        "sqlite:j.db",
        "--snapshots",
        "dir:s",
    ]
    assert run([*asked, "--good", "HEAD~1", "--bad", "HEAD", "--html", "b.html"]) == 1
    out, err = capsys.readouterr()
    assert "first bad commit: " in out
    assert "bent" in out
    assert "command 7 (sell) diverges" in out
    assert " good  (the shop)" in err
    assert repo.git("rev-parse", "HEAD") in Path("b.html").read_text()
    assert run([*asked, "--good", "HEAD~1", "--bad", "HEAD", "--git-bisect"]) == 125


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_no_worktree_is_left_when_it_is_ended(repo: Repo, tmp_path: Path, number: int, code: int) -> None:
    repo.commit("slow", SOURCE + "\nimport time\ntime.sleep(120)\n")
    asked = ["--engine", ENGINE, "--app-dir", repo.app_dir, "--journal", "sqlite:j.db", "--snapshots", "dir:s"]
    child = subprocess.Popen(
        [sys.executable, "-m", "recovery.cli.main", "bisect", *asked, "--good", "HEAD", "--bad", "HEAD~1"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "t")},
        stderr=subprocess.PIPE,
        process_group=0,
    )
    waited = time.monotonic() + 60
    while not list((tmp_path / "t").glob("recovery-bisect-*/tree/src/git_shop/engine.py")):
        assert time.monotonic() < waited
        assert child.poll() is None
        time.sleep(0.05)
    time.sleep(1.0)
    child.send_signal(number)
    assert child.communicate(timeout=60) is not None
    assert child.returncode == code
    assert repo.left_clean()


def test_as_the_command_of_git_bisect_run(repo: Repo, tmp_path: Path) -> None:
    good, wanted = with_a_merge(repo)
    repo.git("bisect", "start", "HEAD", good)
    asked = [
        "--engine",
        ENGINE,
        "--app-dir",
        "src",
        "--journal",
        f"sqlite:{tmp_path}/j.db",
        "--snapshots",
        f"dir:{tmp_path}/s",
    ]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        ["git", "bisect", "run", sys.executable, "-m", "recovery.cli.main", "bisect", "--git-bisect", *asked],
        cwd=repo.folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert f"{wanted} is the first bad commit" in ran.stdout, ran.stderr
    repo.git("bisect", "reset")


def test_without_git_it_is_said(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="no git here"):
        found_in(repo, "HEAD", "HEAD")
    monkeypatch.setenv("PATH", path)
