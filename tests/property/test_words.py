"""Events, changes, digests and entries: what is packed is read again, what is cut is refused, what is changed is seen."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import digest, framing, values
from journal.digest import StateDigest, TableDigest
from journal.errors import ChecksumMismatch, RecoveryError, UnknownFormat, UsageError
from journal.framing import Change, Event
from journal.records import Command, Entry, Epoch, JournalIdentity, checksum, next_chain, part_hashes
from tests.strategies import plain

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
events = st.lists(
    st.builds(Event, names, plain, st.none() | names, st.none() | st.integers(-(2**63), 2**63 - 1)), max_size=4
)
hashes = st.integers(0, digest.MODULUS - 1)
changes = st.lists(
    st.builds(
        Change,
        names,
        plain.map(values.encode_bare),
        st.none() | plain.map(values.encode_bare),
        st.none() | hashes,
    ),
    max_size=4,
)


@given(events)
@settings(max_examples=100, deadline=None)
def test_events_round_trip(found: list[Event]) -> None:
    data = framing.pack_events(found)
    assert framing.pack_events(framing.unpack_events(data)) == data
    assert [event._replace(data=None) for event in framing.unpack_events(data)] == [
        e._replace(data=None) for e in found
    ]


@given(changes)
@settings(max_examples=100, deadline=None)
def test_changes_round_trip(found: list[Change]) -> None:
    assert framing.unpack_changes(framing.pack_changes(found)) == found


@given(events, changes)
@settings(max_examples=50, deadline=None)
def test_cut_frames_are_refused_or_end_between_two(some_events: list[Event], some_changes: list[Change]) -> None:
    whole_events, whole_changes = framing.pack_events(some_events), framing.pack_changes(some_changes)
    borders = {len(framing.pack_events(some_events[:n])) for n in range(len(some_events) + 1)}
    for at in range(len(whole_events)):
        if at in borders:
            assert len(framing.unpack_events(whole_events[:at])) < len(some_events) or not some_events
        else:
            with pytest.raises(UnknownFormat):
                framing.unpack_events(whole_events[:at])
    borders = {len(framing.pack_changes(some_changes[:n])) for n in range(len(some_changes) + 1)}
    for at in range(len(whole_changes)):
        if at not in borders:
            with pytest.raises(UnknownFormat):
                framing.unpack_changes(whole_changes[:at])


tables = st.dictionaries(names, st.builds(TableDigest, st.integers(1, 2**40), hashes), max_size=4)


@given(tables, tables)
def test_state_digests_round_trip_and_tell_states_apart(
    one: dict[str, TableDigest], other: dict[str, TableDigest]
) -> None:
    packed = [StateDigest(digest.TABLES, found, b"").pack() for found in (one, other)]
    assert StateDigest.unpack(packed[0]).tables == one
    assert (digest.root_of(packed[0]) == digest.root_of(packed[1])) == (one == other)
    for at in range(len(packed[0])):
        try:
            assert StateDigest.unpack(packed[0][:at]).tables != one
        except UnknownFormat:
            continue


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x04abc", b"\xff"])
def test_an_unknown_digest_algorithm_is_refused(data: bytes) -> None:
    with pytest.raises(UnknownFormat):
        StateDigest.unpack(data)


def test_parts_cannot_move_their_borders() -> None:
    assert digest.hash_parts(b"ab", b"c") != digest.hash_parts(b"a", b"bc")
    assert digest.hash_parts(b"a", b"") != digest.hash_parts(b"a")


def an_entry(**other: Any) -> Entry:
    fields: dict[str, Any] = {
        "command_id": 3,
        "request_key": bytes(range(16)),
        "type": "deposit",
        "entity_id": "ada",
        "received_at_ms": 5,
        "data_bytes": values.encode({"cents": 1}),
        "rejected": False,
        "result_bytes": values.encode(7),
        "events_bytes": framing.pack_events([Event("Moved", 1)]),
        "changes_bytes": framing.pack_changes([Change("t", b"\x01", b"\x02", None)]),
        "pre_digest_bytes": b"\x01",
        "post_digest_bytes": StateDigest(digest.TABLES, {"t": TableDigest(1, 5)}, b"").pack(),
        "chain": bytes(16),
        "part_hashes": bytes(64),
        "events_reduced": False,
        "epoch": 1,
        "duration_ns": 10,
        "recorded_at_ms": 20,
    } | other
    return Entry(**fields, checksum=checksum(**fields))


@pytest.mark.parametrize("field", [name for name in Entry._fields if name != "checksum"])
def test_the_checksum_covers_every_field(field: str) -> None:
    entry = an_entry()
    entry.verify()
    old = getattr(entry, field)
    if isinstance(old, bool):
        others: list[Any] = [not old]
    elif isinstance(old, int):
        others = [old + 1, 0]
    elif isinstance(old, str):
        others = [old + "x", ""] + ([None] if field == "entity_id" else [])
    else:
        others = [old + b"\x00", old[:-1]] + ([None, b""] if field.endswith(("changes_bytes", "digest_bytes")) else [])
    for other in others:
        with pytest.raises(ChecksumMismatch, match="command"):
            entry._replace(**{field: other}).verify()


@pytest.mark.parametrize(
    "field",
    ["request_key", "type", "entity_id", "received_at_ms", "data_bytes", "rejected", "result_bytes", "events_bytes"],
)
def test_the_chain_covers_what_happened(field: str) -> None:
    entry = an_entry()
    old = getattr(entry, field)
    other = (
        (not old)
        if isinstance(old, bool)
        else old + 1
        if isinstance(old, int)
        else old + ("x" if isinstance(old, str) else b"x")
    )
    changed = entry._replace(**{field: other})
    chains = {
        next_chain(bytes(16), found.computed_part_hashes(), found.pre_digest_bytes, found.post_digest_bytes)
        for found in (entry, changed)
    }
    assert len(chains) == 2


def test_the_chain_covers_what_came_before_and_the_states() -> None:
    hashes = an_entry().computed_part_hashes()
    chains = {
        next_chain(bytes(16), hashes, b"\x01", None),
        next_chain(b"\x01" * 16, hashes, b"\x01", None),
        next_chain(bytes(16), hashes, None, None),
        next_chain(bytes(16), hashes, b"\x01", b"\x01"),
        next_chain(bytes(16), hashes, None, b"\x01"),
    }
    assert len(chains) == 5


def test_changes_have_a_hash_of_their_own_outside_the_chain() -> None:
    entry = an_entry()
    other = entry._replace(changes_bytes=framing.NO_CHANGES)
    assert entry.computed_part_hashes()[:48] == other.computed_part_hashes()[:48]
    assert entry.computed_part_hashes()[48:] != other.computed_part_hashes()[48:]


def test_commands_are_checked_and_do_not_change() -> None:
    command = Command("deposit", {"cents": 1}, request_id="order 1")
    assert command.request_id == Command("x", None, request_id="order 1").request_id
    assert command.request_id.version == 5
    with pytest.raises(AttributeError):
        command.type = "other"
    bad: list[tuple[Any, dict[str, Any]]] = [
        ("", {}),
        ("$upgrade", {}),
        ("a\0b", {}),
        ("x" * 256, {}),
        (1, {}),
        ("x", {"request_id": ""}),
        ("x", {"request_id": "x" * 256}),
        ("x", {"request_id": 5}),
        ("x", {"received_at_ms": 1.5}),
        ("x", {"received_at_ms": True}),
        ("x", {"received_at_ms": -1}),
        ("x", {"entity_id": "\ud800"}),
    ]
    for type_, options in bad:
        with pytest.raises(UsageError):
            Command(type_, {}, **options)


def test_epochs_and_identities_round_trip() -> None:
    epoch = Epoch(1, "till", 1, 1, b"schema", "rev", "3.11", "0.1.0", "host", 5, 28, 7, 6, None)
    assert Epoch.unpack(epoch.pack()) == epoch
    identity = JournalIdentity(Command("x", 1).request_id, "main", "till", 2**64 - 1, 0, "rows", 5, 6)
    assert JournalIdentity.unpack(identity.pack()) == identity


def test_errors_survive_pickling_with_their_position() -> None:
    import pickle

    error = ChecksumMismatch("broken", position=5, expected="a", found="b", hint="run")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.hint, again.exit_code) == ("command 5: broken (expected a, found b)", "run", 4)
    assert issubclass(type(again), RecoveryError)


# Where entry bytes come from is part_hashes' signature: one test that it takes an entry's own fields, in their order.
def test_part_hashes_take_the_fields_in_order() -> None:
    entry = an_entry()
    assert entry.computed_part_hashes() == part_hashes(*entry[1:10])
