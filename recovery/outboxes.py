"""Outboxes of a journal as the rest of recovery sees them: their lag, what they prove of a loss, and those of one runtime."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from journal.cursors import Cursor, CursorStore
from journal.delivery import Message, check_cursor, cursors_of, new_cursor
from journal.errors import EvidenceAhead, RecoveryError, UnavailableError, UsageError
from journal.journal import Journal
from journal.outbox import Outbox
from journal.store import JournalStore
from journal.urls import open_cursors
from recovery.observer import Teller

logger = logging.getLogger("recovery")


def cursors_beside(journal: str | JournalStore) -> CursorStore | None:
    """Where the outboxes of a journal keep their cursors; None for an opened store whose URL is not known here."""
    if isinstance(journal, str):
        return open_cursors(journal)
    # A location holds no password, so it does not open a database.
    scheme = journal.location.partition(":")[0]
    return open_cursors(journal.location) if scheme in ("memory", "sqlite", "wal") else None


def lags(journal: Journal, cursors: CursorStore | None, problems: list[str]) -> list[dict[str, Any]]:
    """Each outbox with how far it lies behind, for ``status``; what is wrong with one is added to the problems."""
    found = []
    for cursor in _readable(cursors, journal.stream, lambda error: problems.append(str(error))):
        end = journal.head().command_id
        behind = max(0, end - cursor.command_id)
        waiting = journal.entry(cursor.command_id + 1) if behind else None
        seconds = 0.0 if waiting is None else max(0.0, time.time() - waiting.recorded_at_ms / 1000)
        found.append(
            {
                "name": cursor.name,
                "command_id": cursor.command_id,
                "messages": cursor.messages,
                "moved_at_ms": cursor.moved_at_ms,
                "commands_behind": behind,
                "seconds_behind": round(seconds, 3),
            }
        )
        if cursor.failure is not None:
            found[-1]["failure"] = cursor.failure
            problems.append(f"outbox {cursor.name!r} stopped after command {cursor.command_id}: {cursor.failure}")
        try:
            check_cursor(cursor, journal)
        except RecoveryError as error:
            problems.append(str(error))
    return found


def findings(journal: Journal, cursors: CursorStore | None) -> Iterator[str]:
    """What ``check`` says of cursors: those that cannot be read, and those that prove that the journal lost its end."""
    damaged: list[str] = []
    for cursor in _readable(cursors, journal.stream, lambda error: damaged.append(str(error))):
        try:
            check_cursor(cursor, journal)
        except EvidenceAhead as error:
            yield str(error)
        except UsageError:  # of another journal, which is no damage of this one
            continue
    yield from damaged


def outran(journal: Journal, cursors: CursorStore | None, *, created: bool, accepted: bool) -> list[Cursor]:
    """The cursors that prove a loss: all of them where a durable journal is yet to be created.

    EvidenceAhead where there are any, unless the loss is accepted.  A cursor that cannot be read proves nothing; it is logged,
    and its outbox will refuse to start.
    """
    if created and not journal.store.durable:
        return []
    found = []
    for cursor in _readable(cursors, journal.stream, lambda error: logger.warning("%s", error)):
        try:
            if created:
                found.append(cursor)
            else:
                check_cursor(cursor, journal)
        except EvidenceAhead:
            found.append(cursor)
        except UsageError as error:
            logger.warning("%s", error)
    if found and not accepted:
        lacks = "holds no journal" if created else "has lost its end"
        raise EvidenceAhead(
            f"{in_words(found, created=created)}: {journal.store.location} {lacks}",
            position=max(cursor.command_id for cursor in found),
            hint="mount or restore the journal; or go on without what was lost: recovery run --accept-loss",
        )
    return found


def in_words(cursors: list[Cursor], *, created: bool) -> str:
    """What these cursors prove; empty for none."""
    if not cursors:
        return ""
    furthest = max(cursors, key=lambda cursor: cursor.command_id)
    said = f"outbox {furthest.name!r} has delivered command {furthest.command_id}"
    return f"a new journal was created although {said}" if created else f"{said} of a history that was lost"


@contextmanager
def rewinding(cursors: CursorStore | None, lost: list[Cursor], journal: Journal) -> Iterator[None]:
    """Around the epoch that accepts a loss: then these cursors are put back to where the journal still has what they saw.

    JournalInUse, and no epoch, where an outbox is still at work.
    """
    with ExitStack() as held:
        holds = []
        for cursor in lost:
            assert cursors is not None
            hold = cursors.hold(cursor.stream, cursor.name)
            held.callback(hold.release)
            holds.append((cursor, hold))
        yield
        epochs = journal.epochs() if lost else []
        for cursor, hold in holds:
            # Whoever went on without its end had to open the journal after this cursor was moved.
            since = [epoch.head for epoch in epochs if epoch.opened_at_ms >= cursor.moved_at_ms]
            kept = min([journal.head().command_id, cursor.command_id, *since])
            hold.write(new_cursor(journal, cursor.name, kept)._replace(messages=cursor.messages).pack())
            logger.warning("outbox %s goes on after command %d: a loss was accepted", cursor.name, kept)


def _readable(cursors: CursorStore | None, stream: str, report: Callable[[RecoveryError], None]) -> Iterator[Cursor]:
    """Every cursor that can be read; the store is let go before the first is given."""
    if cursors is None:
        return
    try:
        found = list(cursors_of(cursors, stream))
    except UnavailableError as error:
        found = [error]
    finally:
        cursors.close()
    for one in found:
        if isinstance(one, RecoveryError):
            report(one)
        else:
            yield one


class Outboxes:
    """The outboxes that run beside one runtime, each on its own thread, woken after each commit."""

    def __init__(self, journal_url: str | None, journal: Journal, cursors: CursorStore | None, tell: Teller) -> None:
        self._journal_url = journal_url
        self._journal = journal
        self._cursors = cursors
        self._tell = tell
        self._running: list[Outbox] = []

    def add(
        self,
        name: str,
        *,
        deliver: Callable[[Message], object] | None,
        deliver_batch: Callable[[list[Message]], object] | None,
        after: int,
        published_up_to: Callable[[], int],
    ) -> Outbox:
        """Start another one.  Where another process could read the journal, it reads through a connection of its own."""
        if any(outbox.name == name and outbox.failure is None for outbox in self._running):
            raise UsageError(f"outbox {name!r} is delivered by this runtime already", hint="use another name")
        outbox = Outbox(
            self._journal if self._journal_url is None else self._journal_url,
            name=name,
            deliver=deliver,
            deliver_batch=deliver_batch,
            stream=self._journal.stream,
            cursors=self._cursors,
            after=after,
            published_up_to=published_up_to,
            on_delivered=lambda delivered: self._tell("delivered", delivered),
            on_failed=lambda name, error: self._tell("outbox_failed", name, error),
        )
        outbox.start()
        self._running = [*self._running, outbox]
        return outbox

    def wake(self) -> None:
        """Something was committed."""
        for outbox in self._running:
            outbox.wake()

    def status(self, lags: list[dict[str, Any]], problems: list[str]) -> None:
        """Add to each outbox's lag what only this process knows."""
        states = {outbox.name: outbox for outbox in self._running}
        for lag in lags:
            outbox = states.get(lag["name"])
            if outbox is not None:
                lag["state"] = outbox.state
                if outbox.trouble and "failure" not in lag:
                    lag["failure"] = outbox.trouble
                    problems.append(f"outbox {outbox.name!r} is {outbox.state}: {outbox.trouble}")

    def close(self) -> None:
        """Stop them all, after what each is delivering."""
        for outbox in self._running:
            outbox.close()
        if self._cursors is not None:
            self._cursors.close()
