"""verify(): replay recorded history with this code and say whether it is the same, command by command."""

from __future__ import annotations

import decimal
import gc
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from journal.errors import CorruptionError, UsageError
from journal.journal import Journal
from journal.records import Entry
from journal.urls import open_reader, redacted
from recovery import report as verdicts
from recovery.cold_start import require_engine_name
from recovery.divergence import HIDDEN_STATE, LOGIC_CHANGED, NOT_DETERMINISTIC, ORDER_ONLY, UNKNOWN, Divergence
from recovery.guard import OFF, check_mode, guarded
from recovery.images import Placement, open_catalog, place
from recovery.loading import EngineArgument, code_revision, engine_factory, engine_spec
from recovery.replayer import Replayer
from recovery.report import Report
from recovery.second_execution import other_outcome
from recovery.stepper import Stepper, TableStepper, make_stepper, pinned_decimals
from recovery.table_engine import TableEngine
from snapshots.catalog import Catalog
from snapshots.store import SnapshotStore

Progress = Callable[[int, int], None]
PROGRESS_EVERY: Final = 1000


def verify(
    engine: EngineArgument,
    journal: str | Journal,
    snapshots: str | SnapshotStore | None = None,
    *,
    stream: str = "main",
    after: int = 0,
    until: int | None = None,
    start: int | None = None,
    mode: str = "execute",
    keep_going: bool = False,
    compare: bool = True,
    app_dir: str = ".",
    guard: str = OFF,
    progress: Progress | None = None,
) -> Report:
    """Replay the commands with ``after < id <= until`` (None: to the end) and compare each with its record.

    The state at ``after`` comes from the newest verified image at or before it, or at ``start``, and the recorded rows
    after that; the commands before a ``start`` that lies behind ``after`` are not checked.  ``mode`` is "execute" or
    "redo".  Stops at the first divergence unless ``keep_going``, which goes on from that command's recorded rows.
    ``compare=False`` only rebuilds, with the verdict "nothing".  Damage ends it with the verdict "damaged"; what could not
    be opened is raised.  Under ``guard`` "warn" the report lists what would not be the same on a replay; under "strict" a
    command that meets such a line diverges there.
    """
    if mode not in ("execute", "redo"):
        raise UsageError(f'mode is {mode!r}; it is "execute" or "redo"')
    check_mode(guard)
    factory = engine_factory(engine, app_dir=app_dir)
    spec = engine if isinstance(engine, str) else engine_spec(factory)
    reader = Journal(open_reader(journal), stream) if isinstance(journal, str) else journal
    try:
        with decimal.localcontext(pinned_decimals()), steady_collector():
            identity = reader.identity
            require_engine_name(factory().name, identity)
            stepper = make_stepper(factory, identity.seed, identity.digest_every)
            run = _Run(stepper, reader, Replayer(stepper, reader.epochs(), revision=code_revision(factory)), progress)
            catalog = open_catalog(snapshots, reader.stream)
            with guarded(stepper, guard) as watch:
                found = run.report(
                    catalog,
                    after=after,
                    until=until,
                    start=start,
                    mode=mode if compare else "rebuild",
                    keep_going=keep_going,
                )
            found = found if watch is None else replace(found, guard=watch.to_dict())
        if isinstance(journal, str) and found.divergences:
            first = _with_second_opinion(found.divergences[0], factory, journal, reader, snapshots, app_dir)
            again = [
                replace(each, reproduce=_reproduce(spec, journal, reader.stream, snapshots, app_dir, each.command_id))
                for each in (first, *found.divergences[1:])
            ]
            found = replace(found, divergences=tuple(again))
        return found
    finally:
        if isinstance(journal, str):
            reader.close()


class _Run:
    """One verification under way."""

    def __init__(self, stepper: Stepper, journal: Journal, replayer: Replayer, progress: Progress | None) -> None:
        self.stepper = stepper
        self.journal = journal
        self.replayer = replayer
        self._progress = progress
        self._seen = 0
        self._passed_by = range(0)

    def report(
        self,
        catalog: Catalog | None,
        *,
        after: int,
        until: int | None,
        start: int | None,
        mode: str,
        keep_going: bool,
    ) -> Report:
        """Place the engine, replay, and sum up."""
        began = time.perf_counter()
        damage = ""
        divergences: list[Divergence] = []
        placed = Placement(0, "", ())
        if start is not None and start > after:
            self._passed_by = range(after + 1, start + 1)
            after = start
        last = after
        try:
            self.journal.require_end()
            end = self.journal.head().command_id
            last = end if until is None else min(until, end)
            if last > after:
                placed = place(
                    self.stepper, catalog, self.journal, after if start is None else start, exactly=bool(start)
                )
                for divergence in self._divergences(placed.command_id, after, last, mode):
                    divergences.append(divergence)
                    if not keep_going:
                        break
        except CorruptionError as error:
            damage = str(error)
        return self._summed_up(placed, after, last, divergences, damage, time.perf_counter() - began)

    def _divergences(self, base: int, after: int, last: int, mode: str) -> Iterator[Divergence]:
        replayer = self.replayer
        if base < after:
            way_there = self.journal.read(base, after)
            can_redo = isinstance(self.stepper, TableStepper) and self.journal.identity.changes == "rows"
            yield from replayer.redo(way_there) if can_redo else replayer.execute(way_there)
            replayer.checked.update(dict.fromkeys(replayer.checked, 0))
            replayer.commands = 0
        entries = self._watched(self.journal.read(max(base, after), last), last)
        if mode == "rebuild":
            replayer.rebuild(entries)
        else:
            yield from replayer.execute(entries) if mode == "execute" else replayer.redo(entries)

    def _watched(self, entries: Iterator[Entry], last: int) -> Iterator[Entry]:
        for entry in entries:
            self._seen += 1
            if self._progress is not None and self._seen % PROGRESS_EVERY == 0:
                self._progress(entry.command_id, last)
            yield entry

    def _summed_up(
        self, placed: Placement, after: int, last: int, found: list[Divergence], damage: str, seconds: float
    ) -> Report:
        replayer, stepper = self.replayer, self.stepper
        if found:
            verdict = verdicts.DIVERGED
        elif damage:
            verdict = verdicts.DAMAGED
        else:
            verdict = verdicts.VERIFIED if replayer.commands and sum(replayer.checked.values()) else verdicts.NOTHING
        return Report(
            verdict,
            stepper.name,
            stepper.state_version,
            stepper.logic_version,
            after + 1 if replayer.commands else 0,
            (after + replayer.commands) if replayer.commands else 0,
            replayer.commands,
            dict(replayer.checked),
            tuple(self._not_checked(after, last, bool(found))),
            placed.command_id,
            seconds,
            tuple(found),
            damage,
        )

    def _not_checked(self, after: int, last: int, diverged: bool) -> Iterator[str]:
        replayer = self.replayer
        redone = replayer.redone
        if self._passed_by:
            yield (
                f"{len(self._passed_by)} commands from {self._passed_by[0]} to {self._passed_by[-1]}: "
                "the image that the replay started from lies behind them"
            )
        if redone:
            yield (
                f"{len(redone)} commands from {redone[0]} to {redone[-1]} ran under rules older than "
                f"{self.stepper.replays_from} and were redone from their rows, not executed"
            )
        digests = replayer.checked["post_digest"]
        if not sum(replayer.checked.values()) and replayer.commands:
            yield f"{replayer.commands} commands: they were run, and nothing was compared"
        elif digests < replayer.commands and self.journal.identity.digest_every:
            every = self.journal.identity.digest_every
            yield f"the state after {replayer.commands - digests} commands: its digest is taken every {every} commands"
        rest = last - after - replayer.commands
        if rest > 0:
            yield f"{rest} commands after {after + replayer.commands}" + (
                ": the replay stopped there" if diverged else ""
            )
        if not self.journal.identity.digest_every and self.journal.identity.changes == "none":
            yield "rows: this journal records none"


def _with_second_opinion(
    first: Divergence, factory: Any, journal: str, reader: Journal, snapshots: Any, app_dir: str
) -> Divergence:
    """The divergence with its cause corrected where the command comes out otherwise in a process with another hash seed."""
    if first.cause not in (UNKNOWN, LOGIC_CHANGED, HIDDEN_STATE, ORDER_ONLY) or not isinstance(factory(), TableEngine):
        return first
    differs = other_outcome(
        factory, journal, reader.stream, snapshots if isinstance(snapshots, str) else "", app_dir, first.command_id
    )
    return replace(first, cause=NOT_DETERMINISTIC) if differs else first


def _reproduce(
    spec: str | None, journal: str, stream: str, snapshots: str | SnapshotStore | None, app_dir: str, command_id: int
) -> str:
    """What to type to see one divergence again; empty where no other process can open the same."""
    if spec is None or journal.startswith("memory:"):
        return ""
    words = ["recovery", "replay", "--engine", spec]
    words += ["--app-dir", app_dir] if app_dir != "." else []
    words += ["--journal", redacted(journal)]
    words += ["--snapshots", snapshots] if isinstance(snapshots, str) and not snapshots.startswith("memory:") else []
    words += ["--stream", stream] if stream != "main" else []
    return shlex.join([*words, "--after", str(command_id - 1), "--until", str(command_id)])


@contextmanager
def steady_collector() -> Iterator[None]:
    """Bulk work makes millions of objects and no cycles: the collector would look at all of them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
