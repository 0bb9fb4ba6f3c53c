"""A PostgreSQL server that is killed again and again, under an engine and its outbox: every event arrives, in order."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

from journal.testing.postgres_server import PostgresServer
from journal.urls import migrate_journal
from recovery import Command, Message, Runtime, UnavailableError, open_journal
from tests.engines import Till
from tests.postgres import fresh_schema

KILLS = 6


def work(url: str, done: threading.Event, seen: list[tuple[int, int]], failures: list[BaseException]) -> None:
    """Execute commands, each until it is acknowledged, in one runtime after another; deliver beside it."""

    def take(message: Message) -> None:
        seen.append((message.command_id, message.index))

    number = 0
    try:
        while not done.is_set():
            with Runtime.open(Till, journal=url, snapshots="memory:", snapshot_every=0, takeover=True) as till:
                outbox = till.outbox("mail", deliver=take)
                while not done.is_set() and outbox.failure is None:
                    deposit = Command("deposit", {"number": f"n{number % 5}", "cents": 1}, request_id=f"r{number}")
                    try:
                        till.execute(deposit)
                    except UnavailableError:
                        break  # the same again, in the next runtime
                    number += 1
    except BaseException as error:
        failures.append(error)


def test_a_server_killed_at_random_under_an_outbox(tmp_path: Path) -> None:
    seed = int(os.environ.get("RECOVERY_TEST_SEED", random.randrange(2**32)))
    print(f"RECOVERY_TEST_SEED={seed}")
    rng = random.Random(seed)
    seen: list[tuple[int, int]] = []
    failures: list[BaseException] = []
    done = threading.Event()
    with PostgresServer() as server, fresh_schema(server) as url:
        migrate_journal(url)
        worker = threading.Thread(target=work, args=(url, done, seen, failures))
        worker.start()
        try:
            for _ in range(KILLS):
                time.sleep(rng.uniform(0.05, 0.6))
                server.kill()
                server.start()
            time.sleep(0.3)
        finally:
            done.set()
            worker.join(120)
        assert not worker.is_alive()
        assert not failures, failures
        with Runtime.open(Till, journal=url, snapshots="memory:", takeover=True) as till:
            till.execute(Command("deposit", {"number": "last", "cents": 1}))
            till.outbox("mail", deliver=lambda message: seen.append((message.command_id, message.index)))
            deadline = time.monotonic() + 60
            while not seen or seen[-1][0] != till.head.command_id:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        with open_journal(url) as journal:
            wanted = [(entry.command_id, index) for entry in journal.read() for index, _ in enumerate(entry.events)]
    assert len(wanted) > KILLS
    assert list(dict.fromkeys(seen)) == wanted
