"""The outbox: every event, in order, at least once, from a cursor that never runs ahead of what was delivered.

``guard_at_least_once`` is a function so that tests/meta/test_canaries.py can run it on an outbox that moves its cursor first.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from journal.cursors import Cursor
from journal.delivery import Delivery, cursors_of
from journal.outbox import Outbox
from journal.records import Entry, checksum
from journal.stores.cursor_files import FileCursors
from journal.stores.cursor_memory import CURSOR_PLACES
from journal.stores.memory import PLACES
from journal.stores.sqlite import SqliteStore
from journal.testing.power_cut import PowerCut, PowerCutDisk
from journal.urls import migrate_journal, open_cursors
from recovery import (
    ChecksumMismatch,
    Command,
    CorruptionError,
    DeliveryFailed,
    EvidenceAhead,
    JournalInUse,
    Message,
    Runtime,
    StoreUnavailable,
    UsageError,
    open_journal,
    open_snapshots,
)
from recovery.check import check
from recovery.status import journal_status
from tests.engines import Till
from tests.places import new_place


class Crash(BaseException):
    """The consumer's process is gone."""


def deposits(first: int, last: int) -> list[Command]:
    return [
        Command("deposit", {"number": f"n{index % 3}", "cents": 5}, request_id=f"r{index}")
        for index in range(first, last)
    ]


def filled(url: str, commands: int = 12) -> list[tuple[int, int]]:
    """A journal of deposits and rejects; the (command_id, index) of its events."""
    with Runtime.open(Till, journal=url, snapshots="memory:") as till:
        for index, command in enumerate(deposits(0, commands)):
            till.execute(command)
            if index % 4 == 3:  # a command without an event
                till.execute(Command("close_account", {"number": "nobody"}))
    with open_journal(url) as journal:
        return [(entry.command_id, index) for entry in journal.read() for index, _ in enumerate(entry.events)]


def ids(messages: list[Message]) -> list[tuple[int, int]]:
    return [(message.command_id, message.index) for message in messages]


def place() -> str:
    return f"memory:{new_place()}"


def cursor_of(url: str, name: str = "mail") -> Cursor:
    store = open_cursors(url)
    (found,) = [one for one in cursors_of(store, "main") if isinstance(one, Cursor) and one.name == name]
    store.close()
    return found


def outbox(url: str, deliver: Callable[[Message], object], **options: object) -> Outbox:
    return Outbox(url, name="mail", deliver=deliver, **options)  # type: ignore[arg-type]


def dying(seen: list[tuple[int, int]], at: int, *, after_it: bool) -> Callable[[Message], None]:
    """A consumer that notes what it gets, and dies before or after a message."""

    def take(message: Message) -> None:
        if len(seen) == at and not after_it:
            raise Crash
        seen.append((message.command_id, message.index))
        if len(seen) == at + 1 and after_it:
            raise Crash

    return take


def guard_at_least_once(delivery: type[Delivery], monkeypatch: pytest.MonkeyPatch) -> None:
    """The consumer dies before, and after, each message; whoever starts next leaves nothing out and keeps the order."""
    monkeypatch.setattr("journal.outbox.Delivery", delivery)
    for dies_after_it, batch_max in itertools.product((False, True), (1, 3, 100)):
        url = place()
        wanted = filled(url)
        for at in range(len(wanted)):
            seen: list[tuple[int, int]] = []

            with (
                outbox(url, dying(seen, at, after_it=dies_after_it), batch_max=batch_max) as first,
                pytest.raises(Crash),
            ):
                first.run_once()
            rest: list[Message] = []
            with outbox(url, rest.append, batch_max=batch_max) as second:
                second.run_once()
            again = ids(rest)
            assert again == wanted[len(wanted) - len(again) :]
            assert list(dict.fromkeys(seen + again)) == wanted
            CURSOR_PLACES.pop(url.removeprefix("memory:"))


def test_whatever_the_consumer_does_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    guard_at_least_once(Delivery, monkeypatch)


@pytest.fixture(params=["memory", "sqlite", "wal", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A journal in each kind of store."""
    if request.param == "postgresql":
        migrate_journal(found := request.getfixturevalue("postgres_url"))
        return str(found)
    return {"memory": place(), "sqlite": f"sqlite:{tmp_path}/till.db", "wal": f"wal:{tmp_path}/journal"}[request.param]


def test_events_come_in_order_once_and_whole(url: str) -> None:
    wanted = filled(url)
    seen: list[Message] = []
    with outbox(url, seen.append) as first:
        assert first.run_once() == len(wanted)
        assert first.run_once() == 0
    assert ids(seen) == wanted
    with open_journal(url) as journal:
        entry = journal.entry(1)
        assert entry is not None
        assert seen[0] == Message(
            1, 0, "BalanceChanged", {"number": "n0", "delta": 5}, "n0", None, entry.received_at_ms, entry.request_id, 1
        )
        assert cursor_of(url).command_id == journal.head().command_id
        assert cursor_of(url).messages == len(wanted)
    with Runtime.open(Till, journal=url, snapshots="memory:") as till:
        till.execute(Command("deposit", {"number": "new", "cents": 1}))
    with outbox(url, seen.append) as second:
        assert second.run_once() == 1
    assert seen[-1].key == "new"
    assert seen[-1].epoch == 2


def test_batches_hold_whole_commands_and_names_are_independent(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/till.db"
    wanted = filled(url)
    batches: list[list[Message]] = []
    with Outbox(url, name="lake", deliver_batch=batches.append, batch_max=5, after=3) as lake:
        lake.run_once()
    assert max(map(len, batches)) <= 5
    assert ids(list(itertools.chain(*batches))) == [one for one in wanted if one[0] > 3]
    with outbox(url, lambda message: None) as mail:
        assert mail.run_once() == len(wanted)
    assert open_cursors(url).names("main") == ["lake", "mail"]
    assert open_cursors(url).names("other") == []


def test_nothing_beyond_the_bound_is_handed_out() -> None:
    url, shipped = place(), [0]
    wanted = filled(url)
    seen: list[Message] = []
    with outbox(url, seen.append, published_up_to=lambda: shipped[0]) as bounded:
        for bound in (0, 4, 4, 9):
            shipped[0] = bound
            bounded.run_once()
            assert ids(seen) == [one for one in wanted if one[0] <= bound]


def test_what_is_read_is_made_durable_before_it_is_handed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    url = f"sqlite:{tmp_path}/till.db"
    filled(url, 2)
    monkeypatch.setattr(SqliteStore, "make_durable", lambda store: said.append("durable"))
    with outbox(url, lambda message: said.append("delivered")) as mail:
        mail.run_once()
    assert said == ["durable", "delivered", "delivered"]


def test_a_consumer_that_refuses_is_asked_again_and_then_it_stops_and_says_so() -> None:
    url = place()
    wanted = filled(url)
    seen: list[Message] = []
    refusals = iter([OSError("busy"), OSError("busy"), None])

    def stubborn(message: Message) -> None:
        if message.command_id == 4:
            error = next(refusals, OSError("postgresql://u:secret@host gone"))
            if error is not None:
                raise error
        seen.append(message)

    with outbox(url, stubborn, attempts_max=3, backoff_max_s=0.01) as mail:
        assert mail.run_once() == len(wanted)
        assert ids(seen) == wanted
    CURSOR_PLACES.pop(url.removeprefix("memory:"))
    seen.clear()
    with outbox(url, stubborn, attempts_max=3, backoff_max_s=0.01) as mail, pytest.raises(DeliveryFailed) as failed:
        mail.run_once()
    assert failed.value.position == 4
    assert isinstance(failed.value.__cause__, OSError)
    # One at a time: the commands accepted whole stay accepted.
    assert cursor_of(url).command_id == 3
    assert "secret" not in (cursor_of(url).failure or "secret")
    with open_journal(url) as journal:
        document = journal_status(journal, open_snapshots("memory:"), open_cursors(url))
    assert not document["healthy"]
    assert any("stopped after command 3" in problem for problem in document["problems"])
    (lag,) = document["outboxes"]
    assert lag["name"] == "mail"
    assert lag["commands_behind"] == document["head"]["command_id"] - 3
    assert lag["seconds_behind"] >= 0
    assert "gone" in lag["failure"]
    with outbox(url, seen.append) as mail:
        mail.run_once()
    assert ids(seen) == wanted
    assert cursor_of(url).failure is None


def test_one_consumer_of_a_name_at_a_time(tmp_path: Path) -> None:
    for url in (place(), f"sqlite:{tmp_path}/till.db"):
        filled(url, 3)
        inside, leave = threading.Event(), threading.Event()

        def slow(message: Message, inside: threading.Event = inside, leave: threading.Event = leave) -> None:
            inside.set()
            leave.wait(20)

        with outbox(url, slow) as first:
            first.start()
            assert inside.wait(20)
            with outbox(url, lambda message: None) as second, pytest.raises(JournalInUse, match="being delivered"):
                second.run_once()
            leave.set()
        with outbox(url, lambda message: None) as second:
            second.run_once()


def test_reduced_events_are_refused() -> None:
    url = place()
    filled(url, 3)
    entries = PLACES[url.removeprefix("memory:")].streams["main"].entries

    def reduced(entry: Entry) -> Entry:
        entry = entry._replace(events_reduced=True)
        return entry._replace(checksum=checksum(*entry[:-1]))

    entries[1] = reduced(entries[1])
    seen: list[Message] = []
    with outbox(url, seen.append) as mail, pytest.raises(UsageError, match="reduced") as refused:
        mail.run_once()
    assert refused.value.position == 2
    assert refused.value.hint
    assert ids(seen) == [(1, 0)]
    assert "reduced" in (cursor_of(url).failure or "")
    with Runtime.open(Till, journal=(other := place()), snapshots="memory:", events="none") as till:
        till.execute(deposits(0, 1)[0])
    with outbox(other, seen.append) as mail, pytest.raises(UsageError, match="reduced"):
        mail.run_once()


# What a cursor proves


def lose_end(url: str, keep: int) -> None:
    stream = PLACES[url.removeprefix("memory:")].streams["main"]
    del stream.entries[keep:]
    stream.by_request = {entry.request_key: entry for entry in stream.entries}
    del stream.epochs[1:]


def test_a_cursor_beyond_the_end_refuses_everything_until_the_loss_is_accepted() -> None:
    url = place()
    filled(url)
    with outbox(url, lambda message: None) as mail:
        mail.run_once()
    at = cursor_of(url).command_id
    lose_end(url, 7)
    with pytest.raises(EvidenceAhead, match="mail") as refused:
        Runtime.open(Till, journal=url, snapshots="memory:")
    assert refused.value.position == at
    assert "--accept-loss" in refused.value.hint
    with outbox(url, lambda message: None) as mail, pytest.raises(EvidenceAhead):
        mail.run_once()
    with open_journal(url) as journal:
        assert any(
            "lost its end" in one
            for one in journal_status(journal, open_snapshots("memory:"), open_cursors(url))["problems"]
        )
        report = check(journal, None, lambda done, everything: None, cursors=open_cursors(url))
        assert report.exit_code == 4
        assert "mail" in report.damage[0]
    with Runtime.open(Till, journal=url, snapshots="memory:", accept_loss=True) as till:
        assert "mail" in till.cold_start.accepted_loss
        till.execute(Command("deposit", {"number": "new", "cents": 1}))
    with open_journal(url) as journal:
        assert "mail" in (journal.epochs()[-1].accepted_loss or "")
    seen: list[Message] = []
    with outbox(url, seen.append) as mail:
        mail.run_once()
    assert ids(seen) == [
        (8, 0)
    ]  # what was recorded after the loss is delivered, although a lost command had its number


def test_a_journal_that_went_on_without_its_end_is_found_by_its_chain() -> None:
    url = place()
    filled(url)
    with outbox(url, lambda message: None) as mail:
        mail.run_once()
    name = url.removeprefix("memory:")
    kept = CURSOR_PLACES.pop(name)
    lose_end(url, 7)
    with Runtime.open(Till, journal=url, snapshots="memory:") as till:  # the cursor's disk was not there
        list(till.execute_many(deposits(100, 130)))
    CURSOR_PLACES[name] = kept
    with outbox(url, lambda message: None) as mail, pytest.raises(EvidenceAhead, match="went on"):
        mail.run_once()
    with pytest.raises(EvidenceAhead):
        Runtime.open(Till, journal=url, snapshots="memory:")
    Runtime.open(Till, journal=url, snapshots="memory:", accept_loss=True).close()
    seen: list[Message] = []
    with outbox(url, seen.append) as mail:
        mail.run_once()
    assert ids(seen) == [(command_id, 0) for command_id in range(8, 38)]


def test_a_new_journal_is_not_made_where_a_cursor_of_the_old_one_lies(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/till.db"
    filled(url, 3)
    with outbox(url, lambda message: None) as mail:
        mail.run_once()
    for file in tmp_path.glob("till.db*"):
        if "cursor" not in file.name:
            file.unlink()
    with pytest.raises(EvidenceAhead, match="holds no journal"):
        Runtime.open(Till, journal=url, snapshots="memory:")
    assert not (tmp_path / "till.db-wal").exists() or open_journal(url).exists is False
    with Runtime.open(Till, journal=url, snapshots="memory:", accept_loss=True) as till:
        till.execute(deposits(50, 51)[0])
    seen: list[Message] = []
    with outbox(url, seen.append) as mail:
        mail.run_once()
    assert ids(seen) == [(1, 0)]


def test_a_damaged_cursor_is_said_and_never_begun_anew(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/till.db"
    wanted = filled(url, 4)
    with outbox(url, lambda message: None) as mail:
        mail.run_once()
    file = tmp_path / "till.db.cursor-mail@main"
    sound = file.read_bytes()
    for damaged in (b"", sound[:20], bytes([sound[0] ^ 1]) + sound[1:], sound[:-1], sound + b"\0"):
        file.write_bytes(damaged)
        with outbox(url, lambda message: pytest.fail("delivered")) as mail, pytest.raises(CorruptionError) as said:
            mail.run_once()
        assert "--reset" in said.value.hint
        with open_journal(url) as journal:
            assert check(journal, None, lambda done, everything: None, cursors=open_cursors(url)).exit_code == 4
            assert not journal_status(journal, open_snapshots("memory:"), open_cursors(url))["healthy"]
        Runtime.open(Till, journal=url, snapshots="memory:").close()  # the engine is not to suffer for it
    file.write_bytes(sound)
    assert cursor_of(url).messages == len(wanted)


def test_a_cursor_of_another_journal_is_refused(tmp_path: Path) -> None:
    first, second = f"sqlite:{tmp_path}/a.db", f"sqlite:{tmp_path}/b.db"
    filled(first, 2)
    filled(second, 2)
    with outbox(first, lambda message: None) as mail:
        mail.run_once()
    (tmp_path / "a.db.cursor-mail@main").rename(tmp_path / "b.db.cursor-mail@main")
    with outbox(second, lambda message: None) as mail, pytest.raises(UsageError, match="another journal"):
        mail.run_once()
    Runtime.open(Till, journal=second, snapshots="memory:").close()


def test_wrong_calls_are_refused() -> None:
    url = place()
    filled(url, 1)
    for options in (
        {"deliver": None},
        {"name": "../x"},
        {"name": ""},
        {"batch_max": 0},
        {"attempts_max": 0},
        {"after": -1},
    ):
        with pytest.raises(UsageError):
            Outbox(url, **{"name": "mail", "deliver": print, **options})  # type: ignore[arg-type]
    with open_journal(url) as journal, pytest.raises(UsageError):
        Outbox(journal, name="mail", deliver=print)
    with Outbox(url, name="mail", deliver=print, after=99) as mail, pytest.raises(UsageError, match="no command 99"):
        mail.run_once()


# The cursor's file under a power cut, and under I/O errors


def write_cursors(disk: PowerCutDisk, folder: str) -> list[int]:
    """Write cursors 1, 2, 3…; those whose write returned."""
    done: list[int] = []
    hold = FileCursors(f"{folder}/till.db.", files=disk).hold("main", "mail")
    try:
        for number in range(1, 6):
            hold.write(cursor(number).pack())
            done.append(number)
    except (PowerCut, StoreUnavailable):
        pass
    finally:
        hold.release()
    return done


def cursor(number: int) -> Cursor:
    import uuid

    return Cursor("mail", "main", uuid.UUID(int=7), number, bytes(16), number, 1_700_000_000_000, None)


def guard_power_cuts(disk_type: Callable[[int], PowerCutDisk], folder: str, seed: int = 0) -> None:
    whole = PowerCutDisk()
    write_cursors(whole, folder)
    for cut_at in range(whole.operations + 1):
        for chance in range(20):
            disk = disk_type(cut_at)
            done = write_cursors(disk, folder)
            found = FileCursors(f"{folder}/till.db.", files=disk.after_cut(random.Random(seed + chance)))
            stored = found.read("main", "mail")
            if stored is None:
                assert not done
            else:
                at = Cursor.unpack(stored, "cursor").command_id
                assert at in (len(done), len(done) + 1)


def test_after_a_power_cut_the_old_cursor_or_the_new_one_is_there(tmp_path: Path) -> None:
    guard_power_cuts(lambda cut_at: PowerCutDisk(cut_at=cut_at), str(tmp_path))


def test_an_io_error_at_any_operation_leaves_a_whole_cursor(tmp_path: Path) -> None:
    whole = PowerCutDisk()
    write_cursors(whole, str(tmp_path))
    for fail_at in range(1, whole.operations + 1):
        disk = PowerCutDisk(fail_at=fail_at)
        done = write_cursors(disk, str(tmp_path))
        stored = FileCursors(f"{tmp_path}/till.db.", files=disk).read("main", "mail")
        if done:
            assert stored is not None
            assert Cursor.unpack(stored, "cursor").command_id in (len(done), len(done) + 1)


def test_a_cursor_names_its_damage() -> None:
    with pytest.raises(ChecksumMismatch, match="cursor of mail"):
        Cursor.unpack(cursor(1).pack()[:-1], "cursor of mail")


# Beside a runtime


def wait_for(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_outbox_of_a_journal_of_nobody_else(tmp_path: Path) -> None:
    seen: list[Message] = []
    with Runtime.open(Till, journal="memory:", snapshots="memory:") as till:
        till.outbox("mail", deliver=seen.append)
        till.execute(deposits(0, 1)[0])
        wait_for(lambda: len(seen) == 1)


def test_an_outbox_of_the_runtime_is_woken_by_each_commit(url: str) -> None:
    seen: list[Message] = []
    with Runtime.open(Till, journal=url, snapshots="memory:") as till:
        mail = till.outbox("mail", deliver=seen.append)
        for _ in range(30):
            till.execute(Command("deposit", {"number": "ada", "cents": 1}))
        wait_for(lambda: len(seen) == 30)
        assert ids(seen) == [(number, 0) for number in range(1, 31)]
        wait_for(lambda: till.status()["outboxes"][0]["commands_behind"] == 0)
        status = till.status()
        assert status["outboxes"][0]["state"] == "running"
        assert not any("mail" in problem for problem in status["problems"])
        assert mail.state == "running"
        with pytest.raises(UsageError, match="already"):
            till.outbox("mail", deliver=seen.append)
    assert mail.state == "idle"


def test_a_failing_outbox_shows_in_the_status_and_harms_no_command() -> None:
    def broken(message: Message) -> None:
        raise OSError("no")

    with Runtime.open(Till, journal="memory:", snapshots="memory:") as till:
        mail = till.outbox("mail", deliver=broken)
        assert till.execute(Command("deposit", {"number": "ada", "cents": 1})).command_id == 1
        wait_for(lambda: mail.state == "retrying")
        status = till.status()
        assert not status["healthy"]
        assert "no" in status["outboxes"][0]["failure"]


def test_messages_do_not_change() -> None:
    message = Message(1, 0, "T", None, None, None, 0, cursor(1).journal_id, 1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        message.index = 2  # type: ignore[misc]
