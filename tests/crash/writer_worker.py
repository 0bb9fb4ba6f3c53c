"""The child that the tests of two writers stop and kill: one command a line, and what became of each on stdout.

``python -m tests.crash.writer_worker URL FIRST LAST [SHIP_TO]``: lines are ``index command_id`` or ``index failed KIND TEXT``;
after the first failure that is not a command's own it ends.
"""

from __future__ import annotations

import sys

from journal.errors import RecoveryError
from recovery import Runtime
from tests.crash.worker import stream_of
from tests.engines import Till


def main(url: str, first: int, last: int, ship_to: str) -> None:
    """Run the stream and say what was acknowledged."""
    with Runtime.open(Till, journal=url, snapshots="memory:", seed=7, ship_to=ship_to or None) as till:
        for index, command in enumerate(stream_of(first, last), first):
            try:
                sys.stdout.write(f"{index} {till.execute(command).command_id}\n")
            except RecoveryError as error:
                sys.stdout.write(f"{index} failed {type(error).__name__} {error}\n")
                if error.exit_code == 3:
                    sys.stdout.flush()
                    till.close(snapshot=False)
                    return
            except Exception as error:  # an engine's own
                sys.stdout.write(f"{index} failed {type(error).__name__} {error}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), (sys.argv[4:] or [""])[0])
