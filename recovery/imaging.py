"""Imager: has an image made whenever one is due, beside the engine where that can be, else on its thread.

Beside: a short-lived process (recovery/image_process.py) redoes what is committed.  That needs a journal and a place that
another process can open, and recorded rows; else the image is captured from the live engine, between two batches.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from typing import Any, Final, NamedTuple

from journal.errors import DivergenceError, RecoveryError
from journal.journal import Journal
from journal.records import Head, JournalIdentity
from recovery.images import capture_image
from recovery.observer import Teller
from recovery.shipping import Shipping
from recovery.stepper import Stepper
from snapshots.catalog import Catalog
from snapshots.retention import Retention
from snapshots.schedule import Moment, Schedule, is_due

TIMEOUT_S: Final = 3600

logger = logging.getLogger("recovery")


class ImagingPlace(NamedTuple):
    """What an image is made of and where it goes.  The URLs are None where no other process can open them."""

    stepper: Stepper
    catalog: Catalog
    journal: Journal
    identity: JournalIdentity
    journal_url: str | None
    snapshots_url: str | None

    @property
    def beside(self) -> bool:
        """Whether another process can make images."""
        urls = self.journal_url is not None and self.snapshots_url is not None
        return urls and self.stepper.kind == "tables" and self.identity.changes == "rows"


class Imager:
    """Asked after each batch, on the runtime's thread."""

    def __init__(
        self,
        place: ImagingPlace,
        *,
        every: int,
        seconds: float | None,
        keep: int,
        newest: int,
        tell: Teller,
        shipping: Shipping,
    ) -> None:
        self._place = place
        self._shipping = shipping
        self._tell = tell
        self._schedule = Schedule(every or None, seconds)
        self._keep = keep
        self._newest = newest
        self._last = Moment(newest, time.monotonic())
        self._thread: threading.Thread | None = None
        self.last_error = ""

    @property
    def newest(self) -> int:
        """The command of the newest image made or loaded; 0 for none."""
        return self._newest

    @property
    def busy(self) -> bool:
        """Whether an image is being made beside the engine."""
        return self._thread is not None and self._thread.is_alive()

    def behind(self, head: Head) -> bool:
        """Whether the head is past the newest image."""
        return head.command_id > self._newest

    def tick(self, head: Head) -> None:
        """Have an image made if one is due and none is being made.  DivergenceError: the engine is in no recorded state."""
        # Never ahead: beside the engine of what is shipped, and a capture waits until it is.
        reached = self._shipping.published(head) if self._place.beside else head.command_id
        now = Moment(reached, time.monotonic())
        if not is_due(self._schedule, last=self._last, now=now) or self.busy:
            return
        self._last = now
        if not self._place.beside:
            self._attempt_capture()
            return
        self._thread = threading.Thread(target=self._run_child, args=(reached,), name="recovery-image")
        self._thread.start()

    def capture(self) -> int:
        """Take an image of the live engine now; the command it stands at."""
        place = self._place
        self._shipping.require_published(place.journal.head())
        header = capture_image(place.stepper, place.catalog, place.journal, place.identity)
        self._newest = header.command_id
        self._last = Moment(header.command_id, time.monotonic())
        place.catalog.prune(
            place.journal,
            Retention(self._keep),
            journal_id=place.identity.journal_id,
            now_ms=time.time_ns() // 1_000_000,
            report=lambda step: logger.warning("image %s is not used: %s", step.command_id, step.reason),
        )
        self._tell("image_made", header.command_id)
        return header.command_id

    def close(self) -> None:
        """Wait for an image under way."""
        if self._thread is not None:
            self._thread.join()

    def _attempt_capture(self) -> None:
        try:
            self.capture()
            self.last_error = ""
        except DivergenceError:
            raise
        except RecoveryError as error:
            # The journal holds everything: without an image the next cold start only takes longer.
            self._failed(error)

    def _run_child(self, command_id: int) -> None:
        try:
            child = subprocess.run(
                [sys.executable, "-m", "recovery.image_process"],
                input=json.dumps(self._task(command_id)),
                capture_output=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            said: dict[str, Any] = json.loads(child.stdout) if child.stdout else {"error": child.stderr.strip()[-500:]}
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            said = {"error": f"{type(error).__name__}: {error}"}
        if "command_id" in said:
            self._newest = max(self._newest, said["command_id"])
            self.last_error = ""
            self._tell("image_made", said["command_id"])
        else:
            self._failed(said.get("error") or "the process ended without a word")

    def _failed(self, error: object) -> None:
        self.last_error = str(error)
        self._tell("image_failed", self.last_error)
        logger.warning("no image was made: %s", error)

    def _task(self, command_id: int) -> dict[str, Any]:
        place = self._place
        return {
            "journal": place.journal_url,
            "stream": place.identity.stream,
            "snapshots": place.snapshots_url,
            "command_id": command_id,
            "keep": self._keep,
            "state_version": place.stepper.state_version,
            "logic_version": place.stepper.logic_version,
            "schema": place.stepper.fingerprint.hex(),
        }
