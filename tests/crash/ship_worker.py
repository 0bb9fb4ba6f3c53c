"""The child that the crash tests of shipping kill: the stream of tests.crash.worker on a journal that is shipped.

``python -m tests.crash.ship_worker FOLDER ACK FIRST LAST``; the target's URL is a line on stdin, for it may be long.  Lines are
those of tests.crash.worker, and ``stopped KIND TEXT`` where the runtime takes no more.  With ``--patient`` it executes one
command at a time, a moment apart.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from journal import shipper
from journal.errors import RecoveryError
from recovery import Receipt, Runtime
from tests.crash.worker import BATCH, SNAPSHOT_EVERY, stream_of
from tests.engines import Till

LEASE_S = 0.5


def open_shipped(folder: str, target: str, ack: str, **options: bool) -> Runtime:
    """The runtime under test."""
    return Runtime.open(
        Till,
        journal=f"wal:{folder}/journal",
        snapshots=f"dir:{folder}/snapshots",
        ship_to=target,
        ack=ack,
        snapshot_every=20,
        batch_max=BATCH,
        seed=7,
        **options,
    )


def outcomes(till: Runtime, first: int, last: int, *, patient: bool) -> Iterator[Receipt | Exception]:
    """What becomes of the stream's commands."""
    if not patient:
        yield from till.execute_many(stream_of(first, last))
        return
    for command in stream_of(first, last):
        try:
            yield till.execute(command)
        except Exception as error:
            yield error
        time.sleep(0.01)


def main(folder: str, ack: str, first: int, last: int, *, patient: bool) -> None:
    """Run the stream and say what was acknowledged."""
    target = sys.stdin.readline().strip()
    vars(shipper).update(LEASE_S=LEASE_S)
    try:
        with open_shipped(folder, target, ack) as till:
            for index, outcome in enumerate(outcomes(till, first, last, patient=patient), first):
                if isinstance(outcome, RecoveryError) and outcome.exit_code == 3:
                    raise outcome
                if isinstance(outcome, Exception):
                    sys.stdout.write(f"{index} failed {type(outcome).__name__}\n")
                else:
                    sys.stdout.write(f"{index} {outcome.command_id} {outcome.duplicate}\n")
                sys.stdout.flush()
                if ack == "both" and index % SNAPSHOT_EVERY == SNAPSHOT_EVERY - 1:
                    till.snapshot()
    except RecoveryError as error:
        sys.stdout.write(f"stopped {type(error).__name__} {error}\n")
        return
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), patient="--patient" in sys.argv)
