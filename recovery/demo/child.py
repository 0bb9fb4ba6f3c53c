"""The process that the demo kills: runs a workload at full speed and tells, over stdout, what was acknowledged.

Messages are a kind, the length of what follows as u32, and that: ``O`` the cold start's report (JSON), ``A`` the request keys, 16
bytes each, of commands whose receipts were given, ``D`` nothing: all is done.
"""

from __future__ import annotations

import json
import struct
import sys
from typing import Any, BinaryIO, Final

from recovery.examples.workloads import open_workload
from recovery.runtime import Runtime

HEADER: Final = struct.Struct(">cI")


def main(task: dict[str, Any], out: BinaryIO) -> None:
    """Run the workload after its first ``after`` commands, whatever of the rest is recorded already."""

    def tell(kind: bytes, payload: bytes) -> None:
        out.write(HEADER.pack(kind, len(payload)) + payload)
        out.flush()

    workload = open_workload(task["workload"], commands=task["commands"])
    with Runtime.open(
        workload.engine,
        journal=task["journal"],
        snapshots=task["snapshots"],
        stream="main",
        snapshot_every=task["snapshot_every"],
        batch_max=task["batch_max"],
    ) as runtime:
        tell(b"O", json.dumps(runtime.cold_start.to_dict()).encode())
        sent: list[bytes] = []
        given = 0
        for outcome in runtime.execute_many(_noted(workload.commands(task["after"]), sent)):
            if isinstance(outcome, Exception):
                raise outcome
            given += 1
            if given == task["batch_max"]:
                tell(b"A", b"".join(sent[:given]))
                del sent[:given]
                given = 0
        tell(b"A", b"".join(sent[:given]))
    tell(b"D", b"")


def _noted(commands: Any, sent: list[bytes]) -> Any:
    for command in commands:
        sent.append(command.request_key)
        yield command


if __name__ == "__main__":
    main(json.load(sys.stdin), sys.stdout.buffer)
