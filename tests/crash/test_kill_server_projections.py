"""The server is killed while tables are projected: the engine rides it out, or opens again, and nothing is there twice."""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import suppress

from journal.errors import RecoveryError
from journal.testing.postgres_server import PostgresServer
from journal.urls import migrate_journal
from recovery import Command, ProjectionFailed, Receipt, Runtime, UnavailableError, open_journal, verify
from tests.crash.worker import stream_of
from tests.engines import Till
from tests.projections import Totals, require_equal

KILLS = 4
COMMANDS = 300


def test_kills_of_the_server_while_projecting() -> None:
    seed = int(os.environ.get("RECOVERY_TEST_SEED", random.randrange(2**32)))
    print(f"RECOVERY_TEST_SEED={seed}")
    rng = random.Random(seed)
    with PostgresServer() as server:
        url = server.url()
        migrate_journal(url)
        stopped = threading.Event()

        def kill_now_and_then() -> None:
            for _ in range(KILLS):
                time.sleep(rng.uniform(0.05, 0.4))
                server.kill()
                server.start()
            stopped.set()

        killer = threading.Thread(target=kill_now_and_then)
        killer.start()
        asked = [command for command in stream_of(0, COMMANDS) if command.type != "draw"]
        acknowledged: dict[bytes, int] = {}
        at = 0
        while at < len(asked) or not stopped.is_set():
            at = life(url, asked, at if at < len(asked) else 0, acknowledged)
        killer.join()
        with Runtime.open(Till, journal=url, snapshots="memory:", projections=[Totals]) as till:
            require_equal(till._recorder.store, dict(till.engine.accounts), till.head.command_id)
        with open_journal(url) as journal:
            ids = {entry.request_key: entry.command_id for entry in journal.read()}
            assert {key: ids[key] for key in acknowledged} == acknowledged
            assert verify(Till, journal).verdict == "verified"


def life(url: str, asked: list[Command], at: int, acknowledged: dict[bytes, int]) -> int:
    """Run the commands from ``at`` on until the end, or until the runtime stops; how many were answered."""
    with (
        suppress(UnavailableError),  # the server is away, or came back without us
        Runtime.open(Till, journal=url, snapshots="memory:", projections=[Totals], batch_max=20, takeover=True) as till,
    ):
        for command, outcome in zip(asked[at:], till.execute_many(asked[at:]), strict=False):
            if isinstance(outcome, Receipt):
                assert acknowledged.setdefault(command.request_key, outcome.command_id) == outcome.command_id
            elif isinstance(outcome, RecoveryError) and not isinstance(outcome, ProjectionFailed):
                assert isinstance(outcome, UnavailableError), outcome
                return at
            at += 1
    return at
