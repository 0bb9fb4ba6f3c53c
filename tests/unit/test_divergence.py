"""A replay that goes another way: the first command, the cause, the table, the key, the field; and what was not checked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from journal import framing, values
from journal.records import Entry, checksum, next_chain
from journal.stores.memory import PLACES
from recovery import (
    Command,
    Context,
    DivergenceError,
    Report,
    Runtime,
    TableEngine,
    command,
    open_journal,
    verify,
)
from recovery.divergence import ABSENT, FieldDifference, field_differences
from recovery.verifying import range_replay
from tests.engines import Account, Counter, Till
from tests.places import new_place

ROOT = Path(__file__).parents[2]


@pytest.fixture
def name() -> str:
    """A journal of eight deposits and a rejection, in memory."""
    name = new_place()
    with Runtime.open(Till, journal=f"memory:{name}", snapshots="memory:") as till:
        for cents in range(1, 5):
            till.execute(Command("deposit", {"number": "ada", "cents": cents}))
            till.execute(Command("deposit", {"number": "bob", "cents": cents * 10}))
        till.execute(Command("deposit", {"number": "eve", "cents": -1}))
    return name


def replay(engine: Any, name: str, **options: Any) -> Report:
    return verify(engine, open_journal(f"memory:{name}"), **options)


def bent(bend: Callable[[Any, Context, Command], None], **attributes: Any) -> type[TableEngine]:
    """The till, with something done after each command."""

    def apply(self: Any, context: Context, command: Command) -> Any:
        response = TableEngine.apply(self, context, command)
        bend(self, context, command)
        return response

    return type("Bent", (Till,), {"apply": apply, **attributes})


def third(change: Callable[[Any, Context], None]) -> type[TableEngine]:
    """The till, bent at command 3."""
    return bent(lambda engine, context, _: change(engine, context) if context.command_id == 3 else None)


# Which field


def only(report: Report) -> Any:
    assert report.verdict == "diverged"
    (found,) = report.divergences
    return found


def test_a_field_that_differs_is_named_with_both_sides(name: str) -> None:
    found = only(replay(third(lambda till, _: till.accounts.__setitem__("ada", Account("ada", 4))), name))
    assert (found.command_id, found.type, found.what, found.tables) == (3, "deposit", ("post_digest",), ("accounts",))
    assert found.fields == (FieldDifference("accounts", "ada", "cents", 3, 4),)
    assert found.fields[0].path == "/accounts/ada/cents"
    assert str(found).splitlines()[1].startswith("  why: The code is of another revision")
    assert str(found).splitlines()[2] == "  /accounts/ada/cents: recorded 3, replayed 4"


def test_a_row_too_many_one_too_few_and_a_cell(name: str) -> None:
    def change(till: Any, context: Context) -> None:
        till.accounts["new/one"] = Account("eve", 1)
        del till.accounts["bob"]
        till.deposits.value = 99

    found = only(replay(third(change), name))
    assert [str(field) for field in found.fields] == [
        "/accounts/bob/owner: recorded 'bob', replayed no row",
        "/accounts/bob/cents: recorded 10, replayed no row",
        "/accounts/new~1one/owner: recorded no row, replayed 'eve'",
        "/accounts/new~1one/cents: recorded no row, replayed 1",
        "/deposits: recorded 3, replayed 99",
    ]
    documents = [field.to_dict() for field in found.fields]
    assert documents[0] == {
        "table": "accounts",
        "key": "bob",
        "field": "owner",
        "path": "/accounts/bob/owner",
        "recorded": "bob",
    }, "a side that is not there is left out"
    assert documents[4] == {
        "table": "deposits",
        "key": {"$tuple": []},
        "path": "/deposits",
        "recorded": 3,
        "replayed": 99,
    }


def test_values_that_python_calls_equal_are_told_apart(name: str) -> None:
    found = only(replay(third(lambda till, _: till.accounts.__setitem__("ada", Account("ada", 3.0))), name))  # type: ignore[arg-type]
    assert found.fields == (FieldDifference("accounts", "ada", "cents", 3, 3.0),)
    assert type(found.fields[0].replayed) is float


def test_response_events_and_rejections_are_compared(name: str) -> None:
    def answer(self: Any, context: Context, command: Command) -> Any:
        response = TableEngine.apply(self, context, command)
        if context.command_id == 2:
            context.emit("More", 1)
        return {"cents": -1} if context.command_id == 4 else response

    report = replay(type("Bent", (Till,), {"apply": answer}), name, keep_going=True)
    events, response = report.divergences
    assert (events.command_id, events.what) == (2, ("events",))
    assert [event["type"] for event in events.parts["events"]["replayed"]] == ["BalanceChanged", "More"]
    assert (response.command_id, response.what) == (4, ("response",))
    assert response.parts["response"] == {"recorded": {"cents": 30}, "replayed": {"cents": -1}}

    class Generous(Till):
        @command
        def deposit(self, context: Context, number: str, cents: int) -> dict[str, int]:
            return super().deposit(context, number, abs(cents))

    rejection = only(replay(Generous, name))
    assert (rejection.command_id, set(rejection.what)) == (9, {"post_digest", "response", "events"})
    assert rejection.parts["response"]["recorded"] == {"rejection": {"code": "insufficient", "message": "eve holds 0"}}


def test_an_exception_where_there_was_an_answer_is_a_divergence(name: str) -> None:
    def fail(till: Any, context: Context) -> None:
        raise LookupError("not here")

    found = only(replay(third(fail), name))
    assert found.what == ("response",)
    assert found.parts["response"]["replayed"] == {"exception": "LookupError: not here"}
    assert {str(field) for field in found.fields} >= {"/accounts/ada/cents: recorded 3, replayed 1"}


# Going on, and where from


def test_all_independent_divergences_are_found(name: str) -> None:
    engine = bent(
        lambda till, context, _: (
            till.accounts.__setitem__("ada", Account("eve", 0)) if context.command_id in (2, 5, 9) else None
        )
    )
    report = replay(engine, name, keep_going=True)
    assert [found.command_id for found in report.divergences] == [2, 5]
    assert report.commands == 9
    first = replay(engine, name)
    assert (first.commands, first.not_checked) == (2, ("7 commands after 2: the replay stopped there",))


def test_divergences_beyond_what_is_listed_are_counted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_replay, "LISTED_MAX", 3)
    engine = bent(lambda till, context, _: till.accounts.__setitem__("eve", Account("eve", context.command_id)))
    report = replay(engine, name, keep_going=True, explain=False)
    assert [found.command_id for found in report.divergences] == [1, 2, 3]
    assert report.commands == 9
    assert report.not_checked == ("why 5 more commands from 4 to 8 diverge: the first 1000 divergences are listed",)


def test_a_range_is_checked_from_the_recorded_state(name: str) -> None:
    engine = third(lambda till, _: till.accounts.__setitem__("ada", Account("ada", 4)))
    assert replay(engine, name, after=3).verdict == "verified"
    assert replay(engine, name, after=2, until=3).divergences[0].command_id == 3
    assert replay(engine, name, until=2).verdict == "verified"
    assert replay(engine, name, mode="redo").verdict == "verified"
    rebuilt = replay(engine, name, compare=False)
    assert (rebuilt.verdict, rebuilt.exit_code()) == ("nothing", 5)
    assert sum(rebuilt.checked.values()) == 0


def test_an_empty_range_verifies_nothing(name: str) -> None:
    for report in (replay(Till, name, after=9), replay(Till, name, after=3, until=3)):
        assert (report.verdict, report.commands, report.exit_code()) == ("nothing", 0, 5)


# Causes


def test_changed_code_is_told_by_its_revision(name: str) -> None:
    found = only(replay(third(lambda till, _: till.deposits.__setattr__("value", 7)), name))
    assert found.cause == "logic changed"


def test_the_same_revision_that_does_something_else_each_time_is_not_deterministic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = iter(range(1000))

    class Counting(Till):
        @command
        def deposit(self, context: Context, number: str, cents: int) -> dict[str, int]:
            return super().deposit(context, number, cents + next(count))

    name = new_place()
    monkeypatch.setenv("RECOVERY_REVISION", "abc")
    with Runtime.open(Counting, journal=f"memory:{name}", snapshots="memory:") as till:
        till.execute(Command("deposit", {"number": "ada", "cents": 1}))
    found = only(replay(Counting, name))
    assert (found.command_id, found.cause) == (1, "not deterministic")


def test_what_cannot_be_told_is_called_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same revision, the same each time it is run, and yet not what is recorded: a setting, perhaps."""
    monkeypatch.setenv("RECOVERY_REVISION", "abc")
    name = new_place()
    setting = [1]
    engine = bent(lambda till, context, _: till.deposits.__setattr__("value", setting[0]))
    with Runtime.open(engine, journal=f"memory:{name}", snapshots="memory:") as till:
        till.execute(Command("deposit", {"number": "ada", "cents": 1}))
    setting[0] = 2
    found = only(replay(engine, name))
    assert (found.cause, str(found.fields[0])) == ("unknown", "/deposits: recorded 1, replayed 2")
    monkeypatch.setenv("RECOVERY_REVISION", "def")
    assert only(replay(engine, name)).cause == "logic changed"


SET_ORDER = """
from recovery import Cell, Command, Context, TableEngine

class Setty(TableEngine):
    name = "setty"
    first = Cell(str, "")

    def apply(self, context: Context, command: Command) -> str:
        self.first.value = next(iter(set(command.data)))
        return "fine"
"""


def test_the_order_of_a_set_is_found_out_by_another_hash_seed(tmp_path: Path) -> None:
    (tmp_path / "setty.py").write_text(SET_ORDER)
    where = ["--engine", "setty:Setty", "--journal", "sqlite:j.db", "--snapshots", "dir:s"]

    def recovery(hash_seed: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "", "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": hash_seed}
        code = [sys.executable, "-m", "recovery.cli.main", *arguments, *where]
        return subprocess.run(
            code, cwd=tmp_path, env=environment, input=given, capture_output=True, text=True, timeout=120, check=False
        )

    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta"]
    lines = "".join(json.dumps({"type": "say", "data": words[at:] + words[:at]}) + "\n" for at in range(4))
    assert recovery("1", "run", given=lines).returncode == 0
    assert recovery("1", "replay").returncode == 0
    replayed = recovery("3", "replay", "--json")
    assert replayed.returncode == 1, replayed.stderr
    (found,) = json.loads(replayed.stdout)["divergences"]
    assert (found["command_id"], found["cause"]) == (1, "not deterministic")
    assert found["fields"][0]["path"] == "/first"


def test_events_in_another_order_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class Teller(TableEngine):
        name = "teller"

        def apply(self, context: Context, command: Command) -> None:
            for word in sorted(command.data, reverse=ORDER[0]):
                context.emit("Word", word)

    name = new_place()
    ORDER[0] = False
    monkeypatch.setenv("RECOVERY_REVISION", "abc")
    with Runtime.open(Teller, journal=f"memory:{name}", snapshots="memory:") as teller:
        teller.execute(Command("say", ["a", "b"]))
    ORDER[0] = True
    found = only(replay(Teller, name))
    assert (found.what, found.cause) == (("events",), "order only")


ORDER = [False]


def test_a_change_behind_the_framework_shows_as_that(name: str) -> None:
    """A row that was changed outside a command is in no record; the next command that meets it records what it found."""
    other = new_place()
    with Runtime.open(Till, journal=f"memory:{other}", snapshots="memory:") as till:
        till.execute(Command("deposit", {"number": "ada", "cents": 1}))
        till.engine.deposits._table._rows[()] = 40
        till.execute(Command("deposit", {"number": "ada", "cents": 1}))
        till.close(snapshot=False)
    for mode in ("execute", "redo"):
        found = only(replay(Till, other, mode=mode))
        assert (found.command_id, found.cause) == (2, "touched outside a command")


def test_behind_such_a_change_the_next_divergence_is_found_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recovery.runtime.SPOT_CHECK_ROWS", 0)
    other = new_place()
    with Runtime.open(Till, journal=f"memory:{other}", snapshots="memory:") as till:
        till.execute(Command("deposit", {"number": "ada", "cents": 1}))
        till.engine.deposits._table._rows[()] = 40
        for cents in range(2, 8):
            till.execute(Command("deposit", {"number": "ada", "cents": cents}))
        till.close(snapshot=False)
    assert [each.command_id for each in replay(Till, other, keep_going=True).divergences] == [2]
    assert [each.command_id for each in replay(Till, other, keep_going=True, mode="redo").divergences] == [2]
    engine = bent(
        lambda till, context, _: (
            till.accounts.__setitem__("bob", Account("bob", 9)) if context.command_id in (4, 6) else None
        )
    )
    report = replay(engine, other, keep_going=True)
    assert [each.command_id for each in report.divergences] == [2, 4, 6]
    assert report.commands == 7


def test_without_rows_what_follows_a_divergence_is_not_judged_until_a_digest_agrees() -> None:
    name = new_place()
    with Runtime.open(Counter, journal=f"memory:{name}", snapshots="memory:", digest_every=5) as counter:
        for _ in range(20):
            counter.execute(Command("count", {"name": "x"}))
        counter.close(snapshot=False)

    class Bent(Counter):
        def apply(self, context: Context, command: Command) -> Any:
            answer = super().apply(context, command)
            return -1 if context.command_id in (7, 9, 13) else answer

    report = replay(Bent, name, keep_going=True)
    assert [(each.command_id, each.what) for each in report.divergences] == [(7, ("response",)), (13, ("response",))]
    assert any(line.startswith("5 commands from 8 to 15 that follow a divergence") for line in report.not_checked)


def relinked(entries: list[Entry], at: int, **fields: Any) -> None:
    """Another content for one entry, and hashes and chains as if it had been written so."""
    entries[at] = entries[at]._replace(**fields)
    for place in range(at, len(entries)):
        entry = entries[place]
        before = entries[place - 1].chain if place else framing_start()
        entry = entry._replace(part_hashes=entry.computed_part_hashes())
        chain = next_chain(before, entry.part_hashes, entry.pre_digest_bytes, entry.post_digest_bytes)
        entry = entry._replace(chain=chain)
        entries[place] = entry._replace(checksum=checksum(*entry[:-1]))


def framing_start() -> bytes:
    from journal.digest import CHAIN_START

    return CHAIN_START


def test_records_that_are_whole_and_wrong_are_the_recorders_fault(name: str) -> None:
    entries = PLACES[name].streams["main"].entries
    spoilt = [
        change._replace(row_bytes=values.encode_bare(("ada", 77))) if change.table == "accounts" else change
        for change in entries[4].changes or []
    ]
    relinked(entries, 4, changes_bytes=framing.pack_changes(spoilt))
    redone = only(replay(Till, name, mode="redo"))
    assert (redone.command_id, redone.cause) == (5, "recorder fault")
    # Executing gives the recorded digest: only the changes are wrong.
    executed = only(replay(Till, name))
    assert (executed.command_id, executed.what, executed.cause) == (5, ("changes",), "changes incomplete")


# Versions


def test_commands_under_older_rules_are_redone_and_said(name: str) -> None:
    class Later(Till):
        logic_version = 3

        @command
        def deposit(self, context: Context, number: str, cents: int) -> dict[str, int]:
            return super().deposit(context, number, cents * 2)

    report = replay(Later, name)
    assert report.verdict == "verified"
    assert report.checked == {"pre_digest": 9, "post_digest": 9, "response": 0, "events": 0}
    (line,) = report.not_checked
    assert line.startswith("9 commands from 1 to 9 ran under rules older than 3")
    assert (report.exit_code(), report.exit_code(strict=True)) == (0, 5)
    with Runtime.open(Later, journal=f"memory:{name}", snapshots="memory:") as till:
        assert till.cold_start.not_checked
        assert till.execute(Command("deposit", {"number": "ada", "cents": 5})).response == {"cents": 20}
    mixed = replay(Later, name)
    assert (mixed.verdict, mixed.checked["response"], mixed.checked["post_digest"]) == ("verified", 1, 10)


def test_old_rules_that_are_kept_are_executed(name: str) -> None:
    class Later(Till):
        logic_version = 2
        replays_from = 1

        @command
        def deposit(self, context: Context, number: str, cents: int) -> dict[str, int]:
            return super().deposit(context, number, cents if context.logic_version < 2 else cents * 2)

    with Runtime.open(Later, journal=f"memory:{name}", snapshots="memory:") as till:
        assert till.cold_start.not_checked == ()
        till.execute(Command("deposit", {"number": "ada", "cents": 5}))
    report = replay(Later, name)
    assert (report.verdict, report.checked["response"], report.not_checked) == ("verified", 10, ())


# At a cold start, and as a document


def test_a_cold_start_refuses_what_it_cannot_reproduce_and_changes_nothing(name: str) -> None:
    engine = third(lambda till, _: till.accounts.__setitem__("ada", Account("ada", 4)))
    with pytest.raises(DivergenceError) as refused:
        Runtime.open(engine, journal=f"memory:{name}", snapshots="memory:")
    assert "command 3 (deposit)" in str(refused.value)
    assert "/accounts/ada/cents: recorded 3, replayed 4" in str(refused.value)
    assert "why: The code is of another revision than the one recorded" in str(refused.value)
    assert refused.value.hint
    assert refused.value.exit_code == 1
    assert len(open_journal(f"memory:{name}").epochs()) == 1
    with Runtime.open(Till, journal=f"memory:{name}", snapshots="memory:") as till:
        assert till.head.command_id == 9
    # Redo takes the record's word, and so starts under any code.
    with Runtime.open(engine, journal=f"memory:{name}", snapshots="memory:", replay="redo") as till:
        assert till.engine.accounts["ada"].cents == 10


def test_the_document_is_the_interface(name: str) -> None:
    document = replay(third(lambda till, _: till.accounts.__setitem__("ada", Account("ada", 4))), name).to_dict()
    assert list(document) == [
        *(
            "schema_version",
            "verdict",
            "engine",
            "state_version",
            "logic_version",
            "first",
            "last",
            "commands",
            "checked",
        ),
        *("not_checked", "snapshot", "segments", "seconds", "commands_per_second", "divergences"),
    ]
    assert (document["schema_version"], document["snapshot"], document["segments"]) == (1, {"command_id": 0}, 1)
    (found,) = document["divergences"]
    assert list(found) == [
        *("command_id", "request_id", "type", "what", "cause", "tables", "fields", "reproduce"),
        *("explanation", "evidence"),
    ]
    assert "null" not in json.dumps(document)


class Named(NamedTuple):
    owner: str
    cents: int
    since: int


@pytest.mark.parametrize(
    ("rows", "differ"),
    [
        ((("ada", 1), ("ada", 1, 5)), ["/t/k/since: recorded no row, replayed 5"]),
        (
            (("ada", 1, 5, 6), ("ada", 2, 5)),
            ["/t/k/cents: recorded 1, replayed 2", "/t/k/3: recorded 6, replayed no row"],
        ),
        ((7, ("ada", 2, 5)), ["/t/k: recorded 7, replayed ('ada', 2, 5)"]),
        (("abc", ABSENT), ["/t/k: recorded 'abc', replayed no row"]),
    ],
)
def test_rows_of_another_shape_than_this_codes_are_compared_by_place(rows: tuple[Any, Any], differ: list[str]) -> None:
    def change(row: Any) -> list[framing.Change]:
        key = values.encode_bare("k")
        return [framing.Change("t", key, None if row is ABSENT else values.encode_bare(row), None)]

    found = field_differences(
        change(rows[0]), change(rows[1]), before=lambda table, key: ABSENT, names=lambda table: Named._fields
    )
    assert [str(each) for each in found] == differ
