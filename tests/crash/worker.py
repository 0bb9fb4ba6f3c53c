"""The child that crash tests kill: runs a stream of commands, and says each acknowledgement on stdout.

``python -m tests.crash.worker FOLDER JOURNAL FIRST LAST``: executes commands FIRST to LAST-1 of ``stream_of`` on the journal of
this URL, with images in the folder on the way.
Every line of stdout is ``index command_id duplicate``; the last is ``done``.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

from journal.stores import wal_writer
from recovery import Command, Runtime
from tests.engines import Till

BATCH = 7
SNAPSHOT_EVERY = 25
WAL_SEGMENT_BYTES = 8 * 1024


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


def open_till(folder: str, journal: str) -> Runtime:
    """The runtime under test, on real files; segments of a ``wal:`` journal are small enough to end in a short life."""
    vars(wal_writer).update(SEGMENT_BYTES=WAL_SEGMENT_BYTES, ZEROED_BYTES=WAL_SEGMENT_BYTES)
    return Runtime.open(
        Till,
        journal=journal,
        snapshots=f"dir:{folder}/snapshots",
        snapshot_every=20,
        keep=2,
        batch_max=BATCH,
        seed=7,
    )


def main(folder: str, journal: str, first: int, last: int) -> None:
    """Run the stream and say what was acknowledged."""
    with open_till(folder, journal) as till:
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
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
