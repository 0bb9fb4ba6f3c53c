"""Why a divergence happened: the cause and the factor that are claimed are the right ones, and none is claimed for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from recovery import Command, Runtime, TableEngine, open_journal, verify
from recovery.divergence import ABSENT, Divergence, FieldDifference
from recovery.explaining import explanation, perturbation
from recovery.explaining.conditions import FACTORS, settings, variable_settings
from recovery.explaining.explanation import explain, explained_by, from_record, study
from recovery.explaining.perturbation import Findings, Laboratory, Observed, Place, Run
from tests import nondeterminism

ROOT = Path(__file__).parents[2]
ODD = 4
RECORDED_AT_MS = 1_700_000_000_000


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(perturbation, "AT_ONCE", 1)  # the others are for what one may miss, which is nothing here


def record(name: str, types: Sequence[str] = ("odd", "plain", "plain", "odd", "plain")) -> Place:
    """A history of an engine of tests/nondeterminism.py, with images every two commands."""
    engine = getattr(nondeterminism, name)
    options: dict[str, Any] = {} if issubclass(engine, TableEngine) else {"digest_every": 2}
    with Runtime.open(engine, journal="sqlite:j.db", snapshots="dir:s", snapshot_every=2, **options) as runtime:
        for number, type in enumerate(types):
            runtime.execute(Command(type, None, received_at_ms=RECORDED_AT_MS + number))
    place = Place.of(f"tests.nondeterminism:{name}", "sqlite:j.db", stream="main", snapshots="dir:s", app_dir=str(ROOT))
    assert place is not None
    return place


def found(place: Place, command_id: int = ODD) -> Findings:
    with open_journal("sqlite:j.db") as journal:
        findings = study(Laboratory(place), journal, command_id)[0]
    assert set(findings.factors) <= set(FACTORS)
    return findings


MOVED = {
    "hash seed": {"SetOrder"},
    "time zone": {"TimeZone"},
    "locale": {"Locale", "LocaleVariable"},
    "clock": {"Clock"},
    "random": {"Random", "Uuid"},
    "garbage collection": set(),
    "decimal context": {"DefaultDecimals"},
    "thread": {"ThreadLocal"},
    "environment": {"Variable"},
    "working directory": {"File"},
    "optimization": {"Asserting"},
    "process": {"ProcessId"},
}


def test_each_setting_moves_what_depends_on_it_and_nothing_else() -> None:
    Path("fee.txt").write_text("5")
    types = list(nondeterminism.Many.kinds)
    laboratory = Laboratory(record("Many", types))
    groups = settings(clock_s=laboratory.clock_s, recorded_s=RECORDED_AT_MS / 1000)
    groups["environment"] += variable_settings(["SHOP_FEE"])
    tried = [each for group in groups.values() for each in group]
    run = Run(0, len(types))
    base, *observed = laboratory.observe_all([((), [run]), *(((each,), [run]) for each in tried)])
    assert isinstance(base, Observed)
    assert "SHOP_FEE" in base.variables
    assert not {"HOME", "PATH"} & set(base.variables), "only what the engine asks for"
    moved: dict[str, set[str]] = {factor: set() for factor in groups}
    for setting, each in zip(tried, observed, strict=True):
        assert isinstance(each, Observed), each
        (still,), (seen,) = base.runs, each.runs
        moved[setting.factor] |= {
            type for number, type in enumerate(types, 1) if still.outcome(number) != seen.outcome(number)
        }
    assert moved == MOVED


def test_the_same_experiment_is_the_same_down_to_the_addresses() -> None:
    laboratory, runs = Laboratory(record("SetOfObjects")), [Run(ODD - 1, ODD)] * 12
    outcomes = []
    for each in laboratory.observe_all([((), runs)] * 4):
        assert isinstance(each, Observed), each
        outcomes.append([seen.outcome(ODD) for seen in each.runs])
    assert len(set(outcomes[0])) > 1, "it does depend on them"
    assert outcomes == [outcomes[0]] * 4


@pytest.mark.parametrize(
    ("engine", "factor"),
    [
        ("SetOrder", "hash seed"),
        ("TimeZone", "time zone"),
        ("Rarely", "random"),
        ("SetOfObjects", "memory addresses"),
        ("Collected", "garbage collection"),
        ("MemoCache", "process"),
        ("Instance", "restore point"),
        ("Counting", "restore point"),
    ],
)
def test_the_factor_is_the_right_one(engine: str, factor: str) -> None:
    findings = found(record(engine))
    assert next(iter(findings.factors), "") == factor, findings
    others = set(findings.factors) - {factor}
    # What lies elsewhere, or is collected at another time, does so in another process and after another start as well.
    assert others <= ({"process", "restore point"} if factor in ("memory addresses", "garbage collection") else set())
    label = findings.factors[factor]
    assert any(line.startswith(f"otherwise with: {label}") for line in findings.evidence)


@pytest.mark.parametrize("engine", ["Clean", "Plain"])
def test_a_clean_engine_moves_with_nothing(engine: str) -> None:
    findings = found(record(engine))
    assert (findings.ran, findings.steady, findings.recorded) == (True, True, True)
    assert (findings.factors, findings.suspected, findings.moved) == ({}, [], set())


def test_what_differs_by_itself_is_blamed_on_nothing() -> None:
    findings = found(record("Unsteady"))
    assert (findings.steady, findings.factors) == (False, {})


# From the record alone


def divergence(cause: str, *fields: FieldDifference, **parts: tuple[Any, Any]) -> Divergence:
    sides = {name: {"recorded": ours, "replayed": theirs} for name, (ours, theirs) in parts.items()}
    return Divergence(4, "r", "odd", ("post_digest",), cause, fields, sides)


def field(key: Any, recorded: Any, replayed: Any) -> FieldDifference:
    return FieldDifference("notes", key, "text", recorded, replayed)


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        (divergence("unknown", field(1, ("a", "b"), ("b", "a"))), "order only"),
        (divergence("logic changed", field(1, ("a", "b"), ("b", "a"))), "order only"),
        (divergence("hidden state", response=([1, 2], [2, 1])), "order only"),
        (divergence("unknown", response=({"x": [1, [3, 2]]}, {"x": [[2, 3], 1]})), "order only"),
        (divergence("unknown", field(1, "a", "b"), field(2, "b", "a")), "order only"),
        (divergence("unknown", field(1, "a", "b"), field(2, "b", "c")), "unknown"),
        (divergence("unknown", field(1, "a", ABSENT), field(2, ABSENT, "a")), "unknown"),
        (divergence("unknown", field(1, ("a", "b"), ("b", "a")), response=(1, 2)), "unknown"),
        (divergence("unknown", response=({"x": 1}, {"x": 2})), "unknown"),
        (divergence("unknown", response=([1, 1, 2], [1, 2, 2])), "unknown"),
        (divergence("unknown"), "unknown"),
        (divergence("recorder fault", field(1, ("a", "b"), ("b", "a"))), "recorder fault"),
        (divergence("not deterministic", field(1, ("a", "b"), ("b", "a"))), "not deterministic"),
    ],
)
def test_order_only_is_told_where_all_that_differs_is_order(given: Divergence, cause: str) -> None:
    known = from_record(given)
    assert known.cause == cause
    assert known.explanation


def test_a_factor_that_moves_something_else_is_not_blamed() -> None:
    findings = Findings(factors={"hash seed": "PYTHONHASHSEED=1"}, moved={"/log/4"})
    place = record("Clean")
    with open_journal("sqlite:j.db") as journal:
        (entry,) = journal.read(ODD - 1, ODD)
    assert place.engine
    other = explained_by(from_record(divergence("unknown", field(1, "a", "b"))), findings, entry, None)
    assert (other.cause, other.factor) == ("unknown", "")
    assert "/log/4" in other.evidence[-1]
    findings.moved = {"/notes/1/text"}
    same = explained_by(from_record(divergence("unknown", field(1, "a", "b"))), findings, entry, None)
    assert (same.cause, same.factor) == ("not deterministic", "hash seed")


def test_a_divergence_survives_the_way_between_processes() -> None:
    given = divergence(
        "unknown", field(("a", 1), b"x", ABSENT), FieldDifference("c", (), "", 2**60, 3), response=(1, 2)
    )
    for each in (given, explain(given, None)):
        assert Divergence.from_dict(each.to_dict()).to_dict() == each.to_dict()


# In a replay


def test_a_replay_says_why_where_the_environment_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOVERY_REVISION", "abc")
    monkeypatch.setenv("SHOP_FEE", "5")
    place = record("Variable")
    monkeypatch.delenv("SHOP_FEE")
    report = verify(place.engine, "sqlite:j.db", "dir:s", app_dir=str(ROOT))
    (one,) = report.divergences
    assert (one.command_id, one.cause, one.factor) == (1, "not deterministic", "environment")
    assert "SHOP_FEE" in one.explanation
    document = one.to_dict()
    assert (document["factor"], document["evidence"]) == ("environment", list(one.evidence))
    assert f"why: {one.explanation}" in str(one)


def test_the_first_divergences_are_looked_into_and_of_the_others_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanation, "EXPLAINED_MAX", 2)
    monkeypatch.setenv("RECOVERY_REVISION", "abc")
    monkeypatch.setenv("SHOP_FEE", "5")
    place = record("Variable", ("odd", "plain", "odd", "odd"))
    monkeypatch.delenv("SHOP_FEE")
    found = verify(place.engine, "sqlite:j.db", "dir:s", app_dir=str(ROOT), keep_going=True).divergences
    assert [each.command_id for each in found] == [1, 3, 4]
    assert [each.factor for each in found] == ["environment", "environment", ""]
    assert found[2].evidence == (
        "no experiment was run with it: that is done with the first 2, as far as there is time",
    )


def test_a_replay_from_an_image_finds_what_the_image_does_not_hold() -> None:
    place = record("Instance")
    report = verify(place.engine, "sqlite:j.db", "dir:s", after=3, app_dir=str(ROOT))
    (one,) = report.divergences
    assert (one.command_id, one.cause, one.factor) == (ODD, "restore hole", "restore point")


def test_what_no_other_process_can_load_is_said() -> None:
    class Local(nondeterminism.Clean):
        def odd(self, context: Any) -> str:
            return "changed"

    record("Clean")
    (one,) = verify(Local, "sqlite:j.db", "dir:s").divergences
    assert one.evidence[0].startswith("no experiment was run")
    assert one.factor == ""


def test_an_engine_that_cannot_be_loaded_elsewhere_is_said() -> None:
    place = record("Clean")
    findings = found(Place(place.engine + "x", place.journal, place.stream, place.snapshots, place.app_dir))
    assert not findings.ran
    assert "Cleanx" in findings.evidence[0]
