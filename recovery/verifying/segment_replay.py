"""One segment of a verification, replayed where it was sent: given strings and numbers only, it returns a plain document.

The task (all of it plain, so that any executor can carry it and nothing executable travels or is stored)::

    engine     MODULE:ATTR                         after, until   the commands with after < id <= until
    journal    URL                                 mode           "execute" or "redo"
    snapshots  URL; empty for none                 keep_going     go on after a divergence
    stream     name                                start          as verify's; None for the default
    app_dir    where the engine's module is        cut, image, guard   as verifying/range_replay.py's Range
    within     a folder that the engine's module must be loaded from; empty for any

The answer is ``{"outcome": …}``, an ``Outcome.to_dict()``, or ``{"error": {"kind", "message", "hint"}}``, with ``kind`` the name
of a class of journal/errors.py.  All but ``engine``, ``journal``, ``after`` and ``until`` may be left out.

As a process of its own, ``python -m recovery.verifying.segment_replay`` reads the task as one JSON line and prints JSON lines:
``{"replayed": n}`` as it goes, and the answer last.  It ends when its stdin does, so that it never outlives who started it;
what the engine prints goes to stderr.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from typing import Any, Final, TextIO

from journal import errors
from journal.errors import RecoveryError, UnavailableError, WorkerLost
from journal.journal import Journal
from journal.urls import open_reader
from recovery.images import open_catalog
from recovery.loading import code_revision, engine_factory, require_within
from recovery.verifying.range_replay import Outcome, Progress, Range, RangeReplay

DEFAULTS: Final[dict[str, Any]] = {
    "snapshots": "",
    "stream": "main",
    "app_dir": ".",
    "mode": "execute",
    "keep_going": False,
    "start": None,
    "cut": False,
    "image": "",
    "guard": "off",
    "within": "",
}


def replay_segment(task: dict[str, Any]) -> dict[str, Any]:
    """Replay a segment; the answer.  Raises nothing but what ends a process."""
    return _answered(task, _nobody)


def _nobody(count: int) -> None:
    """Nobody is told of the progress."""


def _answered(task: dict[str, Any], progress: Progress) -> dict[str, Any]:
    try:
        return {"outcome": _replayed({**DEFAULTS, **task}, progress).to_dict()}
    except Exception as error:  # the engine's code may raise anything
        return error_answer(error)
    finally:
        # A worker that lives on must not keep this segment's state; the image was loaded with the collector frozen.
        gc.unfreeze()
        gc.collect()


def error_answer(error: Exception) -> dict[str, Any]:
    """The answer that tells of an error; one that is not ours came out of the engine's code."""
    if isinstance(error, RecoveryError):
        return {"error": {"kind": type(error).__name__, "message": str(error), "hint": error.hint}}
    message = f"the engine failed outside a command: {type(error).__name__}: {error}"
    return {"error": {"kind": "UnavailableError", "message": message, "hint": ""}}


def _replayed(task: dict[str, Any], progress: Progress) -> Outcome:
    factory = engine_factory(task["engine"], app_dir=task["app_dir"])
    if task["within"]:
        require_within(task["engine"], task["within"])
    with Journal(open_reader(task["journal"]), task["stream"]) as journal:
        catalog = open_catalog(task["snapshots"] or None, task["stream"])
        replay = RangeReplay(factory, journal, catalog, revision=code_revision(factory), progress=progress)
        return replay.run(Range(**{name: task[name] for name in Range._fields}))


def outcome_of(answer: dict[str, Any]) -> Outcome:
    """The outcome of an answer; raises the error that it tells of."""
    if "outcome" in answer:
        return Outcome.from_dict(answer["outcome"])
    raise error_of(answer)


def error_of(answer: dict[str, Any]) -> RecoveryError:
    """The error that an answer tells of."""
    error = answer["error"]
    kind = getattr(errors, error["kind"], UnavailableError)
    family = kind if isinstance(kind, type) and issubclass(kind, RecoveryError) else UnavailableError
    return family(error["message"], hint=error["hint"])


def main(stdin: TextIO, stdout: TextIO) -> int:
    """Replay the task on ``stdin``, and print what is said above; 0."""
    task = json.loads(stdin.readline())
    threading.Thread(target=_leave_with, args=(stdin,), daemon=True).start()
    lock = threading.Lock()

    def tell(document: dict[str, Any]) -> None:
        with lock:
            stdout.write(json.dumps(document) + "\n")
            stdout.flush()

    tell(_answered(task, lambda count: tell({"replayed": count})))
    return 0


def _leave_with(stdin: TextIO) -> None:
    stdin.read()
    os._exit(WorkerLost.exit_code)


def own_stdout() -> TextIO:
    """The process's stdout for the answer alone: from now on, what anything prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    status = main(sys.stdin, own_stdout())
    # The engine may have left threads; the answer is given, and nothing here is left to be written.
    sys.stderr.flush()
    os._exit(status)
