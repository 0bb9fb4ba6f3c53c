"""For an engine author's tests: ``trial`` and ``check_engine``.

::

    from recovery.testing import check_engine, trial

    def test_till():
        with trial(Till) as till:                      # a runtime in memory that verifies itself on exit
            till.execute(Command("deposit", {"number": "ada", "cents": 5})).raise_for_rejection()

    def test_till_is_deterministic():
        check_engine(Till, [Command("deposit", {"number": "ada", "cents": n}) for n in range(100)])
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from unittest import mock
from uuid import uuid4

from journal import values
from journal.errors import DivergenceError, Nondeterminism
from journal.journal import Journal
from journal.records import Command, stored_command
from journal.urls import open_writer
from recovery.guarding.guard import OFF
from recovery.loading import EngineArgument, engine_factory, engine_spec
from recovery.runtime import Runtime
from recovery.stepper import Asked, CaptureStepper, Factory, Stepper, TableStepper, make_stepper
from recovery.table_engine import TableEngine
from recovery.tables import Table
from recovery.verification import verify

HASH_SEEDS: Final = ("1", "2")
SEED: Final = 1
CHILD_TIMEOUT_S: Final = 600


class _Fault(Exception):
    """Raised in the middle of a command on purpose."""


@contextmanager
def trial(engine: EngineArgument, **options: Any) -> Iterator[Runtime]:
    """A runtime in memory.  On leaving, its history is replayed with every check; DivergenceError where it differs."""
    store = open_writer(f"memory:trial-{uuid4()}")
    with Runtime.open(engine, journal=store, snapshots="memory:", durable=False, **options) as runtime:
        yield runtime
        runtime.query(lambda engine: None)
        report = verify(engine, Journal(store))
        if report.divergences:
            error = DivergenceError(f"the trial does not replay\n{report}")
            error.evidence = report
            raise error


def check_engine(engine: EngineArgument, commands: Iterable[Command], *, guard: str = OFF) -> None:
    """Try to catch an engine out over these commands; DivergenceError says what was found.

    Each command is run with a capture, restore and comparison after it; again with an exception at each of its writes, which
    must leave no trace; a Reject must have changed nothing; an engine's own ``digest`` must move whenever its captured value
    does; and the whole is run in two processes with different PYTHONHASHSEED, whose histories must be equal.  ``guard="strict"``
    raises Nondeterminism at the first line that is not deterministic (recovery/determinism.py).
    """
    given = [
        stored_command(
            c.type, c.data, c.request_key, 1 + n if c.received_at_ms is None else c.received_at_ms, c.entity_id
        )
        for n, c in enumerate(commands)
    ]
    factory = engine_factory(engine)
    _check_restores(engine, given, guard)
    _check_undo(factory, given)
    _check_hash_seeds(factory, given)


def _check_restores(engine: EngineArgument, commands: Sequence[Command], guard: str) -> None:
    with trial(engine, heavy=True, seed=SEED, digest_every=1, guard=guard) as runtime:
        for outcome in runtime.execute_many(commands):
            if isinstance(outcome, DivergenceError | Nondeterminism):
                raise outcome


def _check_undo(factory: Factory, commands: Sequence[Command]) -> None:
    stepper = make_stepper(factory, SEED, 0 if isinstance(factory(), TableEngine) else 1)
    for number, command in enumerate(commands, 1):
        asked = _asked(command)
        if isinstance(stepper, TableStepper):
            _fail_at_each_write(stepper, asked, number)
        before = _picture(stepper)
        try:
            step = stepper.step(asked, number, stepper.logic_version)
        except Exception:  # the engine's own; what counts is that it left no trace
            _require_same(stepper, before, number, "an exception of its own")
        else:
            if step.rejected:
                _require_same(stepper, before, number, "a Reject")
            _require_own_digest_moves(stepper, before, number)
        stepper.settle(number)


def _fail_at_each_write(stepper: TableStepper, asked: Asked, number: int) -> None:
    write = 0
    while True:
        write += 1
        before = _picture(stepper)
        with mock.patch.object(Table, "_place", _failing_at(write)):
            try:
                stepper.step(asked, number, stepper.logic_version)
            except _Fault:
                pass
            except Exception:  # the engine failed by itself before that write
                return
            else:
                stepper.undo_to(number - 1)
                return
        _require_same(stepper, before, number, f"an exception at write {write}")


def _failing_at(write: int) -> Any:
    place = Table._place
    seen = 0

    def failing(table: Table[Any, Any], key: Any, old: Any, new: Any) -> None:
        nonlocal seen
        if table._gate.open:
            seen += 1
            if seen == write:
                raise _Fault
        place(table, key, old, new)

    return failing


def _picture(stepper: Stepper) -> tuple[bytes, bytes]:
    """The state's bytes, and the digest that goes with them."""
    if isinstance(stepper, CaptureStepper):
        captured = stepper.capture_bytes()
        return captured, stepper.digest_of(captured)
    assert isinstance(stepper, TableStepper)
    rows = tuple((name, tuple(pairs)) for name, pairs in stepper.state.rows())
    return values.encode(rows), stepper.state.recomputed()


def _require_same(stepper: Stepper, before: tuple[bytes, bytes], number: int, after: str) -> None:
    if _picture(stepper) != before:
        raise DivergenceError(
            f"{stepper.name}: {after} left a trace in the state",
            position=number,
            hint="change nothing before raising Reject",
        )


def _require_own_digest_moves(stepper: Stepper, before: tuple[bytes, bytes], number: int) -> None:
    now = _picture(stepper)
    if (now[0] == before[0]) != (now[1] == before[1]):
        what = (
            "moved although the captured value did not"
            if now[0] == before[0]
            else "did not move with the captured value"
        )
        raise DivergenceError(f"{stepper.name}: its digest {what}", position=number)


def _check_hash_seeds(factory: Factory, commands: Sequence[Command]) -> None:
    spec = engine_spec(factory)
    if spec is None:
        raise DivergenceError(
            "the engine cannot be loaded by another process, so it could not be run under another PYTHONHASHSEED",
            hint="define it at the top level of a module",
        )
    task = values.encode([spec, [list(_asked(command)) for command in commands]])
    chains = {seed: _chains_under(seed, task) for seed in HASH_SEEDS}
    first, second = (chains[seed] for seed in HASH_SEEDS)
    for number, (ours, theirs) in enumerate(zip(first, second, strict=True), 1):
        if ours != theirs:
            raise DivergenceError(
                f"{commands[number - 1].type} comes out otherwise under another PYTHONHASHSEED: it depends on the order of a set",
                position=number,
            )


def _chains_under(hash_seed: str, task: bytes) -> list[str]:
    child = subprocess.run(
        [sys.executable, "-m", "recovery.testing"],
        input=task,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        timeout=CHILD_TIMEOUT_S,
        check=False,
    )
    if child.returncode != 0:
        raise DivergenceError(f"a second process could not run the commands: {child.stderr.decode()[-500:]}")
    return child.stdout.decode().split()


def _asked(command: Command) -> Asked:
    return Asked(
        command.request_key, command.type, command.entity_id, command.received_at_ms or 0, values.encode(command.data)
    )


def _run_child() -> None:
    """Run the commands on stdin; print, for each, a hash of all it did."""
    from recovery.explaining.experiment import outcome_hash

    spec, commands = values.decode(sys.stdin.buffer.read())
    factory = engine_factory(spec)
    stepper = make_stepper(factory, SEED, 0 if isinstance(factory(), TableEngine) else 1)
    for number, fields in enumerate(commands, 1):
        sys.stdout.write(outcome_hash(stepper, Asked(*fields), number, stepper.logic_version) + "\n")


if __name__ == "__main__":
    _run_child()
