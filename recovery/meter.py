"""Meter: counts what a runtime does, for its status, and tells its observer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from journal.errors import DivergenceError, RecoveryError, RequestConflict
from journal.recorder import Recorder
from journal.records import Entry
from recovery.cold_start import Opened
from recovery.observer import Batch
from recovery.stepper import Asked
from recovery.submissions import Commands, Recorded


class Meter:
    """Written on the runtime's thread; ``to_dict`` may be read on any."""

    def __init__(self, opened: Opened) -> None:
        self.tell = opened.tell
        self.tell("cold_started", opened.report)
        self._epoch = opened.recorder.epoch
        self.tell("epoch_begun", self._epoch, opened.report.head)
        self._began = time.monotonic()
        self._last: Batch | None = None
        self._batches = self._commands = self._bytes = self._largest = 0
        self._seconds = self._slowest = 0.0
        self._rejected = self._duplicates = self._conflicts = self._failed = self._refused = 0

    def commit(self, recorder: Recorder) -> None:
        """Make durable what is sealed, and count it.  Raises what that raises."""
        began, head = time.perf_counter(), recorder.head.command_id
        entries = recorder.commit()
        if recorder.epoch != self._epoch:  # an unknown outcome was made known by a new one
            self._epoch = recorder.epoch
            self.tell("epoch_begun", self._epoch, head)
        self._committed(entries, time.perf_counter() - began)

    def _committed(self, entries: Sequence[Entry], seconds: float) -> None:
        size = sum(entry.size for entry in entries)
        now_ms = time.time_ns() // 1_000_000
        batch = Batch(entries[0].command_id, entries[-1].command_id, len(entries), size, seconds, now_ms)
        self._batches += 1
        self._commands += batch.commands
        self._bytes += size
        self._seconds += seconds
        self._largest = max(self._largest, batch.commands)
        self._slowest = max(self._slowest, seconds)
        self._rejected += sum(entry.rejected for entry in entries)
        self._last = batch
        if self.tell.observer is not None:
            self.tell("committed", batch)
            for entry in entries:
                self.tell("applied", entry.type, entry.duration_ns / 1e9, entry.rejected)

    def outcomes(self, unit: Commands) -> None:
        """What became of commands, as far as no batch says it: answered from the record, in conflict, or failed."""
        for asked, outcome in zip(unit.asked, unit.outcomes, strict=True):
            if isinstance(outcome, Recorded):
                if outcome.duplicate:
                    self._duplicates += 1
                    self.tell("duplicate", outcome.entry.command_id)
            elif isinstance(outcome, RequestConflict):
                self._conflicts += 1
                self.tell("conflict", outcome)
            else:
                self._failed += 1
                self.tell("failed", asked.type if isinstance(asked, Asked) else "", outcome)

    def refused(self, error: Exception) -> None:
        """The store refused a batch, and goes on."""
        self._refused += 1
        self.tell("refused", error)

    def stopped(self, error: RecoveryError) -> None:
        """The runtime stopped."""
        if isinstance(error, DivergenceError):
            self.tell("diverged", error)
        self.tell("stopped", error)

    def to_dict(self) -> dict[str, Any]:
        """The counts since the runtime was opened, as JSON can hold them."""
        count = max(self._batches, 1)
        document: dict[str, Any] = {
            "uptime_seconds": round(time.monotonic() - self._began, 3),
            "outcomes": {
                "recorded": self._commands,
                "rejected": self._rejected,
                "duplicates": self._duplicates,
                "conflicts": self._conflicts,
                "failed": self._failed,
            },
            "batches": {
                "count": self._batches,
                "refused": self._refused,
                "commands_mean": round(self._commands / count, 3),
                "commands_max": self._largest,
                "bytes": self._bytes,
                "seconds_mean": round(self._seconds / count, 6),
                "seconds_max": round(self._slowest, 6),
            },
        }
        if self._last is not None:
            document["last_commit"] = {**self._last._asdict(), "seconds": round(self._last.seconds, 6)}
        return document
