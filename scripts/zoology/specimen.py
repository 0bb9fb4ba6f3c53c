"""Specimen: one engine with one bug, under what conditions it shows, and what must be said of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T", bound=type)

FEED = "feed"
EXCHANGE = "exchange"
LONG = "long"


@dataclass(frozen=True)
class World:
    """Where a process runs: variables on top of the zoo's own, files in its working folder, its clock against ours in hours."""

    variables: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    clock_hours: float | None = None


@dataclass(frozen=True)
class Act:
    """What the host of the recorded run does before each of some commands: ``call:METHOD`` of the engine, as a query;
    ``fail``: a command that raises half way; ``collect``: garbage; ``decimals``: another default context."""

    what: str
    before: Sequence[int]


@dataclass(frozen=True)
class Specimen:
    """One bug.  ``expected`` are the causes, and the factors ("" for none), any of which is right."""

    name: str
    bug: str
    engine: str
    flow: str
    causes: tuple[str, ...]
    factors: tuple[str, ...]
    recorded: World = World()
    replayed: World = World()
    recorded_engine: str = ""
    acts: tuple[Act, ...] = ()
    restarts: tuple[int, ...] = ()
    """Before these commands the recorded engine was restarted, from an image, in a new process."""
    images: tuple[int, ...] = ()
    digest_every: int = 1
    """For engines without tables."""
    after: int = 0
    """Where the replay begins."""
    replay: tuple[str, ...] = ()
    """More of the command line."""
    spoilt: str = ""
    """How the record is spoilt behind the framework (zoology/spoiling.py); ``spoilt_at`` is the command."""
    spoilt_at: int = 0

    @property
    def keep_going(self) -> bool:
        """Whether every independent divergence is asked for."""
        return "--keep-going" in self.replay


SPECIMENS: dict[str, Specimen] = {}


def specimen(
    bug: str, *, flow: str, cause: str | tuple[str, ...], factor: str | tuple[str, ...] = "", **more: Any
) -> Callable[[T], T]:
    """Put an engine class into the zoo.  Its name is the class's, in words."""

    def add(engine: T) -> T:
        name = "".join(" " + letter.lower() if letter.isupper() else letter for letter in engine.__qualname__).strip()
        causes = (cause,) if isinstance(cause, str) else cause
        factors = (factor,) if isinstance(factor, str) else factor
        SPECIMENS[name] = Specimen(
            name, bug, f"{engine.__module__}:{engine.__qualname__}", flow, causes, factors, **more
        )
        return engine

    return add


CLEAN: dict[str, tuple[str, str, str]] = {}
"""Name to (what is careful about it, engine, flow)."""


def clean(why: str, *, flow: str) -> Callable[[T], T]:
    """Put a clean engine class into the zoo."""

    def add(engine: T) -> T:
        name = "".join(" " + letter.lower() if letter.isupper() else letter for letter in engine.__qualname__).strip()
        CLEAN[name] = (why, f"{engine.__module__}:{engine.__qualname__}", flow)
        return engine

    return add
