"""Redaction: a history that can be shown to others, its payloads replaced by what a hook of the user's makes of them.

The hook is ``redact(what, value) -> plain value``; ``what`` is "data", "response", "message" (of a rejection), "event", "row", or
"key" (of a row or an event, or an entity id).  Chain and part hashes stay the recorded ones, so order and completeness are still
proven; what the payloads were is not, and such a history is read, not replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from journal import framing, values
from journal.errors import UsageError
from journal.framing import Change, Event
from journal.records import Entry, checksum
from recovery.loading import imported

Redact = Callable[[str, Any], Any]


def redactor(spec: str) -> Redact | None:
    """The hook of MODULE:ATTR; None for none.  EngineImportError where it cannot be loaded."""
    if not spec:
        return None
    found = imported(spec, ".", option="--redact")
    if not callable(found):
        raise UsageError(f"{spec} cannot be called", hint="it is a function of (what, value)")
    hook: Redact = found
    return hook


def redacted_entry(entry: Entry, redact: Redact) -> Entry:
    """An entry with its payloads replaced, under a checksum of its own."""
    entity = None if entry.entity_id is None else str(redact("key", entry.entity_id))
    events = [
        Event(
            each.type,
            redact("event", each.data),
            None if each.key is None else str(redact("key", each.key)),
            each.sequence,
        )
        for each in entry.events
    ]
    fields = entry._replace(
        entity_id=entity,
        data_bytes=values.encode(redact("data", entry.data)),
        result_bytes=_result(entry, redact),
        events_bytes=framing.pack_events(events),
        changes_bytes=None
        if entry.changes is None
        else framing.pack_changes(_change(c, redact) for c in entry.changes),
    )[:-1]
    return Entry._make((*fields, checksum(*fields)))


def _result(entry: Entry, redact: Redact) -> bytes:
    rejection = entry.rejection
    if rejection is None:
        return values.encode(redact("response", entry.response))
    return values.encode((rejection.code, str(redact("message", rejection.message))))


def _change(change: Change, redact: Redact) -> Change:
    row = None if change.deleted else values.encode_bare(redact("row", change.row))
    return change._replace(key_bytes=values.encode_bare(redact("key", change.key)), row_bytes=row)
