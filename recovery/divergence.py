"""Divergence: that a replay went another way than the record, at which command, and down to which field.

The two sides are *recorded* and *replayed*, always.  A side that is not known, or not there, is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from journal import values
from journal.framing import Change, Event, pack_events
from journal.records import Entry
from recovery.json_values import from_json, to_json
from recovery.plain_text import visible
from recovery.state import encode_row

LOGIC_CHANGED: Final = "logic changed"
NOT_DETERMINISTIC: Final = "not deterministic"
TOUCHED_OUTSIDE: Final = "touched outside a command"
HIDDEN_STATE: Final = "hidden state"
ORDER_ONLY: Final = "order only"
RECORDER_FAULT: Final = "recorder fault"
CHANGES_INCOMPLETE: Final = "changes incomplete"
RESTORE_HOLE: Final = "restore hole"
DIFFERENT_INPUTS: Final = "different inputs"
"""Two histories are not of the same commands, which says nothing of an engine."""
UNKNOWN: Final = "unknown"

PARTS: Final = ("inputs", "response", "events")
"""What has two sides beside the fields of rows."""

ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """One field of one row with two values.  ``field`` is empty for a scalar row, ``path`` a JSON pointer."""

    table: str
    key: Any
    field: str
    recorded: Any = ABSENT
    replayed: Any = ABSENT

    @property
    def path(self) -> str:
        """``/table/key/field``; a Cell has no key, a scalar row no field."""
        key = self.key if isinstance(self.key, str) else json.dumps(to_json(self.key))
        parts = [self.table, *([] if self.key == () else [key]), *([self.field] if self.field else [])]
        return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)

    def to_dict(self) -> dict[str, Any]:
        """The difference as in ``recovery replay --json``."""
        document: dict[str, Any] = {"table": self.table, "key": to_json(self.key)}
        if self.field:
            document["field"] = self.field
        document["path"] = self.path
        return document | sides(self.recorded, self.replayed)

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> FieldDifference:
        """The difference of ``to_dict``'s document."""
        both = (from_json(document[side]) if side in document else ABSENT for side in ("recorded", "replayed"))
        return cls(document["table"], from_json(document["key"]), document.get("field", ""), *both)

    def __str__(self) -> str:
        recorded, replayed = ("no row" if side is ABSENT else repr(side) for side in (self.recorded, self.replayed))
        return f"{self.path}: recorded {recorded}, replayed {replayed}"


@dataclass(frozen=True, slots=True)
class Divergence:
    """The finding at one command.  ``what`` names the parts that differ; ``cause`` why, as far as that could be told."""

    command_id: int
    request_id: str
    type: str
    what: tuple[str, ...]
    cause: str
    fields: tuple[FieldDifference, ...] = ()
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    reproduce: str = ""
    explanation: str = ""
    """A sentence: why it happened, as far as is known."""
    evidence: tuple[str, ...] = ()
    """What was run to find out, and what it showed; a line each."""
    factor: str = ""
    """What the outcome was shown to depend on, one of ``explanation.FACTORS``; empty where nothing was."""

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables in which a row differs."""
        return tuple(dict.fromkeys(difference.table for difference in self.fields))

    @property
    def keys(self) -> tuple[tuple[str, Any], ...]:
        """The rows that differ, as (table, key)."""
        return tuple(dict.fromkeys((difference.table, difference.key) for difference in self.fields))

    def to_dict(self) -> dict[str, Any]:
        """The divergence as in ``recovery replay --json``."""
        document: dict[str, Any] = {
            "command_id": self.command_id,
            "request_id": self.request_id,
            "type": self.type,
            "what": list(self.what),
            "cause": self.cause,
            "tables": list(self.tables),
        }
        document |= self.parts
        document["fields"] = [difference.to_dict() for difference in self.fields]
        document["reproduce"] = self.reproduce
        document |= {"explanation": self.explanation} if self.explanation else {}
        document |= {"factor": self.factor} if self.factor else {}
        document |= {"evidence": list(self.evidence)} if self.evidence else {}
        return document

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Divergence:
        """The divergence of ``to_dict``'s document: how one process tells another."""
        return cls(
            document["command_id"],
            document["request_id"],
            document["type"],
            tuple(document["what"]),
            document["cause"],
            tuple(FieldDifference.from_dict(each) for each in document["fields"]),
            {name: document[name] for name in PARTS if name in document},
            document["reproduce"],
            document.get("explanation", ""),
            tuple(document.get("evidence", ())),
            document.get("factor", ""),
        )

    def __str__(self) -> str:
        lines = [f"command {self.command_id} ({visible(self.type)}) diverges in {', '.join(self.what)}: {self.cause}"]
        lines += [visible(f"  why: {self.explanation}")] if self.explanation else []
        lines += [visible(f"  {difference}") for difference in self.fields[:20]]
        if len(self.fields) > 20:
            lines.append(f"  … and {len(self.fields) - 20} fields more")
        for name, part in self.parts.items():
            lines += [
                visible(f"  {name} {side}: {json.dumps(value, ensure_ascii=False)[:300]}")
                for side, value in part.items()
            ]
        lines += [visible(f"  evidence: {line}") for line in self.evidence]
        if self.reproduce:
            lines.append(f"  again: {self.reproduce}")
        return "\n".join(lines)


def sides(recorded: Any, replayed: Any) -> dict[str, Any]:
    """The two sides as JSON, one that is ABSENT left out."""
    named = {"recorded": recorded, "replayed": replayed}
    return {name: to_json(side) for name, side in named.items() if side is not ABSENT}


def result_of(entry: Entry) -> Any:
    """What the engine is recorded to have answered, as a plain value; a rejection under its name."""
    rejection = entry.rejection
    return entry.response if rejection is None else {"rejection": rejection._asdict()}


def events_plain(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Events as plain dicts, without what they do not have."""
    return [{name: part for name, part in event._asdict().items() if part is not None} for event in events]


def same_in_any_order(recorded: Iterable[Event], replayed: Iterable[Event]) -> bool:
    """Whether these are the same events but for their order."""
    ours, theirs = ([pack_events([event]) for event in events] for events in (recorded, replayed))
    return sorted(ours) == sorted(theirs)


def field_differences(
    recorded: Iterable[Change],
    replayed: Iterable[Change],
    *,
    before: Callable[[str, Any], Any],
    names: Callable[[str], tuple[str, ...]],
) -> tuple[FieldDifference, ...]:
    """The fields in which two sets of changes to one state differ.

    ``before(table, key)`` is the row before the command, ABSENT where there was none: a side that did not change a row
    still has it.  ``names(table)`` are the row's field names, none for scalar rows.
    """
    left = {(change.table, change.key_bytes): change for change in recorded}
    right = {(change.table, change.key_bytes): change for change in replayed}
    found: list[FieldDifference] = []
    for place in sorted(left.keys() | right.keys()):
        ours, theirs = left.get(place), right.get(place)
        if ours is not None and theirs is not None and ours.row_bytes == theirs.row_bytes:
            continue
        key = values.decode_bare(place[1])
        old = before(place[0], key)
        rows = [old if side is None else ABSENT if side.deleted else side.row for side in (ours, theirs)]
        found += _row_differences(place[0], key, rows[0], rows[1], names(place[0]))
    return tuple(found)


def _row_differences(
    table: str, key: Any, recorded: Any, replayed: Any, names: tuple[str, ...]
) -> list[FieldDifference]:
    sides = [side for side in (recorded, replayed) if side is not ABSENT]
    if not names or not all(isinstance(side, tuple) for side in sides):
        same = recorded is not ABSENT and replayed is not ABSENT and _same(recorded, replayed)
        return [] if same else [FieldDifference(table, key, "", recorded, replayed)]
    # The names are of this code's rows; those of the record may have had fewer fields, or more, which only have a place.
    width = max([len(names), *map(len, sides)])
    found = []
    for at, name in enumerate([*names, *map(str, range(len(names), width))]):
        ours, theirs = _at(recorded, at), _at(replayed, at)
        if ours is ABSENT and theirs is ABSENT:
            continue
        if ours is ABSENT or theirs is ABSENT or not _same(ours, theirs):
            found.append(FieldDifference(table, key, name, ours, theirs))
    return found


def _at(row: Any, place: int) -> Any:
    return ABSENT if row is ABSENT or place >= len(row) else row[place]


def _same(ours: Any, theirs: Any) -> bool:
    # Equality is that of the canonical bytes, where 1, 1.0 and True are three values.
    return encode_row(ours) == encode_row(theirs)
