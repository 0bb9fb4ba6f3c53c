"""Segments on any ``concurrent.futures.Executor``: sent, waited for, sent again where a worker died, and put in order.

Only ``submit`` and ``concurrent.futures.wait`` are used.  A segment whose worker died is replayed once more, by a process of
its own here; where that dies too the segment is *lost*, and the caller must say so.  A segment that could not be placed at its
cut is replayed together with the one before it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import contextmanager
from typing import Any, Final

from journal.errors import RecoveryError, StoreUnavailable, UsageError, WorkerLost
from recovery.verifying.processes import SpawnedProcesses
from recovery.verifying.range_replay import Outcome
from recovery.verifying.segment_replay import outcome_of, replay_segment

POLL_S: Final = 0.2

DASK: Final = "dask:"

Task = dict[str, Any]


@contextmanager
def opened_executor(
    executor: Executor | str | None, jobs: int, told: Callable[[int], None]
) -> Iterator[tuple[Executor, int]]:
    """The executor asked for, and how many workers it has: one that is given, which stays open; ``dask:ADDRESS``; else
    spawned processes.  ``jobs`` counts where it is more than 1."""
    if isinstance(executor, Executor):
        yield executor, jobs if jobs > 1 else os.cpu_count() or 2
    elif executor is None:
        processes = SpawnedProcesses(jobs, told=told)
        try:
            yield processes, jobs
        finally:
            processes.shutdown(cancel_futures=True)
    else:
        with _dask(executor) as (found, workers):
            yield found, jobs if jobs > 1 else workers


@contextmanager
def _dask(text: str) -> Iterator[tuple[Executor, int]]:
    if not text.startswith(DASK) or text == DASK:
        raise UsageError(
            f"{text!r} names no executor", expected="dask:ADDRESS", hint="say --executor dask:tcp://HOST:8786"
        )
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise UsageError("there is no Dask here", hint="run: pip install 'engine-recovery[dask]'") from error
    try:
        client = distributed.Client(text.removeprefix(DASK), set_as_default=False)
    except (OSError, ValueError) as error:
        raise StoreUnavailable(f"no Dask scheduler answers at {text}: {error}") from error
    with client:
        yield client.get_executor(), sum(client.ncores().values())


class Segments:
    """Replays tasks, which are segments in order, each beginning where the one before ends.

    ``waiting`` is called now and then, ``done`` with each segment's outcome.  With ``first_only`` nothing is replayed
    behind a segment with a divergence.  ``again`` replays a segment whose worker died; None: a process of its own here.
    """

    def __init__(
        self,
        executor: Executor,
        *,
        first_only: bool,
        waiting: Callable[[], None],
        done: Callable[[Outcome], None],
        again: Executor | None = None,
    ) -> None:
        self._executor = executor
        self._first_only = first_only
        self._waiting = waiting
        self._done = done
        self._again = again
        self._found: dict[tuple[int, int], Outcome | RecoveryError] = {}

    def replay(self, tasks: Sequence[Task]) -> list[tuple[Task, Outcome | WorkerLost]]:
        """Each segment with its outcome, in order; WorkerLost for one that no worker lived to answer.

        Segments that cannot be told apart are one.  Raises the error of the first segment that has one.
        """
        wanted = list(tasks)
        while missing := self._missing(wanted):
            self._replay(missing)
            wanted = self._joined(wanted)
        return [(task, self._answer(task)) for task in self._reached(wanted)]

    def _reached(self, tasks: Sequence[Task]) -> Iterator[Task]:
        """The segments up to the first divergence, where nothing is wanted behind it."""
        for task in tasks:
            yield task
            found = self._found.get(_place(task))
            if self._first_only and isinstance(found, Outcome) and found.divergences:
                return

    def _missing(self, tasks: Sequence[Task]) -> list[Task]:
        return [task for task in self._reached(tasks) if _place(task) not in self._found]

    def _answer(self, task: Task) -> Outcome | WorkerLost:
        found = self._found[_place(task)]
        if isinstance(found, Outcome | WorkerLost):
            return found
        raise found

    def _joined(self, tasks: Sequence[Task]) -> list[Task]:
        joined: list[Task] = []
        for task in tasks:
            found = self._found.get(_place(task))
            if joined and isinstance(found, Outcome) and self._belongs_to(self._found.get(_place(joined[-1])), found):
                joined[-1] = {**joined[-1], "until": task["until"]}
            else:
                joined.append(task)
        return joined

    def _belongs_to(self, before: Outcome | RecoveryError | None, found: Outcome) -> bool:
        """Whether a segment is to be replayed with the one before it, because the record does not lead to its cut."""
        if not found.placed or before is None:
            return not found.placed
        # Rows were folded over damage: they may be right, but no replay that stopped there could have gone on from them.
        damaged = isinstance(before, Outcome) and bool(before.losses) and before.losses[-1].last == before.until
        return damaged and found.snapshot < found.after

    def _replay(self, tasks: Sequence[Task]) -> None:
        lost = self._replay_on(self._executor, tasks)
        if lost and self._again is not None:
            self._replay_on(self._again, lost)
        elif lost:
            with _one_at_a_time() as again:
                self._replay_on(again, lost)

    def _replay_on(self, executor: Executor, tasks: Sequence[Task]) -> list[Task]:
        """Replay tasks; those whose worker was lost."""
        lost: list[Task] = []
        futures: dict[Future[dict[str, Any]], Task] = {}
        try:
            for task in tasks:
                futures[self._submitted(executor, task)] = task
            while futures:
                done, _ = wait(futures, timeout=POLL_S, return_when=FIRST_COMPLETED)
                self._waiting()
                for future in done:
                    if future not in futures:
                        continue  # abandoned a moment ago
                    task = futures.pop(future)
                    found = self._found[_place(task)] = _result(future)
                    if isinstance(found, WorkerLost):
                        lost.append(task)
                    elif isinstance(found, Outcome):
                        self._done(found)
                        if self._first_only and found.divergences:
                            _abandon(executor, futures, behind=task["after"])
        finally:
            _abandon(executor, futures, behind=-1)
        return lost

    def _submitted(self, executor: Executor, task: Task) -> Future[dict[str, Any]]:
        try:
            return executor.submit(replay_segment, task)
        except (RuntimeError, OSError) as error:  # it is broken, or shut down
            future: Future[dict[str, Any]] = Future()
            future.set_exception(error)
            return future


@contextmanager
def _one_at_a_time() -> Iterator[SpawnedProcesses]:
    processes = SpawnedProcesses(1)
    try:
        yield processes
    finally:
        processes.shutdown(cancel_futures=True)


def _place(task: Task) -> tuple[int, int]:
    return task["after"], task["until"]


def _result(future: Future[dict[str, Any]]) -> Outcome | RecoveryError:
    try:
        return outcome_of(future.result())
    except RecoveryError as error:
        return error
    except (Exception, CancelledError) as error:  # whatever an executor says when a worker of its dies
        lost = WorkerLost(f"a worker died while it replayed a segment: {type(error).__name__}: {error}")
        lost.__cause__ = error
        return lost


def _abandon(executor: Executor, futures: dict[Future[dict[str, Any]], Task], *, behind: int) -> None:
    """Forget the segments behind a command, and end those that run where that can be done."""
    for future in [future for future, task in futures.items() if task["after"] > behind]:
        del futures[future]
        if isinstance(executor, SpawnedProcesses):
            executor.abandon(future)
        else:
            future.cancel()
