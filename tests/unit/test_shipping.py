"""A runtime whose journal is shipped: what a receipt waits for, what may be shown, what a failure leaves, who may go on."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from journal import shipper
from journal.errors import (
    CorruptionError,
    EvidenceAhead,
    OrphanedTail,
    OutcomeUnknown,
    RecoveryError,
    StoreUnavailable,
    UsageError,
    WriterFenced,
    WriterPoisoned,
)
from journal.journal import Journal
from journal.outbox import Outbox
from journal.postgres_schema import migrate
from journal.records import Entry
from journal.shipped_store import ShippedStore
from journal.store import JournalStore
from journal.stores.sqlite import SqliteStore
from journal.stores.wal import WalStore
from journal.urls import open_reader
from recovery import Command, Receipt, Runtime, open_journal
from recovery.shipping import outside_status
from tests.engines import Counter, Till

WAIT_S = 20.0


def deposit(number: int) -> Command:
    return Command("deposit", {"number": f"n{number % 3}", "cents": number}, request_id=f"request {number}")


class Places:
    """The URLs of one journal, of the one behind it, and of images."""

    def __init__(self, folder: Path, target: str) -> None:
        self.folder = folder
        self.local = f"wal:{folder}/local"
        self.target = target

    def open(self, *, ack: str = "both", engine: type = Till, **options: Any) -> Runtime:
        return Runtime.open(
            engine,
            journal=self.local,
            snapshots=f"dir:{self.folder}/snapshots",
            ship_to=self.target,
            ack=ack,
            seed=7,
            **{"snapshot_every": 0, **options},
        )

    def wipe(self) -> None:
        """The local disk is lost."""
        shutil.rmtree(self.folder / "local")

    def ids(self, url: str) -> list[int]:
        with open_journal(url) as journal:
            return [entry.command_id for entry in journal.read()] if journal.exists else []


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path, f"sqlite:{tmp_path}/target.db")


@pytest.fixture
def postgres_places(tmp_path: Path, postgres_url: str) -> Places:
    migrate(postgres_url)
    return Places(tmp_path, postgres_url)


def wait_until(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def store_of(till: Runtime) -> ShippedStore:
    store = till._recorder.store
    assert isinstance(store, ShippedStore)
    return store


class Gate:
    """Stands before the target's ``append``: lets through, refuses, or holds up."""

    def __init__(self, till: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        self.target = store_of(till).target
        self.error: Exception | None = None
        self.after: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self._append, self._require_hold = self.target.append, self.target.require_hold
        monkeypatch.setattr(self.target, "append", self.append)
        monkeypatch.setattr(self.target, "require_hold", self.require_hold)

    def append(self, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        assert self.open.wait(WAIT_S)
        if self.error is not None:
            raise self.error
        self._append(stream, epoch, entries)
        if self.after is not None:
            error, self.after = self.after, None
            raise error

    def require_hold(self, stream: str) -> None:
        if self.error is not None:
            raise self.error
        self._require_hold(stream)


# What a receipt waits for


def guard_both_have_it(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ack="both" no receipt is given while the target has not the command (a canary breaks this)."""
    with places.open() as till:
        gate = Gate(till, monkeypatch)
        gate.open.clear()
        future = till.submit(deposit(1))
        time.sleep(0.2)
        try:
            assert not future.done()
        finally:
            gate.open.set()
        assert future.result(WAIT_S).command_id == 1
    assert places.ids(places.local) == places.ids(places.target) == [1]


def test_both_have_it_before_a_receipt_is_given(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    guard_both_have_it(places, monkeypatch)


def test_local_alone_is_enough_for_a_receipt(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    with places.open(ack="local") as till:
        gate = Gate(till, monkeypatch)
        gate.open.clear()
        assert [till.execute(deposit(number)).command_id for number in range(5)] == [1, 2, 3, 4, 5]
        status = till.status()["shipping"]
        assert (status["command_id"], status["commands_behind"], status["ack"]) == (0, 5, "local")
        assert status["bytes_behind"] > 100
        gate.open.set()
        wait_until("it is not shipped", lambda: till.status()["shipping"]["commands_behind"] == 0)
        assert till.status()["shipping"]["bytes_behind"] == 0
    assert places.ids(places.target) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("ack", ["both", "local"])
def test_a_lost_disk_is_filled_from_the_target_and_nothing_is_done_twice(postgres_places: Places, ack: str) -> None:
    places = postgres_places
    with places.open(ack=ack) as till:
        first = [till.execute(deposit(number)) for number in range(20)]
    places.wipe()
    with places.open(ack=ack) as till:
        assert till.status()["shipping"]["seeded"] == 20
        again = list(till.execute_many(map(deposit, range(25))))
    assert [one._replace(duplicate=False) for one in again[:20] if isinstance(one, Receipt)] == first
    assert [one.duplicate for one in again if isinstance(one, Receipt)] == [True] * 20 + [False] * 5
    assert places.ids(places.local) == places.ids(places.target) == list(range(1, 26))
    with open_journal(places.local) as local, open_journal(places.target) as target:
        assert local.epochs() == target.epochs()
        assert local.identity == target.identity


def test_a_target_that_was_lost_is_filled_again(places: Places) -> None:
    with places.open() as till:
        for number in range(5):
            till.execute(deposit(number))
    (places.folder / "target.db").unlink()
    with places.open() as till:
        assert till.execute(deposit(3)).duplicate
    assert places.ids(places.target) == [1, 2, 3, 4, 5]


def torn(places: Places) -> None:
    """The last frame's second sector was never written."""
    (segment,) = (places.folder / "local").glob("*.wal")
    data = segment.read_bytes()
    end = len(data.rstrip(b"\0"))
    cut = (end - 1) // 512 * 512
    segment.write_bytes(data[:cut] + bytes(len(data) - cut))


@pytest.mark.parametrize("known", [False, True])
def test_a_torn_batch_is_filled_from_the_target_and_damage_is_refused(places: Places, known: bool) -> None:
    """Torn, where nothing here says that it was durable; else it is damage, whose way on is the target too."""
    with places.open() as till:
        for number in range(3):
            till.execute(deposit(number))
        till.execute(Command("deposit", {"number": "long " * 40, "cents": 1}, request_id="long"))
    torn(places)
    if known:
        with pytest.raises(CorruptionError) as damage:
            places.open()
        assert "filled in from the target" in damage.value.hint
        places.wipe()
    else:
        (places.folder / "local" / "durable").unlink()
    with places.open() as till:
        assert till.head.command_id == 4
        assert till.status()["shipping"]["seeded"] == (4 if known else 1)
    assert len(list((places.folder / "local").glob("*.torn"))) == (0 if known else 1)


# Refusals of the target and of the disk, ack="both"


def test_what_the_target_refuses_is_nowhere_and_it_goes_on(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    with places.open() as till:
        gate = Gate(till, monkeypatch)
        till.execute(deposit(1))
        gate.error = StoreUnavailable("the target's disk is full")
        with pytest.raises(StoreUnavailable, match="full"):
            till.execute(deposit(2))
        assert places.ids(places.local) == [1]
        gate.error = None
        assert till.execute(deposit(2)).command_id == 2


def test_what_only_the_target_has_is_written_here_by_the_next_opening(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = places.open()
    till.execute(deposit(1))
    with monkeypatch.context() as patched:
        patched.setattr(WalStore, "append", _raising(StoreUnavailable("no space here")))
        with pytest.raises(OutcomeUnknown, match="before it could say"):
            till.execute(deposit(2))
    with pytest.raises(WriterPoisoned, match="has commands 2 to 2"):
        till.execute(deposit(3))
    till.close(snapshot=False)
    assert places.ids(places.local) == [1]
    with places.open() as till:
        receipt = till.execute(deposit(2))
        assert (receipt.command_id, receipt.duplicate) == (2, True)


def _raising(error: Exception) -> Callable[..., None]:
    def raises(*arguments: object, **options: object) -> None:
        raise error

    return raises


@pytest.mark.parametrize("written", [True, False])
def test_an_unknown_outcome_at_the_target_is_made_known(
    places: Places, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    with places.open() as till:
        gate = Gate(till, monkeypatch)
        till.execute(deposit(1))
        unknown = OutcomeUnknown("lost at COMMIT")
        if written:
            gate.after = unknown
        else:
            append = gate._append

            def lose(*arguments: Any) -> None:
                gate._append = append
                raise unknown

            gate._append = lose
        assert till.execute(deposit(2)).command_id == 2
        assert till.execute(deposit(3)).command_id == 3
    assert places.ids(places.local) == places.ids(places.target) == [1, 2, 3]
    with open_journal(places.local) as local, open_journal(places.target) as target:
        assert [epoch.number for epoch in local.epochs()] == [1, 2]
        assert local.epochs() == target.epochs()


# ack="local": trouble, lag, and what may be shown


def test_a_target_that_is_away_is_waited_for(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    with places.open(ack="local") as till:
        gate = Gate(till, monkeypatch)
        gate.error = StoreUnavailable("connection refused")
        monkeypatch.setattr(gate.target, "settings", _raising(gate.error))
        for number in range(3):
            till.execute(deposit(number))
        wait_until("nothing is said", lambda: till.status()["shipping"]["state"] == "retrying")
        status = till.status()
        assert "connection refused" in status["shipping"]["last_error"]
        assert not status["healthy"]
        gate.error = None
        wait_until("it is not shipped", lambda: till.status()["shipping"]["commands_behind"] == 0)
        assert till.status()["healthy"]
        assert till.status()["shipping"]["state"] == "running"


@pytest.mark.parametrize("written", [True, False])
def test_an_unknown_outcome_is_resolved_behind_the_receipts(
    places: Places, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    with places.open(ack="local") as till:
        gate = Gate(till, monkeypatch)
        if written:
            gate.after = OutcomeUnknown("lost at COMMIT")
        else:
            gate.error = OutcomeUnknown("lost at COMMIT")
        till.execute(deposit(1))
        wait_until("it was not tried", lambda: bool(store_of(till).shipper.last_error) or not gate.after)  # type: ignore[union-attr]
        gate.error = None
        till.execute(deposit(2))
    assert places.ids(places.target) == [1, 2]
    with places.open(ack="local") as till:  # the target has an epoch more, until now
        assert till.execute(deposit(1)).duplicate
    with open_journal(places.local) as local, open_journal(places.target) as target:
        assert local.epochs() == target.epochs()


def test_more_than_memory_may_hold_is_read_again(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper, "QUEUE_BYTES_MAX", 600)
    with places.open(ack="local", batch_max=3) as till:
        gate = Gate(till, monkeypatch)
        gate.open.clear()
        assert len(list(till.execute_many(map(deposit, range(40))))) == 40
        assert store_of(till).shipper._waiting_bytes <= 600  # type: ignore[union-attr]
        gate.open.set()
    assert places.ids(places.target) == list(range(1, 41))


def test_closing_ships_what_waits(places: Places) -> None:
    with places.open(ack="local") as till:
        list(till.execute_many(map(deposit, range(300))))
    assert places.ids(places.target) == list(range(1, 301))


def test_what_was_not_shipped_is_shipped_by_the_next_opening(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    till = places.open(ack="local")
    Gate(till, monkeypatch).error = StoreUnavailable("away")
    till.execute(deposit(1))
    wait_until("nothing is said", lambda: till.status()["shipping"]["state"] == "retrying")
    began = time.monotonic()
    till.close(snapshot=False)
    assert time.monotonic() - began < shipper.DRAIN_S
    assert places.ids(places.target) == []
    with places.open(ack="local") as till:
        assert till.status()["shipping"]["commands_behind"] == 0
    assert places.ids(places.target) == [1]


@pytest.mark.parametrize("engine", [Till, Counter])
def test_no_image_is_ahead_of_the_target(places: Places, monkeypatch: pytest.MonkeyPatch, engine: type) -> None:
    with places.open(ack="local", snapshot_every=5, engine=engine) as till:
        gate = Gate(till, monkeypatch)
        gate.error = StoreUnavailable("away")
        for number in range(12):
            command = deposit(number) if engine is Till else Command("count", {"name": "a"})
            till.execute(command)
        wait_until("nothing is said", lambda: till.status()["shipping"]["state"] == "retrying")
        with pytest.raises(StoreUnavailable, match="no image may be ahead"):
            till.snapshot()
        till._imager.close()
        assert not list((places.folder / "snapshots").rglob("*00*"))
        gate.error = None
        wait_until("it is not shipped", lambda: till.status()["shipping"]["commands_behind"] == 0)
        assert till.snapshot() == 12


def guard_an_outbox_waits(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outbox hands out only what is shipped (a canary breaks this)."""
    heard: list[int] = []
    with places.open(ack="local") as till:
        gate = Gate(till, monkeypatch)
        till.outbox("mail", deliver=lambda message: heard.append(message.command_id))
        till.execute(deposit(1))
        wait_until("nothing is delivered", lambda: heard == [1])
        gate.open.clear()
        till.execute(deposit(2))
        time.sleep(0.3)
        try:
            assert heard == [1]
        finally:
            gate.open.set()
        wait_until("nothing is delivered", lambda: heard == [1, 2])
    places.wipe()  # its cursor lies beside the target
    with places.open(ack="local") as till:
        till.outbox("mail", deliver=lambda message: heard.append(message.command_id))
        till.execute(deposit(3))
        wait_until("nothing is delivered", lambda: heard == [1, 2, 3])
    assert Outbox(places.target, name="mail", deliver=lambda message: None).run_once() == 0


def test_an_outbox_hands_out_only_what_is_shipped(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    guard_an_outbox_waits(places, monkeypatch)


# Another writer


def test_a_writer_that_was_replaced_stops_at_once_and_says_why(postgres_places: Places, tmp_path: Path) -> None:
    places = postgres_places
    other = Places(tmp_path / "elsewhere", places.target)
    till = places.open(ack="local")
    till.execute(deposit(1))
    wait_until("it is not shipped", lambda: till.status()["shipping"]["commands_behind"] == 0)
    with other.open(ack="local", takeover=True) as second:
        assert second.execute(deposit(1)).duplicate
        wait_until("it goes on", lambda: till._failure is not None)  # although nothing is asked of it
        with pytest.raises(WriterFenced, match="taken over by process"):
            till.execute(deposit(2))
        with pytest.raises(WriterFenced, match="taken over by process"):
            till.query(len)
        assert till.status()["shipping"]["state"] == "failed"
        second.execute(deposit(9))
    till.close(snapshot=False)
    assert places.ids(places.local) == [1]
    assert places.ids(places.target) == [1, 2]


def guard_a_sleeper_asks(places: Places, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock jumps by more than the lease, as it does for a process that is stopped (a canary breaks this)."""
    monkeypatch.setattr(shipper, "POLL_S", 60.0)
    till = places.open(ack="local")
    till.execute(deposit(1))
    wait_until("it is not shipped", lambda: till.status()["shipping"]["commands_behind"] == 0)
    with Places(elsewhere, places.target).open(ack="local", takeover=True) as second:
        second.execute(deposit(2))
        now_s = shipper._now_s()
        monkeypatch.setattr(shipper, "_now_s", lambda: now_s + 100.0)
        for asked in (deposit(1), deposit(3)):
            with pytest.raises(WriterFenced):
                till.execute(asked)
    till.close(snapshot=False)
    assert places.ids(places.local) == [1]


def test_a_writer_that_slept_acknowledges_nothing_before_it_asked(
    postgres_places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard_a_sleeper_asks(postgres_places, tmp_path / "elsewhere", monkeypatch)


def test_a_writer_that_slept_while_it_wrote_acknowledges_nothing(
    postgres_places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = postgres_places
    monkeypatch.setattr(shipper, "POLL_S", 60.0)
    till = places.open(ack="local")
    shipping = store_of(till)
    assert shipping.shipper is not None
    append = shipping._local.append
    monkeypatch.setattr(shipping.shipper, "_next", list)  # what is shipped would find it out

    def append_and_sleep(*arguments: Any) -> None:
        append(*arguments)
        Places(tmp_path / "elsewhere", places.target).open(ack="local", takeover=True).close()
        now_s = shipper._now_s()
        monkeypatch.setattr(shipper, "_now_s", lambda: now_s + 100.0)

    monkeypatch.setattr(shipping._local, "append", append_and_sleep)
    with pytest.raises(OutcomeUnknown, match="taken over"):
        till.execute(deposit(1))
    with pytest.raises(WriterPoisoned, match="taken over"):
        till.execute(deposit(2))
    till.close(snapshot=False)


def test_an_unreachable_target_holds_nobody_up_for_long(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipper, "LEASE_S", 0.2)
    monkeypatch.setattr(shipper, "ANSWER_S", 0.1)
    with places.open(ack="local") as till:
        gate = Gate(till, monkeypatch)
        gate.open.clear()
        began = time.monotonic()
        for number in range(10):
            till.execute(deposit(number))
            time.sleep(0.05)
        assert time.monotonic() - began < 5.0
        gate.open.set()


def test_commands_that_the_target_went_on_without_are_listed(postgres_places: Places, tmp_path: Path) -> None:
    places = postgres_places
    till = places.open(ack="local")
    till.execute(deposit(1))
    wait_until("it is not shipped", lambda: till.status()["shipping"]["commands_behind"] == 0)
    store = store_of(till)
    assert store.shipper is not None
    store.shipper._next = list  # type: ignore[method-assign]
    till.execute(deposit(2))
    with Places(tmp_path / "elsewhere", places.target).open(ack="local", takeover=True) as second:
        second.execute(deposit(3))
    till.close(snapshot=False)
    with pytest.raises(OrphanedTail, match=r"command 2: .+ 1 commands are here alone: 2 deposit \(request "):
        places.open(ack="local")
    places.wipe()
    with places.open(ack="local") as till:
        assert till.execute(deposit(2)).command_id == 3


def test_a_target_that_lost_what_it_had_is_found_out(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    with places.open() as till:
        till.execute(deposit(1))
        target = store_of(till).target
        assert isinstance(target, SqliteStore)
        gate = Gate(till, monkeypatch)
        gate.error = OutcomeUnknown("lost at COMMIT")
        target._db.execute("DELETE FROM entries")
        with pytest.raises(EvidenceAhead, match="has lost it"):
            till.execute(deposit(2))
    gate.error = None
    with places.open() as till:
        assert till.execute(deposit(1)).duplicate
    assert places.ids(places.target) == [1]


# Choices, status from outside, and what is never shown


def test_what_cannot_be_shipped_is_refused(places: Places, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ack"):
        places.open(ack="neither")
    with pytest.raises(UsageError, match="itself"):
        Runtime.open(Till, journal=places.local, snapshots="memory:", ship_to=places.local)
    with pytest.raises(UsageError, match="not on this machine") as refused:
        Runtime.open(
            Till, journal="postgresql://app:secret@db/till", snapshots="memory:", ship_to=f"sqlite:{tmp_path}/t.db"
        )
    assert "secret" not in str(refused.value)
    with pytest.raises(UsageError, match="does not survive a power cut"):
        Runtime.open(Till, journal=places.local, snapshots="memory:", ship_to="memory:target")
    with places.open():
        pass
    with pytest.raises(UsageError, match="two journals"):
        Runtime.open(Till, journal=f"sqlite:{tmp_path}/new.db", snapshots="memory:").close()
        Runtime.open(Till, journal=f"sqlite:{tmp_path}/new.db", snapshots="memory:", ship_to=places.target)


def test_the_environment_ships_the_journal_it_names_and_no_other(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECOVERY_JOURNAL", places.local)
    monkeypatch.setenv("RECOVERY_SHIP_TO", places.target)
    with Runtime.open(Till, snapshots="memory:") as till:
        assert till.status()["shipping"]["ack"] == "both"
    with Runtime.open(Till, journal=f"wal:{tmp_path}/another", snapshots="memory:") as till:
        assert "shipping" not in till.status()
    with Runtime.open(Till, journal="memory:", snapshots="memory:") as till:
        assert "shipping" not in till.status()


def test_the_lag_is_seen_from_outside(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    with places.open(ack="local") as till:
        gate = Gate(till, monkeypatch)
        till.execute(deposit(1))
        wait_until("it is not shipped", lambda: till.status()["shipping"]["commands_behind"] == 0)
        gate.open.clear()
        till.execute(deposit(2))
        with open_journal(places.local) as journal:
            problems: list[str] = []
            found = outside_status(journal, places.target, problems)
            assert (found["command_id"], found["commands_behind"]) == (1, 1)
            assert not problems
            monkeypatch.setattr("recovery.shipping.LAG_S_MAX", 0.0)
            outside_status(journal, places.target, problems)
            assert "1 commands are not in" in problems[0]
            outside_status(journal, "sqlite:/nowhere/at/all.db", problems)
            assert "nowhere" in problems[-1]
        gate.open.set()


def test_a_password_is_nowhere(places: Places) -> None:
    url = "postgresql://app:s3cret@127.0.0.1:1/till?connect_timeout=1"
    with pytest.raises(RecoveryError) as refused:
        Runtime.open(Till, journal=places.local, snapshots="memory:", ship_to=url)
    assert "s3cret" not in f"{refused.value} {refused.value.hint} {refused.value!r}"
    Runtime.open(Till, journal=places.local, snapshots="memory:").close()
    with open_journal(places.local) as journal:
        problems: list[str] = []
        assert "s3cret" not in f"{outside_status(journal, url, problems)} {problems}"
    assert problems


def test_both_locks_are_let_go(places: Places) -> None:
    for _ in range(2):
        with places.open(), pytest.raises(RecoveryError):
            places.open()
    for url in (places.local, places.target):
        with closing(open_reader(url)) as store:
            assert isinstance(store, JournalStore)
            assert Journal(store, "main").exists
