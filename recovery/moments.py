"""A point in a journal as people name it: a command id, or a time."""

from __future__ import annotations

from datetime import UTC, datetime

from journal.errors import UsageError
from journal.journal import Journal


def command_at(journal: Journal, text: str | None) -> int:
    """The command id of digits, or of the last command received at or before an ISO 8601 time (UTC where it names no zone).

    None is the command after which the journal is kept: 0, but for a part of a history.
    """
    if text is None:
        return journal.start().command_id
    if text.isdecimal():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is neither a command id nor an ISO 8601 time, such as 2026-11-23T12:00:00Z"
        ) from error
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return _last_at_or_before(journal, int(moment.timestamp() * 1000))


def _last_at_or_before(journal: Journal, time_ms: int) -> int:
    # Recorded times never go back, so the last such command is found by halving.
    low, high = journal.start().command_id, journal.head().command_id
    while low < high:
        middle = (low + high + 1) // 2
        entry = journal.entry(middle)
        if entry is not None and entry.received_at_ms <= time_ms:
            low = middle
        else:
            high = middle - 1
    return low


def until_at(journal: Journal, text: str | None) -> int | None:
    """``command_at``, None for None."""
    return None if text is None else command_at(journal, text)
