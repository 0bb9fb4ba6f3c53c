"""Experiments in a process of its own: replay a few commands under conditions held still, and print what came out.

The task is one JSON document on stdin, strings and numbers only.  Of the history: ``engine`` ("module:attr"), ``app_dir``,
``journal``, ``stream``, ``snapshots`` ("" for none).  ``experiments``: each is done in a fork of this process, which has
loaded neither engine nor history, so that none sees what another did.  Of each:

* ``environment``: variables to set, or with null to take out; ``folder``: the working directory, "" for this one.
* ``pins``: ``clock`` (seconds since 1970 at which it stands still), ``random`` (what every source of chance is seeded with
  before each command), ``varied`` (1: with another seed in each run), ``process_id``, ``collect`` (1: garbage is collected
  before each command, 0: never), ``worker_thread`` and ``decimals`` (1: the default decimal context is another).
* ``runs``: what is replayed, one run after the other in one process, each with a fresh engine: ``after`` and ``until`` (the
  commands executed are ``after < id <= until``), optionally ``start`` (the image to begin from, 0 for the beginning; else the
  newest at or before ``after``) and ``layout`` (a number: the heap is shuffled so, before every command of a short run).

What only a new process can have otherwise (hash seed, locale, optimization) is the parent's to set.  ``seconds`` bounds each.

Out comes a line of JSON for each experiment: ``{"error": reason}`` or ``{"runs": [{"divergences": [...], "outcomes":
{command_id: hash}, "covered": id}], "variables": [...]}``: the divergences from the record, a hash of each outcome that is not
the recorded one, the last command reached, and the environment variables that code outside the standard library asked for.
"""

from __future__ import annotations

import decimal
import gc
import importlib
import json
import os
import random
import select
import signal
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any, Final, NoReturn

import xxhash

from journal.journal import Journal
from journal.records import Entry
from journal.urls import open_reader
from recovery.divergence import Divergence
from recovery.images import open_catalog, place
from recovery.loading import engine_factory
from recovery.replayer import Replayer
from recovery.stepper import Asked, Factory, Step, Stepper, TableStepper, make_stepper, pinned_decimals

DIVERGENCES_MAX: Final = 20
"""A run ends after so many: the first one is what counts."""
_SHUFFLES_MAX: Final = 400
_BLOCKS_PER_SIZE: Final = 48
_SIZES: Final = range(16, 513, 16)


def outcome_hash(stepper: Stepper, asked: Asked, command_id: int, logic_version: int) -> str:
    """A hash of all that a command does to the state a stepper is in: 32 hex digits, the same for the same outcome."""
    try:
        step: Step | Exception = stepper.step(asked, command_id, logic_version)
    except Exception as error:  # what an engine raises is an outcome like another
        step = error
    return _hash_of(step)


def _hash_of(step: Step | Exception) -> str:
    if isinstance(step, Exception):
        return xxhash.xxh3_128_hexdigest(f"{type(step).__name__}: {step}".encode(errors="surrogatepass"))
    return xxhash.xxh3_128_hexdigest(repr(step[:5]).encode())


class _Observer(Replayer):
    """A replayer that also keeps a hash of every outcome that is not the recorded one."""

    def __init__(self, stepper: Stepper, journal: Journal) -> None:
        super().__init__(stepper, journal.epochs())
        self.outcomes: dict[int, str] = {}

    def _diverged(self, entry: Entry, what: tuple[str, ...], step: Step | Exception) -> Divergence:
        self.outcomes[entry.command_id] = _hash_of(step)
        return super()._diverged(entry, what, step)


def run(place: dict[str, str], experiment: dict[str, Any]) -> dict[str, Any]:
    """Do one experiment; what is printed.  It changes this process for good."""
    _settle_in(experiment)
    pins = experiment["pins"]
    variables = _watched_variables()
    before_command = _pin(pins)
    factory = engine_factory(place["engine"], app_dir=place["app_dir"])
    # The collector's pauses are no part of a replay, so they are none here unless asked for.
    gc.disable()
    gc.freeze()  # what is there before the first command is no garbage, and a collection before each need not look at it
    found: list[dict[str, Any]] = []
    failed: list[BaseException] = []
    arguments = (place, experiment["runs"], factory, before_command, found, failed)
    if pins["worker_thread"]:
        worker = threading.Thread(target=_all_runs, args=arguments)
        worker.start()
        worker.join()
    else:
        _all_runs(*arguments)
    if failed:
        raise failed[0]
    return {"runs": found, "variables": sorted(variables)}


def _settle_in(experiment: dict[str, Any]) -> None:
    for name, value in experiment["environment"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    time.tzset()
    if experiment["folder"]:
        os.chdir(experiment["folder"])


def _all_runs(
    place: dict[str, str],
    runs: list[dict[str, int]],
    factory: Factory,
    before_command: Callable[[int], None],
    found: list[dict[str, Any]],
    failed: list[BaseException],
) -> None:
    try:
        with (
            Journal(open_reader(place["journal"]), place["stream"]) as journal,
            decimal.localcontext(pinned_decimals()),
        ):
            for each in runs:
                found.append(_one_run(place, each, factory, journal, before_command))
    except BaseException as error:  # in a thread of its own, it has to be carried out
        failed.append(error)


def _one_run(
    where: dict[str, str],
    asked: dict[str, int],
    factory: Factory,
    journal: Journal,
    before_command: Callable[[int], None],
) -> dict[str, Any]:
    after, until, start, layout = asked["after"], asked["until"], asked.get("start"), asked.get("layout", 0)
    every = 1 + (until - after) // _SHUFFLES_MAX
    kept: list[Any] = []

    def prepared(entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            before_command(entry.command_id)
            if layout and entry.command_id % every == 0:
                kept[:] = [_shuffled_heap(layout * 1_000_003 + entry.command_id)]
            yield entry

    before_command(0)
    if layout:
        kept = [_shuffled_heap(layout)]
    identity = journal.identity
    stepper = make_stepper(factory, identity.seed, identity.digest_every)
    observer = _Observer(stepper, journal)
    catalog = None if start == 0 else open_catalog(where["snapshots"] or None, where["stream"])
    placed = place(stepper, catalog, journal, after if start is None else start, exactly=bool(start))
    way_there = journal.read(placed.command_id, after)
    if isinstance(stepper, TableStepper) and identity.changes == "rows":
        for entry in way_there:
            stepper.redo(entry)
            stepper.settle(entry.command_id)
    else:
        observer.rebuild(prepared(way_there))
    divergences: list[Divergence] = []
    covered = until
    for divergence in observer.execute(prepared(journal.read(max(after, placed.command_id), until))):
        divergences.append(divergence)
        # Where no rows are recorded there is no way back to the recorded state, and what follows shows nothing new.
        if len(divergences) == DIVERGENCES_MAX or not isinstance(stepper, TableStepper):
            covered = divergence.command_id
            break
    return {
        "divergences": [divergence.to_dict() for divergence in divergences],
        "outcomes": observer.outcomes,
        "covered": covered,
    }


# What is held still


def _pin(pins: dict[str, Any]) -> Callable[[int], None]:
    """Hold the conditions still; a function to call before each command, which does what must be done again."""
    _pin_clock(pins["clock"])
    reseed = _pin_chance(pins["random"], varied=pins["varied"])
    process_id = pins["process_id"]
    _put(os, "getpid", lambda: process_id)
    _put(os, "getppid", lambda: process_id - 1)
    if pins["decimals"]:
        decimal.DefaultContext.prec = 9
        decimal.DefaultContext.rounding = decimal.ROUND_DOWN
        decimal.setcontext(decimal.DefaultContext)
    collect = gc.collect if pins["collect"] else None

    def before_command(command_id: int) -> None:
        reseed(command_id)
        if collect is not None:
            collect()

    return before_command


def _put(owner: Any, name: str, replacement: Any) -> None:
    setattr(owner, name, replacement)


def _pin_clock(seconds: float) -> None:
    import time_machine

    time_machine.travel(seconds, tick=False).start()
    for name in ("monotonic", "perf_counter", "process_time", "thread_time"):
        _put(time, name, lambda: seconds % 1e6)
        _put(time, f"{name}_ns", lambda: int(seconds % 1e6 * 1e9))


def _pin_chance(seed: int, *, varied: int) -> Callable[[int], None]:
    system, unseeded = random.Random(), random.Random()
    seeded = random.Random.seed
    run = 0

    def reseed(command_id: int) -> None:
        nonlocal run
        run += varied and command_id == 0  # which is where a run begins
        random.seed(f"module {seed} {run} {command_id}")
        seeded(system, f"system {seed} {run} {command_id}")
        seeded(unseeded, f"unseeded {seed} {run} {command_id}")

    def urandom(size: int, /) -> bytes:
        return system.randbytes(size)

    def seed_of(self: random.Random, a: Any = None, version: int = 2) -> None:
        seeded(self, unseeded.getrandbits(64) if a is None else a, version)

    _put(os, "urandom", urandom)
    _put(random, "_urandom", urandom)
    _put(random.Random, "seed", seed_of)
    return reseed


def _shuffled_heap(seed: int) -> list[bytes]:
    """Free blocks of every small size in an order of chance, so that what is allocated next lies elsewhere than it did.

    The blocks that stay are returned: they must live for as long as the order shall hold.
    """
    chance = random.Random(seed)
    blocks = [bytes(size - 33) for size in _SIZES if size > 33 for _ in range(_BLOCKS_PER_SIZE)]
    small = [object() for _ in range(_BLOCKS_PER_SIZE * 4)]
    boxes: list[Any] = [[number] for number in range(_BLOCKS_PER_SIZE * 4)]
    tables: list[Any] = [{number: number} for number in range(_BLOCKS_PER_SIZE * 2)]
    chance.shuffle(blocks)
    for pile in (small, boxes, tables):
        chance.shuffle(pile)
        while pile:
            pile.pop()
    stay = blocks[: len(blocks) // 4]
    del blocks[: len(stay)]
    while blocks:
        blocks.pop()
    return stay


def _watched_variables() -> set[str]:
    """The names of environment variables asked for from now on, by anybody but the standard library and this project."""
    asked: set[str] = set()
    kind = type(os.environ)
    read, holds = kind.__getitem__, kind.__contains__
    ours = {os.path.dirname(os.path.abspath(os.__file__)), *_packages()}

    def note(key: object) -> None:
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_globals.get("__name__") in ("os", "_collections_abc", "collections.abc"):
            frame = frame.f_back
        if frame is None or frame.f_code.co_filename.startswith("<frozen"):
            return
        folder = os.path.dirname(os.path.abspath(frame.f_code.co_filename))
        within = any(folder == place or folder.startswith(place + os.sep) for place in ours)
        if isinstance(key, str) and (not within or f"{os.sep}site-packages" in folder):
            asked.add(key)

    def getitem(self: Any, key: Any) -> Any:
        note(key)
        return read(self, key)

    def contains(self: Any, key: object) -> bool:
        note(key)
        return bool(holds(self, key))

    _put(kind, "__getitem__", getitem)
    _put(kind, "__contains__", contains)
    return asked


def _packages() -> Iterator[str]:
    for name in ("recovery", "journal", "snapshots"):
        yield os.path.dirname(os.path.abspath(str(sys.modules[name].__file__)))


def main() -> int:
    """Do the experiments of the task on stdin, one after the other."""
    task = json.loads(sys.stdin.read())
    modules: dict[str, Any] = sys.modules
    modules["pytest"] = None  # time_machine has a fixture for it, whose import takes twice as long as all the rest
    importlib.import_module("time_machine")
    del modules["pytest"]
    # What an engine prints is not the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in _in_forks(task["place"], task["experiments"], task["seconds"]):
        print(line, file=answer, flush=True)
    return 0


def _in_forks(place: dict[str, str], experiments: list[dict[str, Any]], seconds: float) -> Iterator[str]:
    """Each experiment in a fork, one after the other, and its line of JSON.

    All are forked before any begins, and nothing is allocated in between: so their memory is laid out alike, and the
    same experiment done twice is the same down to the addresses.  The first is nobody's: a rehearsal of all that is done once.
    """
    count = len(experiments)
    starts = [os.pipe() for _ in range(count)]
    answers = [os.pipe() for _ in range(count)]
    children = array("l", [0] * (count + 1))
    for number in (count, *range(count)):
        children[number] = os.fork()
        if children[number] == 0 and number == count:
            _rehearse(place)
        if children[number] == 0:
            _child(starts, answers, number, place, experiments[number])
        if number == count:
            os.waitpid(children[number], 0)
    for number in range(count):
        os.close(answers[number][1])
    for number in range(count):
        for descriptor in starts[number]:
            os.close(descriptor)  # the child hears the end, and begins
        try:
            yield _read_all(answers[number][0], time.monotonic() + seconds) or _error("it ended without an answer")
        except TimeoutError:
            os.kill(children[number], signal.SIGKILL)
            yield _error("it took too long")
        finally:
            os.close(answers[number][0])
            os.waitpid(children[number], 0)


def _rehearse(place: dict[str, str]) -> NoReturn:
    """What the first experiment would else do for all: bytecode is written, and a reader leaves its files beside the journal, so
    that what lies on the path is listed again."""
    with suppress(BaseException):  # the experiments will say what is the matter
        engine_factory(place["engine"], app_dir=place["app_dir"])
        with Journal(open_reader(place["journal"]), place["stream"]) as journal:
            open_catalog(place["snapshots"] or None, journal.stream)
    os._exit(0)


def _child(
    starts: list[tuple[int, int]],
    answers: list[tuple[int, int]],
    number: int,
    place: dict[str, str],
    experiment: dict[str, Any],
) -> NoReturn:
    for other, (_, write) in enumerate(starts):
        os.close(write)
        if other != number:
            os.close(answers[other][1])
    os.read(starts[number][0], 1)
    with os.fdopen(answers[number][1], "w") as pipe:
        pipe.write(_answer(place, experiment))
    os._exit(0)


def _error(reason: str) -> str:
    return json.dumps({"error": reason})


def _answer(place: dict[str, str], experiment: dict[str, Any]) -> str:
    try:
        return json.dumps(run(place, experiment))
    except BaseException as error:  # a factory, a restore or a thread of the engine's, which may raise anything
        return _error(f"{type(error).__name__}: {error}")


def _read_all(descriptor: int, until: float) -> str:
    pieces: list[bytes] = []
    while True:
        left = until - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            raise TimeoutError
        piece = os.read(descriptor, 1 << 16)
        if not piece:
            return b"".join(pieces).decode()
        pieces.append(piece)


if __name__ == "__main__":
    sys.exit(main())
