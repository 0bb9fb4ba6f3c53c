"""What callers hand to the runtime and wait for: commands, queries, snapshots; encoded on their thread, answered on its own."""

from __future__ import annotations

import concurrent.futures
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from journal import values
from journal.errors import RecoveryError, UsageError
from journal.records import Command, Entry, Receipt
from recovery.stepper import Asked

T = TypeVar("T")

UNSTAMPED: Final = -1


class UncancellableFuture(concurrent.futures.Future[T]):
    """A future that cannot be cancelled: what was accepted will be recorded, whoever still listens."""

    def cancel(self) -> bool:
        """Refuse, always."""
        return False


class Recorded:
    """The outcome of a command that is, or is about to be, in the journal."""

    __slots__ = ("duplicate", "entry")

    def __init__(self, entry: Entry, duplicate: bool) -> None:
        self.entry = entry
        self.duplicate = duplicate


Outcome = Recorded | Exception


class Commands:
    """Commands submitted together, and what became of each."""

    def __init__(self, asked: list[Asked | Exception]) -> None:
        self.asked = asked
        self.outcomes: list[Outcome] = []
        self.future: UncancellableFuture[list[Outcome]] = UncancellableFuture()

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.asked)

    def refuse(self, error: Exception) -> None:
        """Let this be the outcome of every command not refused before."""
        self.asked = [asked if isinstance(asked, Exception) else error for asked in self.asked]

    def deliver(self) -> None:
        """Give all outcomes to who waits."""
        self.future.set_result(self.outcomes)


class Single(Commands):
    """One command, whose future gives its receipt."""

    def __init__(self, asked: Asked) -> None:
        super().__init__([asked])
        self.receipt: UncancellableFuture[Receipt] = UncancellableFuture()

    def deliver(self) -> None:
        """Give the receipt, or the exception, to who waits."""
        outcome = receipt_of(self.outcomes[0])
        if isinstance(outcome, Exception):
            self.receipt.set_exception(outcome)
        else:
            self.receipt.set_result(outcome)


class Query:
    """A function to be run between commands."""

    size = 0

    def __init__(self, run: Callable[[Any], Any]) -> None:
        self.run = run
        self.future: UncancellableFuture[Any] = UncancellableFuture()
        self.ran = False
        self.result: Any = None
        self.error: Exception | None = None

    def deliver(self) -> None:
        """Give the result, or the exception, to who waits."""
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Snapshot(Query):
    """A query that makes an image, so what came before it must be durable first."""


def encoded(command: Command) -> Asked:
    """A command's encoding, made on the caller's thread.  ValueRefused names the path of what is not plain."""
    if not isinstance(command, Command):
        raise UsageError(f"{command!r} is a {type(command).__name__}, not a Command")
    # A time that is not given is stamped on the runtime's thread, in the order of the journal.
    given_ms = UNSTAMPED if command.received_at_ms is None else command.received_at_ms
    return Asked(command.request_key, command.type, command.entity_id, given_ms, values.encode(command.data))


def taken(source: Iterator[Command], count: int) -> tuple[list[Asked | Exception], Exception | None]:
    """The next commands, at most so many, and what taking another one raised."""
    chunk: list[Asked | Exception] = []
    try:
        for command in itertools.islice(source, count):
            chunk.append(encoded_or_error(command))
    except Exception as error:
        return chunk, error
    return chunk, None


def encoded_or_error(command: Command) -> Asked | Exception:
    """``encoded``, its refusal as the outcome."""
    try:
        return encoded(command)
    except RecoveryError as error:
        return error


def receipt_of(outcome: Outcome) -> Receipt | Exception:
    """What the caller gets: decoded from the record, or the exception."""
    if isinstance(outcome, Recorded):
        return Receipt.of(outcome.entry, duplicate=outcome.duplicate)
    return outcome
