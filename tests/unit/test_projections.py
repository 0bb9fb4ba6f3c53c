"""Projections on SQLite: written with the journal, exactly once; a refusal names its command and harms no neighbour."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest

from journal.errors import StoreUnavailable, WriterPoisoned
from journal.projections import Projector, progress_of
from journal.records import Entry
from journal.store import SqlJournalStore
from journal.stores.sqlite import SqliteStore
from journal.urls import migrate_journal
from recovery import (
    Command,
    EvidenceAhead,
    OutcomeUnknown,
    Projection,
    ProjectionBehind,
    ProjectionFailed,
    Receipt,
    Runtime,
    UnavailableError,
    UsageError,
    open_journal,
    verify,
)
from recovery.testing import trial
from tests.engines import Account, Counter, Till
from tests.projections import BANNED, CENTS_MAX, Totals, require_equal


def deposit(number: str, cents: int, request_id: str | None = None) -> Command:
    return Command("deposit", {"number": number, "cents": cents}, request_id=request_id)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:{tmp_path}/journal.db"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """A journal in each database, made and empty."""
    if request.param == "sqlite":
        return str(request.getfixturevalue("sqlite_url"))
    url: str = request.getfixturevalue("postgres_url")
    migrate_journal(url)
    return url


def tamper(url: str, statement: str) -> None:
    """Run a statement behind our back."""
    if url.startswith("sqlite:"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:"))) as db, db:
            db.execute(statement)
    else:
        with psycopg.connect(url) as db:
            db.execute(statement.encode())


def open_till(journal: Any, **options: Any) -> Runtime:
    return Runtime.open(Till, journal=journal, snapshots="memory:", projections=(Totals,), **options)


def require_proven(runtime: Runtime, url: str) -> None:
    """Tables, engine and journal say the same, and the journal replays."""
    store = runtime._recorder.store
    require_equal(store, dict(runtime.query(lambda till: dict(till.accounts))), runtime.head.command_id)
    assert verify(Till, open_journal(url)).verdict == "verified"


class Together:
    """Makes what is submitted within it one batch."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._go_on = threading.Event()

    def __enter__(self) -> None:
        started = threading.Event()

        def wait(engine: Any) -> None:
            started.set()
            assert self._go_on.wait(30)

        self._waiting = threading.Thread(target=self._runtime.query, args=(wait,))
        self._waiting.start()
        assert started.wait(30)

    def __exit__(self, *exception: object) -> None:
        self._go_on.set()
        self._waiting.join()


# Written with the journal, once


def test_tables_are_written_with_each_command_and_once(url: str) -> None:
    with open_till(url) as till:
        first = till.execute(deposit("ada", 5, "once"))
        require_equal(till._recorder.store, {"ada": Account("ada", 5)}, 1)
        assert till.execute(deposit("ada", 5, "once")) == first._replace(duplicate=True)
        for outcome in till.execute_many(
            [deposit("bob", 7), deposit("bob", -9), Command("close_account", {"number": "ada"})]
        ):
            assert isinstance(outcome, Receipt)
        require_proven(till, url)
    with open_till(url) as till:
        assert till.execute(deposit("ada", 5, "once")).duplicate
        till.execute(deposit("ada", 1))
        require_proven(till, url)


# What refuses a command


def test_what_statements_raises_is_a_failed_apply(url: str) -> None:
    with open_till(url) as till:
        outcomes = list(till.execute_many([deposit("ada", 5), deposit(BANNED, 5), deposit("bob", 5)]))
        assert isinstance(outcomes[1], ProjectionFailed)
        assert isinstance(outcomes[1].__cause__, LookupError)
        assert (outcomes[1].position, "totals" in str(outcomes[1])) == (2, True)
        assert [one.command_id for one in (outcomes[0], outcomes[2]) if isinstance(one, Receipt)] == [1, 2]
        assert BANNED not in till.engine.accounts
        require_proven(till, url)


@pytest.mark.parametrize(
    "statement",
    [
        ("COMMIT", ()),
        ("INSERT INTO totals VALUES (?)", ()),
        ("DELETE FROM totals WHERE cents = ?", (2**63,)),
        ("DELETE FROM totals WHERE cents = ?", ([],)),
        ("DELETE FROM totals; COMMIT", ()),
        "DELETE",
        7,
    ],
)
def test_what_cannot_be_run_is_refused_before_it_counts(url: str, statement: Any) -> None:
    class Odd(Totals):
        def statements(self, entry: Entry) -> Iterator[Any]:
            yield statement

    with Runtime.open(Till, journal=url, snapshots="memory:", projections=[Odd()]) as till:
        with pytest.raises(ProjectionFailed):
            till.execute(deposit("ada", 5))
        assert (till.head.command_id, len(till.engine.accounts)) == (0, 0)


def test_a_refusal_of_the_database_names_its_command_and_harms_no_neighbour(url: str) -> None:
    with open_till(url) as till:
        till.execute(deposit("eve", 1))
        seen: list[Any] = []
        asked = [
            *(deposit(f"n{n}", n, f"r{n}") for n in range(20)),
            deposit("ada", CENTS_MAX + 1, "too much"),
            deposit("ada", CENTS_MAX + 1, "too much"),
            deposit("ada", -1),  # rejected: there was no deposit
            deposit("ada", 7),
            deposit("n3", 3, "r3"),
        ]
        with Together(till):
            futures: list[Future[Receipt]] = []
            for number, command in enumerate(asked):
                if number in (0, 21, 24):
                    threading.Thread(target=lambda: seen.append(till.query(lambda e: dict(e.accounts)))).start()
                futures.append(till.submit(command))
        outcomes = [future.exception() or future.result() for future in futures]
        for failed in outcomes[20:22]:
            assert isinstance(failed, ProjectionFailed)
            assert isinstance(failed.__cause__, sqlite3.IntegrityError | psycopg.IntegrityError)
            assert failed.position == 22
            assert "totals" in str(failed)
        receipts = [one for one in outcomes if isinstance(one, Receipt)]
        assert [one.command_id for one in receipts] == [*range(2, 22), 22, 23, 5]
        assert [one.duplicate for one in receipts] == [False] * 22 + [True]
        assert receipts[20].rejection is not None
        assert receipts[21].response == {"cents": 7}
        require_proven(till, url)
        # Nobody saw what was taken back.
        assert all(accounts.get("ada", Account("ada", 0)).cents in (0, 7) for accounts in seen)


@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_when_all_are_to_blame_all_are_told_and_the_runtime_goes_on(url: str, count: int) -> None:
    with open_till(url) as till:
        outcomes = list(till.execute_many(deposit(f"n{n}", CENTS_MAX + 1) for n in range(count)))
        assert [type(one) for one in outcomes] == [ProjectionFailed] * count
        assert all(one.position == 1 for one in outcomes if isinstance(one, ProjectionFailed))
        assert till.execute(deposit("ada", 1)).command_id == 1
        require_proven(till, url)


def test_an_engine_without_tables_is_put_back_too(url: str) -> None:
    class Tallies(Projection):
        name = "tallies"
        tables = ("tallies",)

        def schema(self, dialect: str) -> Sequence[str]:
            return ["CREATE TABLE tallies (name TEXT PRIMARY KEY)"]

        def statements(self, entry: Entry) -> Iterator[tuple[str, Sequence[object]]]:
            yield "INSERT INTO tallies (name) VALUES (?)", [entry.data["name"]]

    names = ["a", "b", "a", "c", "b", "d"]
    with Runtime.open(Counter, journal=url, snapshots="memory:", projections=[Tallies], digest_every=2) as counter:
        outcomes = list(counter.execute_many(Command("count", {"name": name}) for name in names))
        failed = [isinstance(one, ProjectionFailed) for one in outcomes]
        assert failed == [False, False, True, False, True, False]
        assert counter.engine.totals == dict.fromkeys("abcd", 1)
    assert verify(Counter, open_journal(url)).verdict == "verified"


def test_what_statements_keeps_of_its_parameters_changes_no_row(sqlite_url: str) -> None:
    class Reuses(Totals):
        row: ClassVar[list[object]] = [0, "", 0]

        def statements(self, entry: Entry) -> Iterator[tuple[str, Sequence[object]]]:
            self.row[:] = entry.command_id, entry.type, entry.command_id
            yield "INSERT INTO moves (command_id, number, delta) VALUES (?, ?, ?)", self.row

    with Runtime.open(Till, journal=sqlite_url, snapshots="memory:", projections=[Reuses]) as till:
        assert all(isinstance(one, Receipt) for one in till.execute_many(deposit("a", 1) for _ in range(3)))
        store: Any = till._recorder.store
        assert store.query("SELECT delta FROM moves ORDER BY command_id") == [(1,), (2,), (3,)]


# Failures of the store meanwhile


class Flaky(SqliteStore):
    """A store whose n-th append from now on raises."""

    appends_left = -1
    error: Exception = StoreUnavailable("the disk is full")

    def append(self, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        """Append, or raise."""
        self.appends_left -= 1
        if self.appends_left == 0:
            raise self.error
        super().append(stream, epoch, entries)


def flaky(url: str) -> Flaky:
    store = Flaky.open_for_write(url.removeprefix("sqlite:"))
    assert isinstance(store, Flaky)
    return store


ASKED = [deposit("a", 1), deposit("b", 1), deposit("c", CENTS_MAX + 1), deposit("d", 1), deposit("e", 1)]


@pytest.mark.parametrize("nth", range(1, 8))
def test_a_store_that_is_unavailable_meanwhile_refuses_the_rest_and_goes_on(sqlite_url: str, nth: int) -> None:
    store = flaky(sqlite_url)
    with open_till(store) as till:
        store.appends_left = nth
        outcomes = list(till.execute_many(ASKED))
        store.appends_left = -1
        kinds = [type(one) for one in outcomes]
        assert set(kinds) <= {Receipt, ProjectionFailed, StoreUnavailable}
        assert (StoreUnavailable in kinds) is (
            nth < 7 and kinds != [Receipt, Receipt, ProjectionFailed, Receipt, Receipt]
        )
        recorded = [one for one in outcomes if isinstance(one, Receipt)]
        assert till.head.command_id == len(recorded)
        till.execute(deposit("f", 1))
        require_proven(till, sqlite_url)
        again = list(till.execute_many(ASKED))
        assert [one.duplicate for one in again if isinstance(one, Receipt)].count(True) == len(recorded)
        require_proven(till, sqlite_url)


@pytest.mark.parametrize("nth", range(2, 6))
def test_a_writer_that_is_poisoned_meanwhile_acknowledges_nothing_more(sqlite_url: str, nth: int) -> None:
    store = flaky(sqlite_url)
    store.error = WriterPoisoned("the disk is gone")
    till = open_till(store)
    store.appends_left = nth
    outcomes = list(till.execute_many(ASKED))
    known = [one for one in outcomes if isinstance(one, Receipt)]
    assert all(isinstance(one, (Receipt, ProjectionFailed, UnavailableError)) for one in outcomes)
    assert any(isinstance(one, OutcomeUnknown) for one in outcomes)
    till.close()
    with open_till(sqlite_url) as till:
        again = list(till.execute_many(ASKED))
        assert [one.duplicate for one in again if isinstance(one, Receipt)].count(True) >= len(known)
        require_proven(till, sqlite_url)


# Opening


def test_projections_need_an_sql_store_and_every_event(url: str) -> None:
    with pytest.raises(UsageError, match="projections need an SQL store, and memory: is none"):
        open_till("memory:")
    for level in ("summary", "none"):
        with pytest.raises(UsageError, match="projections need every event"):
            open_till(url, events=level, critical_events=Totals.required_types)
    assert not open_journal(url).exists


def test_rows_that_are_not_recorded_cannot_be_projected(url: str) -> None:
    class Rows(Totals):
        requires_changes = True

    with pytest.raises(UsageError, match="needs the changed rows"):
        Runtime.open(Till, journal=url, snapshots="memory:", projections=[Rows], changes="none")
    Runtime.open(Till, journal=url, snapshots="memory:", projections=[Rows]).close()


def test_a_projection_that_missed_commands_is_refused_with_the_way_on(url: str) -> None:
    with Runtime.open(Till, journal=url, snapshots="memory:") as till:
        till.execute(deposit("ada", 5))
    with pytest.raises(ProjectionBehind, match="never filled") as behind:
        open_till(url)
    assert behind.value.hint.startswith("fill it: recovery backfill --journal ")
    assert behind.value.hint.endswith(" --projection tests.projections:Totals")
    with pytest.raises(ProjectionBehind, match="never filled"):
        open_till(url)  # the refusal has changed nothing


def test_a_projection_that_was_left_out_for_a_while_is_behind(url: str) -> None:
    with open_till(url) as till:
        till.execute(deposit("ada", 5))
    with Runtime.open(Till, journal=url, snapshots="memory:") as till:
        till.execute(deposit("ada", 6))
        assert till.status()["projections"] == [{"name": "totals", "version": 1, "command_id": 1, "behind": 1}]
    with pytest.raises(ProjectionBehind, match="ends at command 1, and the journal at command 2"):
        open_till(url)


def test_a_projection_beyond_the_journals_end_is_evidence_of_loss(url: str) -> None:
    with open_till(url) as till:
        till.execute(deposit("ada", 5))
    tamper(url, "UPDATE projection_progress SET command_id = 9")
    with pytest.raises(EvidenceAhead, match="holds command 9, and the journal ends at command 1") as ahead:
        open_till(url)
    assert "backfill --anew" in ahead.value.hint


def test_another_version_or_stream_is_refused(url: str) -> None:
    open_till(url).close()

    class Newer(Totals):
        version = 2

    with pytest.raises(UsageError, match="are of version 1, and this is version 2") as newer:
        Runtime.open(Till, journal=url, snapshots="memory:", projections=[Newer])
    assert "--anew" in newer.value.hint
    with pytest.raises(UsageError, match="is of stream 'main', not 'other'"):
        open_till(url, stream="other")


def test_a_table_that_is_there_already_is_refused_and_nothing_is_begun(url: str) -> None:
    Runtime.open(Till, journal=url, snapshots="memory:").close()
    tamper(url, "CREATE TABLE moves (x INTEGER)")
    with pytest.raises(UsageError, match="the tables of projection 'totals' cannot be made"):
        open_till(url)
    assert progress_of(open_journal(url).store) == {}


@pytest.mark.parametrize(
    "given",
    [
        [7],
        [Till],
        [Totals, Totals],
        [Totals, type("Other", (Totals,), {"name": "other"})],
        [type("Nameless", (Totals,), {"name": ""})],
        [type("Tableless", (Totals,), {"tables": ()})],
        [type("OneText", (Totals,), {"tables": "totals"})],
        [type("OneType", (Totals,), {"required_types": "BalanceChanged"})],
        [type("Odd", (Totals,), {"version": "2"})],
    ],
)
def test_what_is_no_projection_is_refused(url: str, given: list[Any]) -> None:
    with pytest.raises(UsageError):
        Runtime.open(Till, journal=url, snapshots="memory:", projections=given)


def test_two_projections_are_written_together(url: str) -> None:
    class Log(Projection):
        name = "log"
        tables = ("log",)

        def schema(self, dialect: str) -> Sequence[str]:
            assert url.startswith(dialect)
            return ["CREATE TABLE log (command_id BIGINT, type TEXT)"]

        def statements(self, entry: Entry) -> Iterator[tuple[str, Sequence[object]]]:
            yield "INSERT INTO log (command_id, type) VALUES (?, ?)", (entry.command_id, entry.type)

    with Runtime.open(Till, journal=url, snapshots="memory:", projections=[Totals(), Log()]) as till:
        outcomes = list(
            till.execute_many([deposit("a", 1), deposit("b", CENTS_MAX + 1), Command("draw", {"number": "c"})])
        )
        assert isinstance(outcomes[1], ProjectionFailed)
        store = till._recorder.store
        assert isinstance(store, SqlJournalStore)
        assert store.query("SELECT * FROM log ORDER BY command_id") == [(1, "deposit"), (2, "draw")]
        assert {name: one.command_id for name, one in progress_of(store).items()} == {"totals": 2, "log": 2}


# Events that must be projected


class FussyTill(Till):
    projected_events = ("BalanceChanged",)


def test_an_engine_whose_events_must_be_projected_is_not_opened_without(url: str) -> None:
    with pytest.raises(UsageError, match="emits BalanceChanged, which must be projected") as refused:
        Runtime.open(FussyTill, journal=url, snapshots="memory:")
    assert "projections" in refused.value.hint
    with Runtime.open(FussyTill, journal=url, snapshots="memory:", projections=[Totals]) as till:
        till.execute(deposit("ada", 5))
    # A test in memory has no tables to write to, and is one all the same.
    with trial(FussyTill) as till:
        till.execute(deposit("ada", 5))


# Exactly once, proven by the progress row


class WithoutProgress(Projector):
    """Leaves the progress row where it is."""

    def _move(self, *arguments: Any) -> None:
        """Nothing."""


def guard_progress(url: str) -> None:
    """What was projected is never projected again, nor passed over, whatever writes in between."""
    with open_till(url) as till:
        till.execute(deposit("ada", 5))
    with open_till(url) as till:
        till.execute(deposit("ada", 5))
        require_proven(till, url)
    with open_till(url) as till:
        tamper(url, "UPDATE projection_progress SET command_id = 1")
        with pytest.raises(OutcomeUnknown) as unknown:
            till.execute(deposit("ada", 5))
        assert "is not at command 2" in str(unknown.value)
    assert open_journal(url).head().command_id == 2


def test_the_progress_row_stands_guard(url: str) -> None:
    guard_progress(url)


def guard_together(url: str) -> None:
    """Entries are not recorded without the tables that are written with them."""
    with open_till(url) as till:
        outcomes = list(till.execute_many([deposit("ada", 5), deposit("bob", CENTS_MAX + 1), deposit("eve", 5)]))
        assert [isinstance(one, Receipt) for one in outcomes] == [True, False, True]
        require_proven(till, url)


def test_entries_and_tables_stand_together(url: str) -> None:
    guard_together(url)
