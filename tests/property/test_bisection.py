"""Bisection against brute force: histories with bugs planted at random commands, and journals that part at every position."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recovery import Command, Runtime, bisect, open_journal, verification, verify
from recovery.bisection import find_divergence
from tests.buggy import BUGS, BuggyCounter, BuggyTill
from tests.places import forget, new_place

KINDS = ("row", "event", "response")
COMMANDS = 24
TILL, COUNTER = "tests.buggy:BuggyTill", "tests.buggy:BuggyCounter"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every cut pays, and causes are told in this process alone."""
    monkeypatch.setattr("recovery.verifying.segments.START", 0)
    monkeypatch.setattr(verification, "_explained", lambda report, *rest, **options: report)
    BUGS.clear()
    yield
    BUGS.clear()


def course(seed: int, engine: str, length: int = COMMANDS) -> list[Command]:
    """The same commands for the same seed."""
    draw = random.Random(seed)
    commands = []
    for number in range(1, length + 1):
        given: dict[str, Any] = {"request_id": f"r{number}", "received_at_ms": 1_700_000_000_000 + number}
        if engine == COUNTER:
            command = Command("count", {"name": draw.choice("xyz"), "by": draw.getrandbits(3)}, **given)
        elif draw.random() < 0.1:
            command = Command("close_account", {"number": draw.choice("abc")}, **given)
        else:
            command = Command("deposit", {"number": draw.choice("abc"), "cents": draw.randint(-5, 40)}, **given)
        commands.append(command)
    return commands


def recorded(engine: str, commands: list[Command], *, seed: int = 1) -> str:
    """A journal in memory."""
    url = f"memory:{new_place()}"
    kind: Any = BuggyCounter if engine == COUNTER else BuggyTill
    options: dict[str, Any] = {"digest_every": 5} if engine == COUNTER else {}
    with Runtime.open(kind, journal=url, snapshot_every=0, seed=seed, durable=False, **options) as runtime:
        list(runtime.execute_many(commands))
    return url


def first_of_all(engine: str, url: str) -> int | None:
    """By brute force: every command against its record, one by one."""
    report = verify(engine, url, keep_going=True)
    return min((each.command_id for each in report.divergences), default=None)


@pytest.mark.parametrize("engine", [TILL, COUNTER])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_first_divergence_from_the_record_is_the_first(engine: str, seed: int) -> None:
    draw = random.Random(seed)
    BUGS.clear()
    url = recorded(engine, course(seed, engine))
    BUGS.update((draw.randint(1, COMMANDS), draw.choice(KINDS)) for _ in range(draw.choice([0, 1, 4])))
    found = find_divergence(engine, url)
    wanted = first_of_all(engine, url)
    assert (None if found.first_divergence is None else found.first_divergence.command_id) == wanted
    assert found.proven
    assert not found.monotone
    if wanted is not None:
        assert found.commands_replayed == wanted
        assert found.exit_code == 1
    forget(url.removeprefix("memory:"))


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_bug_that_cancels_out_is_found_where_it_begins(tmp_path: Path, jobs: int) -> None:
    """The state comes back to the recorded one: who halves on digests would look behind it."""
    where = {"journal": f"sqlite:{tmp_path}/j.db", "snapshots": f"dir:{tmp_path}/s"}
    with Runtime.open("tests.cancelling:Straight", **where, snapshot_every=8, keep=100) as runtime:
        for number in range(1, 41):
            runtime.execute(Command("add", {"by": number}))
    found = find_divergence("tests.cancelling:There", **where, jobs=jobs)
    assert found.first_divergence is not None
    assert found.first_divergence.command_id == 11
    assert [(each.path, each.recorded, each.replayed) for each in found.first_divergence.fields] == [
        ("/total", sum(range(12)), sum(range(12)) + 1)
    ]
    assert found.proven


@pytest.mark.parametrize("kind", [*KINDS, "data", "time"])
@pytest.mark.parametrize("engine", [TILL, COUNTER])
def test_journals_that_part_at_every_position(engine: str, kind: str) -> None:
    commands = course(7, engine)
    ours = recorded(engine, commands)
    for at in range(1, COMMANDS + 1):
        BUGS.clear()
        asked = list(commands)
        old = asked[at - 1]
        if kind == "data":
            data = {**old.data, "number": "d"} if engine == TILL else {**old.data, "by": 99}
            asked[at - 1] = Command(old.type, data, request_id=f"r{at}", received_at_ms=old.received_at_ms)
        elif kind == "time":
            asked[at - 1] = Command(old.type, old.data, request_id=f"r{at}", received_at_ms=old.received_at_ms - 1)
        else:
            BUGS[at] = kind
        theirs = recorded(engine, asked)
        found = find_divergence(None, ours, other_journal=theirs)
        with open_journal(ours) as left, open_journal(theirs) as right:
            chains = zip((each.chain for each in left.read()), (each.chain for each in right.read()), strict=True)
            wanted = next((number for number, pair in enumerate(chains, 1) if pair[0] != pair[1]), None)
        first = found.first_divergence
        assert (None if first is None else first.command_id) == wanted
        assert found.monotone
        assert found.steps <= 8
        if first is not None:
            assert first.what in expected(kind, engine)
        forget(theirs.removeprefix("memory:"))
    forget(ours.removeprefix("memory:"))


def expected(kind: str, engine: str) -> list[tuple[str, ...]]:
    """The parts that may differ between two records."""
    if kind in ("data", "time"):
        return [("inputs",)]
    if kind == "row" and engine == COUNTER:  # it shows at the next digest, or in an answer before
        return [("post_digest",), ("response",), ("post_digest", "response")]
    return [{"row": ("post_digest",), "event": ("events",), "response": ("response",)}[kind]]


def test_bisect_gives_the_divergence_alone() -> None:
    url = recorded(TILL, course(3, TILL))
    assert bisect(TILL, url) is None
    BUGS[9] = "row"
    found = bisect(TILL, url)
    assert found is not None
    assert (found.command_id, found.tables) == (9, ("accounts",))
