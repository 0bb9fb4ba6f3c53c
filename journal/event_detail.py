"""Event detail: how much of a command's events is kept.

The chain covers what a command emitted, by its hash; what is stored may be less, and the entry then says so
(``Entry.events_reduced``).  So history is checked and replayed the same at every level, and its chain is the same.

===========  =================================================================================================
``full``     every event, whole
``summary``  every event's type, key and sequence; its data is None
``none``     nothing
===========  =================================================================================================

Events of a *critical* type are kept whole at every level.  Receipts, the first and a duplicate's, give what is stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from journal import framing
from journal.errors import UsageError

LEVELS: Final = ("full", "summary", "none")


class EventDetail(NamedTuple):
    """One of ``LEVELS``, and the types that are always kept whole."""

    level: str
    critical: frozenset[str]

    @classmethod
    def of(cls, level: str, critical_types: Iterable[str] = ()) -> EventDetail:
        """The detail of these settings.  UsageError for a level there is none of, and for one text in place of several."""
        if level not in LEVELS:
            raise UsageError(f'events is {level!r}; it is "full", "summary" or "none"')
        found = [critical_types] if isinstance(critical_types, str) else list(critical_types)
        if isinstance(critical_types, str) or not all(type(name) is str and name for name in found):
            raise UsageError(
                f"critical_events is {critical_types!r}; it holds event types, each a text", hint='such as ("Filled",)'
            )
        return cls(level, frozenset(found))

    def kept(self, events_bytes: bytes) -> bytes:
        """What is stored of a command's events: the same bytes where nothing is left out."""
        if self.level == "full" or events_bytes == framing.NO_EVENTS:
            return events_bytes
        kept = [framing.VERSION]
        for frame in framing.event_frames(events_bytes):
            if frame.type in self.critical:
                kept.append(frame.data)
            elif self.level == "summary":
                kept.append(framing.without_data(frame))
        return b"".join(kept)

    def require_full(self, what: str) -> None:
        """UsageError unless every event is kept whole: ``what`` would miss some."""
        if self.level != "full":
            raise UsageError(
                f'{what} need every event, and events="{self.level}" keeps less', hint='open with events="full"'
            )


FULL: Final = EventDetail("full", frozenset())
