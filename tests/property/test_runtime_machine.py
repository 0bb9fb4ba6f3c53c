"""A runtime against plain dicts, whatever is executed, sent again, refused, raised, queried, imaged, pruned, or crashed.

After every step: rows, their order, the index and the head are the model's, and every request ever answered gets the answer
of its first time, none runs twice.  A crash is what a killed process leaves: a copy of the journal's and the images' bytes
as they lie, on which another runtime starts cold.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from journal.errors import (
    ClockAhead,
    NothingVerified,
    OutcomeUnknown,
    RequestConflict,
    StoreUnavailable,
    UsageError,
    WriterPoisoned,
)
from journal.records import Entry
from recovery import Command, Context, Receipt, Runtime, open_journal, open_snapshots, verify
from snapshots.retention import Retention
from tests.engines import Account, Till
from tests.places import copy_of, forget, new_place

SEED = 7
KEEP = 2

numbers = st.sampled_from(["", "a", "b", "é", "\U0001f600"])
deposits = st.builds(lambda number, cents: ("deposit", {"number": number, "cents": cents}), numbers, st.integers(-9, 9))
closings = st.builds(lambda number: ("close_account", {"number": number}), numbers)
draws = st.builds(lambda number: ("draw", {"number": number}), numbers)
asked = deposits | closings | draws
Asking = tuple[str, dict[str, Any]]


class Model:
    """What a till does, on plain dicts."""

    def __init__(self) -> None:
        self.accounts: dict[str, tuple[str, int]] = {}
        self.deposits = 0
        self.head = 0

    def run(self, type: str, data: dict[str, Any]) -> tuple[Any, tuple[str, str] | None, list[tuple[Any, ...]]]:
        """Response, rejection and events of one command."""
        self.head += 1
        number = data["number"]
        owner, cents = self.accounts.get(number, (number, 0))
        if type == "draw":
            context = Context(self.head, 0, 1, SEED)
            won = context.random.getrandbits(16)
            self.accounts[number] = (str(context.new_uuid()), won)
            return won, None, []
        if type == "close_account":
            if self.accounts.pop(number, None) is None:
                return None, ("unknown", number), []
            return None, None, [("Closed", (number,), None, self.head)]
        if cents + data["cents"] < 0:
            return None, ("insufficient", f"{number} holds {cents}"), []
        self.accounts[number] = (owner, cents + data["cents"])
        self.deposits += 1
        moved = ("BalanceChanged", {"number": number, "delta": data["cents"]}, number, None)
        return {"cents": cents + data["cents"]}, None, [moved]


def seen(till: Till) -> Any:
    """All that a reader of a till can see."""
    return list(till.accounts.items()), list(till.by_wealth), till.deposits.value


class RuntimeMachine(RuleBasedStateMachine):
    """The rules; where journal and images lie is a subclass's."""

    place: Any
    journal: str
    snapshots: str
    heavy = False

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.receipts: list[tuple[Command, Receipt]] = []
        self.images: set[int] = set()
        self.requests = itertools.count()

    # Lives

    def first_place(self) -> None:
        """Name a place that is empty."""
        raise AssertionError("a subclass says where")

    def copied_place(self) -> None:
        """Name a place that is a copy of what is durable, which is what a killed process leaves."""
        raise AssertionError("a subclass says where")

    def clear(self, place: Any) -> None:
        """Do away with a place."""
        raise AssertionError("a subclass says how")

    def open(self, replay: str) -> None:
        """Start cold; the report adds up."""
        self.till = Runtime.open(
            Till,
            journal=self.journal,
            snapshots=self.snapshots,
            snapshot_every=0,
            keep=KEEP,
            seed=SEED,
            replay=replay,
            heavy=self.heavy,
        )
        report = self.till.cold_start
        assert (report.head, report.steps_down) == (self.model.head, ())
        assert report.image == max(self.images, default=0)
        assert report.replayed == report.checked["post_digest"] == report.head - report.image

    @initialize()
    def begin(self) -> None:
        self.first_place()
        self.open("execute")

    @rule(replay=st.sampled_from(["execute", "redo"]))
    def crash(self, replay: str) -> None:
        left = self.place
        self.copied_place()
        self.till.close(snapshot=False)
        self.clear(left)
        self.open(replay)

    @rule(replay=st.sampled_from(["execute", "redo"]), snapshot=st.booleans())
    def close_and_open(self, replay: str, snapshot: bool) -> None:
        self.till.close(snapshot=snapshot)
        if snapshot and self.model.head > max(self.images, default=0):
            self.imaged()
        self.open(replay)

    @rule(what=asked, written=st.booleans(), replay=st.sampled_from(["execute", "redo"]))
    def crash_in_commit(self, what: Asking, written: bool, replay: str) -> None:
        """The writer dies before or after the command is durable; nobody is told which, and the retry tells."""
        store = self.till._recorder.store
        append = store.append

        def dying(stream: str, epoch: int, entries: Sequence[Entry]) -> None:
            if written:
                append(stream, epoch, entries)
            raise WriterPoisoned("the disk went away")

        command = self.command(what)
        with mock.patch.object(store, "append", dying), pytest.raises(OutcomeUnknown):
            self.till.execute(command)
        with pytest.raises(WriterPoisoned):
            self.till.execute(command)
        if written:
            self.expect(command, what)
        self.crash(replay)
        again = self.till.execute(command)
        assert again.duplicate == written
        if not written:
            self.expect(command, what, again)
        else:
            assert again == self.receipts[-1][1]._replace(duplicate=True)

    def teardown(self) -> None:
        self.till.close(snapshot=False)
        self.clear(self.place)

    # Commands

    def command(self, what: Asking) -> Command:
        """A command under a request id of its own."""
        return Command(*what, request_id=f"request {next(self.requests)}")

    def expect(self, command: Command, what: Asking, receipt: Receipt | None = None) -> None:
        """Run the model, and hold the receipt against it; without one, the record of what nobody was told."""
        response, rejection, events = self.model.run(*what)
        if receipt is None:
            with open_journal(self.journal) as journal:
                entry = journal.get(command.request_id)
                assert entry is not None
                receipt = Receipt.of(entry, duplicate=False)
        assert receipt.command_id == self.model.head
        assert (receipt.response, receipt.rejection) == (response, rejection)
        assert receipt.events == events
        assert not receipt.duplicate
        self.receipts.append((command, receipt))

    @rule(what=asked)
    def execute(self, what: Asking) -> None:
        command = self.command(what)
        self.expect(command, what, self.till.execute(command))

    @rule(whats=st.lists(asked, max_size=6), repeat=st.booleans())
    def execute_many(self, whats: list[Asking], repeat: bool) -> None:
        """A batch, each command perhaps twice in it: the second time is answered from the first."""
        commands = [(self.command(what), what) for what in whats]
        sent = [command for command, _ in commands for _ in range(1 + repeat)]
        outcomes = list(self.till.execute_many(sent))
        assert len(outcomes) == len(sent)
        for at, (command, what) in enumerate(commands):
            receipt = outcomes[at * (1 + repeat)]
            assert isinstance(receipt, Receipt)
            self.expect(command, what, receipt)
            if repeat:
                assert outcomes[2 * at + 1] == receipt._replace(duplicate=True)

    @precondition(lambda self: self.receipts)
    @rule(data=st.data(), cents=st.integers(10, 12))
    def conflict(self, data: st.DataObject, cents: int) -> None:
        """A request id with another type or other data is refused, and the record stays."""
        command, _ = data.draw(st.sampled_from(self.receipts))
        for type, given_data in (("deposit", {"number": "a", "cents": cents}), ("other type", command.data)):
            with pytest.raises(RequestConflict):
                self.till.execute(Command(type, given_data, request_id=command.request_id))

    @rule(number=numbers, what=asked)
    def exception(self, number: str, what: Asking) -> None:
        """What an exception half way through has done is undone, and its request id is free."""
        command = self.command(("half_way", {"number": number}))
        with pytest.raises(RuntimeError, match="half way"):
            self.till.execute(command)
        again = Command(*what, request_id=command.request_id)
        self.expect(again, what, self.till.execute(again))

    @rule(what=asked)
    def refused_by_the_store(self, what: Asking) -> None:
        """What the store refuses is undone; the command can be sent again."""
        command = self.command(what)
        refusal = mock.Mock(side_effect=StoreUnavailable("the disk is full"))
        with mock.patch.object(self.till._recorder.store, "append", refusal), pytest.raises(StoreUnavailable):
            self.till.execute(command)
        self.check()
        self.expect(command, what, self.till.execute(command))

    @rule(number=numbers)
    def refused_by_the_runtime(self, number: str) -> None:
        """Bad calls and clocks leave no trace."""
        late = time.time_ns() // 1_000_000 + 3_600_000
        for type, data, received_at_ms, error in (
            ("deposit", {"number": number}, None, UsageError),
            ("unheard", {"number": number}, None, UsageError),
            ("deposit", {"number": number, "cents": 1}, late, ClockAhead),
        ):
            with pytest.raises(error):
                self.till.execute(Command(type, data, received_at_ms=received_at_ms))
        with pytest.raises(UsageError):
            self.till.query(lambda till: till.accounts.clear() or till.accounts.__setitem__(number, Account("x", 1)))

    # Images and checks

    def imaged(self) -> None:
        self.images = set(sorted({*self.images, self.model.head})[-KEEP:])

    @rule()
    def snapshot(self) -> None:
        if self.model.head:
            assert self.till.snapshot() == self.model.head
            self.imaged()
        else:
            with pytest.raises(NothingVerified):
                self.till.snapshot()

    @rule(keep=st.integers(1, KEEP))
    def prune(self, keep: int) -> None:
        with open_journal(self.journal) as journal:
            open_snapshots(self.snapshots).prune(
                journal,
                Retention(keep),
                journal_id=journal.identity.journal_id,
                now_ms=time.time_ns() // 1_000_000,
                report=lambda step: pytest.fail(str(step)),
            )
        self.images = set(sorted(self.images)[-keep:])

    @rule(mode=st.sampled_from(["execute", "redo"]), data=st.data())
    def verify(self, mode: str, data: st.DataObject) -> None:
        after = data.draw(st.integers(0, self.model.head))
        report = verify(Till, self.journal, self.snapshots, mode=mode, after=after)
        assert report.verdict == ("verified" if self.model.head > after else "nothing")
        assert report.commands == report.checked["post_digest"] == self.model.head - after

    @invariant()
    def check(self) -> None:
        """Everything is as in the model, and everything answered once is answered so again."""
        accounts = {number: Account(*row) for number, row in self.model.accounts.items()}
        by_wealth = sorted(accounts, key=lambda number: (-accounts[number].cents, number))
        assert self.till.query(seen) == (sorted(accounts.items()), by_wealth, self.model.deposits)
        again = list(self.till.execute_many(command for command, _ in self.receipts))
        assert again == [receipt._replace(duplicate=True) for _, receipt in self.receipts]
        head = self.till.head
        assert head.command_id == self.model.head == len(self.receipts)
        found = {image.command_id for image in open_snapshots(self.snapshots).images() if image.state == "good"}
        assert found == self.images


class InMemory(RuntimeMachine):
    """``memory:NAME``, every command captured, restored and compared."""

    heavy = True

    def first_place(self) -> None:
        self.go_to(new_place())

    def copied_place(self) -> None:
        self.go_to(copy_of(self.place))

    def go_to(self, place: str) -> None:
        self.place = place
        self.journal = self.snapshots = f"memory:{place}"

    def clear(self, place: str) -> None:
        forget(place)


class OnDisk(RuntimeMachine):
    """``sqlite:`` and ``dir:``."""

    def first_place(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="machine"))
        self.journal, self.snapshots = f"sqlite:{self.place}/journal.db", f"dir:{self.place}/snapshots"

    def copied_place(self) -> None:
        # Nothing is being written: the file and its -wal are of one moment.
        left = self.place
        self.first_place()
        shutil.copytree(left, self.place, dirs_exist_ok=True)

    def clear(self, place: Path) -> None:
        shutil.rmtree(place)


TestInMemory = InMemory.TestCase
TestInMemory.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestOnDisk = OnDisk.TestCase
TestOnDisk.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
