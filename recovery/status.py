"""The document of ``recovery status --json``: where a journal and its images stand, from outside or from inside.

The estimated recovery time is the load time of the newest image, at ``LOAD_BYTES_PER_SECOND``, and the tail behind it at the
speed at which its commands first ran.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from journal.cursors import CursorStore
from journal.errors import RecoveryError, StoreUnavailable
from journal.journal import Journal
from journal.projections import progress_of
from recovery.cold_start import Opened
from recovery.imaging import Imager
from recovery.meter import Meter
from recovery.outboxes import Outboxes, lags
from recovery.shipping import outside_status
from snapshots.catalog import Candidate, Catalog

SCHEMA_VERSION: Final = 1
LOAD_BYTES_PER_SECOND: Final = 20 * 2**20
SAMPLE: Final = 200


def journal_status(
    journal: Journal, catalog: Catalog, cursors: CursorStore | None = None, *, ship_to: str = ""
) -> dict[str, Any]:
    """The status of a journal, its images and where it is shipped to, from outside; a running engine is not disturbed."""
    identity = journal.identity
    problems: list[str] = []
    newest = _newest(
        journal, catalog, lambda step: problems.append(f"image {step.command_id}: {step.reason}"), problems
    )
    image = 0 if newest is None else newest.header.command_id
    # After the images: a running engine may have gone on, and made one, since the head was looked at.
    head = journal.head()
    epochs = journal.epochs()
    if not journal.store.durable:
        problems.append(f"{journal.store.location} does not survive a power cut")
    outboxes = lags(journal, cursors, problems)
    shipping = {"shipping": outside_status(journal, ship_to, problems)} if ship_to else {}
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "engine": identity.engine,
        "stream": journal.stream,
        "journal_id": str(identity.journal_id),
        "healthy": not problems,
        "problems": problems,
        "head": {"command_id": head.command_id, "chain": head.chain.hex(), "received_at_ms": head.received_at_ms},
        "snapshot": {"command_id": image},
        "tail": head.command_id - image,
        "estimated_recovery_seconds": round(_load_seconds(catalog, newest) + _tail_seconds(journal, image), 3),
        "outboxes": outboxes,
        "journal": {
            "location": journal.store.location,
            "durable": journal.store.durable,
            "dedup_window_s": identity.dedup_window_s,
        },
        "snapshots": {"location": catalog.store.location, "durable": catalog.store.durable},
        "projections": [
            {
                "name": name,
                "version": one.version,
                "command_id": one.command_id,
                "behind": head.command_id - one.command_id,
            }
            for name, one in progress_of(journal.store).items()
            if one.stream == journal.stream
        ],
        "durability": journal.store.settings(),
        **shipping,
    }
    if epochs:
        document["epoch"] = {name: part for name, part in epochs[-1]._asdict().items() if name != "schema"}
    return document


def runtime_status(
    opened: Opened, imager: Imager, outboxes: Outboxes, meter: Meter, *, waiting: int, failure: RecoveryError | None
) -> dict[str, Any]:
    """The same, from inside a running engine, with what only it knows."""
    document = journal_status(opened.journal, opened.catalog, opened.cursors)
    outboxes.status(document["outboxes"], document["problems"])
    shipping = opened.shipping.status(document["problems"])
    if shipping is not None:
        document["shipping"] = shipping
    if failure is not None:
        document["problems"].append(str(failure))
    if imager.last_error:
        document["problems"].append(f"the last image was not made: {imager.last_error}")
    return (
        document
        | meter.to_dict()
        | {
            "healthy": not document["problems"],
            "waiting": waiting,
            "image_in_progress": imager.busy,
            "cold_start": opened.report.to_dict(),
        }
    )


def _newest(journal: Journal, catalog: Catalog, report: Callable[[Any], None], problems: list[str]) -> Candidate | None:
    identity = journal.identity
    try:
        journal.require_end()
        candidates = catalog.newest(journal, journal_id=identity.journal_id, engine=identity.engine, report=report)
        return next(candidates, None)
    except RecoveryError as error:
        problems.append(str(error))
        return None


def _load_seconds(catalog: Catalog, newest: Candidate | None) -> float:
    try:
        return 0.0 if newest is None else catalog.store.size(newest.name) / LOAD_BYTES_PER_SECOND
    except StoreUnavailable:  # pruned since it was found
        return 0.0


def _tail_seconds(journal: Journal, image: int) -> float:
    head = journal.head().command_id
    sample = journal.store.page(journal.stream, max(image, head - SAMPLE), head)
    if not sample:
        return 0.0
    return (head - image) * sum(entry.duration_ns for entry in sample) / len(sample) / 1e9
