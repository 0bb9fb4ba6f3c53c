"""shrink(): the smallest history that still shows a divergence, as a file and a test beside it.

What a changed history *should* have given is known of nobody: the record is of the whole one.  So a candidate is judged by two
executions of it, each in a process of its own (reducing/candidate_process.py), and what is left out is left out only where the
two still differ at the last command:

* *two engines*, where another is given: this one and that one;
* *not deterministic*: this one under two hash seeds, time zones or locales;
* *not restorable*: this one straight through, and taken down and put up again before the last command: what differs then is in
  no table and no capture.

Commands that no longer apply are rejected, or raise, on both sides, and drop out.  With this engine alone and a command that
differs from its record in the same way each time, the record itself is the judge, and holds for exactly the state that it was
recorded in: that state and the one command are the test (*recorded*).

Candidates begin at the state before the command where that shows it, else at the nearest image, else at the beginning.  Command
ids are consecutive and end at the divergent one, so that random numbers drawn by id stay as they were; what needs no state at
all begins at 1, where it shows it there too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

from journal import values
from journal.errors import UsageError
from journal.journal import Journal
from journal.records import Entry, Epoch, JournalIdentity
from journal.urls import open_reader
from recovery.exporting import export_history
from recovery.history import captured_at, rows_at
from recovery.images import images_beside, open_catalog
from recovery.reducing.candidate_process import Answer, Candidate, Outcome, Row, Side
from recovery.reducing.delta_debugging import smallest
from recovery.reducing.small_history import write_small_history
from snapshots.catalog import Catalog

TWO_ENGINES: Final = "two engines"
NOT_DETERMINISTIC: Final = "not deterministic"
NOT_RESTORABLE: Final = "not restorable"
RECORDED: Final = "recorded"
ENVIRONMENTS: Final = (
    *({"PYTHONHASHSEED": seed} for seed in ("1", "2", "3")),
    {"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu", "LC_ALL": "C"},
)
COMMANDS_MAX: Final = 5_000
"""From how far back a command is executed to see whether the state that it began in was all there was."""
RUNS_MAX: Final = 1000


class Shrunk(NamedTuple):
    """What was written.  ``judge`` is one of the four above; ``exact``: nothing more can be left out.

    ``environments`` are the two that differ, where it is not deterministic.
    """

    judge: str
    path: str
    command_id: int
    type: str
    commands: int
    rows: int
    runs: int
    exact: bool
    environments: tuple[dict[str, str], ...] = ()


class _Case(NamedTuple):
    """What a history is shrunk from."""

    journal: Journal
    catalog: Catalog | None
    identity: JournalIdentity
    epochs: dict[int, Epoch]
    entry: Entry
    engine: str
    app_dir: str

    def side(
        self,
        engine: str = "",
        app_dir: str = "",
        *,
        environment: Mapping[str, str] | None = None,
        restored: bool = False,
        hidden: str = "",
    ) -> Side:
        return Side(
            engine or self.engine,
            app_dir or self.app_dir,
            seed=self.identity.seed,
            digest_every=self.identity.digest_every,
            environment=environment or {},
            restored=restored,
            hidden=hidden,
        )


def shrink(
    engine: str,
    journal: str,
    snapshots: str | None,
    command_id: int,
    path: str,
    *,
    stream: str = "main",
    app_dir: str = ".",
    against: str = "",
    against_app_dir: str = "",
    runs_max: int = RUNS_MAX,
) -> Shrunk:
    """Write the smallest history that shows the divergence at ``command_id`` over ``path``.

    ``engine`` and ``against`` are MODULE:ATTR.  UsageError where the divergence cannot be shown again.
    """
    with Journal(open_reader(journal), stream) as reader:
        catalog = open_catalog(images_beside(journal, snapshots), stream)
        entry = reader.entry(command_id)
        if entry is None:
            raise UsageError(f"the journal holds no command {command_id}")
        epochs = {epoch.number: epoch for epoch in reader.epochs()}
        case = _Case(reader, catalog, reader.identity, epochs, entry, engine, app_dir)
        with ExitStack() as sides:
            if against:
                theirs = against_app_dir or app_dir
                apart = os.path.abspath(theirs) != os.path.abspath(app_dir)
                pair = (
                    sides.enter_context(case.side(hidden=theirs if apart else "")),
                    sides.enter_context(case.side(against, theirs, hidden=app_dir if apart else "")),
                )
                return _by_two(case, TWO_ENGINES, pair, path, runs_max)
            return _by_itself(case, sides, path, runs_max)


def _by_itself(case: _Case, sides: ExitStack, path: str, runs_max: int) -> Shrunk:
    step = _step(case)
    varied = [sides.enter_context(case.side(environment=each)) for each in ENVIRONMENTS]
    outcomes = [side.run(step).outcomes[-1] for side in varied]
    other = next((at for at, outcome in enumerate(outcomes) if outcome != outcomes[0]), 0)
    if other:
        return _by_two(case, NOT_DETERMINISTIC, (varied[other], varied[0]), path, runs_max)
    hidden = sides.enter_context(case.side(environment=ENVIRONMENTS[0], restored=True))
    if _as_recorded(case.entry, outcomes[0]) or _restored_amiss(case, varied[0], hidden):
        return _by_two(case, NOT_RESTORABLE, (hidden, varied[0]), path, runs_max)
    return _recorded(case, path)


def _restored_amiss(case: _Case, straight: Side, restored: Side) -> bool:
    """Whether the command comes out as recorded where it is led up to, and otherwise from its state alone."""
    for whole in _beginnings(case, NOT_RESTORABLE):
        if len(whole.commands) > COMMANDS_MAX:
            break
        if _as_recorded(case.entry, straight.run(whole).outcomes[-1]) and _differ((restored, straight), whole):
            return True
    return False


def _as_recorded(entry: Entry, outcome: Outcome) -> bool:
    if isinstance(outcome, str):
        return False
    rejected, result, events, changes, post = outcome
    same = (rejected, result) == (entry.rejected, entry.result_bytes) and entry.emitted(events)
    same = same and (entry.changes_bytes is None or changes == entry.changes_bytes)
    return same and (entry.post_digest_bytes is None or post is None or post == entry.post_digest_bytes)


def _recorded(case: _Case, path: str) -> Shrunk:
    """The state before the command, whole, and the command with what was recorded of it."""
    command_id = case.entry.command_id
    exported = export_history(
        case.journal,
        case.catalog,
        path,
        after=command_id - 1,
        until=command_id,
        engine=case.engine,
        app_dir=case.app_dir,
        over=True,
    )
    rows = len(_step(case).rows)
    return Shrunk(RECORDED, path, command_id, case.entry.type, exported.commands, rows, len(ENVIRONMENTS), True)


def _by_two(case: _Case, judge: str, pair: tuple[Side, Side], path: str, runs_max: int) -> Shrunk:
    """Leave out commands, then rows, while the two still differ at the last command; the second side's answer is written."""
    whole = next((found for found in _beginnings(case, judge) if _differ(pair, found)), None)
    if whole is None:
        raise UsageError(
            "the divergence does not show again, neither from the state before the command nor from the nearest image",
            position=case.entry.command_id,
            hint="run: recovery replay --perturb",
        )
    last = len(whole.commands) - 1
    kept = smallest(
        range(last), lambda chosen: _differ(pair, _with_commands(whole, [*chosen, last])), runs_max=runs_max
    )
    fewer = _with_commands(whole, [*kept.items, last])
    rows = smallest(
        fewer.rows,
        lambda chosen: _differ(pair, fewer._replace(rows=tuple(chosen))),
        runs_max=max(runs_max - kept.runs, 0),
    )
    found = fewer._replace(rows=tuple(rows.items))
    if not found.rows and found.captured is None:
        # From nothing, and with ids from 1, no image is needed, and no shape of the state is fixed by it.
        anew = found._replace(first=1)
        found = anew if _differ(pair, anew) else found
    epoch = case.epochs[case.entry.epoch]
    write_small_history(path, found, pair[1].run(found), identity=case.identity, epoch=epoch)
    runs = kept.runs + rows.runs
    environments = tuple(dict(side.environment) for side in pair) if judge == NOT_DETERMINISTIC else ()
    exact = kept.exact and rows.exact
    size = len(found.commands), len(found.rows)
    return Shrunk(judge, path, case.entry.command_id, case.entry.type, *size, runs, exact, environments)


def _differ(pair: tuple[Side, Side], candidate: Candidate) -> bool:
    """Whether the sides part at the last command, having gone the same way until then; what raises cannot be recorded."""
    ours, theirs = (side.run(candidate) for side in pair)
    recordable = not any(isinstance(outcome, str) for outcome in theirs.outcomes)
    return recordable and ours.outcomes[-1] != theirs.outcomes[-1] and _same_way(ours, theirs)


def _same_way(ours: Answer, theirs: Answer) -> bool:
    return ours.begin == theirs.begin and ours.outcomes[:-1] == theirs.outcomes[:-1]


def _with_commands(whole: Candidate, chosen: Sequence[int]) -> Candidate:
    """Only these commands, with consecutive ids that end where they ended."""
    return whole._replace(
        first=whole.first + len(whole.commands) - len(chosen),
        commands=tuple(whole.commands[at] for at in chosen),
        logic=tuple(whole.logic[at] for at in chosen),
    )


def _beginnings(case: _Case, judge: str) -> Iterator[Candidate]:
    """The whole history from the state before the command, from each image before it, newest first, and from the beginning."""
    before = case.entry.command_id - 1
    if judge != NOT_RESTORABLE:
        yield _step(case)
    bases = (
        []
        if case.catalog is None
        else [
            image.command_id
            for image in case.catalog.images(case.identity.journal_id)
            if image.state == "good" and image.command_id < before
        ]
    )
    start = case.journal.start().command_id
    for base in dict.fromkeys([*reversed(bases), start]):
        if base >= start:
            yield _from(case, base)


def _step(case: _Case) -> Candidate:
    return _from(case, case.entry.command_id - 1)


def _from(case: _Case, base: int) -> Candidate:
    rows: list[Row] = []
    captured = None
    if case.identity.digest_every:
        if base:
            value = captured_at(case.journal, case.catalog, base, case.engine, app_dir=case.app_dir)
            captured = values.encode(value, bytes_max=values.CAPTURE_BYTES_MAX)
    elif base:
        found = rows_at(case.journal, case.catalog, base)
        rows = [(table, key, row) for table, pairs in found.items() for key, row in pairs.items()]
    entries = [*case.journal.read(base, case.entry.command_id - 1), case.entry]
    logic = tuple(case.epochs[entry.epoch].logic_version for entry in entries)
    return Candidate(tuple(rows), captured, base + 1, tuple(tuple(entry[1:6]) for entry in entries), logic)
