"""Engines without tables: what survives, what is refused and when, how a failed command is undone, what a replay can tell."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from recovery import (
    Command,
    Context,
    DivergenceError,
    EngineImportError,
    Reject,
    Runtime,
    UsageError,
    ValueRefused,
    open_journal,
    verify,
)
from tests.engines import Counter
from tests.places import new_place


class Shelf:
    """Holds whatever it is given, and counts how often it was made and restored."""

    name = "shelf"
    made: ClassVar[int] = 0
    restored: ClassVar[int] = 0

    def __init__(self) -> None:
        Shelf.made += 1
        self.kept: dict[Any, Any] = {}

    def apply(self, context: Context, command: Command) -> Any:
        if command.type == "reject":
            raise Reject("no", "never")
        if command.type == "spoil":
            self.kept[SPOILS[command.data][0]] = SPOILS[command.data][1]
            return None
        key, value = command.data
        self.kept[key] = value
        if command.type == "fail":
            raise RuntimeError("half way through")
        return [key, value]

    def capture(self) -> Any:
        return self.kept

    def restore(self, value: Any) -> None:
        Shelf.restored += 1
        self.kept = value


SPOILS: dict[str, tuple[Any, Any]] = {
    "a tuple key": (("a", 1), 1),
    "a float key": (1.5, 1),
    "a live object": ("x", object()),
    "a set, deep inside": ("x", {"y": [1, {2}]}),
}


@pytest.fixture
def where() -> dict[str, Any]:
    name = new_place()
    return {"journal": f"memory:{name}", "snapshots": f"memory:{name}"}


def put(key: Any, value: Any, type: str = "put") -> Command:
    return Command(type, (key, value))


def test_values_and_their_types_survive_a_restart(where: dict[str, Any]) -> None:
    kept = {"int": 2**70, "bytes": b"\x00\xff", "tuple": (1, ("a", b"b"), [True, 1.0]), "big": -1, "none": None}
    with Runtime.open(Shelf, **where) as shelf:
        for key, value in kept.items():
            shelf.execute(put(key, value))
        shelf.execute(put(7, "int key"))
        shelf.execute(put(b"k", "bytes key"))
    with Runtime.open(Shelf, **where) as shelf:
        assert (shelf.cold_start.image, shelf.cold_start.replayed) == (7, 0)
        found = shelf.engine.kept
    assert found == kept | {7: "int key", b"k": "bytes key"}
    assert {key: type(value) for key, value in found.items()} == {
        key: type(value) for key, value in (kept | {7: "", b"k": ""}).items()
    }
    assert [type(part) for part in found["tuple"][2]] == [bool, float]


@pytest.mark.parametrize(
    ("what", "path"), [*zip(SPOILS, ["('a', 1)", "1.5", r"\['x'\]", r"\['x'\]\['y'\]\[1\]"], strict=True)]
)
def test_what_cannot_be_stored_is_refused_when_it_is_written(where: dict[str, Any], what: str, path: str) -> None:
    with Runtime.open(Shelf, digest_every=1, **where) as shelf:
        shelf.execute(put("a", 1))
        with pytest.raises(ValueRefused, match=f"capture.*{path}"):
            shelf.execute(Command("spoil", what))
        assert shelf.head.command_id == 1
        assert shelf.engine.kept == {"a": 1}
        assert shelf.execute(put("b", 2)).command_id == 2


def test_a_capture_of_live_objects_is_a_copy(where: dict[str, Any]) -> None:
    with Runtime.open(Shelf, digest_every=1, **where) as shelf:
        shelf.execute(put("a", [1]))
        shelf.snapshot()
        shelf.execute(put("a", [1, 2]))
        shelf.execute(put("b", [3]))
        shelf.close(snapshot=False)
    with Runtime.open(Shelf, **where) as shelf:
        assert (shelf.cold_start.image, shelf.cold_start.replayed) == (1, 2)
        assert shelf.engine.kept == {"a": [1, 2], "b": [3]}


@pytest.mark.parametrize("digest_every", [1, 4, 1000])
def test_an_exception_half_way_is_undone(where: dict[str, Any], digest_every: int) -> None:
    with Runtime.open(Shelf, digest_every=digest_every, **where) as shelf:
        # In one batch: what is undone to is not durable yet.
        commands = [put("a", 1), put("b", 2), put("b", "spoilt", "fail"), put("c", 3), put("d", "spoilt", "fail")]
        outcomes = list(shelf.execute_many(commands))
        assert [type(outcome) for outcome in (outcomes[2], outcomes[4])] == [RuntimeError] * 2
        assert shelf.engine.kept == {"a": 1, "b": 2, "c": 3}
        for n in range(9):
            shelf.execute(put("a", n))
            with pytest.raises(RuntimeError):
                shelf.execute(put("a", "spoilt", "fail"))
            assert shelf.engine.kept["a"] == n
        assert shelf.head.command_id == 12
    assert verify(Shelf, open_journal(where["journal"])).verdict == "verified"


def test_a_thousand_rejects_make_the_engine_anew_not_once(where: dict[str, Any]) -> None:
    with Runtime.open(Shelf, **where) as shelf:
        shelf.execute(put("a", 1))
        before = (Shelf.made, Shelf.restored, id(shelf.engine))
        rejected = [shelf.execute(Command("reject", None)).rejection for _ in range(1000)]
        assert (Shelf.made, Shelf.restored, id(shelf.engine)) == before
        assert all(rejection is not None and rejection.code == "no" for rejection in rejected)
        assert shelf.head.command_id == 1001


def test_responses_and_events_are_compared_at_every_command(where: dict[str, Any]) -> None:
    with Runtime.open(Counter, digest_every=4, **where) as counter:
        for n in range(10):
            counter.execute(Command("count", {"name": "a", "by": n}))
    report = verify(Counter, open_journal(where["journal"]))
    assert report.verdict == "verified"
    assert report.checked == {"pre_digest": 2, "post_digest": 2, "response": 10, "events": 10}
    assert report.not_checked == ("the state after 8 commands: its digest is taken every 4 commands",)


def test_how_often_a_digest_is_taken_is_fixed_when_the_journal_is_made(where: dict[str, Any]) -> None:
    for digest_every in (3, 5):
        with Runtime.open(Counter, digest_every=digest_every, **where) as counter:
            for _ in range(6):
                counter.execute(Command("count", {"name": "a"}))
    digested = [entry.command_id for entry in open_journal(where["journal"]).read() if entry.post_digest_bytes]
    assert digested == [3, 6, 9, 12]


def test_commands_under_older_rules_cannot_be_redone_without_rows(where: dict[str, Any]) -> None:
    class Later(Counter):
        logic_version = 2

    with Runtime.open(Counter, **where) as counter:
        counter.execute(Command("count", {"name": "a"}))
        counter.close(snapshot=False)
    with pytest.raises(UsageError, match="command 1 has no recorded rows, so it can only be executed") as refused:
        Runtime.open(Later, **where)
    assert "code that still has those rules" in refused.value.hint
    Runtime.open(Counter, **where).close()  # takes an image, behind which nothing is left to be replayed
    with Runtime.open(Later, **where) as later:
        assert later.execute(Command("count", {"name": "a"})).response == 2


def test_hidden_state_that_shows_only_in_a_response_is_reported_as_that(where: dict[str, Any]) -> None:
    class Sometimes(Counter):
        """A cache outside the state that turns an answer, once it is warm, for good."""

        name = "hiding"

        def apply(self, context: Context, command: Command) -> Any:
            total = super().apply(context, command)
            return [total, "cached" if WARM[0] else "fresh"]

    WARM[0] = False
    with Runtime.open(Sometimes, digest_every=1, **where) as runtime:
        for n in range(3):
            runtime.execute(Command("count", {"name": "a", "by": n}))
    WARM[0] = True
    report = verify(Sometimes, open_journal(where["journal"]))
    (found,) = report.divergences
    assert (found.command_id, found.what, found.cause) == (1, ("response",), "hidden state")
    assert found.parts["response"] == {"recorded": [0, "fresh"], "replayed": [0, "cached"]}


WARM = [False]


class OwnDigest(Counter):
    """Gives a digest of its own."""

    name = "own"

    def digest(self) -> bytes:
        return str(sorted(self.totals.items())).encode()[:64]


def test_an_engines_own_digest_is_used(where: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with Runtime.open(OwnDigest, digest_every=1, **where) as own:
        own.execute(Command("count", {"name": "a"}))
    (entry,) = open_journal(where["journal"]).read()
    assert entry.post_digest is not None
    assert entry.post_digest.root == b"[('a', 1)]"
    assert verify(OwnDigest, open_journal(where["journal"])).verdict == "verified"
    monkeypatch.setattr(OwnDigest, "digest", lambda engine: "text")
    with Runtime.open(OwnDigest, journal="memory:", snapshots="memory:", digest_every=1) as own:
        with pytest.raises(UsageError, match="not 1 to 64 bytes"):
            own.execute(Command("count", {"name": "a"}))
        assert own.engine.totals == {}


def test_heavy_mode_finds_what_restore_forgets() -> None:
    class Half(Counter):
        name = "half"

        def restore(self, value: Any) -> None:
            self.totals = value["totals"]

    with Runtime.open(Half, journal="memory:", snapshots="memory:", heavy=True) as half:
        with pytest.raises(DivergenceError, match="not the same after capture and restore"):
            half.execute(Command("count", {"name": "a"}))
        assert half.head.command_id == 0


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        (type("NoName", (), {"apply": print, "capture": print, "restore": print}), r"no name \(a str\)"),
        (type("NoCapture", (), {"name": "x", "apply": print}), "no capture, restore"),
        (lambda: Counter, "is a class, not an engine|not an engine"),
        (7, "is a int"),
        ("no.such.module:Engine", "no module 'no'"),
        ("tests.engines:Nothing", "has no 'Nothing'"),
        ("tests.engines", "not MODULE:ATTR"),
    ],
)
def test_what_is_no_engine_is_said(engine: Any, said: str) -> None:
    with pytest.raises(EngineImportError, match=said):
        Runtime.open(engine, journal="memory:", snapshots="memory:")


def test_an_instance_per_factory_call_and_arguments_by_a_factory(where: dict[str, Any]) -> None:
    class Limited(Counter):
        name = "limited"

        def __init__(self, limit: int) -> None:
            super().__init__()
            self.limit = limit

    with pytest.raises(EngineImportError, match="cannot be made without arguments"):
        Runtime.open(Limited, **where)
    with Runtime.open(lambda: Limited(3), **where) as limited:
        assert limited.engine.limit == 3
