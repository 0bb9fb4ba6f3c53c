"""The child that crash tests of projections kill.

``python -m tests.crash.projection_worker run JOURNAL``: a stream of commands, some refused by the projection, each told on stdout
as ``index command_id``, or ``index refused KIND``; the last line is ``done``.  ``… backfill JOURNAL``: fills it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import count, islice

from journal import backfill as filling
from recovery import Command, Receipt, Runtime
from recovery.cli.main import run as recovery
from tests.crash.worker import stream_of
from tests.engines import Till
from tests.projections import Totals

COMMANDS = 60
BATCH = 6
PAGE = 10


def commands() -> Iterator[Command]:
    """Deposits and the like, enough of them beyond what the projection takes; no draws, which it does not know."""
    return islice((command for command in stream_of(0, 10 * COMMANDS) if command.type != "draw"), COMMANDS)


def open_till(journal: str) -> Runtime:
    """The runtime under test."""
    return Runtime.open(Till, journal=journal, snapshots="memory:", projections=[Totals], batch_max=BATCH, seed=7)


def main(what: str, journal: str) -> int:
    """Run or backfill, and say what was done."""
    if what == "backfill":
        filling.PAGE_ENTRIES = PAGE  # type: ignore[misc]
        return recovery(["backfill", "--journal", journal, "--projection", "tests.projections:Totals"])
    with open_till(journal) as till:
        for index, outcome in zip(count(), till.execute_many(commands()), strict=False):
            told = outcome.command_id if isinstance(outcome, Receipt) else f"refused {type(outcome).__name__}"
            sys.stdout.write(f"{index} {told}\n")
            sys.stdout.flush()
    sys.stdout.write("done\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
