"""An engine restored from any image, and replayed to the end, is the engine that never stopped, and goes on as it would.

Also in another process, under another PYTHONHASHSEED and in another time zone.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import values
from journal.errors import UsageError
from recovery import Command, Receipt, Runtime, TableEngine, open_journal, open_snapshots, verify
from recovery.examples.exchange import Exchange
from recovery.images import place
from recovery.replayer import Replayer
from recovery.stepper import make_stepper
from recovery.table_engine import state_of
from recovery.tables import Index
from tests.engines import Counter, Till
from tests.places import copy_of, forget, images_of, new_place
from tests.property.elsewhere import COMMANDS as DIARY_COMMANDS

ROOT = Path(__file__).parents[2]
COMMANDS = 60
AFTERWARDS = 10
BEGAN_MS = 1_700_000_000_000

Asked = tuple[str, dict[str, Any]]


def trading(draw: random.Random) -> Iterator[Asked]:
    """Accounts, and orders that trade, change, leave, and are refused."""
    for name in "abc":
        yield "deposit", {"account": name, "cash": 500, "lots": 20}
    order_id = 0
    while True:
        kind = draw.random()
        if kind < 0.6:
            order_id += 1
            order = {"order_id": order_id, "side": draw.getrandbits(1), "price": 8 + draw.getrandbits(2)}
            yield "new", order | {"quantity": 1 + draw.getrandbits(3), "owner": draw.choice("abcd"), "ioc": kind < 0.1}
        elif kind < 0.75:
            yield "cancel", {"order_id": draw.randint(0, order_id)}
        elif kind < 0.9:
            yield "modify", {"order_id": draw.randint(0, order_id), "price": 9, "quantity": 1 + draw.getrandbits(2)}
        else:
            yield draw.choice(["deposit", "withdraw"]), {"account": draw.choice("abe"), "cash": draw.getrandbits(6)}


def banking(draw: random.Random) -> Iterator[Asked]:
    """What the till does, a failure half way among it."""
    while True:
        number = draw.choice(["", "a", "b", "é", "\U0001f600"])
        kind = draw.choice(["deposit", "deposit", "deposit", "draw", "close_account", "half_way"])
        yield kind, {"number": number} | ({"cents": draw.randint(-40, 60)} if kind == "deposit" else {})


def counting(draw: random.Random) -> Iterator[Asked]:
    """For the engine without tables: counts, rejects and failures."""
    while True:
        yield draw.choice(["count", "count", "reject", "fail"]), {"name": draw.choice("xyz"), "by": draw.randint(1, 9)}


ENGINES: dict[str, tuple[type, Any, dict[str, Any]]] = {
    "exchange": (Exchange, trading, {}),
    "till": (Till, banking, {}),
    "no tables": (Counter, counting, {"digest_every": 7}),
}


def seen(engine: Any) -> Any:
    """All that can be seen of an engine: rows in their order, what each index gives, cells; or what it captures."""
    if not isinstance(engine, TableEngine):
        return values.encode(engine.capture())
    state = state_of(engine)
    tables = {name: list(table.items()) for name, table in state.tables.items()}
    indexes = {name: list(member) for name, member in state.members.items() if isinstance(member, Index)}
    return tables, indexes


def told(outcome: Receipt | Exception) -> Any:
    """An outcome, to be compared."""
    return outcome if isinstance(outcome, Receipt) else (type(outcome), str(outcome))


class Life:
    """A life without a crash, in memory: what was seen after each recorded command, and an image at most of them."""

    def __init__(self, kind: str, seed: int) -> None:
        self.engine, flow, self.options = ENGINES[kind]
        draw = random.Random(seed)
        asked = flow(draw)
        made = (
            Command(*next(asked), request_id=f"r{number}", received_at_ms=BEGAN_MS + number)
            for number in range(COMMANDS + AFTERWARDS)
        )
        self.commands = list(made)
        self.place = new_place()
        self.seen: list[Any] = []
        with self.open(self.place) as runtime:
            self.seen.append(runtime.query(seen))
            for command in self.commands[:COMMANDS]:
                before = runtime.head.command_id
                list(runtime.execute_many([command]))
                if runtime.head.command_id > before:
                    self.seen.append(runtime.query(seen))
                    if draw.random() < 0.8:
                        runtime.snapshot()
            self.head = runtime.head
            runtime.close(snapshot=False)
        self.images = [image.command_id for image in open_snapshots(f"memory:{self.place}").images()]
        assert len(self.images) > COMMANDS // 4
        self.ended = copy_of(self.place)
        with self.open(self.ended) as runtime:
            self.afterwards = self.go_on(runtime)
            runtime.close(snapshot=False)

    def open(self, name: str, **options: Any) -> Runtime:
        where = {"journal": f"memory:{name}", "snapshots": f"memory:{name}", "snapshot_every": 0, "keep": 1000}
        return Runtime.open(self.engine, seed=7, **where, **self.options, **options)

    def go_on(self, runtime: Runtime) -> list[Any]:
        """What is told and seen of the commands that follow, some of them sent again."""
        outcomes = runtime.execute_many(self.commands[COMMANDS - AFTERWARDS :])
        return [*map(told, outcomes), runtime.query(seen), runtime.head.chain, runtime.head.post_digest_bytes]

    def close(self) -> None:
        forget(self.place)
        forget(self.ended)


@pytest.mark.parametrize("kind", ENGINES)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_from_every_image_step_by_step_to_the_end(kind: str, seed: int) -> None:
    """Placed at each image exactly, then executed and redone: at every command what was seen there, nothing diverging."""
    life = Life(kind, seed)
    url = f"memory:{life.place}"
    with open_journal(url) as journal:
        identity, epochs, catalog = journal.identity, journal.epochs(), open_snapshots(url)
        for command_id in (0, *life.images):
            for mode in ("execute", "redo")[: 2 if issubclass(life.engine, TableEngine) else 1]:
                stepper = make_stepper(life.engine, identity.seed, identity.digest_every)
                placed = place(stepper, catalog, journal, command_id, exactly=bool(command_id))
                assert (placed.command_id, placed.steps_down) == (command_id, ())
                assert seen(stepper.engine) == life.seen[command_id]
                replayer = Replayer(stepper, epochs)
                for entry in journal.read(command_id):
                    assert list(getattr(replayer, mode)([entry])) == []
                    assert seen(stepper.engine) == life.seen[entry.command_id]
                    if entry.post_digest_bytes is not None:
                        assert stepper.digest_bytes == entry.post_digest_bytes
                assert replayer.commands == life.head.command_id - command_id
    life.close()


@pytest.mark.parametrize("kind", ENGINES)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_runtime_started_from_every_image_goes_on_as_the_one_that_never_stopped(kind: str, seed: int) -> None:
    """Answers to old and new requests, events, state, digest and chain."""
    life = Life(kind, seed)
    every = sorted(images_of(life.place).items())
    for at in range(len(every) + 1):
        for replay in ("execute", "redo")[: 2 if issubclass(life.engine, TableEngine) else 1]:
            there = copy_of(life.place, images=dict(every[:at]))
            with life.open(there, replay=replay) as runtime:
                assert runtime.cold_start.image == (life.images[at - 1] if at else 0)
                assert runtime.query(seen) == life.seen[-1]
                assert life.go_on(runtime) == life.afterwards
                runtime.close(snapshot=False)
            report = verify(life.engine, f"memory:{there}", f"memory:{there}")
            assert report.verdict == "verified"
            forget(there)
    life.close()


@pytest.mark.parametrize("kind", ENGINES)
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_verify_after_every_command_and_from_every_image(kind: str, seed: int, data: st.DataObject) -> None:
    """The range is checked, all of it and no more, from whichever image; images between are passed over."""
    life = Life(kind, seed)
    url, end = f"memory:{life.place}", life.head.command_id
    for after in range(end + 1):
        start = data.draw(st.sampled_from([None, 0, *life.images]))
        report = verify(life.engine, url, url, after=after, start=start)
        first = max(after, start or 0) + 1
        assert report.commands == end - first + 1
        assert report.checked["response"] == report.checked["events"] == report.commands
        every = life.options.get("digest_every", 1)
        undigested = [at for at in range(first, end + 1) if at % every and at not in life.images]
        assert bool(report.not_checked) == bool(first > after + 1 or undigested)
        if report.commands:
            assert (report.verdict, report.first, report.last) == ("verified", first, end)
            newest = max((image for image in life.images if image <= after), default=0)
            assert report.to_dict()["snapshot"] == {"command_id": newest if start is None else start}
        else:
            assert report.verdict == "nothing"
    missing = next(at for at in range(1, end + 2) if at not in life.images)
    with pytest.raises(UsageError, match="no verified image"):
        verify(life.engine, url, url, after=min(missing, end - 1), start=missing)
    life.close()


# In other processes

WRITTEN_UNDER = {"PYTHONHASHSEED": "1", "TZ": "UTC"}
OTHERS = ({"PYTHONHASHSEED": "2", "TZ": "NST3:30NDT"}, {"PYTHONHASHSEED": "31", "TZ": "NPT-5:45"})


def elsewhere(folder: Path, what: str, environment: dict[str, str]) -> list[str]:
    """What a process of its own says."""
    child = subprocess.run(
        [sys.executable, "-m", "tests.property.elsewhere", str(folder), what],
        cwd=ROOT,
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return child.stdout.splitlines()


def test_two_runs_in_different_worlds_have_equal_chains_and_verify_in_each_other(tmp_path: Path) -> None:
    """The same requests, times and seed under other hash seeds and time zones: the same history, from any image."""
    worlds = (WRITTEN_UNDER, *OTHERS)
    said = []
    for number, environment in enumerate(worlds):
        (tmp_path / str(number)).mkdir()
        said.append(elsewhere(tmp_path / str(number), "write", environment))
    assert said[0] == said[1] == said[2]
    assert len(said[0]) == 1 + DIARY_COMMANDS
    read = [elsewhere(tmp_path / "0", "read", environment) for environment in worlds]
    assert read[0] == read[1] == read[2]
    verified = [line for line in read[0] if " execute " in line or " redo " in line]
    starts = [0, *range(9, DIARY_COMMANDS, 9)]
    assert verified[:-2] == [
        f"verified {mode} {start} {DIARY_COMMANDS - start}" for start in starts for mode in ("execute", "redo")
    ]
    assert len(read[0]) > DIARY_COMMANDS  # and what the verbs showed
