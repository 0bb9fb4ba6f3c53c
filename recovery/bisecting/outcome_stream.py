"""A process that runs the recorded commands on one engine, from the state it makes itself, and tells what came out of each.

It never looks at what is recorded beside the commands: two of these, each with its own engine, are compared with each other
(bisecting/parted_engines.py).  ``python -P -m recovery.bisecting.outcome_stream`` speaks JSON lines.  It is told, first::

    {"engine", "app_dir", "journal", "snapshots", "stream", "after", "until", "batch"}

and says ``{"placed": id, "engine": name, "replays_from": n, "digest": hex or null}``, or ``{"error": …}`` as
verifying/segment_replay.py does.  Told ``{"replays_from": n}``, it runs the commands; those of older rules it redoes from
their rows.  It says ``{"outcomes": [hex, …], "states": [hex or null, …]}`` for ``batch`` commands at a time, and at last
``{"ended": id, "redone": count}``.  It is not more than ``AHEAD`` batches ahead of who listens, who answers each with
``{"settled": id}``: up to there both sides agree, and nothing need be kept.  Then it may be asked, any number of times::

    {"states": [after, until]}    a digest after each of these commands: {"states_of": [hex, …]}
    {"detail": id}                what the command does, in full: {"detail": {…}}, as ``Stream.detail`` has it

It ends when its stdin does.
"""

from __future__ import annotations

import base64
import decimal
import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, TextIO

from journal import digest, framing
from journal.errors import RecoveryError, UsageError
from journal.journal import Journal
from journal.records import Entry
from journal.urls import open_reader
from recovery.images import open_catalog, place
from recovery.loading import engine_factory
from recovery.replayer import Replayer
from recovery.state import encode_row
from recovery.stepper import Asked, CaptureStepper, Step, Stepper, TableStepper, make_stepper, pinned_decimals
from recovery.verifying.cuts import NoCut, place_at_cut
from recovery.verifying.range_replay import steady_collector
from recovery.verifying.segment_replay import error_answer, own_stdout

AHEAD: Final = 4
CAPTURED_BYTES_MAX: Final = 16 * 2**20
"""Of a captured state, what is told in full."""


class Stream:
    """One engine over the commands of one journal."""

    def __init__(self, task: dict[str, Any], journal: Journal) -> None:
        self._task = task
        self._journal = journal
        identity = journal.identity
        factory = engine_factory(task["engine"], app_dir=task["app_dir"])
        self._stepper = make_stepper(factory, identity.seed, identity.digest_every)
        self._logic = {epoch.number: epoch.logic_version for epoch in journal.epochs()}
        self._kept: deque[Entry] = deque()
        self._replays_from = 0
        self._redone = 0

    def place(self) -> dict[str, Any]:
        """Stand where the commands begin; what is said of it."""
        stepper, after = self._stepper, self._task["after"]
        catalog = open_catalog(self._task["snapshots"] or None, self._journal.stream)
        try:
            placed = place_at_cut(stepper, catalog, self._journal, after, "") if after else 0
        except NoCut:  # no rows are recorded, or they are of other tables: the engine gets there by itself
            placed = place(stepper, catalog, self._journal, after).command_id
            if placed < self._journal.start().command_id:
                raise UsageError(
                    f"no image can be loaded at or before command {after}, where the commands begin",
                    hint="name the images that go with the journal: --snapshots URL",
                ) from None
            Replayer(stepper, self._journal.epochs()).rebuild(self._journal.read(placed, after))
        return {
            "placed": placed,
            "engine": stepper.name,
            "replays_from": stepper.replays_from,
            "digest": _hex(stepper.digest_bytes),
        }

    def run(self, replays_from: int) -> Iterator[dict[str, Any]]:
        """Run the commands; a document for each batch, and the last."""
        self._replays_from = replays_from
        outcomes: list[str] = []
        states: list[str | None] = []
        at = self._task["after"]
        for entry in self._journal.read(at, self._task["until"]):
            at = entry.command_id
            self._kept.append(entry)
            outcomes.append(_outcome(self._step(entry)))
            states.append(_hex(self._stepper.digest_bytes))
            if len(outcomes) == self._task["batch"]:
                yield {"outcomes": outcomes, "states": states}
                outcomes, states = [], []
        if outcomes:
            yield {"outcomes": outcomes, "states": states}
        yield {"ended": at, "redone": self._redone}

    def _step(self, entry: Entry) -> Step | Exception:
        logic = self._logic[entry.epoch]
        if logic < self._replays_from:
            if not isinstance(self._stepper, TableStepper) or entry.changes_bytes is None:
                raise UsageError(
                    f"command {entry.command_id} ran under logic version {logic}, from which one of the engines does not "
                    "replay, and no rows are recorded",
                    hint=f"say --after {entry.command_id}, or a later command",
                )
            self._redone += 1
            finished = self._stepper.redo(entry)
            return Step(
                entry.rejected, entry.result_bytes, entry.events_bytes, finished.changes_bytes, finished.digest_bytes, 0
            )
        try:
            return self._stepper.step(Asked(*entry[1:6]), entry.command_id, logic)
        except RecoveryError:
            raise
        except Exception as error:  # an engine may raise anything, and that is then what it answered
            return error

    def settle(self, command_id: int) -> None:
        """Keep nothing up to a command."""
        self._stepper.settle(command_id)
        while self._kept and self._kept[0].command_id <= command_id:
            self._kept.popleft()

    def states(self, after: int, until: int) -> list[str]:
        """A digest of the state after each of these commands, which must not be settled past."""
        stepper = self._stepper
        stepper.undo_to(after)
        found = []
        for entry in [each for each in self._kept if after < each.command_id <= until]:
            self._step(entry)
            found.append(_now(stepper).hex())
        return found

    def detail(self, command_id: int) -> dict[str, Any]:
        """What one command does, in full, and once more: ``repeats`` says whether it did the same."""
        stepper = self._stepper
        entry = next(each for each in self._kept if each.command_id == command_id)
        stepper.undo_to(command_id - 1)
        first = self._step(entry)
        if not isinstance(first, Exception):
            stepper.undo_to(command_id - 1)
        again = _outcome(self._step(entry))
        captured = stepper.capture_bytes() if isinstance(stepper, CaptureStepper) else b""
        state = _now(stepper)
        stepper.undo_to(command_id - 1)
        return self._detail(first, stepper) | {
            "request_id": str(entry.request_id),
            "type": entry.type,
            "repeats": again == _outcome(first),
            "state": state.hex(),
            "captured": _text(captured) if 0 < len(captured) <= CAPTURED_BYTES_MAX else None,
        }

    def _detail(self, step: Step | Exception, stepper: Stepper) -> dict[str, Any]:
        if isinstance(step, Exception):
            return {"exception": f"{type(step).__name__}: {step}", "changes": [], "names": {}}
        changes = framing.unpack_changes(step.changes_bytes or framing.NO_CHANGES)
        tables = stepper.state.tables if isinstance(stepper, TableStepper) else {}
        rows = []
        for change in changes:
            before = tables[change.table].get(change.key, _MISSING)
            rows.append(
                [
                    change.table,
                    _text(change.key_bytes),
                    None if change.row_bytes is None else _text(change.row_bytes),
                    None if before is _MISSING else _text(encode_row(before)),
                ]
            )
        return {
            "rejected": step.rejected,
            "result": _text(step.result_bytes),
            "events": _text(step.events_bytes),
            "changes": rows,
            "names": {
                name: list(getattr(tables[name]._row_type, "_fields", ())) for name in {each.table for each in changes}
            },
        }


_MISSING: Final = object()


def _hex(packed: bytes | None) -> str | None:
    return None if packed is None else digest.root_of(packed).hex()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _now(stepper: Stepper) -> bytes:
    """The root of the state now, taken where none was."""
    if isinstance(stepper, CaptureStepper):
        return digest.root_of(stepper.digest_of(stepper.capture_bytes()))
    return digest.root_of(stepper.digest_bytes)


def _outcome(step: Step | Exception) -> str:
    """A hash of the answer, the events and the rows; not of the state, which is compared by itself."""
    if isinstance(step, Exception):
        return digest.hash_parts(b"raised", f"{type(step).__name__}: {step}".encode()).hex()
    return digest.hash_parts(
        b"rejected" if step.rejected else b"answered", step.result_bytes, step.events_bytes, step.changes_bytes or b""
    ).hex()


Tell = Callable[[dict[str, Any]], None]


def main(stdin: TextIO, stdout: TextIO) -> int:
    """Speak as is said above; 0."""

    def tell(document: dict[str, Any]) -> None:
        stdout.write(json.dumps(document) + "\n")
        stdout.flush()

    task = json.loads(stdin.readline())
    try:
        with (
            Journal(open_reader(task["journal"]), task["stream"]) as journal,
            decimal.localcontext(pinned_decimals()),
            steady_collector(),
        ):
            _speak(Stream(task, journal), stdin, tell)
    except BrokenPipeError:  # nobody listens any more
        return 0
    except Exception as error:
        tell(error_answer(error))
    return 0


def _speak(stream: Stream, stdin: TextIO, tell: Tell) -> None:
    tell(stream.place())
    asked = _heard(stdin)
    if not asked:
        return
    ahead = 0
    for document in stream.run(asked["replays_from"]):
        tell(document)
        ahead += 1
        if ahead > AHEAD:
            asked = _heard(stdin)
            if "settled" not in asked:
                return _explain(stream, asked, stdin, tell)
            stream.settle(asked["settled"])
            ahead -= 1
    while "settled" in (asked := _heard(stdin)):
        stream.settle(asked["settled"])
    return _explain(stream, asked, stdin, tell)


def _explain(stream: Stream, asked: dict[str, Any], stdin: TextIO, tell: Tell) -> None:
    """Answer what is asked of commands that were run; no more are."""
    while asked:
        if "states" in asked:
            tell({"states_of": stream.states(*asked["states"])})
        else:
            tell({"detail": stream.detail(asked["detail"])})
        asked = _heard(stdin)


def _heard(stdin: TextIO) -> dict[str, Any]:
    """The next line; empty where there is none."""
    line = stdin.readline()
    found: dict[str, Any] = json.loads(line) if line else {}
    return found


if __name__ == "__main__":
    status = main(sys.stdin, own_stdout())
    # The engine may have left threads, which would keep this process.
    sys.stderr.flush()
    os._exit(status)
