"""Replayer: drive an engine over recorded entries and compare every step with the record.

*Execute* runs the commands and compares the digest before, response, events and digest after; it then tells why a step
went another way.  *Redo* writes the recorded rows and compares digests; it needs no engine code.  The replayer only reads:
writing is the runtime's.

After a divergence the replay goes on from the recorded state, so that the next one found is another.  Where the entry's rows
lead to its digest, that is done by writing them.  Where they do not (a row was changed behind the framework), the recorded
digests go on by a difference that stays, and are compared less it.  Where no rows are recorded the replay is *astray*: it
runs the commands and judges none until a digest is the recorded one again, or the caller loads an image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from journal import digest, framing, values
from journal.digest import StateDigest, TableDigest
from journal.errors import EngineMismatch, Nondeterminism, UsageError
from journal.records import Entry, Epoch
from recovery import divergence as words
from recovery.divergence import ABSENT, Divergence, FieldDifference
from recovery.state import Finished
from recovery.stepper import Asked, CaptureStepper, Step, Stepper, TableStepper

CHECKS: Final = ("pre_digest", "post_digest", "response", "events")


@dataclass(slots=True)
class Span:
    """Some commands of a history: how many, and the ids of the first and the last."""

    count: int = 0
    first: int = 0
    last: int = 0

    def add(self, command_id: int) -> None:
        """One more, behind the last."""
        self.count += 1
        self.first = self.first or command_id
        self.last = command_id

    def join(self, later: Span) -> None:
        """These and later ones."""
        if later.count:
            self.count, self.first, self.last = self.count + later.count, self.first or later.first, later.last

    def __bool__(self) -> bool:
        return self.count > 0


class Replayer:
    """Replays onto one stepper, which must stand where the first entry begins.

    ``checked`` counts the comparisons made; ``redone`` are the commands that were redone because their rules are older
    than ``replays_from``, ``unjudged`` those that were run while ``astray``.
    """

    def __init__(self, stepper: Stepper, epochs: Iterable[Epoch], *, revision: str = "") -> None:
        self.stepper = stepper
        self.checked = dict.fromkeys(CHECKS, 0)
        self.commands = 0
        self.executed = 0
        self.redone = Span()
        self.unjudged = Span()
        self.astray = False
        self._offset: Mapping[str, tuple[int, int]] = {}
        self._epochs: Mapping[int, Epoch] = {epoch.number: epoch for epoch in epochs}
        self._revision = revision

    def execute(self, entries: Iterable[Entry]) -> Iterator[Divergence]:
        """Run the commands; yield each divergence as it is found."""
        for entry in entries:
            if self.astray:
                self._run_astray(entry)
            elif self._logic(entry) < self.stepper.replays_from:
                self.redone.add(entry.command_id)
                yield from self._redo(entry)
            else:
                found = self._execute(entry)
                if found is not None:
                    yield found
            self.stepper.settle(entry.command_id)

    def rebuild(self, entries: Iterable[Entry]) -> None:
        """Run the commands and compare nothing."""
        for entry in entries:
            self.commands += 1
            self._step(entry)
            self.stepper.settle(entry.command_id)

    def redo(self, entries: Iterable[Entry]) -> Iterator[Divergence]:
        """Write the recorded rows; yield each divergence as it is found."""
        for entry in entries:
            yield from self._redo(entry)
            self.stepper.settle(entry.command_id)

    def _logic(self, entry: Entry) -> int:
        return self._epochs[entry.epoch].logic_version if entry.epoch in self._epochs else self.stepper.logic_version

    # Execute

    def _execute(self, entry: Entry) -> Divergence | None:
        stepper, checked = self.stepper, self.checked
        self.commands += 1
        self.executed += 1
        what = []
        if entry.pre_digest_bytes is not None and stepper.digest_bytes is not None:
            checked["pre_digest"] += 1
            if self._differ(entry.pre_digest_bytes, stepper.digest_bytes):
                what.append("pre_digest")
        step = self._step(entry)
        if isinstance(step, Exception):
            return self._diverged(entry, (*what, "response"), step)
        checked["response"] += 1
        checked["events"] += 1
        if entry.post_digest_bytes is not None and step.post_digest_bytes is not None:
            checked["post_digest"] += 1
            if self._differ(entry.post_digest_bytes, step.post_digest_bytes):
                what.append("post_digest")
        if entry.result_bytes != step.result_bytes or entry.rejected != step.rejected:
            what.append("response")
        if not entry.emitted(step.events_bytes):
            what.append("events")
        changes_differ = entry.changes_bytes is not None and entry.changes_bytes != step.changes_bytes
        if what or changes_differ:
            return self._diverged(entry, tuple(what), step)
        return None

    def _step(self, entry: Entry) -> Step | Exception:
        try:
            return self.stepper.step(Asked(*entry[1:6]), entry.command_id, self._logic(entry))
        except Exception as error:  # an engine may raise anything, and that is then what it answered
            return error

    def _diverged(self, entry: Entry, what: tuple[str, ...], step: Step | Exception) -> Divergence:
        if not isinstance(step, Exception):
            self.stepper.undo_to(entry.command_id - 1)
        fields: tuple[FieldDifference, ...] = ()
        cause = ""
        if isinstance(self.stepper, TableStepper) and entry.changes_bytes is not None:
            fields = self._fields(entry, step, self.stepper)
            cause = self._redo_cause(entry, what)
            self.stepper.undo_to(entry.command_id - 1)
        cause = cause or self._execution_cause(entry, what, step)
        self._resync(entry)
        parts = {} if isinstance(step, Exception) else _parts(entry, step, what)
        if isinstance(step, Exception):
            parts["response"] = words.sides(words.result_of(entry), {"exception": f"{type(step).__name__}: {step}"})
        return Divergence(
            entry.command_id, str(entry.request_id), entry.type, what or ("changes",), cause, fields, parts
        )

    def _fields(self, entry: Entry, step: Step | Exception, stepper: TableStepper) -> tuple[FieldDifference, ...]:
        replayed = (
            () if isinstance(step, Exception) else framing.unpack_changes(step.changes_bytes or framing.NO_CHANGES)
        )
        tables = stepper.state.tables

        def before(table: str, key: Any) -> Any:
            return tables[table].get(key, ABSENT) if table in tables else ABSENT

        def names(table: str) -> tuple[str, ...]:
            return getattr(tables[table]._row_type, "_fields", ()) if table in tables else ()

        return words.field_differences(entry.changes or (), replayed, before=before, names=names)

    def _redo_cause(self, entry: Entry, what: tuple[str, ...]) -> str:
        """What redoing the entry says of the record itself; empty where the record is sound."""
        assert isinstance(self.stepper, TableStepper)
        try:
            redone = self._redo_differs(entry, self.stepper)
        except EngineMismatch:  # the rows are of other tables than this code's, which says nothing against the record
            return ""
        if not redone:
            return "" if what else words.CHANGES_INCOMPLETE
        if "pre_digest" in what or "changes" in redone:
            return words.TOUCHED_OUTSIDE
        return words.RECORDER_FAULT if what else words.CHANGES_INCOMPLETE

    def _execution_cause(self, entry: Entry, what: tuple[str, ...], step: Step | Exception) -> str:
        if isinstance(step, Nondeterminism):
            return words.NOT_DETERMINISTIC
        again = self._step(entry)
        if not isinstance(again, Exception):
            self.stepper.undo_to(entry.command_id - 1)
        if _outcome(again) != _outcome(step):
            return words.NOT_DETERMINISTIC
        if not isinstance(step, Exception) and what == ("events",) and _same_in_any_order(entry, step):
            return words.ORDER_ONLY
        epoch = self._epochs.get(entry.epoch)
        if epoch is not None and self._revision and epoch.code_revision != self._revision:
            return words.LOGIC_CHANGED
        if what == ("response",) and not isinstance(step, Exception):
            return words.HIDDEN_STATE
        return words.UNKNOWN

    # Going on

    def _differ(self, recorded: bytes | None, replayed: bytes | None) -> bool:
        if recorded == replayed:
            return False
        return not self._offset or _difference(recorded, replayed) != self._offset

    def _resync(self, entry: Entry) -> None:
        """Go on from the state that is recorded after an entry, as far as it is known."""
        stepper = self.stepper
        if isinstance(stepper, TableStepper) and entry.changes_bytes is not None:
            try:
                _redone(entry, stepper)
            except EngineMismatch:
                self.astray = True
            else:
                self._offset = _difference(entry.post_digest_bytes, stepper.digest_bytes)
            return
        self._step(entry)
        self.astray = entry.post_digest_bytes is None or entry.post_digest_bytes != stepper.digest_bytes

    def _run_astray(self, entry: Entry) -> None:
        self.commands += 1
        self.unjudged.add(entry.command_id)
        step = self._step(entry)
        if not isinstance(step, Exception) and entry.post_digest_bytes is not None:
            self.astray = entry.post_digest_bytes != step.post_digest_bytes

    def compare_image(self, entry: Entry, digest_bytes: bytes) -> Iterator[Divergence]:
        """Compare the state after an entry with an image's digest, where the entry carries none; yield what differs."""
        stepper = self.stepper
        if self.astray or entry.post_digest_bytes is not None or not isinstance(stepper, CaptureStepper):
            return
        self.checked["post_digest"] += 1
        if stepper.digest_of(stepper.capture_bytes()) != digest_bytes:
            self.astray = True
            epoch = self._epochs.get(entry.epoch)
            changed = epoch is not None and self._revision and epoch.code_revision != self._revision
            cause = words.LOGIC_CHANGED if changed else words.UNKNOWN
            yield Divergence(entry.command_id, str(entry.request_id), entry.type, ("post_digest",), cause)

    def go_on_from(self, stepper: Stepper) -> None:
        """Go on with an engine that is in the recorded state."""
        self.stepper = stepper
        self.astray = False
        self._offset = {}

    def forget_counts(self) -> None:
        """Begin to count: what was replayed so far was the way to where the replay begins."""
        self.checked = dict.fromkeys(CHECKS, 0)
        self.commands = self.executed = 0
        self.redone, self.unjudged = Span(), Span()

    # Redo

    def _redo(self, entry: Entry) -> Iterator[Divergence]:
        stepper = self.stepper
        if not isinstance(stepper, TableStepper) or entry.changes_bytes is None:
            raise UsageError(
                f"command {entry.command_id} has no recorded rows, so it can only be executed; "
                f"it ran under logic version {self._logic(entry)} and this engine replays from {stepper.replays_from}",
                hint="replay with --mode execute, by code that still has those rules",
            )
        self.commands += 1
        what = []
        self.checked["pre_digest"] += 1
        if self._differ(entry.pre_digest_bytes, stepper.digest_bytes):
            what.append("pre_digest")
        differs = self._redo_differs(entry, stepper)
        self.checked["post_digest"] += 1
        if "post_digest" in differs:
            what.append("post_digest")
        if what or differs:
            cause = words.TOUCHED_OUTSIDE if "changes" in differs or "pre_digest" in what else words.RECORDER_FAULT
            self._offset = _difference(entry.post_digest_bytes, stepper.digest_bytes)
            yield Divergence(entry.command_id, str(entry.request_id), entry.type, tuple(what) or ("changes",), cause)

    def _redo_differs(self, entry: Entry, stepper: TableStepper) -> tuple[str, ...]:
        """Redo an entry; which of post_digest and changes (an old row that was not the recorded one) came out otherwise."""
        finished = _redone(entry, stepper)
        found = []
        if self._differ(entry.post_digest_bytes, finished.digest_bytes):
            found.append("post_digest")
        if finished.changes_bytes != entry.changes_bytes:
            found.append("changes")
        return tuple(found)


def _redone(entry: Entry, stepper: TableStepper) -> Finished:
    """Redo an entry.  EngineMismatch where its rows do not fit the engine's tables."""
    try:
        return stepper.redo(entry)
    except (KeyError, TypeError, ValueError, UsageError) as error:
        raise EngineMismatch(
            f"the rows it changed are not of the tables that {stepper.name} declares now: {type(error).__name__}: {error}",
            position=entry.command_id,
            hint="replay it with code that has those tables",
        ) from error


def _difference(recorded: bytes | None, replayed: bytes | None) -> dict[str, tuple[int, int]]:
    """By how many rows, and by what sum, the recorded digest is beyond the replayed, of each table in which it is."""
    sides = [StateDigest.unpack(side or digest.EMPTY).tables for side in (recorded, replayed)]
    found = {}
    for table in sides[0].keys() | sides[1].keys():
        ours, theirs = (side.get(table, TableDigest(0, 0)) for side in sides)
        if ours != theirs:
            found[table] = (ours.rows - theirs.rows, (ours.hash - theirs.hash) % digest.MODULUS)
    return found


def _outcome(step: Step | Exception) -> tuple[Any, ...]:
    return (type(step), str(step)) if isinstance(step, Exception) else step[:5]


def _same_in_any_order(entry: Entry, step: Step) -> bool:
    if entry.events_reduced:
        return False  # what the data was is not known, only its hash
    return words.same_in_any_order(entry.events, framing.unpack_events(step.events_bytes))


def _parts(entry: Entry, step: Step, what: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Both sides of the response and the events, where they differ."""
    parts = {}
    if "response" in what:
        result = values.decode(step.result_bytes)
        if step.rejected:
            result = {"rejection": {"code": result[0], "message": result[1]}}
        parts["response"] = words.sides(words.result_of(entry), result)
    if "events" in what:
        replayed = framing.unpack_events(step.events_bytes)
        recorded = words.ABSENT if entry.events_reduced else words.events_plain(entry.events)
        parts["events"] = words.sides(recorded, words.events_plain(replayed))
    return parts
