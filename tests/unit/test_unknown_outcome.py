"""An append whose outcome the store cannot tell: a new epoch, then the end, then an answer.  Of any store."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest

from journal.errors import EvidenceAhead, OutcomeUnknown, StoreUnavailable, WriterFenced
from journal.records import Entry, Epoch
from journal.stores.memory import PLACES, MemoryStore
from recovery import Command, Receipt, Runtime, open_journal, verify
from tests.engines import Till

_names = itertools.count()


class Doubtful(MemoryStore):
    """Does or does not write an append, and raises OutcomeUnknown; from then on takes none until there is a new epoch."""

    writes: list[bool]
    """For each of the next appends, whether it is written although nobody can tell."""
    in_doubt = False
    before_epoch: Callable[[], None] = staticmethod(lambda: None)

    def append(self, stream: str, epoch: int, entries: Sequence[Entry]) -> None:
        assert not self.in_doubt, "an append before the new epoch may meet the old one on its way"
        if not self.writes:
            return super().append(stream, epoch, entries)
        if self.writes.pop(0):
            super().append(stream, epoch, entries)
        self.in_doubt = True
        raise OutcomeUnknown("the connection was lost at COMMIT")

    def append_epoch(self, stream: str, number: int, document: bytes) -> None:
        self.before_epoch()
        super().append_epoch(stream, number, document)
        self.in_doubt = False


@pytest.fixture
def name() -> str:
    return f"doubt {next(_names)}"


class Epochs:
    """Hears of the epochs."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []

    def epoch_begun(self, number: int, head: int) -> None:
        self.begun.append((number, head))


def opened(name: str, observer: Epochs | None = None) -> tuple[Doubtful, Runtime]:
    store = Doubtful.open_for_write(name)
    assert isinstance(store, Doubtful)
    store.writes = []
    return store, Runtime.open(Till, journal=store, snapshots="memory:", durable=False, observer=observer)


def deposit(cents: int, request_id: str) -> Command:
    return Command("deposit", {"number": "ada", "cents": cents}, request_id=request_id)


@pytest.mark.parametrize("writes", [[True], [False], [False, True], [False, False]], ids=str)
def test_every_command_is_recorded_once_and_answered(name: str, writes: list[bool]) -> None:
    heard = Epochs()
    store, till = opened(name, heard)
    till.execute(deposit(5, "a"))
    store.writes = list(writes)
    outcomes = list(till.execute_many([deposit(1, "b"), deposit(2, "c")]))
    assert [outcome.response for outcome in outcomes if isinstance(outcome, Receipt)] == [{"cents": 6}, {"cents": 8}]
    assert till.execute(deposit(1, "b")).duplicate
    assert till.execute(deposit(1, "d")).command_id == 4
    journal = open_journal(f"memory:{name}")
    epochs = journal.epochs()
    assert [epoch.number for epoch in epochs] == list(range(1, len(writes) + 2))
    assert {epoch.head for epoch in epochs[1:]} == {1}, "the new epoch says what was acknowledged"
    assert heard.begun == [(1, 0), (len(epochs), 1)], "what counts is the newest"
    # What was written under the old epoch keeps it; what was not was sealed again under the new one.
    assert [entry.epoch for entry in journal.read()][1] == (len(writes) if writes[-1] else len(writes) + 1)
    till.close()
    assert verify(Till, open_journal(f"memory:{name}")).verdict == "verified"


def test_an_end_below_what_was_acknowledged_is_loss(name: str) -> None:
    store, till = opened(name)
    till.execute(deposit(5, "a"))
    till.execute(deposit(5, "b"))

    def lose() -> None:
        stream = PLACES[name].streams["main"]
        lost = stream.entries.pop()
        del stream.by_request[lost.request_key]

    store.writes, store.before_epoch = [False], lose
    with pytest.raises(EvidenceAhead, match="acknowledged, and the journal ends at command 1") as loss:
        till.execute(deposit(1, "c"))
    assert loss.value.position == 2
    with pytest.raises(EvidenceAhead):
        till.execute(deposit(1, "d"))
    till.close(snapshot=False)


@pytest.mark.parametrize("wrote", [True, False])
def test_who_was_replaced_meanwhile_still_learns_what_became_of_it(name: str, wrote: bool) -> None:
    store, till = opened(name)
    till.execute(deposit(5, "a"))

    def replaced() -> None:
        epochs = PLACES[name].streams["main"].epochs
        epochs.append(Epoch.unpack(epochs[-1])._replace(number=2).pack())

    store.writes, store.before_epoch = [wrote], replaced
    if wrote:
        assert till.execute(deposit(1, "b")).response == {"cents": 6}
    else:
        with pytest.raises(WriterFenced):
            till.execute(deposit(1, "b"))
    store.in_doubt = False
    with pytest.raises(WriterFenced):
        till.execute(deposit(1, "c"))
    till.close(snapshot=False)


@pytest.mark.parametrize("wrote", [True, False])
def test_what_cannot_be_made_known_stays_unknown(name: str, wrote: bool) -> None:
    store, till = opened(name)
    first = till.execute(deposit(5, "a"))

    def gone() -> None:
        raise StoreUnavailable("the server is gone")

    store.writes, store.before_epoch = [wrote], gone
    with pytest.raises(OutcomeUnknown, match="the server is gone") as unknown:
        till.execute(deposit(1, "b"))
    assert "same request id" in unknown.value.hint
    with pytest.raises(OutcomeUnknown):
        till.execute(deposit(1, "c"))
    till.close(snapshot=False)
    with Runtime.open(Till, journal=f"memory:{name}", snapshots="memory:") as again:
        assert again.execute(deposit(1, "b")).duplicate is wrote
        assert again.execute(deposit(5, "a")) == first._replace(duplicate=True)


def test_doubt_without_end_is_said(name: str) -> None:
    store, till = opened(name)
    store.writes = [False] * 99
    with pytest.raises(OutcomeUnknown):
        till.execute(deposit(1, "b"))
    till.close(snapshot=False)
