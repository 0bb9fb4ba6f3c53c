"""Revisions of a git repository, each in a worktree of its own for as long as it is looked at.

Git is asked by its commands; nothing of the repository is changed but that a worktree is added and removed again, also when
this process is interrupted or told to end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from journal.errors import UnavailableError, UsageError

_SIGTERM_CODE: Final = 128 + signal.SIGTERM


class Commit(NamedTuple):
    """One commit, as people name it."""

    hash: str
    author_date: str
    """ISO 8601."""
    subject: str

    @property
    def short(self) -> str:
        """The hash as it is shown."""
        return self.hash[:12]

    def __str__(self) -> str:
        return f"{self.short} ({self.author_date}, {self.subject})"


class Repository:
    """The repository that holds a folder."""

    def __init__(self, folder: str) -> None:
        try:
            top = _git(os.path.realpath(folder), "rev-parse", "--show-toplevel").strip()
        except (UsageError, OSError) as error:
            raise UsageError(
                f"{os.path.abspath(folder)} is in no git repository, so it has no revisions: {error}",
                hint="name the folder of the engine's module within its repository: --app-dir DIR",
            ) from error
        self.top = os.path.realpath(top)

    def commit(self, revision: str) -> Commit:
        """The commit of a name.  UsageError where there is none."""
        try:
            found = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").strip()
        except UsageError as error:
            raise UsageError(f"{revision!r} names no commit in {self.top}", hint="run: git log --oneline") from error
        line = self._git("show", "--no-patch", "--format=%H%x00%aI%x00%s", found).rstrip("\n")
        return Commit(*line.split("\0", 2))

    def merge_bases(self, one: str, other: str) -> list[str]:
        """The newest commits that are in the history of both; none where they have nothing in common."""
        try:
            return self._git("merge-base", "--all", one, other).split()
        except UsageError:
            return []

    def parents(self, commit: str) -> list[str]:
        """The parents of a commit."""
        return self._git("rev-list", "--parents", "--max-count=1", commit).split()[1:]

    def between(self, bad: str, good: Iterable[str]) -> list[str]:
        """The commits of ``bad``'s history, itself included, that are in no ``good`` one's, as git's own bisection ranks them:
        first the one that leaves the fewest, whatever it turns out to be."""
        lines = self._git("rev-list", "--bisect-all", bad, "--not", *good).splitlines()
        return [line.split()[0] for line in lines]

    @contextmanager
    def worktree(self, commit: str) -> Iterator[str]:
        """A folder with the files of a commit, gone at the end."""
        folder = os.path.realpath(tempfile.mkdtemp(prefix="recovery-bisect-"))
        place = os.path.join(folder, "tree")
        try:
            # A hook of the user's is for who works here, not for us.
            self._git("-c", f"core.hooksPath={os.devnull}", "worktree", "add", "--quiet", "--detach", place, commit)
            yield place
        finally:
            try:
                self._git("worktree", "remove", "--force", place)
            except UsageError:  # it was never wholly added
                shutil.rmtree(place, ignore_errors=True)
                self._git("worktree", "prune")
            shutil.rmtree(folder, ignore_errors=True)

    def _git(self, *arguments: str) -> str:
        return _git(self.top, *arguments)


def _git(folder: str, *arguments: str) -> str:
    """What git prints.  UsageError with what it says where it refuses."""
    # Within a hook, or under `git bisect run`, these name another place than the folder does.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        ran = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=variables | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            process_group=0,  # Ctrl-C is for this process, which cleans up
        )
    except FileNotFoundError as error:
        raise UnavailableError(
            "there is no git here", hint="install git, or compare journals: --other-journal"
        ) from error
    if ran.returncode:
        raise UsageError(f"git {arguments[0]}: {ran.stderr.strip() or f'exit code {ran.returncode}'}")
    return ran.stdout


@contextmanager
def ended_in_order() -> Iterator[None]:
    """While this runs, SIGTERM ends the process as Ctrl-C does, cleaning up on the way, with the exit code of a SIGTERM.

    Nothing is changed outside the main thread, nor where somebody handles the signal already.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the way out is not interrupted
        raise SystemExit(_SIGTERM_CODE)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
