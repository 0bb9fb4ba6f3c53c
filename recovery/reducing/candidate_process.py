"""Executes small histories on an engine in a process of its own, with its own hash seed, time zone and locale.

Each is executed in a fork of that process: so a candidate sees neither what another left in a module's globals, nor this
process.  Over stdin and stdout go frames, each a u32 big-endian length and then ``values.encode`` of a task, the fields of
``Candidate`` and ``restored``; or of an answer, the fields of ``Answer``.
"""

from __future__ import annotations

import decimal
import json
import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from types import MappingProxyType, TracebackType
from typing import Any, BinaryIO, Final, NamedTuple

from journal import values
from journal.errors import UnavailableError
from journal.framing import Change
from recovery.loading import engine_factory
from recovery.stepper import Asked, CaptureStepper, Factory, Stepper, TableStepper, make_stepper, pinned_decimals

_LENGTH: Final = struct.Struct(">I")

Row = tuple[str, bytes, bytes]
"""Table, key bytes, row bytes."""
Outcome = tuple[Any, ...] | str
"""What a command did: rejected, result, events, changes and digest as stored; or the text of what it raised."""


class Candidate(NamedTuple):
    """A small history: a state, and commands with gapless ids from ``first`` on.

    The state is ``rows``, in order; for an engine without tables ``captured``, None for a fresh one.  ``commands`` are the
    fields of Asked, ``logic`` the version under which each first ran.
    """

    rows: tuple[Row, ...]
    captured: bytes | None
    first: int
    commands: tuple[tuple[Any, ...], ...]
    logic: tuple[int, ...]


class Answer(NamedTuple):
    """What executing a candidate gave: the packed digest of the state it began in, that state's captured value where the engine
    has no tables, and the outcome of each command.
    """

    begin: bytes
    captured: bytes | None
    outcomes: tuple[Outcome, ...]


class Side:
    """An engine in another process, with these variables in its environment.

    ``restored``: the state is taken down and put up again before the last command.  ``hidden`` is a folder whose modules it
    must not see: that of another revision of the same module.
    """

    def __init__(
        self,
        engine: str,
        app_dir: str,
        *,
        seed: int,
        digest_every: int,
        environment: Mapping[str, str] = MappingProxyType({}),
        restored: bool = False,
        hidden: str = "",
    ) -> None:
        self.engine = engine
        self.environment = environment
        self._restored = restored
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "recovery.reducing.candidate_process",
                json.dumps([engine, app_dir, seed, digest_every]),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(_path(hidden)), **environment},
        )

    def run(self, candidate: Candidate) -> Answer:
        """Execute a candidate.  UnavailableError where the process ended instead of answering."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            _send(self._child.stdin, {**candidate._asdict(), "restored": self._restored})
            answer = _receive(self._child.stdout)
        except (OSError, EOFError) as error:
            raise UnavailableError(
                f"the process that executes {self.engine} ended: exit {self._child.wait()}"
            ) from error
        return Answer(**answer)

    def close(self) -> None:
        """End the process."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.close()
        self._child.stdout.close()
        self._child.wait()

    def __enter__(self) -> Side:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _path(hidden: str) -> list[str]:
    """Where a child looks for modules: as this process does, but for a folder that is hidden."""
    folders = [os.path.abspath(folder) for folder in sys.path]
    return [folder for folder in folders if not hidden or folder != os.path.abspath(hidden)]


def _send(file: BinaryIO | Any, document: dict[str, Any]) -> None:
    data = values.encode(document, bytes_max=values.CAPTURE_BYTES_MAX)
    file.write(_LENGTH.pack(len(data)) + data)
    file.flush()


def _receive(file: BinaryIO | Any) -> Any:
    head = file.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (size,) = _LENGTH.unpack(head)
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return values.decode(data)


# In the child


def execute(factory: Factory, seed: int, digest_every: int, task: dict[str, Any]) -> dict[str, Any]:
    """Execute one task on a fresh engine."""
    candidate = Candidate(*(task[name] for name in Candidate._fields))
    with decimal.localcontext(pinned_decimals()):
        stepper = _begun(make_stepper(factory, seed, digest_every), candidate)
        captured, begin = None, stepper.digest_bytes
        if isinstance(stepper, CaptureStepper):
            captured = stepper.capture_bytes()
            begin = stepper.digest_of(captured)
        outcomes: list[Outcome] = []
        steps = list(zip(candidate.commands, candidate.logic, strict=True))
        for command_id, (asked, logic) in enumerate(steps, candidate.first):
            if task["restored"] and len(outcomes) == len(steps) - 1:
                stepper = _restored(factory, seed, digest_every, stepper, command_id - 1)
            try:
                outcomes.append(tuple(stepper.step(Asked(*asked), command_id, logic)[:5]))
            except Exception as error:  # what an engine raises is an outcome like another
                outcomes.append(f"{type(error).__name__}: {error}")
            stepper.settle(command_id)
    return {"begin": begin, "captured": captured, "outcomes": tuple(outcomes)}


def _begun(stepper: Stepper, candidate: Candidate) -> Stepper:
    if isinstance(stepper, TableStepper):
        stepper.write([Change(table, key_bytes, row_bytes, None) for table, key_bytes, row_bytes in candidate.rows])
    elif isinstance(stepper, CaptureStepper) and candidate.captured is not None:
        stepper.load_value(candidate.first - 1, candidate.captured)
    return stepper


def _restored(factory: Factory, seed: int, digest_every: int, stepper: Stepper, command_id: int) -> Stepper:
    fresh = make_stepper(factory, seed, digest_every)
    if isinstance(stepper, TableStepper) and isinstance(fresh, TableStepper):
        rows = [Change(table, key, row, None) for table, pairs in stepper.state.rows() for key, row in pairs]
        fresh.write(rows)
    elif isinstance(stepper, CaptureStepper) and isinstance(fresh, CaptureStepper):
        fresh.load_value(command_id, stepper.capture_bytes())
    return fresh


def _serve() -> None:
    spec, app_dir, seed, digest_every = json.loads(sys.argv[1])
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what an engine prints is not an answer
    factory = engine_factory(spec, app_dir=app_dir)
    factory()
    while True:
        try:
            task = _receive(source)
        except EOFError:
            return
        child = os.fork()
        if child == 0:
            try:
                _send(answers, execute(factory, seed, digest_every, task))
                os._exit(0)
            except BaseException as error:
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
                sys.stderr.flush()
                os._exit(1)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(1)


if __name__ == "__main__":
    _serve()
