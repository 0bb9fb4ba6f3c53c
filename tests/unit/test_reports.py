"""The reports made of a JSON document: nothing of a journal can become markup, a workflow command or a broken file."""

from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.errors import UsageError
from recovery.cli.publishing import publish
from recovery.plain_text import visible
from recovery.reports import github
from recovery.reports.findings import findings_of
from recovery.reports.junit import junit_xml
from recovery.reports.page import FIELDS_MAX, FINDINGS_MAX, WIDTH, html_page
from recovery.reports.timeline import marks

HOSTILE = "<script>document.title='taken'</script>\"'&]]>--> \x00\x1b[31m\n::error::x\r% \u202e |`*_ {{ 7*7 }}"
TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "h1", "p", "span", "dl", "dt", "dd", "main", "h2", "svg",
    "line", "path", "text", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "code", "ul", "li", "pre",
    "footer", "em",
}  # fmt: skip


def divergence(text: str = "deposit", **other: Any) -> dict[str, Any]:
    return {
        "command_id": 7,
        "request_id": text,
        "type": text,
        "what": ["post_digest", "response"],
        "cause": "logic changed",
        "explanation": text,
        "evidence": [text],
        "tables": [text],
        "response": {"recorded": text},
        "fields": [{"table": text, "key": text, "field": text, "path": text, "recorded": 1, "replayed": text}],
        "reproduce": text,
    } | other


def replayed(*divergences: dict[str, Any], **other: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "verdict": "diverged" if divergences else "verified",
        "engine": "till",
        "first": 1,
        "last": 20,
        "commands": 20,
        "checked": {"pre_digest": 20},
        "not_checked": [],
        "segments": 1,
        "seconds": 0.5,
        "divergences": list(divergences),
    } | other


class Seen(HTMLParser):
    """What a page is made of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


# The page


@given(st.text())
def test_no_text_becomes_markup(text: str) -> None:
    hostile = text + HOSTILE
    seen = Seen(html_page(replayed(divergence(hostile), engine=hostile, damage=hostile, not_checked=[hostile])))
    assert seen.tags <= TAGS
    assert not [name for name, _ in seen.attributes if name.startswith("on") or name in ("src", "href", "style")]
    assert visible(hostile) in seen.text


def test_the_policy_names_the_one_style_sheet() -> None:
    page = html_page(replayed())
    style = page.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in page
    assert "http" not in page.replace("http-equiv", "")


def test_both_sides_of_each_field_are_shown_under_its_table_and_key() -> None:
    fields = [
        {"table": "accounts", "key": "ada", "field": "cents", "recorded": 5, "replayed": 6},
        {"table": "accounts", "key": {"$tuple": ["bob", 1]}, "field": "owner", "replayed": "eve"},
        {"table": "deposits", "key": {"$tuple": []}, "recorded": 3, "replayed": 4},
    ]
    found = findings_of(replayed(divergence(fields=fields)))[0]
    assert [(table.name, row.key, *row.fields[0]) for table in found.tables for row in table.rows] == [
        ("accounts", "ada", "cents", "5", "6"),
        ("accounts", '{"$tuple": ["bob", 1]}', "owner", "—", '"eve"'),
        ("deposits", "", "", "3", "4"),
    ]
    text = Seen(html_page(replayed(divergence(fields=fields)))).text
    assert all(word in text for word in ("accounts", "ada", "cents", "deposits", "(the value)"))


def test_a_page_is_bounded_and_says_what_it_leaves_out() -> None:
    fields = [{"table": "t", "key": n, "field": "f", "recorded": 1, "replayed": 2} for n in range(FIELDS_MAX + 9)]
    many = [divergence(command_id=n, fields=[]) for n in range(1, FINDINGS_MAX + 5)]
    assert "… and 9 fields more" in html_page(replayed(divergence(fields=fields)))
    page = html_page(replayed(*many, last=10**6))
    assert "… and 4 divergences more" in page
    assert page.count('class="finding"') == FINDINGS_MAX


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (replayed(), "None: the replay did what was recorded."),
        (replayed(verdict="nothing", first=0, last=0, commands=0), "None was found in what was compared."),
        (replayed(verdict="damaged", damage="command 4: cut"), "command 4: cut"),
        ({"first_divergence": None, "method": "chain", "steps": 4}, "None: the replay did what was recorded."),
        ({"first_divergence": divergence("draw"), "steps": 4, "commands_replayed": 9}, "command 7 (draw) diverges"),
    ],
)
def test_every_kind_of_document_has_a_page(document: dict[str, Any], words: str) -> None:
    assert words in Seen(html_page(document)).text


# The timeline


@given(st.lists(st.integers(-5, 3000), max_size=300), st.integers(1, 50), st.integers(0, 3000), st.integers(1, 20))
def test_marks_are_bounded_apart_and_lose_nothing(ids: list[int], first: int, span: int, apart: int) -> None:
    last = first + span
    found = marks(ids, first=first, last=last, width=100, apart=apart)
    assert all(right.x - left.x >= apart for left, right in pairwise(found))
    assert all(0 <= mark.x <= 100 and first <= mark.first <= mark.last <= last for mark in found)
    assert sum(mark.commands for mark in found) == sum(first <= each <= last for each in ids)


def test_a_mark_says_what_it_stands_for() -> None:
    (one, many) = marks([1, 500_000, 500_001], first=1, last=10**6, width=WIDTH)
    assert one.label("image at command", "images") == "image at command 1"
    assert many.label("image at command", "images") == "2 images, 500000 to 500001"


# JUnit


@given(st.text())
def test_junit_is_well_formed_whatever_the_journal_holds(text: str) -> None:
    hostile = text + HOSTILE
    document = replayed(divergence(hostile), divergence(command_id=9), not_checked=[hostile])
    suite = ElementTree.fromstring(junit_xml(document)).find("testsuite")
    assert suite is not None
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3", "failures": "3", "errors": "0", "skipped": "0",
    }  # fmt: skip
    failure = suite.findall("testcase")[1].find("failure")
    assert failure is not None
    assert failure.get("type") == "logic changed"
    assert "recorded 1" in (failure.text or "")


@pytest.mark.parametrize(
    ("verdict", "tag"), [("verified", None), ("damaged", "error"), ("nothing", "skipped"), ("diverged", "failure")]
)
def test_the_range_is_a_case_with_the_verdict(verdict: str, tag: str | None) -> None:
    found = [divergence()] if verdict == "diverged" else []
    case = ElementTree.fromstring(junit_xml(replayed(*found, verdict=verdict))).find("testsuite/testcase")
    assert case is not None
    assert case.get("name") == "commands 1 to 20"
    assert [inner.tag for inner in case] == ([tag] if tag else [])


# GitHub


@given(st.text())
def test_nothing_in_a_journal_becomes_another_workflow_command(text: str) -> None:
    hostile = text + HOSTILE
    lines = list(github.error_lines(replayed(divergence(hostile), damage=hostile)))
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("::error title=")
        assert len(line.splitlines()) == 1


def test_annotations_and_summary_are_bounded() -> None:
    many = [divergence(command_id=n) for n in range(1, 200)]
    assert len(list(github.error_lines(replayed(*many)))) == github.ANNOTATIONS_MAX
    assert "divergences more" in github.summary(replayed(*many))


def test_the_summary_shows_markup_as_text() -> None:
    text = github.summary(replayed(divergence("<b>[x](http://evil)|@team")))
    assert "\\<b\\>\\[x\\]\\(http\\:" in text
    assert "\\@team" in text
    assert "| /" in text


def test_publish_writes_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    page, junit = tmp_path / "new" / "page.html", tmp_path / "junit.xml"
    publish(replayed(divergence()), title="here", html=str(page), junit_xml=str(junit), images=lambda: [10])
    assert "image at command 10" in page.read_text()
    assert ElementTree.parse(junit).getroot().tag == "testsuites"
    assert summary.read_text().startswith("### recovery: diverged")
    said = capsys.readouterr()
    assert said.err.startswith("::error title=command 7 diverges::")
    assert said.out == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["junit.xml", "new", "summary.md"]


def test_outside_of_actions_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    publish(replayed(divergence()), title="here", html=None, junit_xml=None)
    assert capsys.readouterr() == ("", "")


def test_where_nothing_can_be_written_is_the_callers_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        publish(replayed(), title="", html=str(tmp_path / "file" / "page.html"), junit_xml=None)


def test_what_does_not_show_is_spelled_out() -> None:
    assert visible("a\tb\x1b[0m\x85\u202e\u2066\ud800é😀") == "a\\x09b\\x1b[0m\\x85\\u202e\\u2066\\ud800é😀"
    assert json.dumps("plain") == visible(json.dumps("plain"))
