"""Redo: recorded rows over any base give the state at any command, and what does not add up is named."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import digest, values
from journal.digest import StateDigest, TableDigest
from journal.errors import BrokenChain, Gap, UnknownFormat, UsageError
from journal.framing import Change, pack_changes
from journal.records import Entry
from snapshots import image
from snapshots.image import ImageReader, Rows, write_image
from snapshots.redo import check_arithmetic, digest_of, merge, net_changes
from snapshots.testing import RowHistory

int_keys = st.tuples(st.just("ints"), st.sampled_from([-(2**63), -300, -129, -2, -1, 0, 1, 127, 128, 300, 2**64 - 1]))
tuple_keys = st.tuples(st.just("pairs"), st.tuples(st.sampled_from(["", "a", "b", "é"]), st.sampled_from([-1, 0, 200])))
text_keys = st.tuples(st.just("a text"), st.sampled_from(["", "a", "aa", "b", "\U0001f600"]))
cell = st.just(("z", ()))
rows = st.none() | st.tuples(st.integers(-2, 2), st.none()) | st.just("scalar")
commands = st.dictionaries(int_keys | tuple_keys | text_keys | cell, rows, max_size=8)


def history_of(all_writes: list[dict[tuple[str, Any], Any]]) -> RowHistory:
    history = RowHistory()
    for writes in all_writes:
        history.command(writes)
    return history


def base_rows(history: RowHistory, command_id: int) -> list[Rows]:
    """The rows of a base image, read back from its bytes."""
    if command_id == 0:
        return []
    data = b"".join(write_image(history.header(command_id), history.tables(command_id)))
    return list(ImageReader(io.BytesIO(data)).rows())


def redone(history: RowHistory, base: int, target: int) -> list[tuple[str, list[tuple[bytes, bytes]]]]:
    before = digest.EMPTY if base == 0 else history.header(base).post_digest_bytes
    changes = net_changes(history.entries_after(base, target), after=base, digest_bytes=before)
    return [(table, list(pairs)) for table, pairs in merge(base_rows(history, base), changes)]


def without_empty(tables: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    return [(table, pairs) for table, pairs in tables if pairs]


@settings(max_examples=120, deadline=None)
@given(st.lists(commands, min_size=1, max_size=6), st.data())
def test_redo_over_any_base_is_the_model(all_writes: list[dict[tuple[str, Any], Any]], data: st.DataObject) -> None:
    history = history_of(all_writes)
    target = data.draw(st.integers(1, len(all_writes)))
    base = data.draw(st.integers(0, target))
    tables = redone(history, base, target)
    assert without_empty(tables) == without_empty(history.tables(target))
    assert digest_of(tables).pack() == history.header(target).post_digest_bytes
    for _, pairs in tables:
        keys = [values.decode_bare(key) for key, _ in pairs]
        assert keys == sorted(set(keys))
    assert all(check_arithmetic(entry) for entry in history.entries)


def test_deleting_everything_leaves_an_image_of_nothing() -> None:
    full = {("ints", key): (key,) for key in range(50)} | {("z", ()): 1}
    history = history_of([full, dict.fromkeys(full), {}])
    for base in range(3):
        assert without_empty(redone(history, base, 3)) == []
        data = b"".join(write_image(history.header(3), merge(base_rows(history, base), {})) if base == 2 else [])
        assert base != 2 or list(ImageReader(io.BytesIO(data)).rows()) == []


def test_changes_before_between_and_behind_the_blocks_of_a_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "BLOCK_BYTES", 64)
    base = {("ints", key): ("row", key) for key in range(0, 400, 2)}
    writes: dict[tuple[str, Any], Any] = {("ints", -1): 1, ("ints", 401): 1, ("early", 1): 1, ("late", 1): 1}
    writes |= {("ints", key): (None if key % 4 else "new") for key in range(100, 140)}
    history = history_of([base, writes])
    assert len(base_rows(history, 1)) > 20
    assert redone(history, 1, 2) == without_empty(history.tables(2))


def three() -> RowHistory:
    return history_of([{("t", 1): "one", ("u", 1): 1}, {("t", 1): "two", ("t", 2): 2}, {("t", 1): None}])


def altered(entry: Entry, at: int, **fields: Any) -> Entry:
    """The entry with one of its changes altered, and no checksum to tell."""
    changes = entry.changes or []
    changes[at] = changes[at]._replace(**fields)
    return entry._replace(changes_bytes=pack_changes(changes))


@pytest.mark.parametrize(
    "fields",
    [
        {"row_bytes": b"\xa3tvo"},
        {"row_bytes": None},
        {"key_bytes": b"\x07"},
        {"table": "u"},
        {"old_hash": None},
        {"old_hash": 1},
    ],
)
def test_an_entry_whose_arithmetic_does_not_hold_is_named(fields: dict[str, Any]) -> None:
    history = three()
    history.entries[1] = altered(history.entries[1], 0, **fields)
    with pytest.raises(BrokenChain) as found:
        check_arithmetic(history.entries[1])
    assert found.value.position == 2
    assert found.value.expected != found.value.found
    with pytest.raises(BrokenChain) as found:
        net_changes(history.entries, after=0, digest_bytes=digest.EMPTY)
    assert found.value.position == 2


def test_a_missing_change_is_found() -> None:
    entry = three().entries[1]
    for kept in ([], (entry.changes or [])[:1], (entry.changes or [])[1:]):
        with pytest.raises(BrokenChain, match="table t"):
            check_arithmetic(entry._replace(changes_bytes=pack_changes(kept)))


def test_nothing_to_prove_is_not_proven() -> None:
    entry = three().entries[1]
    captured = bytes([digest.CAPTURE]) + bytes(16)
    assert check_arithmetic(entry) is True
    assert check_arithmetic(entry._replace(changes_bytes=None)) is False
    assert check_arithmetic(entry._replace(pre_digest_bytes=None)) is False
    assert check_arithmetic(entry._replace(post_digest_bytes=None)) is False
    assert check_arithmetic(entry._replace(pre_digest_bytes=captured, post_digest_bytes=captured)) is False


def test_a_gap_a_wrong_base_and_absent_changes_are_refused() -> None:
    history = three()
    with pytest.raises(Gap) as gap:
        net_changes([history.entries[0], history.entries[2]], after=0, digest_bytes=digest.EMPTY)
    assert gap.value.position == 2
    with pytest.raises(BrokenChain) as broken:
        net_changes(history.entries[1:], after=1, digest_bytes=digest.EMPTY)
    assert broken.value.position == 2
    with pytest.raises(UsageError) as absent:
        net_changes([history.entries[0]._replace(changes_bytes=None)], after=0, digest_bytes=digest.EMPTY)
    assert absent.value.position == 1


def consistent(before: dict[int, int], changes: list[Change]) -> tuple[bytes, bytes]:
    """Digests of table t that agree with ``changes`` whatever is in the table: key -> row hash before."""
    rows, total = len(before), sum(before.values())
    pre = StateDigest(digest.TABLES, {"t": TableDigest(rows, total % digest.MODULUS)}, b"").pack()
    for _, key, row, old_hash in changes:
        rows += (row is not None) - (old_hash is not None)
        new = 0 if row is None else digest.row_hash(key + row, digest.table_seed("t"))
        total += new - (old_hash or 0)
    return pre, StateDigest(digest.TABLES, {"t": TableDigest(rows, total % digest.MODULUS)}, b"").pack()


@pytest.mark.parametrize("old_hash", [None, 5])
@pytest.mark.parametrize("row_bytes", [None, b"\x63"])
def test_a_change_that_replaces_another_row_than_is_there_is_named(
    old_hash: int | None, row_bytes: bytes | None
) -> None:
    """The arithmetic holds, so only who holds the row can tell: within the tail, and against the base."""
    history = history_of([{("t", 1): "one", ("t", 3): 3}, {("t", 1): "two"}])
    wrong = [Change("t", b"\x01", row_bytes, old_hash)]
    pre, post = consistent({3: 7, 4: 8}, wrong)
    entry = history.entries[1]._replace(pre_digest_bytes=pre, post_digest_bytes=post, changes_bytes=pack_changes(wrong))
    assert check_arithmetic(entry)
    changes = net_changes([entry], after=1, digest_bytes=pre)
    with pytest.raises(BrokenChain, match="table t at key 1") as against_base:
        [list(pairs) for _, pairs in merge(base_rows(history, 1), changes)]
    assert against_base.value.position == 2
    earlier = history.entries[1]._replace(command_id=1, pre_digest_bytes=None, post_digest_bytes=pre)
    with pytest.raises(BrokenChain, match="table t at key 1") as within_tail:
        net_changes([earlier, entry], after=0, digest_bytes=None)
    assert within_tail.value.position == 2


def test_a_change_of_a_row_that_the_base_lacks_is_named() -> None:
    history = history_of([{("t", 3): 3}, {}])
    wrong = [Change("t", b"\x01", b"\x63", 5)]
    pre, post = consistent({3: 7, 4: 8}, wrong)
    entry = history.entries[1]._replace(pre_digest_bytes=pre, post_digest_bytes=post, changes_bytes=pack_changes(wrong))
    with pytest.raises(BrokenChain, match="expected no row") as found:
        [list(pairs) for _, pairs in merge(base_rows(history, 1), net_changes([entry], after=1, digest_bytes=pre))]
    assert found.value.position == 2


def test_digest_of_refuses_rows_out_of_order() -> None:
    with pytest.raises(UnknownFormat):
        digest_of([("t", [(b"\x02", b"\x01"), (b"\x01", b"\x01")])])
    assert digest_of([]).pack() == digest.EMPTY
    assert digest_of([("t", [])]).pack() == digest.EMPTY
