"""What a journal's reader and writer prove beyond each entry's own checksum: that entries continue each other, once each.

The guards are functions so that tests/meta/test_canaries.py can run them on a journal that leaves the proof out.
"""

from __future__ import annotations

import itertools

import pytest

from journal import values
from journal.errors import BrokenChain
from journal.journal import Journal
from journal.records import Entry, checksum
from journal.stores.memory import PLACES, MemoryStore
from journal.testing.contract import STREAM, make_entries
from recovery import Command, Runtime, open_journal
from tests.engines import Till

_numbers = itertools.count()


def place_of(entries: list[Entry]) -> str:
    """The name of a place in memory that holds these entries, however they came about."""
    name = f"test_journal {next(_numbers)}"
    store = MemoryStore.open_for_write(name)
    store.create(STREAM, b"")
    store.append_epoch(STREAM, 1, b"")
    store.append(STREAM, 1, make_entries(1, len(entries)))
    PLACES[name].streams[STREAM].entries[:] = entries
    return name


def resealed(entry: Entry, **fields: object) -> Entry:
    """An entry with other fields, and hashes and checksum that agree with them: only the chain can tell."""
    entry = entry._replace(**fields)  # type: ignore[arg-type]
    entry = entry._replace(part_hashes=entry.computed_part_hashes())
    return entry._replace(checksum=checksum(*entry[:-1]))


def guard_against_a_rewritten_entry(journal_type: type[Journal]) -> None:
    """Another response in the middle of history, sealed as well as can be, is found at its command."""
    entries = make_entries(1, 6)
    entries[2] = resealed(entries[2], result_bytes=values.encode("another"))
    with pytest.raises(BrokenChain) as broken:
        list(journal_type(MemoryStore.open_for_read(place_of(entries)), STREAM).read())
    assert broken.value.position == 3


def guard_against_a_spliced_tail(journal_type: type[Journal]) -> None:
    """The tail of another history, sound by itself, is found where it begins."""
    entries = make_entries(1, 3) + make_entries(4, 6, chain=bytes(16), salt="elsewhere ")
    with pytest.raises(BrokenChain) as broken:
        list(journal_type(MemoryStore.open_for_read(place_of(entries)), STREAM).read())
    assert broken.value.position == 4


def guard_against_doing_twice() -> None:
    """A retry is answered from the record: at once, after others, and after a restart."""
    name = f"test_journal {next(_numbers)}"
    deposit = Command("deposit", {"number": "ada", "cents": 5}, request_id="once")
    for life in range(2):
        with Runtime.open(Till, journal=f"memory:{name}", snapshots="memory:") as till:
            first = till.execute(deposit)
            assert first.duplicate is bool(life)
            till.execute(Command("deposit", {"number": "bob", "cents": 1}))
            again = till.execute(deposit)
            assert again == first._replace(duplicate=True)
            assert till.engine.accounts["ada"].cents == 5
    assert [entry.command_id for entry in open_journal(f"memory:{name}").read()] == [1, 2, 3]


@pytest.mark.parametrize("guard", [guard_against_a_rewritten_entry, guard_against_a_spliced_tail])
def test_entries_that_do_not_continue_each_other_are_found(guard: object) -> None:
    guard(Journal)  # type: ignore[operator]


def test_a_command_is_done_once() -> None:
    guard_against_doing_twice()


def test_every_error_is_public() -> None:
    import recovery
    from journal import errors

    family = [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert [name for name in family if not hasattr(recovery, name)] == []
