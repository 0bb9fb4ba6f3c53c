"""Hosts that go away, queues that fill, clocks that jump, queries: the engine goes on and the record is right."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recovery import (
    ClockAhead,
    Command,
    Context,
    Overloaded,
    Runtime,
    Table,
    TableEngine,
    UnavailableError,
    UsageError,
    open_journal,
    verify,
)
from tests.engines import Till
from tests.places import new_place

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 30


class Gate(TableEngine):
    """Waits in ``apply`` until it is let go."""

    name = "gate"
    seen = Table(int, int)
    started = threading.Event()
    go_on = threading.Event()

    def apply(self, context: Context, command: Command) -> int:
        self.started.set()
        assert self.go_on.wait(TIMEOUT_S)
        self.seen[context.command_id] = command.data
        return int(command.data)


@pytest.fixture
def place() -> str:
    return f"memory:{new_place()}"


@pytest.fixture
def gate(place: str) -> Iterator[Runtime]:
    Gate.started.clear()
    Gate.go_on.clear()
    runtime = Runtime.open(Gate, journal=place, snapshots="memory:", queue_max=3, batch_max=1)
    yield runtime
    Gate.go_on.set()
    runtime.close()


@pytest.fixture
def till(place: str) -> Iterator[Runtime]:
    with Runtime.open(Till, journal=place, snapshots="memory:") as till:
        yield till


def deposit(cents: int, at_ms: int | None = None) -> Command:
    return Command("deposit", {"number": "ada", "cents": cents}, received_at_ms=at_ms)


def recorded(place: str) -> list[Any]:
    return [entry.data for entry in open_journal(place).read()]


# Callers that go away


def test_a_future_cannot_be_cancelled(gate: Runtime, place: str) -> None:
    futures = [gate.submit(Command("n", n)) for n in range(3)]
    assert Gate.started.wait(TIMEOUT_S)
    assert [future.cancel() for future in futures] == [False] * 3
    Gate.go_on.set()
    assert [future.result(TIMEOUT_S).response for future in futures] == [0, 1, 2]
    assert not any(future.cancelled() for future in futures)


def test_a_cancelled_task_cancels_nothing(gate: Runtime, place: str) -> None:
    async def client() -> None:
        task = asyncio.ensure_future(asyncio.wrap_future(gate.submit(Command("n", 7))))
        await asyncio.to_thread(Gate.started.wait, TIMEOUT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        Gate.go_on.set()
        receipt = await asyncio.wrap_future(gate.submit(Command("n", 8)))
        assert receipt.command_id == 2

    asyncio.run(client())
    assert recorded(place) == [7, 8]


def test_an_event_loop_that_dies_takes_nothing_with_it(gate: Runtime, place: str) -> None:
    loop = asyncio.new_event_loop()

    async def client() -> asyncio.Future[Any]:
        return asyncio.wrap_future(gate.submit(Command("n", 7)))

    waiting = loop.run_until_complete(client())
    loop.close()
    Gate.go_on.set()
    assert gate.execute(Command("n", 8)).command_id == 2
    assert not waiting.done()
    assert recorded(place) == [7, 8]
    assert verify(Gate, open_journal(place)).verdict == "verified"


def test_an_interrupted_caller_leaves_the_engine_at_work(tmp_path: Path) -> None:
    code = f"""
import _thread, signal, threading, time
from recovery import Command, Runtime
from tests.unit.test_runtime_hosts import Gate

# A shell that starts the tests in the background has it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

def interrupt():
    Gate.started.wait({TIMEOUT_S})
    _thread.interrupt_main()
    time.sleep(0.1)
    Gate.go_on.set()

with Runtime.open(Gate, journal="sqlite:j.db", snapshots="dir:s") as gate:
    threading.Thread(target=interrupt).start()
    try:
        gate.execute(Command("n", 7, request_id="r"))
    except KeyboardInterrupt:
        print("interrupted")
    print(gate.execute(Command("n", 8)).command_id, gate.execute(Command("n", 7, request_id="r")).duplicate)
"""
    child = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert child.stdout.split("\n")[:2] == ["interrupted", "2 True"], child.stderr
    assert recorded(f"sqlite:{tmp_path}/j.db") == [7, 8]
    assert verify(Gate, f"sqlite:{tmp_path}/j.db", f"dir:{tmp_path}/s", after=0).commands == 2


def test_ctrl_c_on_the_command_line_is_130_and_loses_nothing(tmp_path: Path) -> None:
    arguments = ["run", "--engine", "tests.engines:Till", "--journal", "sqlite:j.db", "--snapshots", "dir:s"]
    # A shell that starts the tests in the background has SIGINT ignored, and children inherit that.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from recovery.cli.main import main; main()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b'{"type": "deposit", "data": {"number": "ada", "cents": 5}}\n')
    child.stdin.flush()
    assert b'"command_id": 1' in child.stdout.readline()
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert said.decode().splitlines()[-1] == "interrupted"
    assert len(recorded(f"sqlite:{tmp_path}/j.db")) == 1


# Queues


def test_submit_never_blocks_and_execute_waits(gate: Runtime, place: str) -> None:
    gate.submit(Command("n", 0))
    assert Gate.started.wait(TIMEOUT_S)
    futures = []
    with pytest.raises(Overloaded) as full:
        for n in range(1, 10):
            futures.append(gate.submit(Command("n", n)))
    assert full.value.retry
    assert len(futures) == 3
    waiter = threading.Thread(target=gate.execute, args=(Command("n", 99),))
    waiter.start()
    time.sleep(0.05)
    assert waiter.is_alive()
    Gate.go_on.set()
    waiter.join(TIMEOUT_S)
    assert recorded(place) == [0, 1, 2, 3, 99]


def test_commands_of_many_threads_are_applied_in_the_order_of_each(till: Runtime, place: str) -> None:
    def client(name: str) -> None:
        for n in range(1, 41):
            till.submit(Command("deposit", {"number": name, "cents": n}))

    threads = [threading.Thread(target=client, args=(f"n{at}",)) for at in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    till.query(lambda engine: None)
    by_name: dict[str, list[int]] = {}
    for data in recorded(place):
        by_name.setdefault(data["number"], []).append(data["cents"])
    assert by_name == {f"n{at}": list(range(1, 41)) for at in range(4)}


def test_closing_works_off_what_was_accepted_and_then_refuses(place: str) -> None:
    till = Runtime.open(Till, journal=place, snapshots="memory:")
    futures = [till.submit(deposit(1)) for _ in range(200)]
    till.close()
    till.close()
    assert [future.result().command_id for future in futures] == list(range(1, 201))
    for use in (lambda: till.execute(deposit(1)), lambda: till.submit(deposit(1)), lambda: till.query(len)):
        with pytest.raises(UnavailableError, match="closed"):
            use()


def test_closing_in_time_or_saying_so(gate: Runtime) -> None:
    gate.submit(Command("n", 1))
    assert Gate.started.wait(TIMEOUT_S)
    with pytest.raises(UnavailableError, match=r"0\.05 s"):
        gate.close(timeout_s=0.05, snapshot=False)


# Time


def test_time_is_stamped_and_never_goes_back(place: str) -> None:
    before_ms = time.time_ns() // 1_000_000
    with Runtime.open(Till, journal=place, snapshots="memory:", clock_skew_max_ms=60_000) as till:
        till.execute(deposit(1))
        future_ms = before_ms + 50_000
        till.execute(deposit(1, future_ms))
        till.execute(deposit(1))
        till.execute(deposit(1, 12))
    with Runtime.open(Till, journal=place, snapshots="memory:") as till:
        till.execute(deposit(1))
    first, *rest = [entry.received_at_ms for entry in open_journal(place).read()]
    assert before_ms <= first <= time.time_ns() // 1_000_000
    assert rest == [future_ms] * 4


def test_a_clock_that_is_put_back_does_not_take_time_back(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock_ms = [1_700_000_000_000]
    monkeypatch.setattr("journal.recorder.time.time_ns", lambda: clock_ms[0] * 1_000_000)
    for at_ms in (0, 5, -3_600_000):
        clock_ms[0] += at_ms
        with Runtime.open(Till, journal=place, snapshots="memory:") as till:
            till.execute(deposit(1))
            till.execute(deposit(1))
    begin = 1_700_000_000_000
    assert [entry.received_at_ms - begin for entry in open_journal(place).read()] == [0, 0, 5, 5, 5, 5]


def test_as_far_ahead_as_allowed_and_one_more(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journal.recorder.time.time_ns", lambda: 1_700_000_000_000 * 1_000_000)
    with Runtime.open(Till, journal=place, snapshots="memory:", clock_skew_max_ms=250) as till:
        with pytest.raises(ClockAhead):
            till.execute(deposit(1, 1_700_000_000_251))
        assert till.execute(deposit(1, 1_700_000_000_250)).command_id == 1


def test_a_time_too_far_ahead_is_refused_before_apply(till: Runtime) -> None:
    with pytest.raises(ClockAhead) as ahead:
        till.execute(deposit(1, time.time_ns() // 1_000_000 + 10_000))
    assert "clock_skew_max_ms" in ahead.value.hint
    assert till.head.command_id == 0
    assert len(till.engine.accounts) == 0


# Queries


def test_a_query_runs_between_commands_and_may_not_write(till: Runtime) -> None:
    till.execute(deposit(5))
    assert till.query(lambda engine: engine.accounts["ada"].cents) == 5
    with pytest.raises(UsageError, match="written outside apply"):
        till.query(lambda engine: engine.accounts.pop("ada"))
    with pytest.raises(ZeroDivisionError):
        till.query(lambda engine: 1 // 0)
    assert till.execute(deposit(1)).response == {"cents": 6}


def test_a_query_sees_what_was_submitted_before_it_and_that_is_durable(till: Runtime, place: str) -> None:
    for _ in range(50):
        till.submit(deposit(1))
    seen = till.query(lambda engine: engine.accounts["ada"].cents)
    assert seen == 50
    assert len(recorded(place)) == 50


def test_a_query_out_of_apply_is_refused() -> None:
    class Asking(TableEngine):
        name = "asking"
        runtime: Runtime

        def apply(self, context: Context, command: Command) -> Any:
            return RUNTIMES[0].query(lambda engine: 1)

    RUNTIMES.clear()
    with Runtime.open(Asking, journal="memory:", snapshots="memory:") as runtime:
        RUNTIMES.append(runtime)
        with pytest.raises(UsageError, match="while a command is applied"):
            runtime.execute(Command("ask", None))


RUNTIMES: list[Runtime] = []
