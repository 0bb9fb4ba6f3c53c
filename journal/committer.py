"""Committer: group commit.  One thread takes what waits, at most so much at a time, and hands it to one function.

While a batch is being made durable the next one gathers, so the batch grows with the load and a lone command waits for no
one.  ``submit`` never blocks; ``put`` waits for room.  Work is a list of units; a unit counts as many commands as it holds.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from journal.errors import Overloaded, UnavailableError


class Unit(Protocol):
    """Something to be worked on."""

    @property
    def size(self) -> int:
        """How many commands it holds; 0 for what is no command."""


U = TypeVar("U", bound=Unit)


class Committer(Generic[U]):
    """Runs ``process(units)`` on a thread of its own until closed.  ``process`` must not raise."""

    def __init__(self, process: Callable[[list[U]], None], *, name: str, queue_max: int, batch_max: int) -> None:
        self._process = process
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._units: deque[U] = deque()
        self._waiting = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many commands wait."""
        return self._waiting

    @property
    def on_thread(self) -> bool:
        """Whether the caller is the working thread."""
        return threading.current_thread() is self._thread

    def submit(self, unit: U) -> None:
        """Accept a unit, or raise Overloaded at once."""
        with self._changed:
            if not self._has_room(unit):
                raise Overloaded(
                    f"{self._waiting} commands wait and queue_max is {self._queue_max}; nothing was accepted",
                    hint="send the command again in a moment",
                )
            self._accept(unit)

    def put(self, unit: U) -> None:
        """Accept a unit as soon as there is room."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._has_room(unit))
            self._accept(unit)

    def _has_room(self, unit: U) -> bool:
        return not self._waiting or self._waiting + unit.size <= self._queue_max

    def _accept(self, unit: U) -> None:
        if self._closing:
            raise UnavailableError("the runtime is closed", hint="open a new one")
        self._units.append(unit)
        self._waiting += unit.size
        self._changed.notify_all()

    def close(self, timeout_s: float | None = None) -> bool:
        """Take nothing more, work off what waits, and end the thread.  False where that took longer than the timeout."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if not self.on_thread:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._units or self._closing)
                if not self._units:
                    return
                batch = self._take()
                self._changed.notify_all()
            self._process(batch)

    def _take(self) -> list[U]:
        batch: list[U] = []
        taken = 0
        while self._units and (not batch or taken + self._units[0].size <= self._batch_max):
            unit = self._units.popleft()
            taken += unit.size
            batch.append(unit)
        self._waiting -= taken
        return batch
