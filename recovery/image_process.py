"""One image, made by a process of its own: redo what is committed, publish, print one JSON line, exit.

It is given strings only, as one JSON document on stdin (arguments are for all to see, and a URL may hold a password):
``journal`` and ``snapshots`` (URLs), ``stream``, ``command_id``, ``keep``, and of the engine ``state_version``,
``logic_version``, ``schema`` (hex).  The engine's code is not loaded, and the engine waits for nothing.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from typing import Any

from journal.errors import RecoveryError
from journal.journal import Journal
from journal.urls import open_reader
from snapshots.catalog import Catalog, StepDown
from snapshots.retention import Retention
from snapshots.snapshotter import make_image
from snapshots.urls import open_snapshot_store

NICENESS = 10


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Make the image that the task asks for, and prune; what was done."""
    began = time.perf_counter()
    now_ms = time.time_ns() // 1_000_000
    steps_down: list[StepDown] = []
    with Journal(open_reader(task["journal"]), task["stream"]) as journal:
        catalog = Catalog(open_snapshot_store(task["snapshots"]), task["stream"])
        identity = journal.identity
        header = make_image(
            journal,
            catalog,
            identity=identity,
            state_version=task["state_version"],
            logic_version=task["logic_version"],
            schema=bytes.fromhex(task["schema"]),
            command_id=task["command_id"],
            created_at_ms=now_ms,
            report=steps_down.append,
        )
        pruned = catalog.prune(
            journal,
            Retention(task["keep"]),
            journal_id=identity.journal_id,
            now_ms=now_ms,
            report=steps_down.append,
        )
    return {
        "command_id": header.command_id,
        "pruned": [image.command_id for image in pruned],
        "steps_down": [step._asdict() for step in steps_down],
        "seconds": round(time.perf_counter() - began, 3),
    }


def main(argument: str) -> int:
    """Run the task given as JSON; 0, or the exit code of its error's family."""
    # The engine's commands come first where there are fewer cores than work.
    os.nice(NICENESS)
    gc.disable()
    try:
        print(json.dumps(run(json.loads(argument))), flush=True)
    except RecoveryError as error:
        print(json.dumps({"error": str(error), "hint": error.hint}), flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin.read()))
