"""Records one specimen's history with the real runtime, life by life, and then, by brute force, what every command did.

A process of its own; the task is on stdin, the file of random choices its argument; without it, it only records.
"""

from __future__ import annotations

import decimal
import gc
import sys
from itertools import islice
from typing import Any

from recovery import Command, Receipt, Runtime
from zoology import fixing, truth
from zoology.hosting import SEED, Task, command_of, in_a_process_of_its_own, load, settle_in
from zoology.spoiling import spoil


def main() -> None:
    """Record, and do it again without the framework."""
    task = Task.read()
    settle_in(task)
    rows = task.rows()
    for life in task.lives(len(rows)):
        in_a_process_of_its_own(lambda: one_life(task, rows, life))  # noqa: B023 - it is called at once
    if sys.argv[1:]:
        fixing.give(sys.argv[1], None)
        truth.record(task)


def one_life(task: Task, rows: list[Any], life: range) -> None:
    """Open, do the life's commands with what the host does between them, take the images, and close."""
    engine = load(task.engine)
    if task.spoilt and task.spoilt_at in life:
        spoil(task)
    tables = hasattr(engine, "_members")
    last = life[-1] == len(rows)
    stops = {*task.images, *(number - 1 for _, before in task.acts for number in before), life[-1]}
    with Runtime.open(
        engine,
        journal=f"sqlite:{task.folder}/journal.db",
        snapshots=f"dir:{task.folder}/images",
        snapshot_every=0,
        seed=SEED,
        **({} if tables else {"digest_every": task.digest_every}),
    ) as runtime:
        at = life[0]
        commands = (command_of(row, number) for number, row in enumerate(rows[at - 1 : life[-1]], at))
        for stop in sorted(stop for stop in stops if life[0] - 1 <= stop <= life[-1]):
            for done in runtime.execute_many(islice(commands, stop + 1 - at)):
                if not isinstance(done, Receipt):
                    raise done
            at = stop + 1
            if stop in task.images:
                runtime.snapshot()
            if at in life:
                for what in task.acts_before(at):
                    act(task, runtime, what)
        runtime.close(snapshot=not last)


def act(task: Task, runtime: Any, what: str) -> None:
    """One of specimen.Act."""
    if what == "collect":
        gc.collect()
    elif what == "decimals":
        decimal.DefaultContext.prec = 9
    elif what == "fail":
        failing = Command(*task.failing())
        try:
            runtime.execute(failing)
        except (RuntimeError, ValueError):
            return
        raise AssertionError("it should have failed")
    else:
        runtime.query(lambda engine: getattr(engine, what.removeprefix("call:"))())


if __name__ == "__main__":
    main()
