"""The state after any command, from recorded rows alone: a base and the changes since, without the engine.

``net_changes`` folds the entries after a base into the last row of each key, in memory that grows with the keys
changed; ``merge`` lets the base's rows stream by, replaced, dropped and inserted in key order.  On the way every entry
must prove ``post = pre - sum of old hashes + sum of new hashes``, must follow the digest before it, and must replace
the very rows that are there.  Where it does not, BrokenChain names the command.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from operator import add, itemgetter
from typing import NamedTuple

from journal import digest, values
from journal.digest import StateDigest, TableDigest
from journal.errors import BrokenChain, Gap, UsageError
from journal.framing import Change
from journal.records import Entry
from snapshots.image import Pairs, Rows, in_blocks
from snapshots.tally import Tally


class NetChange(NamedTuple):
    """What became of one key: its last row, None where it was deleted; and what the first change replaced.

    ``base_hash`` is the hash of the row that the base must hold, None where it must hold none; ``command_id`` is the
    command that said so.
    """

    row_bytes: bytes | None
    row_hash: int | None
    base_hash: int | None
    command_id: int


NetChanges = Mapping[str, Mapping[bytes, NetChange]]


def check_arithmetic(entry: Entry) -> bool:
    """Whether an entry proves its own digest step: True where it does, False where it carries nothing to prove it by.

    Needs no state.  BrokenChain where changes and digests contradict each other.
    """
    changes = entry.changes
    return changes is not None and _check(entry, [(change, _new_hash(change)) for change in changes])


def _check(entry: Entry, changes: Iterable[tuple[Change, int | None]]) -> bool:
    pre, post = entry.pre_digest, entry.post_digest
    if pre is None or post is None or not pre.algorithm == post.algorithm == digest.TABLES:
        return False
    deltas: dict[str, tuple[int, int]] = {}
    for change, new_hash in changes:
        rows, total = deltas.get(change.table, (0, 0))
        deltas[change.table] = (
            rows + (new_hash is not None) - (change.old_hash is not None),
            total + (new_hash or 0) - (change.old_hash or 0),
        )
    _check_sums(entry.command_id, pre, post, deltas)
    return True


def _check_sums(command_id: int, pre: StateDigest, post: StateDigest, deltas: Mapping[str, tuple[int, int]]) -> None:
    for table in sorted({*pre.tables, *post.tables, *deltas}):
        before = pre.tables.get(table, TableDigest(0, 0))
        rows, total = deltas.get(table, (0, 0))
        expected = TableDigest(before.rows + rows, (before.hash + total) % digest.MODULUS)
        found = post.tables.get(table, TableDigest(0, 0))
        if expected != found:
            raise BrokenChain(
                f"the changes of table {table} do not lead from the digest before the command to the one after",
                position=command_id,
                expected=f"{expected.rows} rows, {expected.hash:032x}",
                found=f"{found.rows} rows, {found.hash:032x}",
                hint="run: recovery check",
            )


def _new_hash(change: Change) -> int | None:
    if change.row_bytes is None:
        return None
    return digest.row_hash(change.key_bytes + change.row_bytes, digest.table_seed(change.table))


def net_changes(entries: Iterable[Entry], *, after: int, digest_bytes: bytes | None) -> NetChanges:
    """The net change of each key over ``entries``, which follow command ``after`` and the state of ``digest_bytes``.

    Raises Gap, BrokenChain, or UsageError where an entry records no changes.  Memory grows with the keys changed.
    """
    net: dict[str, dict[bytes, NetChange]] = {}
    expected_id = after
    for entry in entries:
        expected_id += 1
        if entry.command_id != expected_id:
            raise Gap("the entry is missing", position=expected_id, found=entry.command_id, hint="run: recovery check")
        changes = entry.changes
        if changes is None:
            raise UsageError(
                "the command was recorded without its changes, so there is nothing to redo",
                position=entry.command_id,
                hint='open the runtime with changes="rows" to record them',
            )
        if digest_bytes is not None and entry.pre_digest_bytes != digest_bytes:
            raise _broken(
                entry.command_id,
                "the digest before the command is not that of the state it follows",
                digest.root_of(digest_bytes).hex(),
                digest.root_of(entry.pre_digest_bytes).hex(),
            )
        hashed = [(change, _new_hash(change)) for change in changes]
        _check(entry, hashed)
        digest_bytes = entry.post_digest_bytes
        _fold(net, entry.command_id, hashed)
    return net


def _fold(
    net: dict[str, dict[bytes, NetChange]], command_id: int, changes: Iterable[tuple[Change, int | None]]
) -> None:
    for change, new_hash in changes:
        table = net.setdefault(change.table, {})
        known = table.get(change.key_bytes)
        if known is None:
            base_hash, first = change.old_hash, command_id
        else:
            _require_old(command_id, change.table, change.key_bytes, known.row_hash, change.old_hash)
            base_hash, first = known.base_hash, known.command_id
        table[change.key_bytes] = NetChange(change.row_bytes, new_hash, base_hash, first)


def merge(base: Iterable[Rows], changes: NetChanges) -> Iterator[tuple[str, Pairs]]:
    """The rows of ``base`` with ``changes`` made, for ``write_image``: (table, pairs in key order), in name order.

    Everything streams, so each table's pairs must be taken before the next table is asked for.  BrokenChain names the
    command where a change replaces another row than the base holds.
    """
    pending = sorted(changes, key=str.encode, reverse=True)
    for table, blocks in groupby(base, key=itemgetter(0)):
        while pending and pending[-1].encode() < table.encode():
            name = pending.pop()
            yield name, _merge_table(name, (), changes[name])
        if pending and pending[-1] == table:
            pending.pop()
        yield table, _merge_table(table, blocks, changes.get(table, {}))
    while pending:
        name = pending.pop()
        yield name, _merge_table(name, (), changes[name])


def _merge_table(table: str, blocks: Iterable[Rows], changes: Mapping[bytes, NetChange]) -> Pairs:
    # Newest at the end, so that pop() takes the smallest key.
    coming = sorted(((values.decode_bare(key), key) for key in changes), key=itemgetter(0), reverse=True)
    for block in blocks:
        if not coming or block.keys[-1] < coming[-1][0]:
            yield from zip(block.key_bytes, block.row_bytes, strict=True)
            continue
        for key, key_bytes, row_bytes in zip(block.keys, block.key_bytes, block.row_bytes, strict=True):
            while coming and coming[-1][0] < key:
                yield from _inserted(table, coming.pop()[1], changes)
            if coming and coming[-1][1] == key_bytes:
                coming.pop()
                yield from _replaced(table, key_bytes, row_bytes, changes[key_bytes])
            else:
                yield key_bytes, row_bytes
    while coming:
        yield from _inserted(table, coming.pop()[1], changes)


def _inserted(table: str, key_bytes: bytes, changes: Mapping[bytes, NetChange]) -> Pairs:
    change = changes[key_bytes]
    _require_old(change.command_id, table, key_bytes, None, change.base_hash)
    return () if change.row_bytes is None else ((key_bytes, change.row_bytes),)


def _replaced(table: str, key_bytes: bytes, row_bytes: bytes, change: NetChange) -> Pairs:
    held = digest.row_hash(key_bytes + row_bytes, digest.table_seed(table))
    _require_old(change.command_id, table, key_bytes, held, change.base_hash)
    return () if change.row_bytes is None else ((key_bytes, change.row_bytes),)


def _require_old(command_id: int, table: str, key_bytes: bytes, held: int | None, recorded: int | None) -> None:
    if held != recorded:
        key = values.decode_bare(key_bytes)
        raise _broken(
            command_id,
            f"the row that the command replaced in table {table} at key {key!r} is not the one that was there",
            _shown(held),
            _shown(recorded),
        )


def _shown(row_hash: int | None) -> str:
    return "no row" if row_hash is None else f"a row with hash {row_hash:032x}"


def _broken(command_id: int, message: str, expected: str, found: str) -> BrokenChain:
    return BrokenChain(message, position=command_id, expected=expected, found=found, hint="run: recovery check")


def digest_of(tables: Iterable[tuple[str, Pairs]]) -> StateDigest:
    """The digest of rows that stream by as ``merge`` gives them.  UnknownFormat where they are out of order."""
    tally = Tally()
    for name, pairs in tables:
        for block in in_blocks(name, pairs):
            tally.add(name, block.keys, map(add, block.key_bytes, block.row_bytes))
    return StateDigest.unpack(tally.digest_bytes())
