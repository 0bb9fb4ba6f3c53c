"""(f) Verifying a long history with one job and with two, against a ceiling taken in the same round: two plain processes, each
verifying a half.  And the most memory that a worker took, at a fifth of the history and at all of it.

All sides are whole processes, their start included.  ``VERIFY_COMMANDS`` is the size of the history (default one million).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice

from rounds import Table, by_turns

from recovery import Runtime
from recovery.examples.generated import Generated

COMMANDS = int(os.environ.get("VERIFY_COMMANDS", "1000000"))
AIM = ">= 0.85"

MEMORY = """
import resource, sys
from recovery import verify
report = verify(sys.argv[1], sys.argv[2], sys.argv[3] or None, jobs=2, until=int(sys.argv[4]))
assert report.verdict == "verified" and report.segments > 1, report
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


class History:
    """A recorded history of the generated order flow, with ten images."""

    def __init__(self, folder: str, commands: int) -> None:
        workload = Generated(commands=commands)
        self.commands = commands
        self.engine = workload.engine
        self.journal = f"sqlite:{os.path.join(folder, 'verify.db')}"
        self.snapshots = f"dir:{os.path.join(folder, 'verify-snapshots')}"
        where = {"journal": self.journal, "snapshots": self.snapshots}
        with Runtime.open(self.engine, **where, snapshot_every=0, keep=100) as runtime:
            flow = workload.commands()
            for _ in range(10):
                for _outcome in runtime.execute_many(islice(flow, commands // 10)):
                    pass
                runtime.snapshot()

    def rate(self, *runs: tuple[str, ...], images: bool = True) -> float:
        """Commands a second of ``recovery replay`` processes that run at the same time, until the last has ended."""
        where = ["--engine", self.engine, "--journal", self.journal]
        where += ["--snapshots", self.snapshots if images else "memory:"]
        code = [sys.executable, "-m", "recovery.cli.main", "replay", "-q", *where]
        began = time.perf_counter()
        children = [subprocess.Popen([*code, *run], stdout=subprocess.DEVNULL) for run in runs]
        codes = [child.wait() for child in children]
        if any(codes):
            raise RuntimeError(f"a replay ended with {codes}")
        return self.commands / (time.perf_counter() - began)

    def megabytes(self, until: int) -> str:
        """The most memory that a worker took."""
        command = [sys.executable, "-c", MEMORY, self.engine, self.journal, self.snapshots, str(until)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def tables(folder: str, *, rounds: int, quick: bool) -> Iterator[Table]:
    """Rates, and the memory of a worker."""
    commands = 12_000 if quick else COMMANDS
    history = History(folder, commands)
    half = str(commands // 2)
    sides = {
        "two processes, a half each": lambda: history.rate(("--until", half), ("--after", half)),
        "one job": lambda: history.rate(()),
        "two jobs": lambda: history.rate(("--jobs", "2")),
        "two jobs, no images": lambda: history.rate(("--jobs", "2"), images=False),
    }
    table = Table(
        f"verify of {commands:,} commands",
        "commands/s",
        by_turns(sides, rounds),
        base="two processes, a half each",
        aims={"two jobs": AIM},
    )
    for until in (commands,) if quick else (commands // 5, commands):
        table.notes.append(f"most memory of a worker at {until:,} commands: {history.megabytes(until)} MiB")
    yield table
