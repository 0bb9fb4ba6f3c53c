"""What every report reads out of a ``--json`` document of ``recovery replay`` or ``recovery bisect``.

The document is the one interface: a report of yesterday's JSON is as good as one of the run itself.  All text taken from it
is a stranger's, so it leaves here visible (recovery/plain_text.py); escaping it for HTML, XML or Markdown is the report's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from recovery.divergence import PARTS
from recovery.plain_text import visible

SIDES: Final = ("recorded", "replayed")
ABSENT: Final = "—"
VALUE_CHARACTERS_MAX: Final = 4000


class Leaf(NamedTuple):
    """One thing with two sides, each as JSON text; ABSENT where a side is not there or not known."""

    name: str
    recorded: str
    replayed: str


class Row(NamedTuple):
    """The fields that differ in one row."""

    key: str
    fields: tuple[Leaf, ...]


class TableRows(NamedTuple):
    """The rows that differ in one table."""

    name: str
    rows: tuple[Row, ...]


class Finding(NamedTuple):
    """One divergence, ready to be shown."""

    command_id: int
    type: str
    request_id: str
    what: tuple[str, ...]
    cause: str
    factor: str
    explanation: str
    evidence: tuple[str, ...]
    tables: tuple[TableRows, ...]
    parts: tuple[Leaf, ...]
    reproduce: str

    @property
    def title(self) -> str:
        """One line: the command, its type, what differs."""
        return f"command {self.command_id} ({self.type}) diverges in {', '.join(self.what)}"

    @property
    def lines(self) -> Iterator[str]:
        """The rest, a line each, as in the text report."""
        if self.explanation:
            yield self.explanation
        for table in self.tables:
            for row in table.rows:
                for field in row.fields:
                    place = "/".join(part for part in (table.name, row.key, field.name) if part)
                    yield f"/{place}: recorded {field.recorded}, replayed {field.replayed}"
        for part in self.parts:
            yield f"{part.name}: recorded {part.recorded}, replayed {part.replayed}"
        if self.reproduce:
            yield f"again: {self.reproduce}"


def findings_of(document: Mapping[str, Any]) -> list[Finding]:
    """The divergences of a document, in its order: a replay's, or a bisection's first."""
    if "first_divergence" in document:
        first = document["first_divergence"]
        return [] if first is None else [_finding(first)]
    return [_finding(each) for each in document.get("divergences", ())]


def verdict_of(document: Mapping[str, Any]) -> str:
    """The verdict; a bisection's follows from whether it found anything."""
    if "first_divergence" in document and "verdict" not in document:
        return "verified" if document["first_divergence"] is None else "diverged"
    return visible(str(document["verdict"]))


def lines_of(texts: Iterable[Any]) -> tuple[str, ...]:
    """Each as one visible line."""
    return tuple(visible(text if isinstance(text, str) else _json(text)) for text in texts)


def _finding(document: Mapping[str, Any]) -> Finding:
    return Finding(
        int(document["command_id"]),
        visible(str(document.get("type", ""))),
        visible(str(document.get("request_id", ""))),
        lines_of(document.get("what", ())),
        visible(str(document.get("cause", ""))),
        visible(str(document.get("factor", ""))),
        visible(str(document.get("explanation", ""))),
        lines_of(document.get("evidence", ())),
        _tables(document.get("fields", ())),
        tuple(_leaf(name, document[name]) for name in PARTS if document.get(name)),
        visible(str(document.get("reproduce", ""))),
    )


def _tables(fields: Iterable[Mapping[str, Any]]) -> tuple[TableRows, ...]:
    tables: dict[str, dict[str, list[Leaf]]] = {}
    for field in fields:
        rows = tables.setdefault(visible(str(field["table"])), {})
        rows.setdefault(_key(field["key"]), []).append(_leaf(str(field.get("field", "")), field))
    return tuple(
        TableRows(table, tuple(Row(key, tuple(leaves)) for key, leaves in rows.items()))
        for table, rows in tables.items()
    )


def _key(key: Any) -> str:
    # A Cell's key is the empty tuple: there is nothing to show.
    return "" if key == {"$tuple": []} else visible(key) if isinstance(key, str) else _json(key)


def _leaf(name: str, sides: Mapping[str, Any]) -> Leaf:
    return Leaf(visible(name), *(_json(sides[side]) if side in sides else ABSENT for side in SIDES))


def _json(value: Any) -> str:
    text = visible(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= VALUE_CHARACTERS_MAX else text[:VALUE_CHARACTERS_MAX] + "…"
