"""(g) Bisecting a long history whose first divergence is at 90 %, against a full verify of it: time to the first divergence with
one job and with two, of two engines, and of two journals, with the entries that the last reads.

All sides are whole processes, their start included; why the command diverges is not looked for (``--git-bisect``).
``BISECT_COMMANDS`` is the size of the history (default one million).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from rounds import Table, by_turns
from verify_parallel import History

from recovery import Runtime
from recovery.examples.generated import Generated

COMMANDS = int(os.environ.get("BISECT_COMMANDS", "1000000"))
HERE = os.path.dirname(os.path.abspath(__file__))
BENT = "bent_exchange:BentExchange"
AIM = "<= 1"


class Search:
    """A history, another that parts from it at 90 %, and an engine that does so too."""

    def __init__(self, folder: str, commands: int) -> None:
        self.history = History(folder, commands)
        self.at = commands * 9 // 10
        os.environ["BENT_AT"] = str(self.at)
        sys.path.append(HERE)
        self.other = f"sqlite:{os.path.join(folder, 'other.db')}"
        with Runtime.open(BENT, journal=self.other, snapshots="memory:", snapshot_every=0) as runtime:
            for _outcome in runtime.execute_many(Generated(commands=commands).commands()):
                pass

    def seconds(self, verb: str, *asked: str, engine: str = "", code: int = 1) -> float:
        """How long a verb takes, as a process, that ends with this code."""
        return self._ran(verb, *asked, engine=engine, code=code)[0]

    def document(self, *asked: str) -> Any:
        """What ``recovery bisect`` prints."""
        return json.loads(self._ran("bisect", "--json", *asked, engine="", code=1)[1])

    def _ran(self, verb: str, *asked: str, engine: str, code: int) -> tuple[float, str]:
        history = self.history
        where = ["--engine", engine or history.engine, "--journal", history.journal, "--snapshots", history.snapshots]
        command = [sys.executable, "-m", "recovery.cli.main", verb, "-q", *where, "--app-dir", HERE, *asked]
        began = time.perf_counter()
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode != code:
            raise RuntimeError(f"{verb} ended with {ran.returncode}: {ran.stderr}")
        return time.perf_counter() - began, ran.stdout


def tables(folder: str, *, rounds: int, quick: bool) -> Iterator[Table]:
    """Times, and what two journals cost."""
    commands = 4_000 if quick else COMMANDS
    search = Search(folder, commands)
    sides = {
        "verify of all": lambda: search.seconds("replay", code=0),
        "bisect, one job": lambda: search.seconds("bisect", "--git-bisect", engine=BENT),
        "bisect, two jobs": lambda: search.seconds("bisect", "--git-bisect", "--jobs", "2", engine=BENT),
        "bisect against another engine": lambda: search.seconds("bisect", "--against", BENT),
        "bisect of two journals": lambda: search.seconds("bisect", "--other-journal", search.other),
    }
    table = Table(
        f"first divergence at 90 % of {commands:,} commands",
        "seconds",
        by_turns(sides, rounds),
        base="verify of all",
        aims={"bisect, one job": AIM, "bisect, two jobs": AIM},
    )
    document = search.document("--other-journal", search.other)
    if document["first_divergence"]["command_id"] != search.at:
        raise RuntimeError(f"found {document['first_divergence']}, not command {search.at}")
    table.notes.append(f"two journals: {document['entries_read']} entries read in {document['steps']} steps")
    yield table
