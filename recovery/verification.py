"""verify(): replay recorded history with this code and say whether it is the same, command by command.

This is the coordinator: it settles what is to be replayed, has it replayed (here, or in segments by an executor), and sums up.
A whole history is proven by its segments: each begins in a state whose digest and chain the journal records, and ends in
those with which the next begins.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, Final

from journal.errors import CorruptionError, UsageError, WorkerLost
from journal.journal import Journal
from journal.urls import open_reader, redacted
from recovery import report as verdicts
from recovery.cold_start import require_engine_name
from recovery.divergence import RESTORE_HOLE, Divergence
from recovery.explaining.explanation import QUICK_S, explained
from recovery.explaining.perturbation import Place
from recovery.explaining.perturbed_range import perturbed
from recovery.guarding.guard import OFF, STRICT, check_mode
from recovery.images import images_beside, open_catalog
from recovery.loading import EngineArgument, code_revision, engine_factory, engine_spec
from recovery.report import Report
from recovery.stepper import Factory, engine_versions
from recovery.verifying.cuts import anchors
from recovery.verifying.range_replay import LISTED_MAX, Outcome, Range, RangeReplay, cut_in_ranges
from recovery.verifying.segments import Segment
from snapshots.catalog import Catalog
from snapshots.store import SnapshotStore

Progress = Callable[[int, int], None]
RESTORES_TRIED: Final = 4


def verify(
    engine: EngineArgument,
    journal: str | Journal,
    snapshots: str | SnapshotStore | None = None,
    *,
    jobs: int = 1,
    executor: Executor | str | None = None,
    stream: str = "main",
    after: int | None = None,
    until: int | None = None,
    start: int | None = None,
    mode: str = "execute",
    keep_going: bool = False,
    compare: bool = True,
    perturb: bool = False,
    explain: bool = True,
    app_dir: str = ".",
    guard: str = OFF,
    explain_s: float = QUICK_S,
    progress: Progress | None = None,
    diverged: Callable[[Divergence], None] | None = None,
) -> Report:
    """Replay the commands with ``after < id <= until`` (None: all that are kept) and compare each with its record.

    The state at ``after`` comes from the newest verified image at or before it, or at ``start``, and the recorded rows
    after that; the commands before a ``start`` that lies behind ``after`` are not checked.  ``mode`` is "execute" or
    "redo".  Stops at the first divergence unless ``keep_going``, which goes on from that command's recorded rows.
    ``compare=False`` only rebuilds, with the verdict "nothing".  Damage does not end it: what lies behind the next image is
    judged too, and the verdict is "damaged".  What could not be opened is raised.  ``perturb`` replays what verified under
    other conditions too, in child processes (explaining/perturbed_range.py).  ``explain=False`` leaves out the
    experiments, in child processes too, that look for why a command diverges, for about ``explain_s`` seconds; ``diverged``
    is told the first before them.
    Under ``guard`` "warn" the report lists what would not be the same on a replay; under "strict" a command that meets such a
    line diverges there.

    With ``jobs`` above 1, that many processes replay segments of the history at the same time; with ``executor``, which is
    any ``concurrent.futures.Executor`` or ``"dask:ADDRESS"``, its workers do.  They are given strings, so the journal, the
    images and the engine must be named by such.  What is found does not depend on it.
    """
    _require_sense(mode, compare, perturb, explain, guard, jobs)
    began = time.perf_counter()
    snapshots = images_beside(journal, snapshots)
    factory = engine_factory(engine, app_dir=app_dir)
    named = _Named(engine if isinstance(engine, str) else engine_spec(factory), journal, snapshots, stream, app_dir)
    parallel = compare and (jobs > 1 or executor is not None)
    if parallel:
        named.require_strings(factory)
    reader = Journal(open_reader(journal), stream) if isinstance(journal, str) else journal
    try:
        require_engine_name(factory().name, reader.identity)
        require_replayable(reader)
        verification = _Verification(factory, reader, open_catalog(snapshots, reader.stream), progress)
        after = reader.start().command_id if after is None else after
        wanted = Range(after, after, mode if compare else "rebuild", keep_going, start, guard=guard)
        verification.settle(wanted, until)
        if parallel:
            verification.replay_in_segments(named, jobs, executor)
        else:
            verification.replay_here()
        found = verification.report(began)
        if diverged is not None and found.divergences:
            diverged(found.divergences[0])
        seconds = (None if perturb else explain_s) if explain else 0
        return _explained(found, named, reader, verification.begun, perturb=perturb, guard=guard, seconds=seconds)
    finally:
        if isinstance(journal, str):
            reader.close()


def _require_sense(mode: str, compare: bool, perturb: bool, explain: bool, guard: str, jobs: int) -> None:
    """UsageError where the arguments of ``verify`` say nothing, or two things."""
    if mode not in ("execute", "redo"):
        raise UsageError(f'mode is {mode!r}; it is "execute" or "redo"')
    check_mode(guard)
    if perturb and not explain:
        raise UsageError("perturbation is an explanation", hint="leave out explain=False")
    if perturb and not (compare and mode == "execute"):
        raise UsageError("perturbation runs the commands and compares", hint="leave out --no-verify and --mode redo")
    if type(jobs) is not int or jobs < 1:
        raise UsageError(f"jobs is {jobs!r}; it is a number of processes, at least 1")


@dataclass(frozen=True, slots=True)
class _Named:
    """What was asked to be verified, by the names under which another process finds it."""

    engine: str | None
    journal: str | Journal
    snapshots: str | SnapshotStore | None
    stream: str
    app_dir: str

    def require_strings(self, factory: Factory) -> None:
        """UsageError where another process could not find the same."""
        if not isinstance(self.journal, str) or self.journal.startswith("memory:"):
            raise UsageError(
                "other processes cannot read this journal: it is only in the memory of this one",
                hint="replay it with jobs=1, or name a journal by its URL",
            )
        if self.snapshots is not None and not isinstance(self.snapshots, str):
            raise UsageError("other processes cannot open these snapshots", hint="name them by their URL")
        made_by = factory.__dict__.get("made_by")
        if self.engine is None or (made_by is not None and _named(self.engine) is not made_by):
            raise UsageError(
                f"other processes cannot load {getattr(made_by, '__qualname__', made_by)!r}",
                hint='put the engine in a module, and name it: "module:attr"',
            )

    def task(self, wanted: Range) -> dict[str, Any]:
        """The task of verifying/segment_replay.py for one range."""
        return self.names | wanted._asdict()

    @property
    def names(self) -> dict[str, Any]:
        """The names of a task."""
        return {
            "engine": self.engine,
            "journal": self.journal,
            "snapshots": self.images,
            "stream": self.stream,
            "app_dir": self.app_dir,
        }

    @property
    def images(self) -> str:
        """The URL of images that other processes can read; empty for none."""
        shared = isinstance(self.snapshots, str) and not self.snapshots.startswith("memory:")
        return str(self.snapshots) if shared else ""


def require_replayable(journal: Journal) -> None:
    """Raise UsageError where a journal's payloads were replaced."""
    if journal.store.redacted:
        raise UsageError(
            f"{journal.store.location} is redacted: it can be read and checked, not replayed",
            hint="export it again without --redact",
        )


def _named(spec: str) -> Any:
    module, _, attribute = spec.partition(":")
    found: Any = sys.modules.get(module)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    return found


class _Verification:
    """One verification under way: what it is of, and what was found."""

    def __init__(self, factory: Factory, journal: Journal, catalog: Catalog | None, progress: Progress | None) -> None:
        self._factory = factory
        self._journal = journal
        self._catalog = catalog
        self._progress = progress
        self._revision = code_revision(factory)
        self._engine = engine_versions(factory())
        self._passed_by = range(0)
        self._range = Range(0, 0)
        self._replayed = 0
        self._damage: list[str] = []
        self._found = Outcome(0, 0)
        self._lost: list[tuple[Segment, WorkerLost]] = []
        self._segments = 1
        self.begun: dict[int, int] = {}
        """By the first divergence of each segment, the command after which the segment began to execute."""

    def settle(self, wanted: Range, until: int | None) -> None:
        """Settle the range: to the end where ``until`` is None; not before the image that was asked for."""
        if wanted.start is not None and wanted.start > wanted.after:
            self._passed_by = range(wanted.after + 1, wanted.start + 1)
            wanted = wanted._replace(after=wanted.start)
        end = self._end()
        self._range = wanted._replace(until=max(wanted.after, end if until is None else min(until, end)))

    def _end(self) -> int:
        try:
            self._journal.require_end()
        except CorruptionError as error:  # its end is lost, or damaged; what there is is judged all the same
            self._damage.append(str(error))
        last = self._journal.store.last(self._journal.stream)
        return 0 if last is None else last.command_id

    @property
    def _size(self) -> int:
        return self._range.until - self._range.after

    def _tell(self, count: int) -> None:
        self._replayed += count
        self._draw()

    def _draw(self) -> None:
        if self._progress is not None:
            self._progress(self._range.after + self._replayed, self._range.until)

    # Replaying

    def replay_here(self) -> None:
        """Replay the range in this process."""
        if self._size:
            replay = RangeReplay(
                self._factory, self._journal, self._catalog, revision=self._revision, progress=self._tell
            )
            self._found = replay.run(self._range)
            self._note_begin(self._found)

    def replay_in_segments(self, named: _Named, jobs: int, executor: Executor | str | None) -> None:
        """Replay the range in segments, where that is faster; else here."""
        from recovery.verifying.parallel import Segments, opened_executor

        counted = executor is None
        with opened_executor(executor, jobs, self._count) as (found, workers):
            ranges = cut_in_ranges(self._range, self._journal, self._catalog, workers)
            if len(ranges) < 2:
                return self.replay_here()
            segments = Segments(
                found,
                first_only=not self._range.keep_going,
                waiting=self._draw,
                done=lambda outcome: None if counted else self._count(outcome.commands),
            )
            outcomes = segments.replay([named.task(wanted) for wanted in ranges])
        self._segments = len(outcomes)
        self._join(outcomes)
        return None

    def _note_begin(self, outcome: Outcome) -> None:
        for first in outcome.divergences[:1]:
            # The way to where a range begins is redone from rows, or executed where there are none.
            executed = self._journal.identity.changes != "rows" or self._journal.identity.digest_every
            self.begun[first.command_id] = outcome.snapshot if executed else outcome.after

    def _count(self, count: int) -> None:
        self._replayed += count

    def _join(self, found: list[tuple[dict[str, Any], Outcome | WorkerLost]]) -> None:
        """Put the segments' outcomes together, and see that each ends where the next begins."""
        whole: Outcome | None = None
        for task, outcome in found:
            if isinstance(outcome, WorkerLost):
                self._lost.append((Segment(task["after"], task["until"]), outcome))
                continue
            self._note_begin(outcome)
            if whole is None:
                whole = outcome
                continue
            if whole.until == outcome.after and outcome.begin[0] and whole.end[0] and whole.end != outcome.begin:
                whole.damage.append(f"command {outcome.after}: its record is another than when it was replayed")
            whole.join(outcome)
        self._found = self._found if whole is None else whole

    # Summing up

    def report(self, began: float) -> Report:
        """What was found.  WorkerLost where no divergence was found and some segments could not be replayed."""
        found, after = self._found, self._range.after
        compared = found.commands and sum(found.checked.values())
        damage = dict.fromkeys([*self._damage, *found.damage])
        if damage:
            verdict = verdicts.DAMAGED
        elif found.divergences:
            verdict = verdicts.DIVERGED
        elif self._lost:
            raise self._lost[0][1]
        else:
            verdict = verdicts.VERIFIED if compared else verdicts.NOTHING
        return Report(
            verdict,
            *self._engine[:3],
            after + 1 if found.commands else 0,
            found.last if found.commands else 0,
            found.commands,
            dict(found.checked),
            tuple(self._not_checked()),
            found.snapshot,
            time.perf_counter() - began,
            tuple(found.divergences),
            "; ".join(damage),
            self._segments,
            found.guard,
        )

    def _not_checked(self) -> Iterator[str]:
        found, identity = self._found, self._journal.identity
        yield from self._not_replayed()
        if found.redone:
            yield (
                f"{found.redone.count} commands from {found.redone.first} to {found.redone.last} ran under rules older than "
                f"{self._engine.replays_from} and were redone from their rows, not executed"
            )
        digests = found.checked["post_digest"]
        if not sum(found.checked.values()) and found.commands:
            yield f"{found.commands} commands: they were run, and nothing was compared"
        elif digests < found.commands - found.unjudged.count and identity.digest_every:
            missing = found.commands - found.unjudged.count - digests
            yield f"the state after {missing} commands: its digest is taken every {identity.digest_every} commands"
        if found.unjudged:
            yield (
                f"{found.unjudged.count} commands from {found.unjudged.first} to {found.unjudged.last} that follow a "
                "divergence: no rows are recorded to go on from, so what differs there may come of it"
            )
        if found.unlisted:
            yield (
                f"why {found.unlisted.count} more commands from {found.unlisted.first} to {found.unlisted.last} diverge: "
                f"the first {LISTED_MAX} divergences are listed"
            )
        if not identity.digest_every and identity.changes == "none":
            yield "rows: this journal records none"

    def _not_replayed(self) -> Iterator[str]:
        found, after = self._found, self._range.after
        if self._passed_by:
            yield (
                f"{len(self._passed_by)} commands from {self._passed_by[0]} to {self._passed_by[-1]}: "
                "the image that the replay started from lies behind them"
            )
        for loss in found.losses:
            yield f"{loss.last - loss.first + 1} commands from {loss.first} to {loss.last}: the record is damaged there"
        for segment, error in self._lost:
            yield f"{segment.until - segment.after} commands from {segment.after + 1} to {segment.until}: {error}"
        end = max([found.last, after, *(loss.last for loss in found.losses), *(each.until for each, _ in self._lost)])
        if end < self._range.until:
            stopped = ": the replay stopped there" if found.divergences else ""
            yield f"{self._range.until - end} commands after {end}{stopped}"


def _explained(
    found: Report,
    named: _Named,
    reader: Journal,
    begun: dict[int, int],
    *,
    perturb: bool,
    guard: str,
    seconds: float | None,
) -> Report:
    """The report with what other conditions showed, why each divergence happened, and what to type to see it again.

    ``begun`` has, by the first divergence of each segment, the command after which the segment began to execute;
    ``seconds`` is about how long it is looked for why: 0 for not at all, None for as long as it takes.
    """
    there = Place.of(named.engine, named.journal, stream=reader.stream, snapshots=named.images, app_dir=named.app_dir)
    # A process of its own would run the engine without the guard that stopped it here.
    there = None if guard == STRICT else there
    found = perturbed(found, there) if perturb else found
    divergences = list(found.divergences)
    if seconds != 0:
        divergences = explained(divergences, there, seconds=seconds)
    if seconds != 0 and there is not None:
        _look_for_restore_holes(divergences, named, reader, begun)
    flags = ["--perturb"] if found.perturbed else []
    return replace(
        found,
        divergences=tuple(
            replace(each, reproduce=_reproduce(named, reader.stream, each, begun, flags)) for each in divergences
        ),
    )


def _look_for_restore_holes(found: list[Divergence], named: _Named, reader: Journal, begun: dict[int, int]) -> None:
    wanted = [number for number, each in enumerate(found) if each.command_id in begun and not each.factor]
    wanted = wanted[:RESTORES_TRIED]
    if not wanted:
        return
    from recovery.explaining.restore_hole import with_restore_hole

    catalog = open_catalog(named.images or None, reader.stream)
    images = [anchor.command_id for anchor in anchors(catalog, reader, reader.identity.engine)]
    for number in wanted:
        each = found[number]
        found[number] = with_restore_hole(each, named.names, began=begun[each.command_id], images=images)


def _reproduce(named: _Named, stream: str, found: Divergence, begun: dict[int, int], flags: list[str]) -> str:
    """What to type to see one divergence again; empty where no other process can open the same."""
    journal = named.journal
    if named.engine is None or not isinstance(journal, str) or journal.startswith("memory:"):
        return ""
    words = ["recovery", "replay", "--engine", named.engine]
    words += ["--app-dir", named.app_dir] if named.app_dir != "." else []
    words += ["--journal", redacted(journal)]
    words += ["--snapshots", redacted(named.images)] if named.images not in ("", journal) else []
    words += ["--stream", stream] if stream != "main" else []
    after = begun.get(found.command_id, 0) if found.cause == RESTORE_HOLE else found.command_id - 1
    words += ["--from", "genesis"] if found.cause == RESTORE_HOLE and not after else []
    return shlex.join([*words, "--after", str(after), "--until", str(found.command_id), *flags])
