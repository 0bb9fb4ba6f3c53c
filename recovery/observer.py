"""Observer: what a runtime tells as it works, for metrics and traces; and Teller, which tells it.

Pass an object with any of ``Observer``'s methods to ``Runtime.open(observer=…)``.  They are called on the runtime's own thread,
between one batch and the next, so what they take is taken from the commands' time; those of images and outboxes are called on
the threads that make and deliver them, those of opening on the caller's.  What a hook raises is logged, once for each hook, and
harms nothing.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from journal.delivery import Delivered

if TYPE_CHECKING:
    from recovery.cold_start import ColdStart

logger = logging.getLogger("recovery")

__all__ = ["Batch", "Delivered", "Observer", "Teller"]


class Batch(NamedTuple):
    """One durable append: commands ``first`` to ``last``; their bytes; how long the append took; when it was done."""

    first: int
    last: int
    commands: int
    bytes: int
    seconds: float
    at_ms: int


class Observer:
    """Every hook, doing nothing.  Derive from it, or write an object that has only the hooks you want."""

    def cold_started(self, report: ColdStart) -> None:
        """The engine stands at its journal's head."""

    def epoch_begun(self, number: int, head: int) -> None:
        """This process writes from now on, after command ``head``; again where it took a new epoch to know an outcome."""

    def diverged(self, error: Exception) -> None:
        """The engine went another way than its journal, at the cold start or later; ``error.evidence`` has the finding."""

    def committed(self, batch: Batch) -> None:
        """A batch is durable; its receipts come after this."""

    def applied(self, command_type: str, seconds: float, rejected: bool) -> None:
        """One command of a durable batch: how long ``apply`` took, and whether it rejected."""

    def duplicate(self, command_id: int) -> None:
        """A request was answered from the record."""

    def conflict(self, error: Exception) -> None:
        """A request id was used again with other data."""

    def failed(self, command_type: str, error: Exception) -> None:
        """A command was refused, or ``apply`` raised; nothing of it is recorded."""

    def refused(self, error: Exception) -> None:
        """The store refused a batch; it was taken back, and the runtime goes on."""

    def queued(self, waiting: int) -> None:
        """How many commands wait, now that a batch was taken."""

    def image_made(self, command_id: int) -> None:
        """An image is there."""

    def image_failed(self, error: str) -> None:
        """An image was due and was not made."""

    def delivered(self, delivered: Delivered) -> None:
        """An outbox's consumer accepted messages, and its cursor moved."""

    def outbox_failed(self, name: str, error: Exception) -> None:
        """An outbox stopped."""

    def stopped(self, error: Exception) -> None:
        """The runtime stopped for good: its writer failed or was fenced, or an outcome is unknown."""


class Teller:
    """Calls a hook where there is one.  Cheap where there is no observer."""

    def __init__(self, observer: object | None) -> None:
        self.observer = observer
        self._logged: set[str] = set()

    def __call__(self, hook: str, *values: object) -> None:
        """Tell the observer, if it wants to know."""
        if self.observer is None:
            return
        try:
            call = getattr(self.observer, hook, None)
            if call is not None:
                call(*values)
        except (Exception, SystemExit):
            if hook not in self._logged:
                self._logged.add(hook)
                logger.exception("the observer's %s failed; it is called again, and this is logged once", hook)
