"""What a runtime tells its observer, and what its status counts; an observer that fails harms nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from journal.stores.memory import MemoryStore
from recovery import Command, DivergenceError, Observer, RequestConflict, Runtime, StoreUnavailable, WriterFenced
from recovery.observer import Batch, Delivered
from snapshots.stores.directory import DirectorySnapshots
from tests.engines import Till
from tests.places import new_place
from tests.unit.test_outbox import wait_for

HOOKS = [name for name in vars(Observer) if not name.startswith("_")]


class Notes:
    """Notes every hook that is called."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, tuple[Any, ...]]] = []

    def __getattr__(self, hook: str) -> Any:
        if hook not in HOOKS:
            raise AttributeError(hook)
        return lambda *values: self.heard.append((hook, values))

    def of(self, hook: str) -> list[tuple[Any, ...]]:
        return [values for name, values in self.heard if name == hook]


def deposit(number: str, cents: int, request_id: str) -> Command:
    return Command("deposit", {"number": number, "cents": cents}, request_id=request_id)


def test_each_outcome_is_told_and_counted(tmp_path: Path) -> None:
    notes = Notes()
    with Runtime.open(
        Till, journal=f"sqlite:{tmp_path}/till.db", snapshots="memory:", observer=notes, batch_max=2
    ) as till:
        assert [hook for hook, _ in notes.heard[:2]] == ["cold_started", "epoch_begun"]
        assert notes.of("cold_started") == [(till.cold_start,)]
        assert notes.of("epoch_begun") == [(1, 0)]
        assert "last_commit" not in till.status()
        outcomes = list(
            till.execute_many(
                [
                    deposit("ada", 5, "a"),
                    deposit("ada", 5, "a"),
                    deposit("ada", -9, "b"),
                    deposit("ada", 6, "a"),
                    Command("half_way", {"number": "x"}),
                    deposit("bob", 1, "c"),
                ]
            )
        )
        assert [isinstance(one, Exception) for one in outcomes] == [False, False, False, True, True, False]
        batches = [batch for (batch,) in notes.of("committed")]
        assert sum(batch.commands for batch in batches) == 3
        assert (batches[0].first, batches[-1].last) == (1, 3)
        assert all(batch.commands <= 2 and batch.bytes > 0 and batch.seconds > 0 for batch in batches)
        assert [(kind, rejected) for kind, _, rejected in notes.of("applied")] == [
            ("deposit", False), ("deposit", True), ("deposit", False),
        ]  # fmt: skip
        assert all(seconds > 0 for _, seconds, _ in notes.of("applied"))
        assert notes.of("duplicate") == [(1,)]
        ((conflict,),) = notes.of("conflict")
        assert isinstance(conflict, RequestConflict)
        ((kind, failure),) = notes.of("failed")
        assert (kind, str(failure)) == ("half_way", "half way through")
        assert notes.of("queued")
        till.snapshot()
        assert notes.of("image_made") == [(3,)]
        status = till.status()
        assert status["outcomes"] == {"recorded": 3, "rejected": 1, "duplicates": 1, "conflicts": 1, "failed": 1}
        assert status["batches"]["count"] == len(batches)
        assert status["batches"]["bytes"] == sum(batch.bytes for batch in batches)
        assert status["batches"]["commands_max"] == max(batch.commands for batch in batches)
        assert status["last_commit"]["last"] == 3
        assert status["last_commit"]["at_ms"] == batches[-1].at_ms
        assert status["waiting"] == 0
        assert status["uptime_seconds"] > 0
        seen: list[object] = []
        till.outbox("mail", deliver=seen.append)
        wait_for(lambda: len(seen) == 2)
        wait_for(lambda: bool(notes.of("delivered")))
        assert notes.of("delivered") == [(Delivered("mail", 2, 3, 0),)]


def test_an_outbox_that_stops_is_told() -> None:
    notes = Notes()
    place = f"memory:{new_place()}"
    with Runtime.open(Till, journal=place, snapshots="memory:", observer=notes) as till:
        till.outbox("mail", deliver=print, after=99)
        wait_for(lambda: bool(notes.of("outbox_failed")))
        ((name, error),) = notes.of("outbox_failed")
        assert name == "mail"
        assert "no command 99" in str(error)


class Refusing(MemoryStore):
    """A store that refuses the next appends with these errors."""

    errors: list[Exception]

    def append(self, *arguments: Any) -> None:
        """Refuse, or append."""
        if self.errors:
            raise self.errors.pop(0)
        super().append(*arguments)


def test_refused_batches_and_the_end_are_told() -> None:
    notes = Notes()
    store = Refusing(new_place())
    store._writes = True
    store.errors = []
    till = Runtime.open(Till, journal=store, snapshots="memory:", durable=False, observer=notes)
    store.errors = [StoreUnavailable("full"), WriterFenced("another writes")]
    with pytest.raises(StoreUnavailable):
        till.execute(deposit("ada", 1, "a"))
    assert [str(error) for (error,) in notes.of("refused")] == ["full"]
    assert till.status()["batches"]["refused"] == 1
    with pytest.raises(WriterFenced):
        till.execute(deposit("ada", 1, "b"))
    assert [type(error) for (error,) in notes.of("stopped")] == [WriterFenced]
    assert notes.of("committed") == []
    till.close()


def test_a_divergence_is_told_at_the_cold_start() -> None:
    class Bent(Till):
        def rebuild(self) -> None:
            """Nothing."""

        def apply(self, context: Any, command: Command) -> Any:
            found = super().apply(context, command)
            return {**found, "bent": True} if isinstance(found, dict) else found

    notes = Notes()
    place = f"memory:{new_place()}"
    with Runtime.open(Till, journal=place, snapshots="memory:", snapshot_every=0) as till:
        till.execute(deposit("ada", 5, "a"))
    with pytest.raises(DivergenceError):
        Runtime.open(Bent, journal=place, snapshots="memory:", observer=notes)
    ((error,),) = notes.of("diverged")
    assert error.evidence is not None


def test_a_failed_image_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def put(*arguments: object) -> bool:
        raise StoreUnavailable("no space")

    notes = Notes()
    monkeypatch.setattr(DirectorySnapshots, "put", put)
    images = f"dir:{tmp_path}/images"
    with Runtime.open(Till, journal="memory:", snapshots=images, observer=notes, snapshot_every=1) as till:
        till.execute(deposit("ada", 5, "a"))
        wait_for(lambda: bool(notes.of("image_failed")))
    assert "no space" in notes.of("image_failed")[0][0]


def test_an_observer_that_fails_is_logged_once_a_hook_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def __getattr__(self, hook: str) -> Any:
            raise SystemExit("broken")

    with (
        caplog.at_level(logging.ERROR, "recovery"),
        Runtime.open(Till, journal="memory:", snapshots="memory:", observer=Broken()) as till,
    ):
        for number in range(3):
            assert till.execute(deposit("ada", 1, str(number))).command_id == number + 1
    said = [record.getMessage() for record in caplog.records]
    assert sum("observer's committed failed" in one for one in said) == 1


def test_an_observer_needs_only_the_hooks_it_wants_and_the_base_class_has_all_of_them() -> None:
    class OnlyBatches:
        def __init__(self) -> None:
            self.commands = 0

        def committed(self, batch: Batch) -> None:
            self.commands += batch.commands

    counted = OnlyBatches()
    with Runtime.open(Till, journal="memory:", snapshots="memory:", observer=counted) as till:
        till.execute(deposit("ada", 1, "a"))
    assert counted.commands == 1
    with Runtime.open(Till, journal="memory:", snapshots="memory:", observer=Observer()) as till:
        till.execute(deposit("ada", 1, "a"))
