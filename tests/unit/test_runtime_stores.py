"""When the store refuses, fails or is not what it was taken for; images; settings; and rows changed behind our back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from journal.records import Entry
from journal.stores.memory import MemoryStore
from recovery import (
    Cell,
    Command,
    Context,
    DivergenceError,
    EngineMismatch,
    Index,
    OutcomeUnknown,
    RecoveryError,
    Runtime,
    StoreUnavailable,
    Table,
    TableEngine,
    UsageError,
    WriterFenced,
    WriterPoisoned,
    open_journal,
    open_snapshots,
    verify,
)
from recovery.settings import settings
from tests.engines import Account, Counter, Till
from tests.places import new_place


class Troubled(MemoryStore):
    """Raises what it is told to at the next append, before or after it wrote."""

    trouble: Callable[[], RecoveryError] | None = None
    after_writing = False

    def append(self, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        trouble, self.trouble = self.trouble, None
        if trouble is None or self.after_writing:
            super().append(stream, epoch, entries)
        if trouble is not None:
            raise trouble()


@pytest.fixture
def name() -> str:
    return new_place()


def troubled(name: str) -> tuple[Troubled, Runtime]:
    store = Troubled.open_for_write(name)
    assert isinstance(store, Troubled)
    return store, Runtime.open(Till, journal=store, snapshots="memory:", durable=False)


def deposit(cents: int, request_id: str | None = None) -> Command:
    return Command("deposit", {"number": "ada", "cents": cents}, request_id=request_id)


# A store that refuses


def test_a_refused_batch_is_undone_and_the_runtime_goes_on(name: str) -> None:
    store, till = troubled(name)
    till.execute(deposit(5))
    before = (list(till.engine.accounts.items()), list(till.engine.by_wealth), till.engine.deposits.value, till.head)
    store.trouble = lambda: StoreUnavailable("the disk is full")
    outcomes = list(till.execute_many([deposit(1, "a"), deposit(-99, "b"), deposit(2, "a")]))
    assert [type(outcome) for outcome in outcomes[:2]] == [StoreUnavailable] * 2
    assert (
        list(till.engine.accounts.items()),
        list(till.engine.by_wealth),
        till.engine.deposits.value,
        till.head,
    ) == before
    # The same requests, again: nothing of them was recorded.
    again = [till.execute(deposit(1, "a")), till.execute(deposit(-99, "b"))]
    assert [(receipt.command_id, receipt.duplicate) for receipt in again] == [(2, False), (3, False)]
    till.close()
    assert verify(Till, open_journal(f"memory:{name}")).verdict == "verified"


def test_a_query_behind_a_refused_batch_fails_with_it(name: str) -> None:
    store, till = troubled(name)
    store.trouble = lambda: StoreUnavailable("the disk is full")
    future = till.submit(deposit(5))
    try:
        seen: Any = till.query(lambda engine: len(engine.accounts))
    except StoreUnavailable:
        seen = None
    with pytest.raises(StoreUnavailable):
        future.result()
    assert seen in (None, 0), "a query saw a row that was never durable"
    till.close()


@pytest.mark.parametrize("wrote", [False, True])
def test_an_outcome_that_stays_unknown_is_said_and_stops_the_runtime(name: str, wrote: bool) -> None:
    kind = WriterPoisoned
    store, till = troubled(name)
    first = till.execute(deposit(5, "a"))
    store.after_writing = wrote
    store.trouble = lambda: kind("the disk went away")
    with pytest.raises(OutcomeUnknown) as unknown:
        till.execute(deposit(1, "b"))
    assert "same request id" in unknown.value.hint
    assert isinstance(unknown.value.__cause__, kind)
    for use in (lambda: till.execute(deposit(1)), lambda: till.submit(deposit(1)), lambda: till.query(len)):
        with pytest.raises(kind):
            use()
    assert "the disk went away" in str(till.status()["problems"])
    till.close()
    with Runtime.open(Till, journal=f"memory:{name}", snapshots="memory:") as till:
        assert till.execute(deposit(1, "b")).duplicate is wrote
        assert till.execute(deposit(5, "a")) == first._replace(duplicate=True)
        assert till.engine.accounts["ada"].cents == 6


def test_a_fenced_writer_acknowledges_nothing_and_stops(name: str) -> None:
    store, till = troubled(name)
    store.trouble = lambda: WriterFenced("epoch 1 is not the newest, 2")
    with pytest.raises(WriterFenced):
        till.execute(deposit(1))
    with pytest.raises(WriterFenced):
        till.execute(deposit(1))
    till.close()


def test_a_store_that_is_not_durable_needs_consent(name: str) -> None:
    with pytest.raises(UsageError, match="does not survive a power cut") as refused:
        Runtime.open(Till, journal=MemoryStore.open_for_write(name), snapshots="memory:")
    assert "durable=False" in refused.value.hint
    with Runtime.open(Till, journal="memory:", snapshots="memory:"):
        pass  # naming it is consent


def test_another_engines_journal_is_refused(name: str) -> None:
    Runtime.open(Till, journal=f"memory:{name}", snapshots="memory:").close()
    with pytest.raises(EngineMismatch, match="'till', not 'counter'"):
        Runtime.open(Counter, journal=f"memory:{name}", snapshots="memory:")

    class Later(Till):
        state_version = 2

    with Runtime.open(Till, journal=f"memory:{name}", snapshots="memory:") as till:
        till.execute(deposit(1))
    with pytest.raises(EngineMismatch, match="version 1, this engine's 2"):
        Runtime.open(Later, journal=f"memory:{name}", snapshots="memory:")
    Runtime.open(Till, journal=f"memory:{name}", snapshots="memory:").close()


# Behind our back


def test_a_row_changed_behind_our_back_stops_the_runtime_before_long() -> None:
    with Runtime.open(Till, journal="memory:", snapshots="memory:") as till:
        for cents in range(20):
            till.execute(Command("deposit", {"number": f"n{cents}", "cents": cents}))
        till.engine.accounts._rows["n3"] = Account("n3", 1_000_000)
        with pytest.raises(DivergenceError, match="table accounts was changed by no command") as found:
            for _ in range(200):
                till.execute(deposit(1))
        assert found.value.hint
        with pytest.raises(DivergenceError):
            till.execute(deposit(1))


class Forgetful(TableEngine):
    """Keeps something in a list that it hands around under a declared name."""

    name = "forgetful"
    rows = Table(str, int)
    last = Cell(str, "")
    by_value = Index(rows, key=lambda key, value: value)
    seen: list[str] = []  # noqa: RUF012 - the very mistake

    def apply(self, context: Context, command: Command) -> int:
        self.seen.append(command.data)
        self.rows[command.data] = len(self.seen)
        self.last.value = command.data
        return len(self.seen)


def test_heavy_mode_passes_a_sound_engine() -> None:
    with Runtime.open(Till, journal="memory:", snapshots="memory:", heavy=True) as till:
        for cents in (5, -9, 3):
            till.execute(deposit(cents))
        assert till.engine.accounts["ada"].cents == 8


def test_state_of_the_class_shows_in_a_replay(name: str) -> None:
    Forgetful.seen.clear()
    with Runtime.open(Forgetful, journal=f"memory:{name}", snapshots="memory:") as runtime:
        for key in "abc":
            runtime.execute(Command("add", key))
    report = verify(Forgetful, open_journal(f"memory:{name}"))
    assert report.verdict == "diverged"
    assert report.divergences[0].command_id == 1
    with pytest.raises(DivergenceError, match="does not reproduce its journal") as refused:
        Runtime.open(Forgetful, journal=f"memory:{name}", snapshots="memory:")
    assert "/rows/a" in str(refused.value)


# Images


def wait_for_image(till: Runtime) -> None:
    deadline = time.monotonic() + 60
    while till.status()["image_in_progress"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_images_are_made_beside_the_engine_when_due_and_pruned(tmp_path: Path) -> None:
    snapshots = f"dir:{tmp_path}/s"
    with Runtime.open(
        Till, journal=f"sqlite:{tmp_path}/j.db", snapshots=snapshots, snapshot_every=10, keep=2, digest_every=5
    ) as till:
        for _ in range(4):
            for _ in range(10):
                till.execute(deposit(1))
            wait_for_image(till)
        assert [image.command_id for image in open_snapshots(snapshots).images()] == [30, 40]
        till.execute(deposit(1))
        assert till.snapshot() == 41
        till.execute(deposit(1))
    # Closing takes a last one, so that the next start replays nothing.
    assert [image.command_id for image in open_snapshots(snapshots).images()] == [41, 42]
    with Runtime.open(Till, journal=f"sqlite:{tmp_path}/j.db", snapshots=snapshots) as till:
        assert (till.cold_start.image, till.cold_start.replayed) == (42, 0)


def test_images_are_captured_where_no_process_can_make_them(name: str) -> None:
    where = {"journal": f"memory:{name}", "snapshots": f"memory:{name}", "snapshot_every": 10, "keep": 1}
    for engine, command in ((Till, deposit(1)), (Counter, Command("count", {"name": "a"}))):
        with Runtime.open(engine, stream=engine.name, **where) as runtime:  # type: ignore[arg-type]
            for _ in range(25):
                runtime.execute(Command(command.type, command.data))
            assert [image.command_id for image in open_snapshots(f"memory:{name}", stream=engine.name).images()] == [20]
            runtime.close(snapshot=False)
        with Runtime.open(engine, stream=engine.name, **where) as runtime:  # type: ignore[arg-type]
            assert (runtime.cold_start.image, runtime.cold_start.replayed) == (20, 5)


def test_images_are_due_by_time_too(name: str) -> None:
    with Runtime.open(
        Till, journal=f"memory:{name}", snapshots=f"memory:{name}", snapshot_every=0, snapshot_seconds=0.001
    ) as till:
        till.execute(deposit(1))
        time.sleep(0.01)
        till.execute(deposit(1))
        assert open_snapshots(f"memory:{name}").images()


def test_a_snapshot_that_cannot_be_made_is_a_problem_and_not_the_end(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("in the way")
    with Runtime.open(Till, journal=f"sqlite:{tmp_path}/j.db", snapshots=f"dir:{tmp_path}/t", snapshot_every=5) as till:
        (tmp_path / "t").write_text("in the way")
        for _ in range(7):
            till.execute(deposit(1))
        wait_for_image(till)
        (problem, *_) = [problem for problem in till.status()["problems"] if "image" in problem]
        assert "not made" in problem
        assert till.execute(deposit(1)).command_id == 8


def test_status_says_what_an_operator_asks(tmp_path: Path) -> None:
    with Runtime.open(Till, journal=f"sqlite:{tmp_path}/j.db", snapshots=f"dir:{tmp_path}/s") as till:
        till.execute(deposit(1))
        till.snapshot()
        till.execute(deposit(1))
        status = till.status()
    assert status["healthy"] is True
    assert (status["engine"], status["stream"], status["tail"]) == ("till", "main", 1)
    assert (status["head"]["command_id"], status["snapshot"]["command_id"]) == (2, 1)
    assert status["journal"]["durable"] is True
    assert status["durability"]["synchronous"] == "FULL"
    assert status["epoch"]["engine"] == "till"
    assert status["cold_start"]["created"] is True
    assert {"waiting", "image_in_progress", "estimated_recovery_seconds"} <= status.keys()


# Settings


def test_settings_are_given_then_environment_then_file_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("RECOVERY_JOURNAL", "RECOVERY_SNAPSHOTS", "RECOVERY_STREAM", "RECOVERY_ENGINE"):
        monkeypatch.delenv(variable, raising=False)
    assert settings().journal == "sqlite:.recovery/journal.db"
    (tmp_path / "pyproject.toml").write_text('[tool.recovery]\njournal = "sqlite:project.db"\n')
    assert settings().journal == "sqlite:project.db"
    (tmp_path / "recovery.toml").write_text('journal = "sqlite:file.db"\nstream = "file"\n')
    assert settings()[2:5] == ("sqlite:file.db", "dir:.recovery/snapshots", "file")
    monkeypatch.setenv("RECOVERY_JOURNAL", "sqlite:variable.db")
    assert settings().journal == "sqlite:variable.db"
    assert settings(journal="sqlite:given.db").journal == "sqlite:given.db"
    with Runtime.open(Till) as till:
        till.execute(deposit(1))
    assert open_journal("sqlite:variable.db", stream="file").head().command_id == 1
    (tmp_path / "recovery.toml").write_text("journal = 5\n")
    with pytest.raises(UsageError, match="journal is no setting"):
        settings()


@pytest.mark.parametrize(
    "wrong",
    [
        {"replay": "guess"},
        {"changes": "some"},
        {"keep": 0},
        {"batch_max": 0},
        {"snapshot_every": -1},
        {"digest_every": 0},
    ],
)
def test_choices_are_checked_before_anything_is_opened(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Runtime.open(Till, journal=f"sqlite:{tmp_path}/j.db", snapshots="memory:", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_without_recorded_rows_history_is_executed_only(name: str) -> None:
    where = {"journal": f"memory:{name}", "snapshots": f"memory:{name}"}
    with Runtime.open(Till, changes="none", **where) as till:  # type: ignore[arg-type]
        for cents in (5, 3):
            till.execute(deposit(cents))
    assert [entry.changes_bytes for entry in open_journal(where["journal"]).read()] == [None, None]
    report = verify(Till, open_journal(where["journal"]))
    assert (report.verdict, report.checked["post_digest"]) == ("verified", 2)
    assert any("records none" in line for line in report.not_checked)
    with pytest.raises(UsageError, match="no recorded rows"):
        verify(Till, open_journal(where["journal"]), mode="redo")
    with Runtime.open(Till, **where) as till:  # type: ignore[arg-type]
        assert till.cold_start.image == 2
        assert till.engine.accounts["ada"].cents == 8
