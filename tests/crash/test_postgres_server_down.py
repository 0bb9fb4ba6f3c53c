"""A PostgreSQL server that is killed, stopped, started anew and failed over under a running engine."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from journal.errors import EvidenceAhead, OutcomeUnknown, StoreUnavailable, UsageError, WriterPoisoned
from journal.postgres_schema import migrate
from journal.stores.postgres import PostgresStore
from journal.testing.postgres_server import PostgresServer, memory_folder
from recovery import Command, Receipt, Runtime, open_journal, verify
from tests.crash.worker import stream_of
from tests.engines import Till

ROOT = Path(__file__).parents[2]
SERVER_KILLS = int(os.environ.get("RECOVERY_SERVER_KILLS", "3"))
WAIT_S = 60


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of this module's own, which its tests kill."""
    with PostgresServer(parent=memory_folder()) as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> str:
    """A schema that nobody else uses."""
    url = server.start().url(schema=f"s{uuid.uuid4().hex[:8]}")
    migrate(url)
    return url


def deposit(cents: int, request_id: str) -> Command:
    return Command("deposit", {"number": "ada", "cents": cents}, request_id=request_id)


def wait_until(what: str, server: PostgresServer, sql: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not server.execute(sql)[0][0]:
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Later:
    """One command, executed on another thread."""

    def __init__(self, till: Runtime, command: Command) -> None:
        self.future = till.submit(command)

    def receipt(self) -> Receipt:
        return self.future.result(WAIT_S)


def test_restarts_are_ridden_out_and_nothing_is_lost_or_doubled(server: PostgresServer, url: str) -> None:
    seed = int(os.environ.get("RECOVERY_TEST_SEED", random.randrange(2**32)))
    print(f"RECOVERY_TEST_SEED={seed}")
    rng = random.Random(seed)
    commands = list(stream_of(0, 400))
    with Runtime.open(Till, journal="memory:", snapshots="memory:", seed=7) as twin:
        expected = list(twin.execute_many(commands))
        accounts = list(twin.engine.accounts.items())
    with Runtime.open(Till, journal=url, snapshots="memory:", seed=7, batch_max=5) as till:
        outcomes: list[Receipt | Exception] = []
        thread = threading.Thread(target=lambda: outcomes.extend(till.execute_many(commands)))
        thread.start()
        for kill in range(SERVER_KILLS):
            reached = len(commands) * kill // (SERVER_KILLS + 1)
            while till.head.command_id < reached * 0.8 and thread.is_alive():
                time.sleep(0.001)
            time.sleep(rng.uniform(0.0, 0.02))
            server.kill()
            time.sleep(rng.uniform(0.0, 0.3))
            server.start()
        thread.join(WAIT_S)
        assert not thread.is_alive()
        for found, want in zip(outcomes, expected, strict=True):
            if isinstance(want, Receipt):
                assert found == want
            else:
                assert str(found) == str(want)
        assert list(till.engine.accounts.items()) == accounts
    assert verify(Till, url).verdict == "verified"


def test_a_server_that_stays_away_is_unavailable_after_a_bounded_time(server: PostgresServer, url: str) -> None:
    with Runtime.open(Till, journal=f"{url}&ride_out_s=0.5", snapshots="memory:") as till:
        till.execute(deposit(5, "a"))
        server.kill()
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            till.execute(deposit(1, "b"))
        assert time.monotonic() - began < 20
        server.start()
        # Nothing was written, so the runtime goes on.
        assert till.execute(deposit(1, "b")).response == {"cents": 6}


def test_a_runtime_refuses_a_server_that_is_not_durable_and_stops_on_one_that_comes_back_so(
    server: PostgresServer, url: str
) -> None:
    till = Runtime.open(Till, journal=url, snapshots="memory:")
    till.execute(deposit(5, "a"))
    try:
        server.restart(settings={"fsync": "off"})
        with pytest.raises(OutcomeUnknown, match="durability turned off") as stopped:
            till.execute(deposit(1, "b"))
        assert isinstance(stopped.value.__cause__, WriterPoisoned)
        till.close(snapshot=False)
        with pytest.raises(UsageError, match="does not survive a power cut"):
            Runtime.open(Till, journal=url, snapshots="memory:")
        with Runtime.open(Till, journal=url, snapshots="memory:", durable=False) as careless:
            status = careless.status()
            assert status["durability"]["fsync"] == "off"
            assert not status["healthy"]
            assert careless.execute(deposit(1, "b")).command_id == 2
        server.restart(settings={"fsync": "on", "full_page_writes": "off"})
        with pytest.raises(UsageError, match="does not survive"):
            Runtime.open(Till, journal=url, snapshots="memory:")
    finally:
        server.restart(settings={"fsync": "on", "full_page_writes": "on"})


def test_failover_while_a_commit_waits_for_the_synchronous_standby() -> None:
    with PostgresServer(parent=memory_folder()) as primary, primary.add_standby("s1") as standby:
        both = f"postgresql:///postgres?host={primary.folder},{standby.folder}&user=postgres"
        url = f"{both}&target_session_attrs=read-write&connect_timeout=2"
        migrate(url)
        with Runtime.open(Till, journal=url, snapshots="memory:") as till:
            till.execute(deposit(5, "a"))
            assert "s1" in till.status()["durability"]["synchronous_standby_names"]
            # The standby stops taking: the next COMMIT is done at the primary, and waits.
            receiver = next(pid for pid, title in standby.children().items() if "walreceiver" in title)
            os.kill(receiver, signal.SIGSTOP)
            waiting = Later(till, deposit(1, "b"))
            wait_until(
                "no COMMIT waits",
                primary,
                "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
            )
            assert not waiting.future.done(), "acknowledged without its standby"
            primary.kill()
            os.kill(receiver, signal.SIGCONT)
            standby.promote()
            receipt = waiting.receipt()
            assert (receipt.command_id, receipt.response) == (2, {"cents": 6})
            assert till.execute(deposit(1, "b")).duplicate
            assert till.execute(deposit(1, "c")).response == {"cents": 7}
        with open_journal(standby.url()) as journal:
            assert [entry.request_key for entry in journal.read()] == [deposit(0, name).request_key for name in "abc"]
            assert len(journal.epochs()) == 2
        assert verify(Till, standby.url()).verdict == "verified"


def test_a_wait_for_the_standby_that_is_cancelled_is_no_acknowledgement() -> None:
    with PostgresServer(parent=memory_folder()) as primary, primary.add_standby("s1") as standby:
        migrate(primary.url())
        with Runtime.open(Till, journal=f"{primary.url()}&ride_out_s=20", snapshots="memory:") as till:
            till.execute(deposit(5, "a"))
            receiver = next(pid for pid, title in standby.children().items() if "walreceiver" in title)
            os.kill(receiver, signal.SIGSTOP)
            waiting = Later(till, deposit(1, "b"))
            waits = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            wait_until("no COMMIT waits", primary, f"SELECT EXISTS ({waits})")
            # The server answers COMMIT with a warning: done here, perhaps not there.
            primary.execute(f"SELECT pg_cancel_backend(pid) FROM ({waits}) AS waiting")
            time.sleep(0.3)
            wait_until("the new epoch does not wait", primary, f"SELECT EXISTS ({waits})")
            assert not waiting.future.done(), "acknowledged without its standby"
            os.kill(receiver, signal.SIGCONT)
            assert waiting.receipt().response == {"cents": 6}
            assert till.execute(deposit(1, "b")).duplicate
        assert [epoch.number for epoch in open_journal(primary.url()).epochs()] == [1, 2]


def test_a_server_that_lost_what_it_acknowledged_is_found_out() -> None:
    with PostgresServer(parent=memory_folder()) as primary, primary.add_standby("s1", synchronous=False) as standby:
        both = f"postgresql:///postgres?host={primary.folder},{standby.folder}&user=postgres"
        url = f"{both}&target_session_attrs=read-write&connect_timeout=2"
        migrate(url)
        till = Runtime.open(Till, journal=url, snapshots="memory:")
        till.execute(deposit(5, "a"))
        wait_until(
            "the standby does not follow",
            primary,
            "SELECT replay_lsn = pg_current_wal_lsn() FROM pg_stat_replication",
        )
        (sender,) = (pid for pid, title in primary.children().items() if "walsender" in title)
        os.kill(sender, signal.SIGSTOP)
        till.execute(deposit(1, "b"))
        primary.kill()
        standby.promote()
        with pytest.raises(EvidenceAhead, match=r"acknowledged command 2 .+ ends at command 1"):
            till.execute(deposit(1, "c"))
        till.close(snapshot=False)


def test_the_store_itself_refuses_to_go_on_after_loss(server: PostgresServer, url: str) -> None:
    with Runtime.open(Till, journal=url, snapshots="memory:") as till:
        for number in range(3):
            till.execute(deposit(1, f"r{number}"))
        store = till._recorder.store
        assert isinstance(store, PostgresStore)
        pid = store._link.db().info.backend_pid
        schema = url.partition("schema=")[2]
        server.execute(f"DELETE FROM {schema}.engine_journal WHERE command_id > 1")
        server.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
        with pytest.raises(EvidenceAhead, match=r"acknowledged command 3 .+ ends at command 1"):
            till.execute(deposit(1, "next"))
        till.close(snapshot=False)
