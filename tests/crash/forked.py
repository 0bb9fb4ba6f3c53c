"""Processes to kill, forked from one that has imported everything: up in milliseconds, where a new Python takes most of a second.

``Forked(main, arguments, said=PATH, kill_at=POINT)`` runs ``main(*arguments)``; what it says on stdout is kept in the file.  Its
own kill points are armed, and those of the processes that it starts.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from journal import files

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.crash.worker", "tests.crash.outbox_worker", "tests.crash.projection_worker"])


class Forked:
    """One of them.  ``returncode`` is known after ``communicate``."""

    def __init__(self, main: Callable[..., Any], arguments: tuple[Any, ...], *, said: Path, kill_at: str = "") -> None:
        self._said = said
        said.write_text("")
        self._process = _context.Process(target=_run, args=(main, arguments, str(said), kill_at))
        self._process.start()
        self.returncode = 0

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def communicate(self, timeout_s: float = 120) -> str:
        """What it said, when it has ended."""
        self._process.join(timeout_s)
        assert self._process.exitcode is not None, "it did not end in time"
        self.returncode = self._process.exitcode
        self._process.close()
        return self._said.read_text()


def _run(main: Callable[..., Any], arguments: tuple[Any, ...], said: str, kill_at: str) -> None:
    point, _, count = kill_at.partition(":")
    vars(files).update(_armed=point, _passes_left=int(count or 1))
    os.environ[files.KILL_VARIABLE] = kill_at
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(said, "a") as sys.stdout:
        status = main(*arguments)
    sys.exit(status)
