"""Messages for a command of the operating system: JSON lines on its stdin.

The command is run once for each batch.  It reads one JSON object a line until the end of its stdin, and **exits 0 when it has
accepted them all**; any other end (another exit code, a signal, the time limit, stdin closed before all of it was read) means
that it may have accepted none, and the whole batch is sent again.  A line is::

    {"command_id": 7, "index": 0, "type": "BalanceChanged", "data": …, "key": "ada", "sequence": null,
     "received_at_ms": 1700000000000, "request_id": "…", "epoch": 1}

``data`` is tagged as everywhere (recovery/json_values.py).  Its stdout and stderr are those of whoever runs it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from journal.delivery import Message
from journal.errors import UnavailableError, UsageError
from recovery.json_values import to_json

_WRITER_S: Final = 5.0


class CommandConsumer:
    """Hands batches to a command, ``timeout_s`` for each.  Called, it raises unless the command accepted the batch."""

    def __init__(self, arguments: Sequence[str], *, timeout_s: float) -> None:
        self._arguments = list(arguments)
        self._timeout_s = timeout_s

    def __call__(self, messages: list[Message]) -> None:
        """Run the command once.  UnavailableError where it did not accept them; UsageError where it cannot be run at all."""
        program = self._arguments[0]
        try:
            # A session of its own: it can be ended with all it started, and an interrupt from the terminal is ours alone.
            child = subprocess.Popen(self._arguments, stdin=subprocess.PIPE, start_new_session=True)
        except OSError as error:
            raise UsageError(f"{program} cannot be run: {error.strerror}", hint="check the command after --") from error
        writer = _Writer(child, b"".join(map(line_of, messages)))
        try:
            child.wait(self._timeout_s)
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"{program} did not end within {self._timeout_s:g} s") from None
        finally:
            _end(child)
            writer.join(_WRITER_S)
        if child.returncode:
            ended = f"exited {child.returncode}" if child.returncode > 0 else f"was ended by signal {-child.returncode}"
            raise UnavailableError(f"{program} {ended}")
        if not writer.finished:
            raise UnavailableError(f"{program} exited 0, but closed its stdin before it had read every message")


class _Writer(threading.Thread):
    """Feeds a process, so that one that does not read cannot hold us beyond the time limit."""

    def __init__(self, child: subprocess.Popen[bytes], data: bytes) -> None:
        super().__init__(daemon=True)
        self.finished = False
        self._child = child
        self._data = data
        self.start()

    def run(self) -> None:
        """Write all, close."""
        assert self._child.stdin is not None
        with suppress(OSError):
            with self._child.stdin:
                self._child.stdin.write(self._data)
            self.finished = True


def _end(child: subprocess.Popen[bytes]) -> None:
    """However a delivery ends, two of its processes must never run at once."""
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def line_of(message: Message) -> bytes:
    """A message as one line of JSON, UTF-8."""
    return json.dumps(document_of(message), ensure_ascii=False).encode() + b"\n"


def document_of(message: Message) -> dict[str, Any]:
    """A message as JSON can hold it."""
    return {
        "command_id": message.command_id,
        "index": message.index,
        "type": message.type,
        "data": to_json(message.data),
        "key": message.key,
        "sequence": message.sequence,
        "received_at_ms": message.received_at_ms,
        "request_id": str(message.request_id),
        "epoch": message.epoch,
    }
