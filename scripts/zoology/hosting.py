"""What the recorder and the runner of the right answer have in common: the task, its lives, its acts, its clock."""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from recovery import Command
from zoology.flows import Row, read_flow
from zoology.specimen import EXCHANGE, LONG, Specimen

SEED = 7


class Task(NamedTuple):
    """What a child is told, strings and numbers only."""

    folder: str
    flows: str
    flow: str
    engine: str
    acts: list[tuple[str, list[int]]]
    restarts: list[int]
    images: list[int]
    digest_every: int
    after: int
    clock_hours: float | None
    spoilt: str
    spoilt_at: int
    keep_going: bool

    @classmethod
    def of(cls, specimen: Specimen, folder: Path, flows: Path, *, recorded: bool) -> Task:
        """The task of one specimen, in the recorded or the replayed world."""
        return cls(
            str(folder),
            str(flows),
            specimen.flow,
            (specimen.recorded_engine if recorded else "") or specimen.engine,
            [(act.what, list(act.before)) for act in specimen.acts],
            list(specimen.restarts),
            list(specimen.images),
            specimen.digest_every,
            specimen.after,
            (specimen.recorded if recorded else specimen.replayed).clock_hours,
            specimen.spoilt,
            specimen.spoilt_at,
            specimen.keep_going,
        )

    @classmethod
    def read(cls) -> Task:
        """The task on stdin."""
        return cls(*json.loads(sys.stdin.read()))

    def rows(self) -> list[Row]:
        """The commands, the first one with id 1."""
        return read_flow(Path(self.flows), self.flow)

    def lives(self, count: int) -> Iterator[range]:
        """The command ids of each life of the engine."""
        edges = [1, *self.restarts, count + 1]
        yield from (range(first, end) for first, end in pairwise(edges))

    def acts_before(self, command_id: int) -> list[str]:
        """What the host does before a command."""
        return [what for what, ids in self.acts if command_id in ids]

    def failing(self) -> tuple[str, dict[str, Any]]:
        """A command that raises half way."""
        if self.flow in (EXCHANGE, LONG):
            return "fail", {}
        return "created", {"order_id": 1, "side": "bid", "cents": 1, "satoshi": -1}


def command_of(row: Row, command_id: int) -> Command:
    """The command of one row of a flow."""
    return Command(row[0], row[1], request_id=f"zoo {command_id}", received_at_ms=row[2])


def load(spec: str) -> type:
    """The engine's class."""
    module, _, name = spec.partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found


def settle_in(task: Task) -> None:
    """The host's process: garbage is collected when it says so, and its clock may be another."""
    gc.disable()
    if task.clock_hours is not None:
        import time

        import time_machine

        time_machine.travel(time.time() + task.clock_hours * 3600, tick=True).start()


def in_a_process_of_its_own(work: Callable[[], None]) -> None:
    """A life: what it leaves in modules dies with it."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status:
        sys.exit(1)
