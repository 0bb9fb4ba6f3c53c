"""``--html``: one page that needs nothing else.  It works offline, runs no script, and may load nothing.

The policy is in the page itself: ``default-src 'none'`` and the one style sheet by its hash, so that even what slipped
through the escaping could neither run nor call home.  Escaping is Jinja's, on for every expression (page.html.j2).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from recovery.plain_text import visible
from recovery.reports.findings import Finding, findings_of, lines_of, verdict_of
from recovery.reports.timeline import marks
from recovery.version import VERSION

if TYPE_CHECKING:
    from jinja2 import Template

WIDTH: Final = 960
TRIANGLE: Final = 14
"""How wide the mark of a divergence is: none is hidden behind another."""
FINDINGS_MAX: Final = 200
FIELDS_MAX: Final = 500
"""Of what a page shows; how much more there is, it says."""

# What is shown at the top, in this order, where the document has it.
_FACTS: Final = {
    "engine": "engine",
    "state_version": "state version",
    "logic_version": "logic version",
    "commands": "commands replayed",
    "commands_replayed": "commands replayed",
    "commands_per_second": "commands a second",
    "segments": "segments",
    "seconds": "seconds",
    "method": "method",
    "steps": "steps",
    "first_bad_commit": "first bad commit",
}


def html_page(document: Mapping[str, Any], *, images: Iterable[int] = (), title: str = "") -> str:
    """The page of a ``recovery replay`` or ``recovery bisect`` document.

    ``images`` are the commands at which images stand, for the timeline.
    """
    found = findings_of(document)
    shown = found[:FINDINGS_MAX]
    first, last = _range(document, found)
    style = _style()
    return _template().render(
        title=visible(title) or "recovery report",
        verdict=verdict_of(document),
        facts=[
            (label, visible(str(document[name]))) for name, label in _FACTS.items() if document.get(name) is not None
        ],
        checked=[(visible(str(name)), count) for name, count in dict(document.get("checked", {})).items()],
        not_checked=lines_of(document.get("not_checked", ())),
        damage=visible(str(document.get("damage", ""))),
        findings=[_bounded(finding) for finding in shown],
        more=len(found) - len(shown),
        first=first,
        last=last,
        width=WIDTH,
        images=marks(images, first=first, last=last, width=WIDTH),
        divergences=marks(
            (finding.command_id for finding in found), first=first, last=last, width=WIDTH, apart=TRIANGLE
        ),
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        version=VERSION,
    )


def _range(document: Mapping[str, Any], found: list[Finding]) -> tuple[int, int]:
    # A replay that stopped names the range it got through; its divergence is the last command of that.
    ids = [finding.command_id for finding in found]
    first = min([int(document.get("first") or 1), *ids])
    return first, max([int(document.get("last") or first), *ids])


def _bounded(finding: Finding) -> dict[str, Any]:
    left = FIELDS_MAX
    tables = []
    for table in finding.tables:
        rows = []
        for row in table.rows:
            fields = row.fields[: max(left, 0)]
            left -= len(row.fields)
            if fields:
                rows.append(row._replace(fields=fields))
        if rows:
            tables.append(table._replace(rows=tuple(rows)))
    return {"it": finding, "tables": tables, "more": max(-left, 0)}


@cache
def _style() -> str:
    return (resources.files("recovery.reports") / "page.css").read_text(encoding="utf-8")


@cache
def _template() -> Template:
    # Here, and not above: only who asks for a page pays for the import.
    from jinja2 import Environment, StrictUndefined

    source = (resources.files("recovery.reports") / "page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source)
