"""The document of ``recovery status --json``: where a journal, its images and its engine stand."""

from __future__ import annotations

from typing import Any, Final

from journal.errors import RecoveryError
from recovery.cold_start import Opened
from recovery.imaging import Imager

SCHEMA_VERSION: Final = 1


def runtime_status(opened: Opened, imager: Imager, *, waiting: int, failure: RecoveryError | None) -> dict[str, Any]:
    """The status of a running engine, as seen from inside."""
    head = opened.recorder.head
    return {
        "schema_version": SCHEMA_VERSION,
        "engine": opened.stepper.name,
        "stream": opened.journal.stream,
        "healthy": failure is None,
        "failure": None if failure is None else str(failure),
        "head": {"command_id": head.command_id, "chain": head.chain.hex(), "received_at_ms": head.received_at_ms},
        "snapshot": {"command_id": imager.newest, "in_progress": imager.busy, "last_error": imager.last_error},
        "tail": head.command_id - imager.newest,
        "waiting": waiting,
        "epoch": opened.recorder.epoch,
        "journal": {"location": opened.recorder.store.location, "durable": opened.recorder.store.durable},
        "durability": opened.recorder.store.settings(),
        "cold_start": opened.report.to_dict(),
    }
