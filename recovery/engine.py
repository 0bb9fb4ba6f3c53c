"""Engine: what a deterministic engine is to this framework, and what its ``apply`` is given.

An engine is any object with ``name``, ``apply(context, command)``, ``capture()`` and ``restore(value)``; most are a
``TableEngine`` (recovery/table_engine.py), which has the last two by itself.  ``apply`` answers with a plain value, or
raises ``Reject``; both are recorded.  Any other exception undoes the command, reaches its caller, and is not recorded.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import xxhash

from journal.errors import UsageError
from journal.framing import Event
from journal.records import Command, Reject, check_text

__all__ = ["Command", "Context", "Engine", "Event", "Reject", "command"]

F = TypeVar("F", bound=Callable[..., Any])


@runtime_checkable
class Engine(Protocol):
    """An engine without tables.

    Optional besides: ``digest() -> bytes`` (at most 64), else the captured value is hashed; ``state_version``,
    ``logic_version`` (both 1 by default) and ``replays_from`` (by default ``logic_version``); ``projected_events``, the types
    of events that a durable runtime must be given a projection for.
    """

    name: str

    def apply(self, context: Context, command: Command) -> Any:
        """Change the state by one command; a plain value, or Reject having changed nothing."""

    def capture(self) -> Any:
        """The whole state as a plain value."""

    def restore(self, value: Any) -> None:
        """Become the state that ``capture`` gave."""


class Context:
    """What ``apply`` may know besides the state and the command, the same on every replay."""

    __slots__ = ("_random", "_seed", "command_id", "events", "logic_version", "now_ms")

    command_id: int
    """The command's place in the journal, from 1."""
    now_ms: int
    """When the command was received, milliseconds since 1970 UTC; never goes back."""
    logic_version: int
    """The rules under which the command first ran: keep old rules with ``if context.logic_version < 3``."""

    def __init__(self, command_id: int, now_ms: int, logic_version: int, seed: int) -> None:
        self.command_id = command_id
        self.now_ms = now_ms
        self.logic_version = logic_version
        self.events: list[Event] = []
        self._seed = seed
        self._random: random.Random | None = None

    def emit(self, type: str, data: Any, *, key: str | None = None, sequence: int | None = None) -> None:
        """Say that something happened.  ``data`` is a plain value; ``key`` and ``sequence`` are for who consumes it."""
        # What is wrong with the event is the engine author's to hear here, with the line that emitted it.
        check_text(type, "an event's type")
        if not type:
            raise UsageError("an event's type is empty")
        if key is not None:
            check_text(key, "an event's key")
        if sequence is not None and (sequence.__class__ is not int or not -(2**63) <= sequence < 2**63):
            raise UsageError(f"an event's sequence is an int of 64 bits, not {sequence!r}")
        self.events.append(Event(type, data, key, sequence))

    @property
    def random(self) -> random.Random:
        """A generator of this command's own, from the journal's seed and the command id."""
        if self._random is None:
            material = b"%b%b" % (self._seed.to_bytes(16, "big"), self.command_id.to_bytes(8, "big"))
            self._random = random.Random(xxhash.xxh3_128_intdigest(material))
        return self._random

    def new_uuid(self) -> uuid.UUID:
        """A random UUID (version 4), the same on every replay."""
        return uuid.UUID(int=self.random.getrandbits(128), version=4)


def command(method: F) -> F:
    """Mark a method of a ``TableEngine`` as the handler of commands of its name.

    Its parameters after ``context`` are the fields of the command's data.  Missing, extra or wrongly typed fields are a
    UsageError before the method runs.
    """
    method.__dict__["_is_command"] = True
    return method
