"""Where a bug is random, its choices are noted as they fall, and given again to who works out the right answer."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
_given: dict[int, str] | None = None


def fixed(context: Any, make: Callable[[], str]) -> str:
    """What ``make`` gives; noted in the file $ZOO_TRACE with the process and the command, where that is set."""
    if _given is not None:
        # What was never chosen in the run that is looked at lies behind its end.
        return _given.get(context.command_id, "not reached")
    chosen = make()
    path = _variable(b"ZOO_TRACE")
    if path:
        with open(path, "a") as file:
            file.write(f"{os.getpid()} {context.command_id} {chosen}\n")
    return chosen


def _variable(name: bytes) -> bytes:
    import posix  # not os.environ: to read that is a thing that an engine is watched for

    return bytes(posix.environ.get(name, b""))  # type: ignore[attr-defined]


def give(path: str, process: int | None) -> None:
    """From now on choose what was noted first by a process (None: by any)."""
    global _given
    _given = {}
    if os.path.exists(path):
        with open(path) as file:
            for line in file:
                pid, command_id, chosen = line.rstrip("\n").split(" ", 2)
                if process is None or int(pid) == process:
                    _given.setdefault(int(command_id), chosen)
