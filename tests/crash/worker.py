"""The child that crash tests kill: runs a stream of commands, and says each acknowledgement on stdout.

``python -m tests.crash.worker FOLDER FIRST LAST``: executes commands FIRST to LAST-1 of ``stream_of``, with images on the way.
Every line of stdout is ``index command_id duplicate``; the last is ``done``.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

from recovery import Command, Runtime
from tests.engines import Till

BATCH = 7
SNAPSHOT_EVERY = 25


def stream_of(first: int, last: int) -> Iterator[Command]:
    """Commands that are the same in every process: deposits, withdrawals, rejects, failures, draws."""
    for index in range(first, last):
        rng = random.Random(index)
        number = f"n{rng.randrange(5)}"
        kind = rng.random()
        if kind < 0.75:
            command = ("deposit", {"number": number, "cents": rng.randrange(-60, 100)})
        elif kind < 0.85:
            command = ("close_account", {"number": number})
        elif kind < 0.95:
            command = ("draw", {"number": number})
        else:
            command = ("half_way", {"number": number})
        yield Command(*command, request_id=f"request {index}", received_at_ms=1_700_000_000_000 + index)


def open_till(folder: str) -> Runtime:
    """The runtime under test, on real files."""
    return Runtime.open(
        Till,
        journal=f"sqlite:{folder}/journal.db",
        snapshots=f"dir:{folder}/snapshots",
        snapshot_every=20,
        keep=2,
        batch_max=BATCH,
        seed=7,
    )


def main(folder: str, first: int, last: int) -> None:
    """Run the stream and say what was acknowledged."""
    with open_till(folder) as till:
        for index, outcome in enumerate(till.execute_many(stream_of(first, last)), first):
            if isinstance(outcome, Exception):
                sys.stdout.write(f"{index} failed {type(outcome).__name__}\n")
            else:
                sys.stdout.write(f"{index} {outcome.command_id} {outcome.duplicate}\n")
            sys.stdout.flush()
            if index % SNAPSHOT_EVERY == SNAPSHOT_EVERY - 1:
                till.snapshot()
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
