"""The guard names what is not deterministic with its line, says nothing of what is, and leaves no trace."""

from __future__ import annotations

import contextlib
import gc
import inspect
import json
import logging
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery import Command, Context, Nondeterminism, Runtime, TableEngine, UsageError, ValueRefused, verify
from recovery.cli.main import run
from recovery.examples.exchange import Exchange
from recovery.examples.generated import Generated
from recovery.guarding.guard import attach_guard, guarded
from recovery.stepper import Stepper, make_stepper
from recovery.submissions import encoded
from recovery.testing import check_engine
from tests import nondeterministic, unsound
from tests.crash.worker import stream_of
from tests.engines import Counter, Till
from tests.nondeterministic import CLEAN, KINDS, Careless
from tests.places import new_place

SOURCE = Path(nondeterministic.__file__).read_text().splitlines()
CASES = [(kind, name) for kind, names in KINDS.items() for name in names]


def marked_line(name: str) -> int:
    """The line that the guard must name for a command."""
    for number, line in enumerate(SOURCE, 1):
        if line.endswith(f"# here: {name}"):
            return number
    lines, first = inspect.getsourcelines(getattr(Careless, name))
    (line,) = [number for number, text in enumerate(lines, first) if text.rstrip().endswith("# here")]
    return line


def step(stepper: Stepper, name: str, command_id: int) -> Any:
    return stepper.step(encoded(Command(name, None, received_at_ms=1_764_288_000_000)), command_id, 1)


@pytest.fixture(autouse=True)
def leaves_no_profiler(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.WARNING)
    yield
    assert sys.getprofile() is None


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_strict_refuses_with_the_line(kind: str, name: str) -> None:
    stepper = make_stepper(Careless, 1, 0)
    with guarded(stepper, "strict"):
        with pytest.raises(Nondeterminism) as caught:
            step(stepper, name, 1)
        assert f"{nondeterministic.__file__}:{marked_line(name)} " in str(caught.value)
        assert str(caught.value).startswith(f"command 1: {kind}: ")
        assert caught.value.hint
        assert list(stepper.engine.rows) == []
        assert step(stepper, "plain_work", 1).rejected is False


@pytest.mark.parametrize("name", CLEAN)
def test_what_is_deterministic_is_not_named(name: str) -> None:
    stepper = make_stepper(Careless, 1, 0)
    free = step(stepper, name, 1)
    stepper.undo_to(0)
    with guarded(stepper, "strict") as guard:
        watched = step(stepper, name, 1)
    assert guard is not None
    assert (guard.findings, guard.not_seen) == ([], ())
    assert watched[:5] == free[:5]


def test_warn_logs_each_line_once_and_counts(caplog: pytest.LogCaptureFixture) -> None:
    stepper = make_stepper(Careless, 1, 0)
    with guarded(stepper, "warn") as guard:
        for number, (_, name) in enumerate(CASES * 2, 1):
            with contextlib.suppress(ValueRefused):
                step(stepper, name, number)
    assert guard is not None
    found = {(finding.kind, finding.line): finding for finding in guard.findings}
    assert len(found) == len(CASES)
    for number, (kind, name) in enumerate(CASES, 1):
        finding = found[kind, marked_line(name)]
        assert (finding.first_command, finding.commands) == (number, 2), name
    assert len(caplog.messages) == len(found)


def test_off_is_nothing() -> None:
    own = make_stepper(Careless, 1, 0)
    apply, code = own.apply, Careless.set_for.__code__
    assert attach_guard(own, "off") is None
    assert own.apply is apply
    assert Careless.set_for.__code__ is code
    assert step(own, "clock_time", 1).rejected is False


def test_functions_are_given_back_when_the_last_guard_goes() -> None:
    code, property_code = Careless.set_for.__code__, vars(Careless)["first"].fget.__code__
    first, second = (attach_guard(make_stepper(Careless, 1, 0), "warn") for _ in range(2))
    assert first is not None
    assert second is not None
    first.close()
    first.close()
    assert Careless.set_for.__code__ is not code
    second.close()
    assert Careless.set_for.__code__ is code
    assert vars(Careless)["first"].fget.__code__ is property_code


def test_other_threads_are_left_alone() -> None:
    stepper = make_stepper(Careless, 1, 0)
    with guarded(stepper, "strict"):
        other = make_stepper(Careless, 1, 0)
        outcomes: list[Any] = []
        thread = threading.Thread(
            target=lambda: outcomes.extend(step(other, name, 1) for name in ("set_for", "file_open", "clock_time"))
        )
        thread.start()
        thread.join(10)
    assert [outcome.rejected for outcome in outcomes] == [False] * 3


def test_a_profiler_that_is_there_is_not_fought() -> None:
    stepper = make_stepper(Careless, 1, 0)
    calls = []
    with guarded(stepper, "strict") as guard:
        sys.setprofile(lambda frame, event, argument: calls.append(event))
        try:
            step(stepper, "clock_time", 1)
            with pytest.raises(Nondeterminism):
                step(stepper, "set_for", 2)
            kept = sys.getprofile()
        finally:
            sys.setprofile(None)
    assert kept is not None
    assert calls
    assert guard is not None
    assert guard.not_seen == ("calls: another profiler holds sys.setprofile on the applying thread",)


def test_a_tracer_goes_on_tracing() -> None:
    stepper = make_stepper(Careless, 1, 0)
    before, lines = sys.gettrace(), []

    def trace(frame: Any, event: str, argument: Any) -> Any:
        lines.append(frame.f_lineno) if frame.f_code.co_filename == nondeterministic.__file__ else None
        return trace

    with guarded(stepper, "warn"):
        sys.settrace(trace)
        try:
            step(stepper, "set_for", 1)
        finally:
            sys.settrace(before)
    assert marked_line("set_for") in lines


def test_a_runtime_journals_nothing_of_a_refused_command() -> None:
    place = new_place()
    with Runtime.open(Careless, journal=f"memory:{place}", snapshots=f"memory:{place}", guard="strict") as runtime:
        runtime.execute(Command("plain_work", None))
        for name in ("clock_time", "clock_swallowed", "set_for"):
            with pytest.raises(Nondeterminism):
                runtime.execute(Command(name, None))
        assert runtime.head.command_id == 1
        assert runtime.query(lambda engine: dict(engine.rows)) == {"written": 1}
        found = runtime.status()["guard"]
        assert found["mode"] == "strict"
        assert [finding["line"] for finding in found["findings"]] == [
            marked_line(name) for name in ("clock_time", "clock_swallowed", "set_for")
        ]
    with pytest.raises(UsageError, match="strict"):
        Runtime.open(Careless, journal=f"memory:{place}", guard="stern")


def test_a_replay_under_guard_names_the_line_at_the_command() -> None:
    place = new_place()
    with Runtime.open(Careless, journal=f"memory:{place}", snapshots=f"memory:{place}") as runtime:
        assert "guard" not in runtime.status()
        for name in ("plain_work", "said_and_not_heard", "set_pop", "own_random"):
            runtime.execute(Command(name, None))
    strict = verify(Careless, f"memory:{place}", guard="strict")
    assert [(one.command_id, one.cause) for one in strict.divergences] == [(3, "not deterministic")]
    assert f":{marked_line('set_pop')} " in str(strict)
    warned = verify(Careless, f"memory:{place}", guard="warn").to_dict()
    assert [finding["line"] for finding in warned["guard"]["findings"]] == [marked_line("set_pop")]
    assert "guard" not in verify(Careless, f"memory:{place}").to_dict()


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECOVERY_ENGINE", "tests.nondeterministic:Careless")
    (tmp_path / "in.jsonl").write_text(
        "".join(json.dumps({"type": n, "data": None}) + "\n" for n in ("single", "uuid_4"))
    )
    assert run(["run", "in.jsonl", "--guard", "strict"]) == 2
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["command_id"] == 1
    assert second["error"]["kind"] == "Nondeterminism"
    assert run(["run", "in.jsonl"]) == 0
    capsys.readouterr()
    assert run(["replay", "--guard", "strict", "--keep-going"]) == 1
    assert f"nondeterministic.py:{marked_line('uuid_4')} " in capsys.readouterr().out
    assert run(["replay", "--guard", "warn", "--until", "2"]) == 0
    assert "guard: nothing found" in capsys.readouterr().out


def test_a_class_made_inside_a_function_is_seen_too() -> None:
    stepper = make_stepper(unsound.made_here, 1, 1)
    with guarded(stepper, "strict"), pytest.raises(Nondeterminism, match="a set of str is taken in its order"):
        stepper.step(encoded(Command("count", {"name": "bob"}, received_at_ms=1)), 1, 1)


def test_what_the_host_does_at_each_collection_is_none_of_the_engines() -> None:
    def note(phase: str, info: dict[str, int]) -> None:
        time.perf_counter()

    class Collecting(TableEngine):
        name = "collecting"

        def apply(self, context: Context, command: Command) -> int:
            return len([gc.collect()])

    stepper = make_stepper(Collecting, 1, 0)
    gc.callbacks.append(note)
    try:
        with guarded(stepper, "warn") as guard:
            stepper.step(encoded(Command("any", {}, received_at_ms=1)), 1, 1)
    finally:
        gc.callbacks.remove(note)
    assert guard is not None
    assert {finding.kind for finding in guard.findings} <= {"garbage collector"}


def test_the_clean_engines_are_clean() -> None:
    flow = [encoded(command) for command in Generated(1, commands=1500).commands()]
    stepper = make_stepper(Exchange, 1, 0)
    with guarded(stepper, "strict") as guard:
        for number, asked in enumerate(flow, 1):
            stepper.step(asked, number, 1)
    assert guard is not None
    assert (guard.findings, guard.not_seen) == ([], ())
    check_engine(Till, list(stream_of(0, 40)), guard="strict")
    check_engine(Counter, [Command("count", {"name": "a"}), Command("fail", {"name": "a"})], guard="strict")
    with pytest.raises(Nondeterminism, match="set order"):
        check_engine(Careless, [Command("set_list", None)], guard="strict")
