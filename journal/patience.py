"""Patience: try again after a while, longer each time, a bounded number of times; and stop waiting when told to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from journal.errors import RecoveryError, UsageError
from journal.redaction import redacted

T = TypeVar("T")

ATTEMPTS_MAX: Final = 10
BACKOFF_MAX_S: Final = 30.0
_BACKOFF_MIN_S: Final = 0.1
_REASON_CHARS: Final = 500

logger = logging.getLogger("recovery")


class Stopped(Exception):
    """Told to stop, while waiting."""


class Patience:
    """The waiting of one thread, which others may end.  ``what`` is for messages."""

    def __init__(self, what: str, *, attempts_max: int, backoff_max_s: float) -> None:
        self.attempts_max = attempts_max
        self.retrying = ""
        """What the last attempt met, while another one is due; else empty."""
        self.stopping = False
        self._what = what
        self._backoff_max_s = backoff_max_s
        self._woken = False
        # Reentrant: a signal's handler may stop the very thread that waits.
        self._changed = threading.Condition()

    def wake(self) -> None:
        """End a ``pause``, this one or the next."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Raise Stopped from every wait, this one and all others."""
        with self._changed:
            self.stopping = True
            self._changed.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait, or until woken."""
        with self._changed:
            self._changed.wait_for(lambda: self.stopping or self._woken, seconds)
            self._woken = False
            self._refuse_to_go_on()

    def retried(self, call: Callable[[], T], kind: type[Exception]) -> T:
        """``call()``, again after a while where it raises ``kind``; after ``attempts_max`` times, what it raised."""
        for attempt in range(1, self.attempts_max):
            try:
                done = call()
            except UsageError:  # which no patience mends
                raise
            except kind as error:
                self.retrying = reason(error)
                logger.warning("%s tries again (%d): %s", self._what, attempt, self.retrying)
            else:
                self.retrying = ""
                return done
            with self._changed:
                seconds = min(_BACKOFF_MIN_S * 2 ** (attempt - 1), self._backoff_max_s)
                self._changed.wait_for(lambda: self.stopping, seconds)
                self._refuse_to_go_on()
        done = call()
        self.retrying = ""
        return done

    def _refuse_to_go_on(self) -> None:
        if self.stopping:
            raise Stopped


def reason(error: BaseException) -> str:
    """An error in a line of bearable length, without a password; its type too where it is none of ours."""
    text = str(error) if isinstance(error, RecoveryError) else f"{type(error).__name__}: {error}"
    return redacted(text)[:_REASON_CHARS]
