"""Spawned processes, each for one segment: an executor whose workers are new, so that every segment starts as a restart does.

A process of its own has the module globals, caches and hash seed of no other segment: what a verdict is does not depend on
which worker was free.  It is an own program, not a fork of this one: no thread, lock or connection is copied, and a script
that verifies needs no ``if __name__ == "__main__"``.  One that dies takes its segment with it and no other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

from journal.errors import UsageError, WorkerLost
from recovery.verifying.segment_replay import replay_segment

T = TypeVar("T")
Told = Callable[[int], None]


def environment(**changed: str) -> dict[str, str]:
    """This process's environment for a child that finds the same modules; with some variables changed."""
    path = os.pathsep.join(folder or os.getcwd() for folder in sys.path)
    return {**os.environ, "PYTHONPATH": path, **changed}


def replay_elsewhere(
    task: dict[str, Any],
    *,
    python: str = sys.executable,
    cwd: str | None = None,
    variables: Mapping[str, str] | None = None,
    told: Told | None = None,
    started: Callable[[subprocess.Popen[str]], None] | None = None,
) -> dict[str, Any]:
    """Replay a segment in a new process, and give its answer (verifying/segment_replay.py has both documents).

    ``python`` may be another interpreter, ``cwd`` another directory, ``variables`` the whole environment.  ``told`` is
    called with the number of commands replayed since the last call.  WorkerLost where the process ends without an answer.
    """
    answer = None
    with subprocess.Popen(
        # -P: nothing that lies in the working directory stands in for a library's module.
        [python, "-P", "-m", "recovery.verifying.segment_replay"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=dict(environment() if variables is None else variables),
        process_group=0,  # Ctrl-C is for this process, which then ends that one
    ) as child:
        if started is not None:
            started(child)
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(task) + "\n")
            child.stdin.flush()
            for line in child.stdout:
                said = json.loads(line)
                if "replayed" not in said:
                    answer = said
                elif told is not None:
                    told(said["replayed"])
        except (BrokenPipeError, ValueError):  # it died before it read the task, or in the middle of a line
            answer = None
        except BaseException:
            child.kill()
            raise
        code = child.wait()
    if answer is None:
        raise WorkerLost(
            f"the process that replayed commands {task['after'] + 1} to {task['until']} ended without an answer: "
            f"{_ended(code)}",
            hint="look whether it ran out of memory; or replay it here: --jobs 1",
        )
    found: dict[str, Any] = answer
    return found


def _ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


class SpawnedProcesses(Executor):
    """``jobs`` processes at a time.  Takes ``replay_segment`` and a task; ``told`` hears of the progress of all.

    ``cwd`` and ``variables`` as of ``replay_elsewhere``.
    """

    def __init__(
        self,
        jobs: int,
        *,
        told: Told | None = None,
        cwd: str | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self._threads = ThreadPoolExecutor(jobs, thread_name_prefix="segment")
        self._children: dict[Future[Any], subprocess.Popen[str]] = {}
        self._lock = threading.Lock()
        self._told = told
        self._cwd = cwd
        self._variables = variables
        self._stopped = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Replay a segment in a process of its own."""
        if fn is not replay_segment or len(args) != 1 or kwargs:
            raise UsageError("these processes replay segments and nothing else")
        future: Future[T] = Future()
        self._threads.submit(self._run, future, args[0])
        return future

    def _run(self, future: Future[Any], task: dict[str, Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            future.set_result(
                replay_elsewhere(
                    task,
                    told=self._told,
                    cwd=self._cwd,
                    variables=self._variables,
                    started=lambda child: self._started(future, child),
                )
            )
        except BaseException as error:
            future.set_exception(error)
        finally:
            with self._lock:
                self._children.pop(future, None)

    def _started(self, future: Future[Any], child: subprocess.Popen[str]) -> None:
        with self._lock:
            self._children[future] = child
            if self._stopped:
                child.kill()

    def abandon(self, future: Future[Any]) -> None:
        """End a segment that nobody waits for."""
        if not future.cancel():
            with self._lock:
                if future in self._children:
                    self._children[future].kill()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End; with ``cancel_futures`` at once, whatever is running."""
        if cancel_futures:
            with self._lock:
                self._stopped = True
                for child in self._children.values():
                    child.kill()
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)
