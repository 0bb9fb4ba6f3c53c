"""A shipped runtime against a model: executed, crashed, its disk lost, its target away and back, opened with another ``ack``.

A crash leaves copies of both places as they lie.  Whatever happens, one history is the beginning of the other, no command is
there twice, and what was acknowledged is there with its command id: with ack="both" in both journals, with ack="local" in the
local one, and after its disk is lost as far as the target has it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from journal.errors import OutcomeUnknown, StoreUnavailable
from journal.records import Entry
from journal.shipped_store import ShippedStore
from journal.stores.memory import PLACES
from recovery import Command, Runtime
from tests.engines import Till
from tests.places import copy_of, forget, new_place

WAIT_S = 20.0


class Target:
    """Whether the target of one runtime can be reached."""

    def __init__(self, store: ShippedStore) -> None:
        self.away = False
        self.answer_lost: list[bool] = []
        """Whether the next appends, whose answer is lost, are written."""
        self._store = store.target
        self._append, self._require_hold = self._store.append, self._store.require_hold
        vars(self._store).update(append=self.append, require_hold=self.require_hold)

    def append(self, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        self._require_there()
        lost = bool(self.answer_lost)
        if not lost or self.answer_lost.pop():
            self._append(stream, epoch, entries)
        if lost:
            raise OutcomeUnknown("the connection was lost at COMMIT")

    def require_hold(self, stream: str) -> None:
        self._require_there()
        self._require_hold(stream)

    def _require_there(self) -> None:
        if self.away:
            raise StoreUnavailable("the target is away")


class ShippingMachine(RuleBasedStateMachine):
    """One journal through many lives."""

    acks = st.sampled_from(["both", "local"])

    @initialize(ack=acks)
    def begin(self, ack: str) -> None:
        self.local, self.target = new_place(), new_place()
        self.acknowledged: dict[int, int] = {}
        self._open(ack)

    def _open(self, ack: str) -> None:
        self.ack = ack
        self.runtime = Runtime.open(
            Till,
            journal=f"memory:{self.local}",
            snapshots="memory:",
            ship_to=f"memory:{self.target}",
            ack=ack,
            snapshot_every=0,
            seed=7,
        )
        store = self.runtime._recorder.store
        assert isinstance(store, ShippedStore)
        self.store = store
        self.reach = Target(store)
        assert len(self._ids(self.local)) == len(self._ids(self.target)) == self.runtime.head.command_id

    def _ids(self, place: str) -> dict[int, int]:
        stream = PLACES[place].streams.get("main")
        entries = [] if stream is None else list(stream.entries)
        return {entry.data["cents"]: entry.command_id for entry in entries}

    @rule(
        numbers=st.lists(st.integers(1, 60), min_size=1, max_size=5),
        answer_lost=st.sampled_from([[], [], [], [True], [False]]),
    )
    def execute(self, numbers: list[int], answer_lost: list[bool]) -> None:
        self.reach.answer_lost = list(answer_lost)
        for number in numbers:
            self._execute(number)

    def _execute(self, number: int) -> None:
        command = Command("deposit", {"number": "a", "cents": number}, request_id=f"r{number}")
        known = self.acknowledged.get(number)
        try:
            receipt = self.runtime.execute(command)
        except StoreUnavailable:
            assert self.ack == "both"
            assert self.reach.away
            assert known is None
            return
        assert known in (None, receipt.command_id)
        assert receipt.duplicate == (known is not None)
        self.acknowledged[number] = receipt.command_id

    @rule()
    def the_target_goes(self) -> None:
        self.reach.away = True

    @rule()
    def the_target_is_back(self) -> None:
        self.reach.away = False

    @precondition(lambda self: self.ack == "local" and not self.reach.away)
    @rule()
    def all_is_shipped_in_a_while(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while self._ids(self.target) != self._ids(self.local):
            assert time.monotonic() < deadline
            time.sleep(0.001)

    @rule(ack=acks)
    def close_and_open(self, ack: str) -> None:
        self.runtime.close(snapshot=False)
        self._open(ack)

    @rule(ack=acks, wiped=st.booleans())
    def crash(self, ack: str, wiped: bool) -> None:
        before = self.local, self.target
        # The target first: it is behind, and goes on.
        self.target = copy_of(self.target)
        self.local = new_place() if wiped else copy_of(self.local)
        self.runtime.close(snapshot=False)
        for place in before:
            forget(place)
        if wiped:
            there = self._ids(self.target)
            lost = {number: known for number, known in self.acknowledged.items() if number not in there}
            assert not lost or self.ack == "local"
            assert set(lost.values()) == set(range(len(there) + 1, len(there) + len(lost) + 1))
            self.acknowledged = {number: known for number, known in self.acknowledged.items() if number in there}
        self._open(ack)

    @invariant()
    def one_is_the_beginning_of_the_other(self) -> None:
        there = self._ids(self.target)  # first: it may go on meanwhile
        here = self._ids(self.local)
        assert list(here.items())[: len(there)] == list(there.items())
        assert self.acknowledged == here
        if self.ack == "both":
            assert there == here
        assert self.runtime.engine.accounts.get("a", ("a", 0))[1] == sum(here)

    def teardown(self) -> None:
        if hasattr(self, "runtime"):
            self.reach.away = False
            self.runtime.close(snapshot=False)
            forget(self.local)
            forget(self.target)


TestShipping = ShippingMachine.TestCase
TestShipping.settings = settings(max_examples=40, stateful_step_count=30)
