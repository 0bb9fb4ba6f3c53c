"""Two revisions of an engine's code: the first commit in between whose code does other than what is recorded.

Each revision that is looked at is checked out into a git worktree of its own, and replays the same history in processes of its
own that find the engine there.  Which one is next is git's choice (``git rev-list --bisect-all``), so that merges are halved as
``git bisect`` does.  A revision is *good* where it reproduces all of the range, *bad* where a command diverges; one that
cannot be judged (its code does not load, its process dies) is passed over as git passes over exit code 125.

The ends are judged first: what follows rests on them.
"""

from __future__ import annotations

import os
import shlex
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from journal.errors import CorruptionError, NothingVerified, RecoveryError, UsageError, WorkerLost
from journal.journal import Journal
from journal.urls import open_reader, redacted
from recovery.bisecting.bisected import REVISIONS, Bisection
from recovery.bisecting.worktrees import Commit, Repository, ended_in_order
from recovery.divergence import Divergence
from recovery.images import images_beside, open_catalog
from recovery.report import DIVERGED
from recovery.verification import Progress
from recovery.verifying.parallel import Segments
from recovery.verifying.processes import SpawnedProcesses
from recovery.verifying.range_replay import Outcome, Range, cut_in_ranges

GOOD: Final = "good"
BAD: Final = "bad"
SKIPPED: Final = "cannot be judged"

_AWAY: Final = (0.0, 0.3, 0.15, 0.6, 0.45, 0.8)
"""After so many revisions in a row that could not be judged, how far down the ranking the next one is taken: what broke one
mostly broke its neighbours too."""

_FILES: Final = ("sqlite", "wal", "file", "dir")

Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What replaying the history with the code of one commit showed."""

    commit: Commit
    verdict: str
    commands: int = 0
    redone: int = 0
    """Commands of older rules, which this code was not asked to execute."""
    divergence: Divergence | None = None
    error: RecoveryError | None = None

    def to_dict(self) -> dict[str, Any]:
        """As in ``recovery bisect --json``, under ``revisions``."""
        document: dict[str, Any] = {**self.commit._asdict(), "verdict": self.verdict, "commands": self.commands}
        document |= {} if self.divergence is None else {"command_id": self.divergence.command_id}
        return document | ({} if self.error is None else {"reason": str(self.error)})

    def __str__(self) -> str:
        why = ""
        if self.divergence is not None:
            why = f": command {self.divergence.command_id} diverges in {', '.join(self.divergence.what)}"
        elif self.error is not None:
            why = f": {self.error}"
        return f"{self.commit.short} {self.verdict}{why}  ({self.commit.subject})"


def find_first_bad_commit(
    engine: str,
    journal: str,
    snapshots: str | None = None,
    *,
    good: str,
    bad: str,
    jobs: int = 1,
    stream: str = "main",
    after: int | None = None,
    until: int | None = None,
    app_dir: str = ".",
    progress: Progress | None = None,
    told: Told = lambda line: None,
) -> Bisection:
    """The first commit of ``bad``'s history, and none of ``good``'s, that does not reproduce the commands with
    ``after < id <= until``.

    ``told`` hears of each revision that was judged.  UsageError where ``good`` is bad or ``bad`` is good; where one of them
    cannot be judged, the reason.
    """
    judges = _Judges(engine, journal, snapshots, jobs, stream, after, until, app_dir, progress, told)
    with ended_in_order():
        search = _Search(judges, judges.repository.commit(good), judges.repository.commit(bad), names=(good, bad))
        return search.run()


class _Judges:
    """Judges revisions; everything but the code is the same for each."""

    def __init__(
        self,
        engine: str,
        journal: str,
        snapshots: str | None,
        jobs: int,
        stream: str,
        after: int | None,
        until: int | None,
        app_dir: str,
        progress: Progress | None,
        told: Told,
    ) -> None:
        self.repository = Repository(app_dir)
        self.within = os.path.relpath(os.path.realpath(app_dir), self.repository.top)
        self.judged: dict[str, Judgement] = {}
        self.engine = engine
        self.journal = journal
        self._jobs = jobs
        self._progress = progress
        self._told = told
        beside = images_beside(journal, snapshots)
        images = beside if isinstance(beside, str) and not beside.startswith("memory:") else ""
        with Journal(open_reader(journal), stream) as reader:
            reader.require_end()
            start, head = reader.start().command_id, reader.head().command_id
            after = start if after is None else after
            self.range = Range(after, head if until is None else min(until, head))
            if self.range.until <= after:
                raise NothingVerified("there was nothing to replay: the range holds no command")
            self._ranges = [self.range]
            if jobs > 1:
                self._ranges = cut_in_ranges(self.range, reader, open_catalog(images or None, reader.stream), jobs)
        self.typed = (
            ("--app-dir", app_dir, "."),
            ("--snapshots", images, "" if images != journal else journal),
            ("--stream", stream, "main"),
        )
        """Options of the line that shows it again, each with what it is anyway."""
        # The processes run within a worktree: paths are of here.
        self._names = {
            "engine": engine,
            "journal": _absolute(journal),
            "snapshots": _absolute(images),
            "stream": stream,
        }

    def judge(self, commit: Commit) -> Judgement:
        """Replay the history with the code of a commit."""
        if commit.hash not in self.judged:
            found = self.judged[commit.hash] = self._judge(commit)
            self._told(str(found))
        return self.judged[commit.hash]

    def _judge(self, commit: Commit) -> Judgement:
        with self.repository.worktree(commit.hash) as tree:
            try:
                outcome = self._replayed(commit, tree)
            except RecoveryError as error:
                return Judgement(commit, SKIPPED, error=error)
        return _judgement(commit, outcome)

    def _replayed(self, commit: Commit, tree: str) -> Outcome:
        app_dir = os.path.normpath(os.path.join(tree, self.within))
        names = self._names | {"app_dir": app_dir, "within": tree}
        replayed = 0

        def count(more: int) -> None:
            nonlocal replayed
            replayed += more
            if self._progress is not None:
                self._progress(self.range.after + replayed, self.range.until)

        here = os.path.relpath(os.getcwd(), self.repository.top)
        cwd = os.path.normpath(os.path.join(tree, here)) if not here.startswith(os.pardir) else app_dir
        processes = SpawnedProcesses(
            self._jobs,
            told=count,
            cwd=next(folder for folder in (cwd, app_dir, tree) if os.path.isdir(folder)),
            variables=_variables(self.repository.top, tree, app_dir, commit.hash),
        )
        try:
            segments = Segments(processes, first_only=True, waiting=_nothing, done=_nothing, again=processes)
            found = segments.replay([names | each._asdict() for each in self._ranges])
        finally:
            processes.shutdown(cancel_futures=True)
        whole: Outcome | None = None
        for _, outcome in found:
            if isinstance(outcome, WorkerLost):
                raise outcome
            if whole is None:
                whole = outcome
            else:
                whole.join(outcome)
        assert whole is not None
        return whole


def _nothing(*told: object) -> None:
    """Nobody waits for this."""


def _judgement(commit: Commit, outcome: Outcome) -> Judgement:
    counts = outcome.commands, outcome.redone.count
    if outcome.damage:
        return Judgement(commit, SKIPPED, *counts, error=CorruptionError("; ".join(outcome.damage)))
    if outcome.divergences:
        return Judgement(commit, BAD, *counts, divergence=outcome.divergences[0])
    if not outcome.placed or outcome.redone.count == outcome.commands:
        why = "none of the commands was executed by its code: they ran under older rules than it replays"
        return Judgement(commit, SKIPPED, *counts, error=NothingVerified(why))
    return Judgement(commit, GOOD, *counts)


def _absolute(url: str) -> str:
    scheme, _, place = url.partition(":")
    return f"{scheme}:{os.path.abspath(place)}" if scheme in _FILES else url


def _variables(top: str, tree: str, app_dir: str, revision: str) -> dict[str, str]:
    """The environment of a revision's processes: folders of the repository on the path are the worktree's."""
    standard = {os.path.realpath(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")}
    first, rest = list[str](), [app_dir]
    for folder in (os.path.realpath(each or os.getcwd()) for each in sys.path):
        if any(folder == each or os.path.dirname(folder) == each for each in standard) and "-packages" not in folder:
            first.append(folder)  # nothing in the worktree stands in for a library of Python's own
        elif folder != top and not folder.startswith(os.path.join(top, "")):
            rest.append(folder)
        else:
            there = os.path.normpath(os.path.join(tree, os.path.relpath(folder, top)))
            installed = folder.startswith(os.path.join(os.path.realpath(sys.prefix), "")) and sys.prefix != top
            rest += [there] if os.path.isdir(there) else [folder] if installed else []
    path = os.pathsep.join(dict.fromkeys([*first, *rest]))
    return {**os.environ, "PYTHONPATH": path, "RECOVERY_REVISION": revision, "PYTHONDONTWRITEBYTECODE": "1"}


class _Search:
    """The search for the first bad commit."""

    def __init__(self, judges: _Judges, good: Commit, bad: Commit, *, names: tuple[str, str]) -> None:
        self._judges = judges
        self._repository = judges.repository
        self._good = [good.hash]
        self._bad = bad
        self._names = names
        self._skipped: set[str] = set()
        self._all: list[str] = []

    def run(self) -> Bisection:
        """Judge the ends, then halve what lies between."""
        self._judge_ends()
        in_a_row = 0
        candidates = self._all = self._repository.between(self._bad.hash, self._good)
        while waiting := [each for each in candidates if each != self._bad.hash and each not in self._skipped]:
            place = int(len(waiting) * _AWAY[in_a_row % len(_AWAY)])
            found = self._judges.judge(self._repository.commit(waiting[place]))
            in_a_row = in_a_row + 1 if found.verdict == SKIPPED else 0
            if found.verdict == GOOD:
                self._good.append(found.commit.hash)
            elif found.verdict == BAD:
                self._bad = found.commit
            else:
                self._skipped.add(found.commit.hash)
                continue
            candidates = self._repository.between(self._bad.hash, self._good)
        return self._bisection([each for each in candidates if each in self._skipped])

    def _judge_ends(self) -> None:
        (good,) = self._good
        names = {GOOD: self._names[0], BAD: self._names[1]}
        if good == self._bad.hash:
            raise UsageError(f"{names[GOOD]} and {names[BAD]} are one commit", hint="name two: --good REV --bad REV")
        for wanted, commit in ((GOOD, self._repository.commit(good)), (BAD, self._bad)):
            found = self._judges.judge(commit)
            if found.error is not None:
                found.error.message = f"{names[wanted]} cannot be judged: {found.error.message}"
                raise found.error
            if found.verdict != wanted:
                raise _not_as_said(names[wanted], found)
        self._judge_merge_bases(good)

    def _judge_merge_bases(self, good: str) -> None:
        """Where good is no ancestor of bad: what they both come from must be good, or the difference was mended, not made."""
        for base in self._repository.merge_bases(good, self._bad.hash):
            if base == good:
                return
            found = self._judges.judge(self._repository.commit(base))
            if found.verdict == BAD:
                raise UsageError(
                    f"{self._names[0]} is not in the history of {self._names[1]}, and {found.commit}, from which both come, is "
                    "bad: the divergence was mended on the way to the good one",
                    hint="name a good commit that is in the history of the bad one",
                )
            if found.verdict == GOOD:
                self._good.append(base)

    def _bisection(self, skipped: list[str]) -> Bisection:
        judges, bad = self._judges, self._bad
        judged = judges.judged
        first = judged[bad.hash].divergence
        assert first is not None
        parents = [judged.get(each) for each in self._repository.parents(bad.hash)]
        proven = not skipped and all(each is not None and each.verdict == GOOD for each in parents)
        details = {
            "first_bad_commit": None if skipped else bad.hash,
            "commit": bad._asdict(),
            "candidates": [bad.hash, *skipped] if skipped else [bad.hash],
            "revisions": [each.to_dict() for each in judged.values()],
        }
        return Bisection(
            REVISIONS,
            DIVERGED,
            replace(first, reproduce=self._again(first.command_id)),
            sum(each.commands for each in judged.values()),
            len(judged),
            False,
            _evidence(bad, proven=proven, skipped=len(skipped), before=first.command_id - 1 - judges.range.after),
            (f"the record in {redacted(judges.journal)}", f"{judges.engine} as of {bad}"),
            proven=proven,
            notes=tuple(f"{each}" for each in judged.values()),
            not_checked=tuple(self._not_checked()),
            engine=judges.engine,
            details=details,
        )

    def _not_checked(self) -> Iterator[str]:
        judged = self._judges.judged
        left = sum(1 for each in self._all if each not in judged)
        if left:
            yield f"{left} commits in between: each is taken to be as its neighbours that were judged"
        for each in judged.values():
            if each.redone:
                yield f"{each.redone} commands at {each.commit.short}: they ran under older rules and were redone from rows"

    def _again(self, command_id: int) -> str:
        judges = self._judges
        words = ["recovery", "replay", "--engine", judges.engine, "--journal", redacted(judges.journal)]
        for option, given, default in judges.typed:
            words += [option, given] if given != default else []
        words += ["--after", str(command_id - 1), "--until", str(command_id)]
        return f"git checkout {self._bad.short} && {shlex.join(words)}"


def _evidence(bad: Commit, *, proven: bool, skipped: int, before: int) -> str:
    own = f"its code does as recorded with {before} commands, and not with the next"
    if skipped:
        return f"{own}; it or one of {skipped} commits before it that cannot be judged is the first bad one"
    return (
        f"{own}; the code of each of its parents reproduces all"
        if proven
        else f"{own}; a later good commit has its parents"
    )


def _not_as_said(name: str, found: Judgement) -> UsageError:
    if found.divergence is not None:
        return UsageError(
            f"{name} is not good: {found.commit} does not reproduce the history\n{found.divergence}",
            hint="name an older commit: --good REV",
        )
    return UsageError(
        f"{name} is not bad: {found.commit} reproduces all {found.commands} commands",
        hint="name a commit that diverges: --bad REV",
    )
