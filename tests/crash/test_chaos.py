"""Some kills of server, engine, outbox and image processes in PostgreSQL; ``scripts/chaos`` does three hundred."""

from __future__ import annotations

import os
import random

from tests.crash.chaos import VICTIMS, run

KILLS = int(os.environ.get("RECOVERY_CHAOS_KILLS", "18"))


def test_nothing_is_lost_or_done_twice_whatever_is_killed() -> None:
    seed = int(os.environ.get("RECOVERY_TEST_SEED", random.randrange(2**32)))
    print(f"RECOVERY_TEST_SEED={seed}")
    counts = run(KILLS, seed)
    assert sum(counts[victim] for victim in set(VICTIMS)) >= KILLS * 0.8  # one or the other may have been done already
    assert counts["server"]
    assert counts["engine"]
