"""Between an engine and its images: place an engine at a recorded command, and take an image of a live one."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import NamedTuple

from journal.errors import BrokenChain, DivergenceError, EngineMismatch, NothingVerified, UsageError
from journal.journal import Journal
from journal.records import Head, JournalIdentity
from recovery.loading import engine_factory
from recovery.replayer import Replayer
from recovery.stepper import CaptureStepper, Stepper, TableStepper, make_stepper
from snapshots.catalog import Catalog, StepDown
from snapshots.image import ImageHeader, ImageReader, write_image, write_value_image
from snapshots.snapshotter import make_image
from snapshots.store import SnapshotStore
from snapshots.urls import open_snapshot_store


class Placement(NamedTuple):
    """Where an engine was placed: the command, the image it came from (empty for the beginning), and what was passed over."""

    command_id: int
    image: str
    steps_down: tuple[StepDown, ...]


def open_catalog(snapshots: str | SnapshotStore | None, stream: str) -> Catalog | None:
    """The catalog of a URL or store; None for None."""
    if snapshots is None:
        return None
    return Catalog(open_snapshot_store(snapshots) if isinstance(snapshots, str) else snapshots, stream)


def images_beside(journal: object, snapshots: str | SnapshotStore | None) -> str | SnapshotStore | None:
    """Where the images of a journal are, when it is not said: an exported history carries its own."""
    if snapshots is None and isinstance(journal, str) and journal.startswith("file:"):
        return journal
    return snapshots


def place(
    stepper: Stepper, catalog: Catalog | None, journal: Journal, at_or_before: int, *, exactly: bool = False
) -> Placement:
    """Load the newest verified image at or before a command, or begin at 0; with ``exactly``, the image at that command.

    Every image passed over is reported.  UsageError where ``exactly`` finds none; EvidenceAhead where an image lies beyond
    the journal's head.
    """
    stepper.reset()
    steps_down: list[StepDown] = []
    loaded = None
    if catalog is not None:
        identity = journal.identity
        loaded = catalog.load(
            journal,
            lambda reader: load_image(stepper, reader),
            journal_id=identity.journal_id,
            engine=identity.engine,
            at_or_before=at_or_before,
            report=steps_down.append,
        )
    command_id = 0 if loaded is None else loaded.header.command_id
    if exactly and command_id != at_or_before:
        raise UsageError(
            f"there is no verified image at command {at_or_before}",
            found=f"the nearest before it is at {command_id}" if command_id else "none before it",
            hint="run: recovery snapshot list",
        )
    if loaded is None:
        stepper.reset()
        return Placement(0, "", tuple(steps_down))
    return Placement(command_id, loaded.name, tuple(steps_down))


def load_image(stepper: Stepper, reader: ImageReader) -> None:
    """Become the state of an image, read to its end.  EngineMismatch, CorruptionError."""
    header = reader.header
    if header.kind != stepper.kind or header.schema != stepper.fingerprint:
        raise EngineMismatch(
            f"the image holds other tables or rows than {stepper.name} of state version {stepper.state_version} declares",
            position=header.command_id,
            hint="a changed shape of the state needs a new state_version and a new journal",
        )
    # Bulk decoding makes objects by the million and no garbage: three times faster with the collector off, then frozen.
    collecting = gc.isenabled()
    gc.disable()
    try:
        if isinstance(stepper, TableStepper):
            stepper.load(reader.tables(), header.post_digest)
        elif isinstance(stepper, CaptureStepper):
            stepper.load_value(header.command_id, reader.value_bytes())
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def capture_image(
    stepper: Stepper, catalog: Catalog, journal: Journal, identity: JournalIdentity, *, at: Head | None = None
) -> ImageHeader:
    """Publish an image of a live engine, which stands at the journal's head, or ``at`` a command of it.

    Every row is read and hashed anew; DivergenceError where they are not the recorded state.
    """
    head = journal.head() if at is None else at
    if head.command_id == 0:
        raise NothingVerified("there is nothing to take an image of: the journal is empty")
    captured = stepper.capture_bytes() if isinstance(stepper, CaptureStepper) else b""
    post = stepper.digest_of(captured) if isinstance(stepper, CaptureStepper) else head.post_digest_bytes
    header = ImageHeader(
        journal_id=identity.journal_id,
        stream=identity.stream,
        engine=identity.engine,
        state_version=stepper.state_version,
        logic_version=stepper.logic_version,
        schema=stepper.fingerprint,
        command_id=head.command_id,
        chain=head.chain,
        received_at_ms=head.received_at_ms,
        post_digest_bytes=post or b"",
        kind=stepper.kind,
        base="capture",
        created_at_ms=time.time_ns() // 1_000_000,
    )
    if isinstance(stepper, TableStepper):
        chunks = write_image(header, stepper.state.rows())
    else:
        chunks = write_value_image(header, captured)
    try:
        catalog.publish(journal, header, chunks)
    except BrokenChain as error:
        raise DivergenceError(
            f"the state of {identity.engine} is not the recorded one, so no image was made of it: {error.message}",
            position=head.command_id,
            expected=error.expected,
            found=error.found,
            hint="a running engine is to be opened again; then run: recovery replay",
        ) from error
    return header


def redo_image(
    journal: Journal, catalog: Catalog, *, engine: str, app_dir: str, report: Callable[[StepDown], None]
) -> ImageHeader:
    """Publish an image of the journal's head: from recorded rows, or by executing an engine that records none."""
    identity, head = journal.identity, journal.head().command_id
    if head == 0:
        raise NothingVerified("there is nothing to take an image of: the journal is empty")
    if identity.changes == "rows":
        epoch = journal.epochs()[-1]
        return make_image(
            journal,
            catalog,
            identity=identity,
            state_version=epoch.state_version,
            logic_version=epoch.logic_version,
            schema=epoch.schema,
            command_id=head,
            created_at_ms=time.time_ns() // 1_000_000,
            report=report,
        )
    if not engine:
        raise UsageError(
            f"the journal of {identity.engine} records no rows, so an image of it takes the engine",
            hint="say --engine MODULE:ATTR",
        )
    stepper = make_stepper(engine_factory(engine, app_dir=app_dir), identity.seed, identity.digest_every)
    placed = place(stepper, catalog, journal, head)
    Replayer(stepper, journal.epochs()).rebuild(journal.read(placed.command_id, head))
    return capture_image(stepper, catalog, journal, identity)
