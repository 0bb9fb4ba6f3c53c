"""How much of events is kept: at every level the same chain, the same receipts live and later, and the same replay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal.event_detail import FULL, LEVELS, EventDetail
from journal.framing import NO_EVENTS, Event, pack_events, unpack_events
from recovery import (
    ChecksumMismatch,
    Command,
    Context,
    Divergence,
    Receipt,
    Reject,
    Runtime,
    Table,
    TableEngine,
    UnknownFormat,
    UsageError,
    command,
    open_journal,
    open_snapshots,
    verify,
)
from recovery.check import check, check_entry
from recovery.cli.main import run
from recovery.testing import trial
from tests.places import new_place
from tests.strategies import plain

SEED = 5


class Shop(TableEngine):
    """Emits events of two types, with and without keys, sequences and data; ``quirk`` is what a later revision does otherwise."""

    name = "shop"
    quirk = ""
    stock = Table(str, int)

    @command
    def buy(self, context: Context, item: str, count: int) -> int:
        if count < 0:
            context.emit("Refused", None)
            raise Reject("negative", item)
        self.stock[item] = self.stock.get(item, 0) + count
        data = {"item": item, "count": count + (self.quirk == "data" and item == "pen")}
        context.emit("Bought", data, key=item, sequence=context.command_id)
        context.emit("Paid", {"cents": 5 * count})
        if self.quirk == "more" and item == "pen":
            context.emit("Bought", data, key=item)
        return self.stock[item]

    @command
    def look(self, context: Context, item: str) -> int:
        return self.stock.get(item, 0)


class LaterShop(Shop):
    quirk = "data"


class LouderShop(Shop):
    quirk = "more"


COMMANDS = [
    Command("buy", {"item": "ink", "count": 2}, request_id="1", received_at_ms=1000),
    Command("buy", {"item": "pen", "count": 3}, request_id="2", received_at_ms=2000),
    Command("look", {"item": "pen"}, request_id="3", received_at_ms=3000),
    Command("buy", {"item": "pen", "count": -1}, request_id="4", received_at_ms=4000),
]
BOUGHT = Event("Bought", {"item": "ink", "count": 2}, "ink", 1)
PAID = Event("Paid", {"cents": 10})
KEPT: list[tuple[str, tuple[str, ...], list[Event], bool]] = [
    ("full", (), [BOUGHT, PAID], False),
    ("full", ("Paid",), [BOUGHT, PAID], False),
    ("summary", (), [BOUGHT._replace(data=None), PAID._replace(data=None)], True),
    ("summary", ("Bought",), [BOUGHT, PAID._replace(data=None)], True),
    ("summary", ("Bought", "Paid"), [BOUGHT, PAID], False),
    ("none", (), [], True),
    ("none", ("Paid", "Unheard"), [PAID], True),
    ("none", ("Bought", "Paid"), [BOUGHT, PAID], False),
]


def record(place: str, level: str = "full", critical: tuple[str, ...] = ()) -> list[Receipt]:
    """The receipts of COMMANDS in a new place."""
    with Runtime.open(
        Shop, journal=place, snapshots="memory:", seed=SEED, events=level, critical_events=critical
    ) as shop:
        return [one for one in shop.execute_many(COMMANDS) if isinstance(one, Receipt)]


@pytest.mark.parametrize(("level", "critical", "kept", "reduced"), KEPT)
def test_what_is_kept_at_each_level(level: str, critical: tuple[str, ...], kept: list[Event], reduced: bool) -> None:
    place = f"memory:{new_place()}"
    first = record(place, level, critical)
    assert (first[0].events, first[0].events_reduced) == (kept, reduced)
    # Nothing was emitted, so nothing is left out.
    assert [(one.events, one.events_reduced) for one in first[2:]] == [([], False)] * 2
    entries = list(open_journal(place).read())
    assert [(one.events, one.events_reduced) for one in first] == [(e.events, e.events_reduced) for e in entries]
    # A duplicate gets the same: at the level of then, not of now.
    with Runtime.open(Shop, journal=place, snapshots="memory:") as shop:
        again = list(shop.execute_many(COMMANDS))
    assert again == [one._replace(duplicate=True) for one in first]


@pytest.mark.parametrize(("level", "critical", "kept", "reduced"), KEPT)
def test_chain_check_and_replay_do_not_depend_on_the_level(
    level: str, critical: tuple[str, ...], kept: list[Event], reduced: bool
) -> None:
    twin, place = f"memory:{new_place()}", f"memory:{new_place()}"
    record(twin)
    record(place, level, critical)
    theirs, ours = list(open_journal(twin).read()), list(open_journal(place).read())
    assert [entry.chain for entry in ours] == [entry.chain for entry in theirs]
    assert [entry.part_hashes for entry in ours] == [entry.part_hashes for entry in theirs]
    checked = check(open_journal(place), open_snapshots("memory:"), lambda done, all: None)
    assert (checked.damage, checked.last_good) == ((), 4)
    report = verify(Shop, open_journal(place))
    assert (report.verdict, report.checked["events"]) == ("verified", 4)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("revision", [LaterShop, LouderShop])
def test_a_divergence_in_events_is_found_at_every_level(level: str, revision: type[Shop]) -> None:
    place = f"memory:{new_place()}"
    record(place, level)
    (found,) = verify(revision, open_journal(place), keep_going=True).divergences
    assert isinstance(found, Divergence)
    assert (found.command_id, found.what) == (2, ("events",))
    # What was emitted is not known where only a part of it is kept: then that side is left out.
    sides = found.parts["events"]
    assert ("recorded" in sides) is (level == "full")
    assert len(sides["replayed"]) == 2 + (revision is LouderShop)


@pytest.mark.parametrize("level", LEVELS)
def test_a_trial_verifies_at_every_level(level: str) -> None:
    with trial(Shop, events=level, critical_events=["Paid"]) as shop:
        for outcome in shop.execute_many(COMMANDS):
            assert isinstance(outcome, Receipt)


def test_a_level_may_change_from_one_opening_to_the_next() -> None:
    place = f"memory:{new_place()}"
    for level, asked in zip(("none", "full", "summary", "none"), COMMANDS, strict=True):
        with Runtime.open(Shop, journal=place, snapshots="memory:", events=level) as shop:
            shop.execute(asked)
    assert [entry.events_reduced for entry in open_journal(place).read()] == [True, False, False, False]
    assert verify(Shop, open_journal(place)).verdict == "verified"


def test_recent_counts_what_is_kept_and_says_so() -> None:
    place = f"memory:{new_place()}"
    record(place, "none", ("Paid",))
    recent = open_journal(place).recent(3)
    assert [(one.command_id, one.events, one.event_types, one.events_reduced) for one in recent] == [
        (4, 0, (), False),
        (3, 0, (), False),
        (2, 1, ("Paid",), True),
    ]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"events": "some"}, "full.*summary.*none"),
        ({"events": None}, "full.*summary.*none"),
        ({"critical_events": "Paid"}, "event types"),
        ({"critical_events": [7]}, "event types"),
        ({"critical_events": [""]}, "event types"),
    ],
)
def test_a_level_or_type_there_is_none_of_is_refused(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Runtime.open(Shop, journal="memory:", snapshots="memory:", **setting)


def test_what_needs_every_event_can_say_so() -> None:
    FULL.require_full("projections")
    for level in ("summary", "none"):
        with pytest.raises(UsageError, match=f'projections need every event, and events="{level}"') as refused:
            EventDetail.of(level, ["Paid"]).require_full("projections")
        assert "full" in refused.value.hint


def test_a_reduced_entry_is_still_checked_in_all_that_is_there() -> None:
    place = f"memory:{new_place()}"
    record(place, "none")
    entry = next(open_journal(place).read())
    assert entry.events_reduced
    check_entry(entry)
    for damaged in (
        entry._replace(result_bytes=b"\x01\xc0"),
        entry._replace(data_bytes=b"\x01\xc0"),
        entry._replace(changes_bytes=b"\x01"),
        entry._replace(events_reduced=False),
    ):
        with pytest.raises(ChecksumMismatch):
            check_entry(damaged)
    with pytest.raises(UnknownFormat):
        check_entry(entry._replace(events_bytes=b"\x01\x00"))


def test_log_shows_that_events_are_reduced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:{tmp_path}/j.db"
    with Runtime.open(Shop, journal=url, snapshots="memory:", events="summary") as shop:
        list(shop.execute_many(COMMANDS))
    assert run(["log", "--journal", url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("-> 2 [Bought, Paid] (events reduced)")
    assert lines[2].endswith("-> 3")
    assert run(["log", "--journal", url, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["entries"]
    assert [entry["events_reduced"] for entry in shown] == [True, True, False, False]
    assert shown[0]["events"][0] == {"type": "Bought", "key": "ink", "sequence": 1}
    assert run(["check", "--journal", url]) == 0


EVENTS = st.lists(
    st.builds(
        Event,
        st.sampled_from(["A", "Bé", "C"]),
        plain,
        st.none() | st.text(max_size=8),
        st.none() | st.integers(-(2**63), 2**63 - 1),
    ),
    max_size=6,
)


@given(EVENTS, st.sampled_from(LEVELS), st.sets(st.sampled_from(["A", "Bé", "C"])))
def test_what_is_kept_is_what_the_words_say(events: list[Event], level: str, critical: set[str]) -> None:
    expected = []
    for event in events:
        if level == "full" or event.type in critical:
            expected.append(event)
        elif level == "summary":
            expected.append(event._replace(data=None))
    kept = EventDetail.of(level, critical).kept(pack_events(events))
    assert kept == pack_events(expected)
    assert (unpack_events(kept) == []) is (kept == NO_EVENTS)
