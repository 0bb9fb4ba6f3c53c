"""``--junit-xml``: a replay as a test suite, for whatever shows test results.

The range is one test case, failed where a divergence was found, in error where bytes were damaged, skipped where nothing
could be compared.  Each divergence is a failed case of its own, named by its command, so that a dashboard tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from xml.etree import ElementTree

from recovery.reports.findings import findings_of, lines_of, verdict_of

# What XML 1.0 cannot hold at all, escaped or not.
_ILLEGAL: Final = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


def junit_xml(document: Mapping[str, Any], *, name: str = "recovery replay") -> bytes:
    """The document of ``recovery replay --json`` or ``recovery bisect --json`` as JUnit XML in UTF-8."""
    found, verdict = findings_of(document), verdict_of(document)
    engine = _text(document.get("engine", ""))
    suite = ElementTree.Element("testsuite", name=name, time=str(document.get("seconds", 0)))
    whole = _case(suite, engine, _range_name(document), str(document.get("seconds", 0)))
    damage = _text(document.get("damage", ""))
    if verdict == "damaged":
        ElementTree.SubElement(whole, "error", message=damage, type="damaged").text = damage
    elif verdict == "nothing":
        ElementTree.SubElement(whole, "skipped", message="nothing was verified")
    elif found:
        message = f"{len(found)} divergences, the first at command {found[0].command_id}"
        ElementTree.SubElement(whole, "failure", message=message, type="diverged").text = _text(found[0].title)
    for finding in found:
        case = _case(suite, engine, f"command {finding.command_id} ({_text(finding.type)})", "0")
        failure = ElementTree.SubElement(case, "failure", message=_text(finding.title), type=_text(finding.cause))
        failure.text = _text("\n".join([finding.title, *finding.lines]))
    if document.get("not_checked"):
        ElementTree.SubElement(suite, "system-out").text = _text(
            "\n".join(f"not checked: {line}" for line in lines_of(document["not_checked"]))
        )
    cases = suite.findall("testcase")
    for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(count, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("tests", str(len(cases)))
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    written: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return written


def _case(suite: ElementTree.Element, engine: str, name: str, seconds: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=f"recovery.{engine}", name=name, time=seconds)


def _range_name(document: Mapping[str, Any]) -> str:
    if "first" not in document:
        return "bisect"
    return f"commands {document['first']} to {document['last']}"


def _text(value: object) -> str:
    return _ILLEGAL.sub("\N{REPLACEMENT CHARACTER}", str(value))
