"""Cold start: from a journal and its images to an engine that stands at the journal's head, proven, or a refusal."""

from __future__ import annotations

import decimal
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass

from journal.cursors import CursorStore
from journal.errors import DivergenceError, EngineMismatch, EvidenceAhead, RecoveryError, UsageError
from journal.event_detail import EventDetail
from journal.files import kill_point
from journal.journal import Journal
from journal.projections import Projection, Projector, require_handled
from journal.recorder import Recorder, new_identity
from journal.records import Epoch, Head, JournalIdentity
from journal.store import JournalStore
from recovery.divergence import Divergence
from recovery.images import Placement, open_catalog, place
from recovery.imaging import ImagingPlace
from recovery.loading import EngineArgument, code_revision, engine_factory
from recovery.observer import Teller
from recovery.outboxes import cursors_beside, in_words, outran, rewinding
from recovery.replayer import Replayer
from recovery.shipping import Shipping, ShipTo, open_store
from recovery.stepper import PRECISION, Factory, Stepper, make_stepper, pinned_decimals
from recovery.table_engine import TableEngine
from recovery.version import VERSION
from snapshots.catalog import Catalog
from snapshots.store import SnapshotStore


@dataclass(frozen=True, slots=True)
class ColdStart:
    """What opening did.  ``steps_down`` says, for each image that was passed over, its command and why."""

    engine: str
    created: bool
    image: int
    replayed: int
    mode: str
    head: int
    checked: dict[str, int]
    steps_down: tuple[tuple[int, str], ...]
    not_checked: tuple[str, ...]
    accepted_loss: str
    seconds: float

    def to_dict(self) -> dict[str, object]:
        """The report as JSON can hold it."""
        return {
            "engine": self.engine,
            "created": self.created,
            "image": self.image,
            "replayed": self.replayed,
            "mode": self.mode,
            "head": self.head,
            "checked": self.checked,
            "steps_down": [{"command_id": command_id, "reason": reason} for command_id, reason in self.steps_down],
            "not_checked": list(self.not_checked),
            "accepted_loss": self.accepted_loss,
            "seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        if self.created:
            return f"{self.engine}: a new journal"
        origin = f"image at command {self.image}" if self.image else "the beginning"
        lines = [
            f"{self.engine}: from {origin}, {self.replayed} commands replayed ({self.mode}), "
            f"at command {self.head} in {self.seconds:.2f} s"
        ]
        lines += [f"  image {command_id} was not used: {reason}" for command_id, reason in self.steps_down]
        lines += [f"  not checked: {line}" for line in self.not_checked]
        lines += [f"  loss accepted: {self.accepted_loss}"] if self.accepted_loss else []
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Opened:
    """An engine at the head of its journal, ready to work."""

    factory: Factory
    stepper: Stepper
    recorder: Recorder
    catalog: Catalog
    journal: Journal
    report: ColdStart
    journal_url: str | None
    snapshots_url: str | None
    cursors: CursorStore | None
    tell: Teller

    @property
    def shipping(self) -> Shipping:
        """What is asked of its store about shipping."""
        return Shipping(self.recorder.store, self.recorder.stream)

    @property
    def imaging_place(self) -> ImagingPlace:
        """What its images are made of, and where they go."""
        return ImagingPlace(
            self.stepper,
            self.catalog,
            self.journal,
            self.recorder.identity,
            self.journal_url,
            self.snapshots_url,
        )

    def keep_evidence(self, error: RecoveryError) -> None:
        """Keep evidence of a mismatch that has stopped the runtime (recovery/evidence.py)."""
        if isinstance(error, DivergenceError):
            from recovery.evidence import keep_live_evidence

            keep_live_evidence(error, self.factory, self.journal_url, self.snapshots_url, self.journal.stream)


def open_engine(
    engine: EngineArgument,
    *,
    journal: str | JournalStore,
    snapshots: str | SnapshotStore,
    stream: str,
    app_dir: str,
    replay: str,
    durable: bool,
    changes: str,
    dedup_window_s: int,
    digest_every: int,
    seed: int | None,
    accept_loss: bool,
    takeover: bool,
    detail: EventDetail,
    tell: Teller,
    projections: Iterable[Projection | type[Projection]] = (),
    ship_to: ShipTo | None = None,
) -> Opened:
    """Open the journal for write and bring the engine to its head.  Where it refuses, nothing was written."""
    began = time.perf_counter()
    factory = engine_factory(engine, app_dir=app_dir)
    probe = factory()
    projector = Projector(projections, stream)
    wanted = new_identity(
        stream=stream,
        engine=probe.name,
        seed=seed,
        digest_every=0 if isinstance(probe, TableEngine) else digest_every,
        changes=changes if isinstance(probe, TableEngine) else "none",
        dedup_window_s=dedup_window_s,
    )
    cursors = cursors_beside(ship_to.url if ship_to else journal)
    store = open_store(journal, ship_to, stream=stream, takeover=takeover, engine=probe.name, durable=durable)
    try:
        _require_durable(store, durable, consent=isinstance(journal, str) and journal.startswith("memory:"))
        catalog = open_catalog(snapshots, stream)
        assert catalog is not None
        if store.durable:  # one that is not is for tests, where there may be no tables to write
            require_handled(projector.handled, probe.name, getattr(probe, "projected_events", ()))
        reader = Journal(store, stream)
        created = not reader.exists
        projector.check(store, wanted if created else reader.identity, detail, reader.head().command_id)
        loss = _foreign_loss(catalog, probe.name, store, accept_loss) if created else ""
        lost = outran(reader, cursors, created=created, accepted=accept_loss)
        recorder = Recorder.open(store, stream, wanted, detail=detail)
        kill_point("create.after")
        require_engine_name(probe.name, recorder.identity)
        stepper = make_stepper(factory, recorder.identity.seed, recorder.identity.digest_every)
        revision = code_revision(factory)
        epochs = reader.epochs()
        _require_same_state(stepper, recorder, epochs)
        if accept_loss:
            loss = loss or _own_loss(catalog, reader, recorder, epochs) or in_words(lost, created=created)
        else:
            reader.require_end()
        placed, replayer = _replayed(stepper, catalog, reader, recorder.head, epochs, revision, replay, tell)
        with rewinding(cursors, lost, reader):
            recorder.begin_epoch(_epoch(len(epochs) + 1, stepper, revision, recorder.head.command_id, loss))
        projector.attach(store)
        recorder.projector = projector
        report = _report(stepper, recorder, placed, replayer, created=created, mode=replay, loss=loss, began=began)
    except BaseException as error:
        _keep_evidence(error, factory, Journal(store, stream), snapshots, app_dir)
        if isinstance(journal, str) or ship_to:
            store.close()
        raise
    urls = _elsewhere(journal), _elsewhere(snapshots)
    return Opened(factory, stepper, recorder, catalog, reader, report, *urls, cursors, tell)


def _keep_evidence(
    error: BaseException, factory: Factory, journal: Journal, snapshots: str | SnapshotStore, app_dir: str
) -> None:
    """Keep evidence of a mismatch for which the engine is not started."""
    if isinstance(error, DivergenceError):
        from recovery.evidence import keep_evidence

        catalog = open_catalog(snapshots, journal.stream)
        keep_evidence(error, where="cold start", factory=factory, journal=journal, catalog=catalog, app_dir=app_dir)


def _elsewhere(place: object) -> str | None:
    """The URL under which another process finds the same; None where there is none."""
    return place if isinstance(place, str) and not place.startswith("memory:") else None


def _report(
    stepper: Stepper,
    recorder: Recorder,
    placed: Placement,
    replayer: Replayer,
    *,
    created: bool,
    mode: str,
    loss: str,
    began: float,
) -> ColdStart:
    return ColdStart(
        stepper.name,
        created,
        placed.command_id,
        replayer.commands,
        mode,
        recorder.head.command_id,
        dict(replayer.checked),
        tuple((step.command_id, step.reason) for step in placed.steps_down),
        _not_checked(replayer),
        loss,
        time.perf_counter() - began,
    )


def _require_durable(store: JournalStore, durable: bool, *, consent: bool) -> None:
    if durable and not store.durable and not consent:
        raise UsageError(
            f"{store.location} does not survive a power cut",
            hint="use a durable store, or say durable=False if that is what you want",
        )


def _foreign_loss(catalog: Catalog, engine: str, store: JournalStore, accept_loss: bool) -> str:
    """Refuse to create a durable journal where images of the same engine and stream lie: its disk may not be mounted."""
    found = catalog.foreign_evidence(engine) if store.durable else None
    if found is None:
        return ""
    loss = f"a new journal was created beside image {found.name}"
    if not accept_loss:
        raise EvidenceAhead(
            f"{store.location} holds no journal, but {catalog.store.location} holds images of {engine}, the newest at "
            f"command {found.command_id}: the journal is not where it was",
            position=found.command_id,
            hint="mount or restore the journal; or begin anew: recovery run --accept-loss",
        )
    return loss


def _own_loss(catalog: Catalog, journal: Journal, recorder: Recorder, epochs: list[Epoch]) -> str:
    """What proves that the journal lost its end, in words; empty where nothing does."""
    lost = catalog.accept_loss(journal, journal_id=recorder.identity.journal_id)
    if lost:
        return f"images up to command {max(step.command_id for step in lost)} lie beyond the journal's end"
    if epochs and epochs[-1].head > recorder.head.command_id:
        return f"epoch {epochs[-1].number} began after command {epochs[-1].head}, beyond the journal's end"
    return ""


def require_engine_name(name: str, identity: JournalIdentity) -> None:
    """Raise EngineMismatch unless a journal is of the engine of this name."""
    if identity.engine != name:
        raise EngineMismatch(
            f"the journal is of engine {identity.engine!r}, not {name!r}", hint="check --engine and --journal"
        )


def _require_same_state(stepper: Stepper, recorder: Recorder, epochs: list[Epoch]) -> None:
    if epochs and recorder.head.command_id and epochs[-1].state_version != stepper.state_version:
        raise EngineMismatch(
            f"the journal's state has version {epochs[-1].state_version}, this engine's {stepper.state_version}",
            hint="run the engine's former code, or begin a new journal; state upgrades come in a later release",
        )


def _replayed(
    stepper: Stepper,
    catalog: Catalog,
    journal: Journal,
    head: Head,
    epochs: list[Epoch],
    revision: str,
    mode: str,
    tell: Teller,
) -> tuple[Placement, Replayer]:
    placed = place(stepper, catalog, journal, head.command_id)
    kill_point("cold_start.loaded")
    replayer = Replayer(stepper, epochs, revision=revision)
    entries = journal.read(placed.command_id, head.command_id)
    with decimal.localcontext(pinned_decimals()):
        divergences = replayer.execute(entries) if mode == "execute" else replayer.redo(entries)
        for divergence in divergences:
            error = _refusal(divergence)
            tell("diverged", error)
            raise error
    kill_point("cold_start.replayed")
    return placed, replayer


def _refusal(divergence: Divergence) -> DivergenceError:
    from recovery.explaining.explanation import from_record

    divergence = from_record(divergence)
    error = DivergenceError(
        f"the engine does not reproduce its journal, so it was not started\n{divergence}",
        hint='start the former code, or restore the recorded rows with replay="redo" after: recovery replay --verify',
    )
    error.evidence = divergence
    return error


def _epoch(number: int, stepper: Stepper, revision: str, head: int, loss: str) -> Epoch:
    return Epoch(
        number=number,
        engine=stepper.name,
        state_version=stepper.state_version,
        logic_version=stepper.logic_version,
        schema=stepper.fingerprint,
        code_revision=revision,
        python=platform.python_version(),
        library=VERSION,
        host=platform.node(),
        pid=os.getpid(),
        decimal_precision=PRECISION,
        opened_at_ms=time.time_ns() // 1_000_000,
        head=head,
        accepted_loss=loss or None,
    )


def _not_checked(replayer: Replayer) -> tuple[str, ...]:
    redone = replayer.redone
    if not redone:
        return ()
    return (
        f"{redone.count} commands from {redone.first} to {redone.last} ran under older rules and were redone from their rows",
    )
