"""One image, made by a process of its own: redo what is committed, publish, print one JSON line, exit.

It gets strings only: ``python -m recovery.image_process '{"journal": URL, "stream": …, "snapshots": URL, "command_id": N,
"keep": K}'``.  The engine's code is not loaded, and the engine waits for nothing.
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
from snapshots.catalog import Catalog
from snapshots.snapshotter import make_image
from snapshots.urls import open_snapshot_store

NICENESS = 10


def run(task: dict[str, Any]) -> dict[str, Any]:
    """Make the image that the task asks for, and prune; what was done."""
    began = time.perf_counter()
    with Journal(open_reader(task["journal"]), task["stream"]) as journal:
        catalog = Catalog(open_snapshot_store(task["snapshots"]), task["stream"])
        header = make_image(journal, catalog, task["command_id"])
        pruned = catalog.prune(keep=task["keep"])
    return {
        "command_id": header.command_id,
        "pruned": len(pruned),
        "seconds": round(time.perf_counter() - began, 3),
    }


def main(argument: str) -> int:
    """Run the task given as JSON; the exit code of its error's family."""
    # The engine's commits come first where there are fewer cores than work.
    os.nice(NICENESS)
    gc.disable()
    try:
        print(json.dumps(run(json.loads(argument))), flush=True)
    except RecoveryError as error:
        print(json.dumps({"error": str(error), "hint": error.hint}), flush=True)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
