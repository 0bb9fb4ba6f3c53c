"""Two engines over the same recorded commands: the first command that they do two things with.

Each runs in a process of its own (bisecting/outcome_stream.py), so that the two may be of modules with one name, and from a
state that is its own: what is recorded besides the commands is not looked at.  What two engines do is not monotone: one may
go astray and come back.  So every command is run on both, side by side, and the outcomes are compared one by one as they come.
Both processes have the same hash seed, so that what differs is the code; where both are the same engine, they have two.

An engine without tables has its state taken at every so many commands alone.  Where two such states differ, or an answer does,
the commands since the last equal ones are run again with a state after each, so that the command is found all the same.
*Recorded* is the engine that is compared against, *replayed* the one that is asked about.
"""

from __future__ import annotations

import base64
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, Final

from journal import framing, values
from journal.errors import UsageError, WorkerLost
from journal.framing import Change
from journal.journal import Journal
from journal.urls import open_reader, redacted
from recovery import divergence as words
from recovery.bisecting.bisected import ENGINES, Bisection
from recovery.bisecting.captured_differences import captured_differences
from recovery.cold_start import require_engine_name
from recovery.divergence import ABSENT, Divergence, FieldDifference
from recovery.images import images_beside
from recovery.report import DIVERGED, NOTHING, VERIFIED
from recovery.verification import Progress
from recovery.verifying.processes import environment
from recovery.verifying.segment_replay import error_of

BATCH: Final = 500
"""Outcomes that are told at a time."""


class _Side:
    """One engine in a process of its own."""

    def __init__(self, task: dict[str, Any], hash_seed: str, *, without: str) -> None:
        self.engine = str(task["engine"])
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "recovery.bisecting.outcome_stream"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(hash_seed, without if without != task["app_dir"] else ""),
            process_group=0,  # Ctrl-C is for this process, which then ends that one
        )
        self.tell(task)

    def tell(self, document: dict[str, Any]) -> None:
        """Say one thing."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(document) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._lost() from error

    def hear(self, *names: str) -> dict[str, Any]:
        """The next thing said that has one of these names; what else was on the way is passed by.  Raises what it tells of."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said: dict[str, Any] = json.loads(line)
            if "error" in said:
                error = error_of(said)
                error.message = f"{self.engine}: {error.message}"
                raise error
            if any(name in said for name in names):
                return said
        raise self._lost()

    def _lost(self) -> WorkerLost:
        return WorkerLost(f"the process that ran {self.engine} ended without an answer")

    def __enter__(self) -> _Side:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()


def _environment(hash_seed: str, without: str) -> dict[str, str]:
    """A process's environment; the folder of the other engine's module is not on its path, where it is another."""
    found = environment(PYTHONHASHSEED=hash_seed)
    if without:
        folders = found["PYTHONPATH"].split(os.pathsep)
        hidden = os.path.realpath(without)
        found["PYTHONPATH"] = os.pathsep.join(each for each in folders if os.path.realpath(each) != hidden)
    return found


def compare_engines(
    engine: str,
    against: str,
    journal: str,
    snapshots: str | None = None,
    *,
    stream: str = "main",
    after: int | None = None,
    until: int | None = None,
    app_dir: str = ".",
    against_app_dir: str | None = None,
    progress: Progress | None = None,
) -> Bisection:
    """The first command with ``after < id <= until`` that the engines do two things with.

    The state at ``after`` is the recorded one where rows are recorded, else what each engine makes of the way there.
    """
    beside = images_beside(journal, snapshots)
    snapshots = beside if isinstance(beside, str) and not beside.startswith("memory:") else ""
    with Journal(open_reader(journal), stream) as reader:
        identity = reader.identity
        after = reader.start().command_id if after is None else after
        head = reader.head().command_id
        until = head if until is None else min(until, head)
    other_dir = app_dir if against_app_dir is None else against_app_dir
    same = (engine, app_dir) == (against, other_dir)
    task = {"journal": journal, "snapshots": snapshots, "stream": stream, "after": after, "until": until}
    task["batch"] = BATCH
    with ExitStack() as processes:
        pair = [
            processes.enter_context(
                _Side(task | {"engine": spec, "app_dir": folder}, seed if same else "0", without=others)
            )
            for spec, folder, others, seed in ((against, other_dir, app_dir, "1"), (engine, app_dir, other_dir, "2"))
        ]
        placed = [side.hear("placed") for side in pair]
        require_engine_name(placed[1]["engine"], identity)
        if placed[0]["digest"] != placed[1]["digest"]:
            raise UsageError(
                f"the engines are in two states at command {after} already, where they begin",
                hint="begin earlier, best at the beginning: --after 0",
            )
        for side in pair:
            side.tell({"replays_from": max(each["replays_from"] for each in placed)})
        comparison = _Comparison(pair, after, until, progress)
        at = comparison.run()
        found = None if at is None else _divergence(at, [comparison.detail(side, at) for side in (0, 1)], same=same)
    if found is not None:
        places = {"--engine": engine, "--app-dir": app_dir, "--against": against, "--against-app-dir": other_dir}
        places |= {"--journal": redacted(journal), "--snapshots": redacted(snapshots), "--stream": stream}
        found = replace(found, reproduce=_again(places, after, found.command_id))
    return _bisection(comparison, found, (against, engine), same=same)


def _again(places: dict[str, str], after: int, until: int) -> str:
    defaults = {"--app-dir": ".", "--against-app-dir": places["--app-dir"], "--snapshots": "", "--stream": "main"}
    typed = [word for name, value in places.items() if value != defaults.get(name) for word in (name, value)]
    start = ["--after", str(after)] if after else []
    return shlex.join(["recovery", "bisect", *typed, *start, "--until", str(until)])


class _Comparison:
    """The outcomes of two sides, compared as they come."""

    def __init__(self, pair: list[_Side], after: int, until: int, progress: Progress | None) -> None:
        self._pair = pair
        self._until = until
        self._progress = progress
        self._alike = after
        """The last command after which both were seen to be in one state."""
        self.after = after
        self.compared = 0
        self.redone = 0

    def run(self) -> int | None:
        """The first command that the sides do two things with; None for none."""
        for outcomes, states in self._batches():
            for place, pair in enumerate(zip(*outcomes, strict=True)):
                self.compared += 1
                at = self.after + self.compared
                ours, theirs = states[0][place], states[1][place]
                both = ours is not None and theirs is not None
                if pair[0] != pair[1] or (both and ours != theirs):
                    return self._first_of(at)
                self._alike = at if both else self._alike
            for side in self._pair:
                side.tell({"settled": self._alike})
            if self._progress is not None:
                self._progress(self.after + self.compared, self._until)
        # Where no state was taken at the end, it is now.
        last = self.after + self.compared
        return self._first_of(last, also_last=False) if last > self._alike and self.compared else None

    def _batches(self) -> Iterator[tuple[list[list[str]], list[list[str | None]]]]:
        while True:
            said = [side.hear("outcomes", "ended") for side in self._pair]
            if any("ended" in each for each in said):
                self.redone = max(each.get("redone", 0) for each in said)
                return
            yield [each["outcomes"] for each in said], [each["states"] for each in said]

    def _first_of(self, at: int, *, also_last: bool = True) -> int | None:
        """The first command, up to one, after which the states are two.

        ``also_last``: that one itself is known to part, whatever its state.
        """
        until = at - 1 if also_last else at
        if until > self._alike:
            for side in self._pair:
                side.tell({"states": [self._alike, until]})
            states = [side.hear("states_of")["states_of"] for side in self._pair]
            for place, pair in enumerate(zip(*states, strict=True), self._alike + 1):
                if pair[0] != pair[1]:
                    return place
            self._alike = until
        return at if also_last else None

    def detail(self, side: int, command_id: int) -> dict[str, Any]:
        """What one side does with a command."""
        self._pair[side].tell({"detail": command_id})
        found: dict[str, Any] = self._pair[side].hear("detail")["detail"]
        return found


def _bisection(comparison: _Comparison, found: Divergence | None, engines: tuple[str, str], *, same: bool) -> Bisection:
    compared, after = comparison.compared, comparison.after
    if not compared:
        verdict, evidence = NOTHING, "the range holds no command"
    elif found is None:
        verdict, evidence = VERIFIED, f"both did the same with each of {compared} commands"
    else:
        verdict = DIVERGED
        evidence = f"both did the same with each of the {found.command_id - after - 1} commands before it"
    notes = [f"they began in the state at command {after}"] if after else []
    notes += ["it is one engine twice, under two hash seeds"] if same else []
    not_checked = ["whether either does what is recorded"]
    if comparison.redone:
        not_checked.append(
            f"{comparison.redone} commands of older rules: they were redone from their rows, not executed"
        )
    return Bisection(
        ENGINES,
        verdict,
        found,
        2 * compared,
        compared if found is None else found.command_id - after,
        False,
        evidence,
        engines,
        notes=tuple(notes),
        not_checked=tuple(not_checked) if compared else (),
        engine=engines[1],
    )


# The finding


def _divergence(command_id: int, sides: list[dict[str, Any]], *, same: bool) -> Divergence:
    recorded, replayed = sides
    answers = [_answer(side) for side in sides]
    events = [_events(side) for side in sides]
    packed = [side.get("events", "") for side in sides]
    what = [
        name
        for name, differs in (
            ("post_digest", recorded["state"] != replayed["state"]),
            ("response", values.encode(answers[0]) != values.encode(answers[1])),
            ("events", packed[0] != packed[1] and "exception" not in recorded and "exception" not in replayed),
        )
        if differs
    ]
    if same or not (recorded["repeats"] and replayed["repeats"]):
        cause = words.NOT_DETERMINISTIC
    elif what == ["events"] and words.same_in_any_order(*events):
        cause = words.ORDER_ONLY
    else:
        cause = words.LOGIC_CHANGED
    parts = {"response": words.sides(*answers)} if "response" in what else {}
    parts |= {"events": words.sides(*map(words.events_plain, events))} if "events" in what else {}
    fields = _captured(sides) if recorded["captured"] or replayed["captured"] else _fields(sides)
    return Divergence(
        command_id, recorded["request_id"], recorded["type"], tuple(what) or ("changes",), cause, fields, parts
    )


def _answer(side: dict[str, Any]) -> Any:
    if "exception" in side:
        return {"exception": side["exception"]}
    result = values.decode(_bytes(side["result"]))
    return {"rejection": {"code": result[0], "message": result[1]}} if side["rejected"] else result


def _events(side: dict[str, Any]) -> list[framing.Event]:
    return framing.unpack_events(_bytes(side["events"])) if "events" in side else []


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def _captured(sides: list[dict[str, Any]]) -> tuple[FieldDifference, ...]:
    if not (sides[0]["captured"] and sides[1]["captured"]):
        return ()
    return captured_differences(*(values.decode(_bytes(side["captured"])) for side in sides))


def _fields(sides: list[dict[str, Any]]) -> tuple[FieldDifference, ...]:
    before: dict[tuple[str, bytes], bytes | None] = {}
    changes: list[list[Change]] = []
    for side in sides:
        changes.append([])
        for table, key, row, old in side["changes"]:
            changes[-1].append(Change(table, _bytes(key), None if row is None else _bytes(row), None))
            before[table, _bytes(key)] = None if old is None else _bytes(old)
    names = {**sides[0]["names"], **sides[1]["names"]}

    def row_before(table: str, key: Any) -> Any:
        row_bytes = before.get((table, values.encode_bare(key)))
        return ABSENT if row_bytes is None else values.decode_bare(row_bytes)

    return words.field_differences(*changes, before=row_before, names=lambda table: tuple(names.get(table, ())))
