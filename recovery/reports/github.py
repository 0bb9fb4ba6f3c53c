"""In GitHub Actions: an annotation for each divergence, and a summary of the run.

Annotations are workflow commands, one a line, which the runner reads from stdout as from stderr; we use stderr, for stdout is
data.  The summary is Markdown appended to the file that ``GITHUB_STEP_SUMMARY`` names.  What comes out of a journal is escaped
for each, so that a command's data cannot become a workflow command or a link.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from recovery.plain_text import visible
from recovery.reports.findings import Finding, findings_of, lines_of, verdict_of

ANNOTATIONS_MAX: Final = 10
"""As many as GitHub shows of one step."""
SUMMARY_FINDINGS_MAX: Final = 50
FIELDS_MAX: Final = 20

_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~:@&])")


def in_actions() -> bool:
    """Whether this runs as a step of GitHub Actions."""
    return os.environ.get("GITHUB_ACTIONS") == "true"


def error_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """The lines to print: one error a divergence, up to ``ANNOTATIONS_MAX``, and one for damage."""
    damage = document.get("damage")
    if damage:
        yield _command("the journal is damaged", visible(str(damage)))
    found = findings_of(document)
    for finding in found[:ANNOTATIONS_MAX]:
        text = "\n".join([f"{finding.title}: {finding.cause}", *finding.lines])
        yield _command(f"command {finding.command_id} diverges", text)
    if verdict_of(document) == "nothing":
        yield _command("nothing was verified", "the range holds no command, or nothing was compared")


def _command(title: str, message: str) -> str:
    return f"::error title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def write_summary(document: Mapping[str, Any]) -> None:
    """Append the summary where ``GITHUB_STEP_SUMMARY`` says; nothing where it says nothing."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(summary(document))


def summary(document: Mapping[str, Any]) -> str:
    """The run as Markdown."""
    found = findings_of(document)
    lines = [f"### recovery: {verdict_of(document)}", ""]
    if "first" in document:
        span = f"commands {document['first']} to {document['last']}"
        lines += [f"{_plain(document.get('engine', ''))}, {span}, {document.get('commands', 0)} replayed.", ""]
    if document.get("damage"):
        lines += [f"**Damaged:** {_plain(document['damage'])}", ""]
    for finding in found[:SUMMARY_FINDINGS_MAX]:
        lines += _section(finding)
    if len(found) > SUMMARY_FINDINGS_MAX:
        lines += [f"… and {len(found) - SUMMARY_FINDINGS_MAX} divergences more.", ""]
    if document.get("not_checked"):
        lines += ["Not checked:", "", *(f"- {_plain(line)}" for line in lines_of(document["not_checked"])), ""]
    return "\n".join(lines) + "\n"


def _section(finding: Finding) -> list[str]:
    lines = [f"#### {_plain(finding.title)}", "", f"Cause: **{_plain(finding.cause)}**", ""]
    if finding.explanation:
        lines += [_plain(finding.explanation), ""]
    rows = [
        (f"/{table.name}/{row.key}/{field.name}", field.recorded, field.replayed)
        for table in finding.tables
        for row in table.rows
        for field in row.fields
    ] + [(part.name, part.recorded, part.replayed) for part in finding.parts]
    if rows:
        lines += ["| where | recorded | replayed |", "|---|---|---|"]
        lines += ["| " + " | ".join(map(_plain, row)) + " |" for row in rows[:FIELDS_MAX]]
        if len(rows) > FIELDS_MAX:
            lines.append(f"| … and {len(rows) - FIELDS_MAX} more | | |")
        lines.append("")
    if finding.reproduce:
        lines += [f"    {finding.reproduce}", ""]
    return lines


def _plain(value: object) -> str:
    """Text as Markdown that shows just that text, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(str(value).split("\n")))
