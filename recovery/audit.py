"""audit(): does an image of this engine hold all that its next answers depend on?  Tried out, over recorded history.

Three passes over the same commands, each from the beginning and, as in a new process, with what the engine's modules hold put
back first:

1. *Replay*, under the guard, compared with the record; the state is kept aside at sampled commands.
2. *Restore*: from each state kept aside, and from each image, a fresh engine runs to the end and is compared with the record.
3. *Heavy*: around sampled commands, capture, restore and compare; a command applied to the restored copy must not change the
   live engine; a ``Reject`` must have changed nothing; and each leaf of the state is changed, one by one, which must move the
   digest and the image.

What comes out otherwise is a finding, and proven.  What differs and changed no answer is a note.
"""

from __future__ import annotations

import contextvars
import decimal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple
from uuid import uuid4

from journal.errors import RecoveryError, UsageError
from journal.journal import Journal
from journal.records import Command, Entry
from journal.urls import open_reader, open_writer
from recovery.auditing.audit_report import AuditFinding, AuditReport
from recovery.auditing.hidden_state import HiddenState
from recovery.auditing.leaf_check import leaf_findings
from recovery.auditing.leaves import OPAQUE, ORDER, differing, flattened
from recovery.cold_start import require_engine_name
from recovery.divergence import RESTORE_HOLE
from recovery.guarding.guard import WARN, guarded
from recovery.heavy import HeavyMode, captured_state, copied, declares_digest, require_same
from recovery.images import open_catalog, place
from recovery.loading import EngineArgument, engine_factory
from recovery.replayer import Replayer
from recovery.runtime import Runtime
from recovery.stepper import CaptureStepper, Factory, Stepper, TableStepper, make_stepper, pinned_decimals
from recovery.verification import Progress
from recovery.verifying.range_replay import steady_collector
from snapshots.catalog import Catalog
from snapshots.store import SnapshotStore

SAMPLE: Final = 20
_OURS: Final = frozenset({"_state", "_sealed"})


class _Kept(NamedTuple):
    """The state at a command, kept aside in pass 1: a stepper over a copy made then, and the live engine's attributes."""

    command_id: int
    stepper: Stepper
    attributes: dict[str, str]


def audit(
    engine: EngineArgument,
    journal: str | Journal,
    snapshots: str | SnapshotStore | None = None,
    *,
    stream: str = "main",
    until: int | None = None,
    sample: int = SAMPLE,
    app_dir: str = ".",
    progress: Progress | None = None,
) -> AuditReport:
    """Audit an engine over the commands of a journal up to ``until`` (None: all).

    ``sample`` is how many commands, evenly spread, are looked at closely, and how many rows or leaves at each; the time it
    takes grows with ``sample`` times the number of commands.
    """
    if sample < 1:
        raise UsageError(f"sample is {sample}; it is at least 1")
    factory = engine_factory(engine, app_dir=app_dir)
    reader = Journal(open_reader(journal), stream) if isinstance(journal, str) else journal
    try:
        require_engine_name(factory().name, reader.identity)
        with decimal.localcontext(pinned_decimals()), steady_collector():
            return _Audit(factory, reader, open_catalog(snapshots, stream), until, sample, progress).report()
    finally:
        if isinstance(journal, str):
            reader.close()


def audit_commands(engine: EngineArgument, commands: Iterable[Command], *, sample: int = SAMPLE) -> AuditReport:
    """Audit an engine over commands that are recorded first, in memory; those that raise are left out."""
    factory = engine_factory(engine)
    hidden = HiddenState(factory())
    store = open_writer(f"memory:audit-{uuid4()}")
    # Closing the runtime would forget the journal.
    runtime = Runtime.open(factory, journal=store, snapshots="memory:", durable=False, snapshot_every=0, digest_every=1)
    with runtime:
        for _ in runtime.execute_many(commands):
            pass
        runtime.query(lambda engine: None)
        hidden.put_back()
        return audit(factory, Journal(store), sample=sample)


class _Audit:
    """One audit under way."""

    def __init__(
        self,
        factory: Factory,
        journal: Journal,
        catalog: Catalog | None,
        until: int | None,
        sample: int,
        progress: Progress | None,
    ) -> None:
        self._factory = factory
        self._journal = journal
        self._catalog = catalog
        self._epochs = journal.epochs()
        head = journal.head().command_id
        self._last = head if until is None else min(until, head)
        step = max(1, -(-self._last // sample))
        self._sampled = frozenset(range(step, self._last + 1, step)) | {self._last}
        self._sample = sample
        self._progress = progress
        self._kept: list[_Kept] = []
        self._found = AuditReport(factory().name)

    def report(self) -> AuditReport:
        """All three passes."""
        began = time.perf_counter()
        found = self._found
        if self._last:
            hidden = HiddenState(self._factory())
            try:
                self._passes(hidden)
            finally:
                hidden.put_back()
        found.merge()
        found.seconds = time.perf_counter() - began
        return found

    def _passes(self, hidden: HiddenState) -> None:
        # Each in a context of its own, so that what one leaves in context variables is not there for the next.
        found, first = self._found, contextvars.copy_context()
        replays = first.run(self._replay)
        found.hidden = first.run(hidden.places)
        if not replays:
            found.not_checked.append("restores and heavy mode: the history does not replay in the first place")
            return
        found.not_checked += [f"{name} as in a new process: it cannot be put back" for name in hidden.put_back()]
        self._restore_all(hidden)
        hidden.put_back()
        contextvars.copy_context().run(self._heavy)

    def _fresh(self) -> Stepper:
        identity = self._journal.identity
        return make_stepper(self._factory, identity.seed, identity.digest_every)

    def _read(self, after: int = 0) -> Iterator[Entry]:
        for entry in self._journal.read(after, self._last):
            if self._progress is not None and entry.command_id % 1000 == 0:
                self._progress(entry.command_id, self._last)
            yield entry

    # 1

    def _replay(self) -> bool:
        stepper, found = self._fresh(), self._found
        replayer = Replayer(stepper, self._epochs)
        with guarded(stepper, WARN) as guard:
            for entry in self._read():
                divergence = next(replayer.execute([entry]), None)
                if divergence is not None:
                    found.findings.append(AuditFinding("replay", entry.command_id, str(divergence)))
                    break
                found.commands += 1
                if entry.command_id in self._sampled:
                    self._keep(stepper, entry.command_id)
        assert guard is not None
        found.guard = guard.to_dict()
        found.count("commands replayed", found.commands)
        if replayer.redone:
            found.not_checked.append(
                f"{replayer.redone.count} commands of older rules: they were redone from their rows"
            )
        return not found.findings

    def _keep(self, stepper: Stepper, command_id: int) -> None:
        attributes = flattened(stepper.engine, but=_declared(stepper))
        try:
            self._kept.append(_Kept(command_id, copied(stepper, self._factory), attributes))
        except Exception as error:  # the engine's own capture or restore
            self._found.findings.append(AuditFinding("round trip", command_id, _said(error)))
            return
        if command_id == self._last:
            opaque = [path for path, leaf in attributes.items() if leaf.startswith(OPAQUE)]
            self._found.notes += [
                f"{path.lstrip('.')} is {attributes[path]}: nothing is seen of what it holds" for path in opaque
            ]

    # 2

    def _restore_all(self, hidden: HiddenState) -> None:
        changed = {
            place.name: f"{place}, which changed while the commands ran"
            for place in self._found.hidden
            if place.changed
        }
        harmless: dict[str, None] = {}
        for kept in self._kept:
            hidden.put_back()
            differs = differing(kept.attributes, flattened(kept.stepper.engine, but=_declared(kept.stepper)))
            contextvars.copy_context().run(
                self._restore, kept.stepper, kept.command_id, "the state captured", differs | changed
            )
            if not declares_digest(kept.stepper):
                harmless |= dict.fromkeys(name for name, line in differs.items() if ORDER + ":" not in line)
        for image in [] if self._catalog is None else self._catalog.images(self._journal.identity.journal_id):
            if image.command_id <= self._last:
                hidden.put_back()
                stepper = self._fresh()
                try:
                    placed = place(stepper, self._catalog, self._journal, image.command_id, exactly=True)
                except RecoveryError as error:
                    self._found.not_checked.append(f"the image at command {image.command_id}: {error}")
                else:
                    contextvars.copy_context().run(self._restore, stepper, placed.command_id, "the image", changed)
        blamed = {name for finding in self._found.findings for name in finding.suspects}
        self._found.notes += [
            f"{name} is not the same after a restore; no recorded answer depended on it"
            for name in harmless
            if name not in blamed
        ]

    def _restore(self, stepper: Stepper, command_id: int, origin: str, suspects: dict[str, str]) -> None:
        """Run from a restored state to the end, and compare."""
        self._found.count("restores replayed to the end")
        replayer = Replayer(stepper, self._epochs)
        for entry in self._read(command_id):
            divergence = next(replayer.execute([entry]), None)
            if divergence is not None:
                hole = replace(divergence, cause=RESTORE_HOLE)
                what = f"restored from {origin} at command {command_id}, it goes another way: {hole}"
                self._found.findings.append(AuditFinding("restore", entry.command_id, what, suspects))
                return

    # 3

    def _heavy(self) -> None:
        stepper = self._fresh()
        replayer, heavy = Replayer(stepper, self._epochs), HeavyMode(stepper, self._factory)
        rejects, unchecked = 0, 0
        following: Stepper | None = None
        for entry in self._read():
            look = entry.rejected and not isinstance(stepper, TableStepper)
            if look and rejects >= self._sample and entry.command_id not in self._sampled:
                look, unchecked = False, unchecked + 1
            if following is not None:
                self._check_alias(stepper, following, entry)
                following = None
            if look:
                rejects += 1
                heavy.before()
            for _ in replayer.execute([entry]):
                self._found.not_checked.append(f"heavy mode after command {entry.command_id}: the engine was disturbed")
                return
            if look:
                self._found.count("rejects")
                self._try("reject", entry.command_id, heavy.check_reject)
            if entry.command_id in self._sampled:
                following = self._look_closely(stepper, entry.command_id)
        if unchecked:
            self._found.not_checked.append(f"{unchecked} of {rejects + unchecked} rejects (--sample)")
        if len(self._sampled) < self._last:
            self._found.not_checked.append(
                f"the state after {self._last - len(self._sampled)} of {self._last} commands: "
                f"{len(self._sampled)} were looked at closely (--sample)"
            )

    def _look_closely(self, stepper: Stepper, command_id: int) -> Stepper | None:
        self._found.count("round trips")
        copy: list[Stepper] = []

        def round_trip() -> None:
            copy.append(copied(stepper, self._factory))
            require_same(stepper, copy[0])
            require_same(stepper, copied(stepper, self._factory))

        if not self._try("round trip", command_id, round_trip):
            return None
        checked, findings, notes = leaf_findings(stepper, self._factory, command_id, self._sample)
        self._found.count("leaves changed", checked)
        self._found.findings += findings
        self._found.notes += [note for note in notes if note not in self._found.notes]
        return copy[0]

    def _check_alias(self, live: Stepper, other: Stepper, entry: Entry) -> None:
        """Apply the next command to the copy only: the live engine must not notice."""
        self._found.count("copies run beside")
        before = _picture(live)
        try:
            next(Replayer(other, self._epochs).execute([entry]), None)
            changed = _picture(live) != before
        except Exception as error:  # the engine's own
            self._found.not_checked.append(f"a copy beside the engine at command {entry.command_id}: {_said(error)}")
            return
        if changed:
            what = "applying it to a restored copy changed the live engine: they share state"
            self._found.findings.append(AuditFinding("alias", entry.command_id, what))

    def _try(self, check: str, command_id: int, run: Callable[[], None]) -> bool:
        try:
            run()
        except Exception as error:  # ours, or the engine's own in capture and restore
            self._found.findings.append(AuditFinding(check, command_id, _said(error)))
            return False
        return True


def _declared(stepper: Stepper) -> frozenset[str]:
    """The attributes of an engine that the framework keeps, and looks at row by row."""
    return frozenset(stepper.state.members) | _OURS if isinstance(stepper, TableStepper) else frozenset()


def _picture(stepper: Stepper) -> bytes:
    """What tells two states of one engine apart, read anew."""
    if isinstance(stepper, CaptureStepper):
        return captured_state(stepper)
    assert isinstance(stepper, TableStepper)
    return stepper.state.recomputed()


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, RecoveryError) else f"{type(error).__name__}: {error}"
