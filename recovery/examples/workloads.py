"""What the demo can feed an engine, and what it must come to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol

from recovery import Command, Receipt, UsageError
from recovery.examples import bitstamp
from recovery.examples.bitstamp import Bitstamp
from recovery.examples.generated import Generated
from recovery.examples.orderflow import OrderFlow

Answer = Literal["match", "mismatch", "none"]


class Workload(Protocol):
    """Commands for one of the example engines, the same in every run, request ids and times included."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def engine(self) -> str:
        """The engine it is for, as ``"module:attr"``."""

    @property
    def total(self) -> int:
        """How many commands there are."""

    @property
    def count(self) -> int:
        """How many of them are asked for: fewer, where the workload was cut."""

    def commands(self, after: int = 0) -> Iterator[Command]:
        """The commands from ``after + 1`` to ``count``, as numbered by an empty journal."""

    def right_answer(self, engine: Any, receipts: Iterable[Receipt]) -> Answer:
        """Compare what an engine came to with what is known from elsewhere; "none" where nothing is, as for a cut workload.

        ``engine``: as it is after all ``count`` commands.  ``receipts``: theirs, in order; not every workload looks at them.
        """


def default_workload() -> str:
    """The Bitstamp half hour where it is installed, else generated."""
    return "generated" if bitstamp.installed() is None else "bitstamp"


def open_workload(name: str | None = None, *, commands: int | None = None, seed: int = 1) -> Workload:
    """A workload by name: "bitstamp", "generated", or the path of an order-flow file.

    None: ``default_workload()``.  ``commands`` cuts it, or says how many to generate.
    ``seed`` is for the generated one.  UsageError where the file is missing or not what it should be.
    """
    if commands is not None and commands < 1:
        raise UsageError(f"{commands} commands are no workload; give at least 1")
    name = name or default_workload()
    if name == "bitstamp":
        return Bitstamp(commands=commands)
    if name == "generated":
        return Generated(seed, commands=commands)
    return OrderFlow(name, commands=commands)
