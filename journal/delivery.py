"""Delivery: a cursor while it is held, and the messages after it, on their way to a consumer.

The order is what matters: read what is durable, hand it to the consumer, and only when that returned, move the cursor.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from journal.cursors import Cursor, CursorHold, CursorStore
from journal.errors import DeliveryFailed, EvidenceAhead, RecoveryError, StoreUnavailable, UsageError
from journal.files import kill_point
from journal.journal import START, Journal
from journal.patience import Patience, Stopped, reason
from journal.records import Entry


@dataclass(frozen=True, slots=True)
class Message:
    """One event of one command, on its way out.  ``(command_id, index)`` names it; ``index`` counts from 0."""

    command_id: int
    index: int
    type: str
    data: Any
    key: str | None
    sequence: int | None
    received_at_ms: int
    request_id: uuid.UUID
    epoch: int


class Delivered(NamedTuple):
    """What one move of a cursor stands for: so many messages up to this command, and how many commands lie behind it."""

    name: str
    messages: int
    command_id: int
    commands_behind: int


class Consumer(NamedTuple):
    """Who takes messages: one at a time, or many.  Both return when they are accepted, and raise when they are not."""

    one: Callable[[Message], object] | None
    many: Callable[[list[Message]], object] | None


class Delivery:
    """What an outbox does while it holds its cursor.  Used by one thread."""

    def __init__(
        self,
        journal: Journal,
        hold: CursorHold,
        cursor: Cursor | None,
        *,
        name: str,
        after: int,
        consumer: Consumer,
        batch_max: int,
        patience: Patience,
        on_delivered: Callable[[Delivered], None] | None,
    ) -> None:
        self.delivered = 0
        self._journal = journal
        self._hold = hold
        self._stored = cursor
        self._cursor = new_cursor(journal, name, after) if cursor is None else cursor
        self._consumer = consumer
        self._batch_max = batch_max
        self._patience = patience
        self._on_delivered = on_delivered
        check_cursor(self._cursor, journal)
        if cursor is None:
            self.save()  # its lag is seen from now on

    def save(self, *, failure: str | None = None) -> None:
        """Store the cursor, unless it is stored as it is."""
        self._cursor = self._cursor._replace(failure=failure)
        if self._cursor != self._stored:
            self._hold.write(self._cursor.pack())
            self._stored = self._cursor

    def run_to(self, bound: int) -> int:
        """Deliver all messages up to a command, unless told to stop; how many commands were passed."""
        began = self._cursor.command_id
        if bound < began:
            require_reached(self._cursor, self._journal)
        while self._cursor.command_id < bound and not self._patience.stopping:
            self._next_batch(bound)
        return self._cursor.command_id - began

    def _next_batch(self, bound: int) -> None:
        entries, messages = self._patience.retried(lambda: self._read(bound), StoreUnavailable)
        if messages:
            self._deliver(entries, messages)
        self._move(entries, len(messages))
        if messages and self._on_delivered is not None:
            at = self._cursor.command_id
            self._on_delivered(Delivered(self._cursor.name, len(messages), at, max(0, bound - at)))

    def _read(self, bound: int) -> tuple[list[Entry], list[Message]]:
        """Whole commands after the cursor, as many as make a batch."""
        at = self._cursor.command_id
        entries: list[Entry] = []
        messages: list[Message] = []
        for entry in self._journal.read(at, min(bound, at + self._batch_max)):
            if entry.events_reduced and entries:
                break  # what comes before it is delivered first
            fresh = messages_of(entry)
            if messages and len(messages) + len(fresh) > self._batch_max:
                break
            entries.append(entry)
            messages += fresh
        return entries, messages

    def _deliver(self, entries: list[Entry], messages: list[Message]) -> None:
        kill_point("deliver.before")
        one, many = self._consumer
        if many is not None:
            self._attempt(many, messages, messages[0].command_id)
        elif one is not None:
            for message in messages:
                try:
                    self._attempt(one, message, message.command_id)
                except (DeliveryFailed, Stopped, UsageError):
                    self._move_before(message, entries, messages)
                    raise
        kill_point("deliver.after")

    def _attempt(self, deliver: Callable[[Any], object], what: object, command_id: int) -> None:
        try:
            self._patience.retried(lambda: deliver(what), Exception)
        except (Stopped, UsageError):
            raise
        except Exception as error:
            raise DeliveryFailed(
                f"the consumer of outbox {self._cursor.name!r} did not accept its messages; tried "
                f"{self._patience.attempts_max} times, the last: {reason(error)}",
                position=command_id,
                hint="mend the consumer and start it again: it goes on with this command",
            ) from error

    def _move_before(self, refused: Message, entries: list[Entry], messages: list[Message]) -> None:
        """The commands that were accepted whole, one message at a time, stay accepted."""
        whole = [entry for entry in entries if entry.command_id < refused.command_id]
        self._move(whole, sum(message.command_id < refused.command_id for message in messages))

    def _move(self, entries: list[Entry], messages: int) -> None:
        """Put the cursor behind these commands; stored at once where messages of theirs were accepted."""
        if not entries:
            return
        self.delivered += messages
        self._cursor = self._cursor._replace(
            command_id=entries[-1].command_id,
            chain=entries[-1].chain,
            messages=self._cursor.messages + messages,
            moved_at_ms=time.time_ns() // 1_000_000,
        )
        # Commands without events are nothing to deliver twice, so seldom is enough for them.
        stored = 0 if self._stored is None else self._stored.command_id
        if messages or self._cursor.command_id - stored >= self._batch_max:
            self._patience.retried(self.save, StoreUnavailable)


def messages_of(entry: Entry) -> list[Message]:
    """The messages of a command.  UsageError where its events were reduced when they were recorded."""
    if entry.events_reduced:
        raise UsageError(
            "its events were reduced when it was recorded, so there is nothing whole to deliver",
            position=entry.command_id,
            hint='open the runtime with events="full"; to go on after what was reduced: recovery outbox --reset --after N',
        )
    return [
        Message(
            entry.command_id,
            index,
            event.type,
            event.data,
            event.key,
            event.sequence,
            entry.received_at_ms,
            entry.request_id,
            entry.epoch,
        )
        for index, event in enumerate(entry.events)
    ]


def new_cursor(journal: Journal, name: str, command_id: int) -> Cursor:
    """A cursor behind a command of a journal.  UsageError where the journal has not come that far."""
    chain = START.chain
    if command_id:
        entry = journal.entry(command_id)
        if entry is None:
            raise UsageError(f"the journal has no command {command_id} for outbox {name!r} to begin after")
        chain = entry.chain
    now_ms = time.time_ns() // 1_000_000
    return Cursor(name, journal.stream, journal.identity.journal_id, command_id, chain, 0, now_ms, None)


def check_cursor(cursor: Cursor, journal: Journal) -> None:
    """Raise unless a cursor lies on this journal's history.

    UsageError: it is of another journal.  EvidenceAhead: the journal lost its end, and may have gone on since.
    """
    journal_id = journal.identity.journal_id
    if cursor.journal_id != journal_id:
        raise UsageError(
            f"outbox {cursor.name!r} belongs to another journal",
            expected=str(journal_id),
            found=str(cursor.journal_id),
            hint="name another outbox, or begin anew: recovery outbox --name NAME --reset --after 0",
        )
    require_reached(cursor, journal)
    entry = journal.entry(cursor.command_id) if cursor.command_id else None
    if entry is not None and entry.chain != cursor.chain:
        raise EvidenceAhead(
            f"outbox {cursor.name!r} delivered another command of this number: the journal lost its end, and went on",
            position=cursor.command_id,
            expected=cursor.chain.hex(),
            found=entry.chain.hex(),
            hint="restore the journal, or go on without what was lost: recovery outbox --name NAME --reset --after N",
        )


def require_reached(cursor: Cursor, journal: Journal) -> None:
    """Raise EvidenceAhead where a cursor lies beyond the journal's end."""
    end = journal.head().command_id
    if cursor.command_id > end:
        raise EvidenceAhead(
            f"outbox {cursor.name!r} has delivered it, and the journal ends at command {end}: the journal lost its end",
            position=cursor.command_id,
            hint="restore the journal, or go on without what was lost: --accept-loss",
        )


def cursors_of(store: CursorStore, stream: str) -> Iterator[Cursor | RecoveryError]:
    """Every known cursor of a stream; the error in the place of one that cannot be read."""
    for name in store.names(stream):
        try:
            stored = store.read(stream, name)
            if stored is not None:
                yield Cursor.unpack(stored, place_of(name))
        except RecoveryError as error:
            yield error


def place_of(name: str) -> str:
    """How an error names a cursor."""
    return f"cursor of outbox {name!r}"
