"""The audit proves what no image holds, class of bug by class of bug, and has nothing to say of sound engines."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from recovery import Command, Runtime, Table, TableEngine
from recovery.audit import audit, audit_commands
from recovery.auditing.audit_report import AuditReport
from recovery.auditing.leaves import changes, flattened
from recovery.cli.main import run
from recovery.examples.exchange import Exchange
from recovery.examples.feed_book import FeedBook
from recovery.examples.generated import Generated
from recovery.examples.ledger import Ledger
from tests import nondeterministic, unsound
from tests.crash.worker import stream_of
from tests.engines import Counter, Till
from tests.places import new_place

NAMES = ("zed", "al", "bo", "cyd", "al", "bo", "al", "zed", "bo", "al")
COUNTS = [Command("count", {"name": name}) for name in NAMES]


def audited(engine: Any, commands: Any = COUNTS, *, sample: int = 5) -> AuditReport:
    return audit_commands(engine, commands, sample=sample)


@pytest.mark.parametrize(
    ("engine", "check", "command_id", "suspect"),
    [
        (unsound.FieldNotCaptured, "restore", 3, "answered: int 2 live, int 0 restored"),
        (unsound.KeyDrift, "restore", 3, "totals['2']: nothing live, int 1 restored"),
        (unsound.ModuleList, "restore", 3, "module global tests.unsound.SEEN"),
        (unsound.ModuleNumber, "restore", 3, "module global tests.unsound.TOTAL"),
        (unsound.ClassAttribute, "restore", 3, "class attribute tests.unsound.ClassAttribute.count"),
        (unsound.InClosure, "restore", 3, "closure tests.unsound.counting.<locals>.count.calls"),
        (unsound.InDefault, "restore", 3, "default argument tests.unsound.InDefault.apply.seen"),
        (unsound.InCache, "restore", 3, "cache of a function tests.unsound.looked_up"),
        (unsound.InContext, "restore", 3, "context variable tests.unsound.STEPS"),
        (unsound.InThread, "restore", 3, "thread local tests.unsound.LOCAL"),
        (unsound.MemoCache, "restore", 5, "memo['al']: int 1 live, nothing restored"),
        (unsound.Generating, "restore", 3, "numbers.at: int"),
        (unsound.InAttribute, "restore", 3, "beside[0]: int 1 live, nothing restored"),
        (unsound.InsertionOrder, "restore", 3, "totals (order): 'zed', 'al' live, 'al', 'zed' restored"),
        (unsound.PartialReject, "reject", 3, ""),
        (unsound.SharedByAll, "alias", 3, ""),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_state_that_escapes_is_proven(engine: Any, check: str, command_id: int, suspect: str) -> None:
    report = audited(engine)
    assert report.exit_code == 1
    finding = next(finding for finding in report.findings if finding.check == check)
    assert finding.command_id == command_id
    assert not suspect or any(line.startswith(suspect) for line in finding.suspects.values()), finding
    if ":" not in suspect and suspect:
        assert any(place.changed and place.name in suspect for place in report.hidden)
        assert f"{Path(unsound.__file__)}:" in str(report)


@pytest.mark.parametrize(
    ("engine", "commands"),
    [
        (Counter, [*COUNTS[:4], Command("reject", {"name": "no"}), *COUNTS[4:]]),
        (unsound.SoundMemo, COUNTS),
        (unsound.FieldNeverUsed, COUNTS),
        (unsound.OwnDigest, COUNTS),
        (Till, list(stream_of(0, 60))),
        (Exchange, list(Generated(1, commands=900).commands())),
        (
            FeedBook,
            [
                Command("created", {"order_id": n % 9, "side": "bid", "cents": 90 + n % 7, "satoshi": n})
                for n in range(30)
            ]
            + [Command("deleted", {"order_id": n}) for n in range(12)],
        ),
        (
            Ledger,
            [Command("define_currency", {"currency": "EUR", "places": 2})]
            + [Command("open_account", {"account": name, "currency": "EUR", "floor": None}) for name in ("a", "b")]
            + [Command("post", {"legs": {"a": Decimal(-n), "b": Decimal(n)}}) for n in range(1, 20)],
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_sound_engines_have_no_findings(engine: Any, commands: list[Command]) -> None:
    report = audited(engine, commands, sample=6)
    assert (report.findings, report.guard["findings"]) == ([], []), str(report)
    assert report.verdict == "clean"
    assert report.checked["restores replayed to the end"] >= 5
    assert report.checked["leaves changed"] > 0
    assert not [place for place in report.hidden if place.changed]


def test_what_differs_and_showed_nowhere_is_a_note() -> None:
    report = audited(unsound.FieldNeverUsed)
    assert "answered was changed by commands, and the image does not move with it" in report.notes
    assert audited(unsound.OwnDigest).notes == []
    assert audited(unsound.HoldsLock).notes == ["lock is opaque lock: nothing is seen of what it holds"]


def test_a_history_that_does_not_replay_is_the_first_finding() -> None:
    report = audited(nondeterministic.Careless, [Command("plain_work", None), Command("uuid_4", None)])
    assert [(finding.check, finding.command_id) for finding in report.findings] == [("replay", 2)]
    assert [finding["kind"] for finding in report.guard["findings"]] == ["random"]
    assert "does not replay" in report.not_checked[0]


def test_the_modules_are_left_as_they_were() -> None:
    unsound.SEEN.append("before")
    assert audited(unsound.ModuleList).exit_code == 1
    assert unsound.SEEN == ["before"]
    unsound.SEEN.clear()


def test_nothing_to_look_at_is_said() -> None:
    report = audited(Counter, [])
    assert (report.verdict, report.exit_code) == ("nothing", 5)


class Careful(TableEngine):
    """Its digest is kept from moving, to see that the audit sees it."""

    name = "careful"
    rows = Table(str, int)

    def apply(self, context: Any, command: Command) -> Any:
        self.rows[command.data["name"]] = context.command_id


def test_a_digest_that_stands_still_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recovery.state._row_hash", lambda data, seed: 1)
    findings = audited(Careful).findings
    assert {finding.check for finding in findings} == {"digest"}
    assert "the digest does not move" in findings[0].what


def test_images_are_restored_too() -> None:
    place = new_place()
    where = {"journal": f"memory:{place}", "snapshots": f"memory:{place}"}
    with Runtime.open(Counter, **where, snapshot_every=0, digest_every=1) as runtime:
        for number, command in enumerate(COUNTS, 1):
            runtime.execute(command)
            if number in (3, 6):
                runtime.snapshot()
    report = audit(Counter, where["journal"], where["snapshots"], sample=1)
    assert report.checked["restores replayed to the end"] == 4
    assert report.verdict == "clean"
    assert len(audit(Counter, where["journal"], until=4, sample=2).not_checked) == 1


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [{"type": "count", "data": {"name": name}} for name in NAMES]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for engine, code in (("tests.unsound:FieldNotCaptured", 1), ("tests.engines:Counter", 0)):
        options = ["--engine", engine, "--journal", f"sqlite:{code}.db", "--snapshots", f"dir:{code}"]
        assert run(["run", "in.jsonl", *options]) == 0
        capsys.readouterr()
        assert run(["audit", *options, "--json"]) == code
        document = json.loads(capsys.readouterr().out)
        assert document["schema_version"] == 1
        assert document["verdict"] == ("findings" if code else "clean")
        assert run(["audit", *options, "--sample", "2"]) == code
        assert "audited in" in capsys.readouterr().out


def test_leaves_keep_types_and_shared_parts_apart() -> None:
    own: list[Any] = [1, "1", {1: (2,)}]
    own.append(own)
    assert flattened(own)["[3]"] == "the same as the whole"
    assert [changed for _, changed in changes({"a": [1, (True, None)], "b": b""})] == [
        {"a": [2, (True, None)], "b": b""},
        {"a": [1, (False, None)], "b": b""},
        {"a": [1, (True, None)], "b": b"x"},
    ]
