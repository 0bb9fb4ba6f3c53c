"""Reconciliation: a local journal and the one it is shipped to (the *target*) are made one before either goes on.

Chains are compared at the lower of the two heads, epochs as far as both go.

=======================  ==========================  ================================================================
local                    target                      what is done
=======================  ==========================  ================================================================
no stream                no stream                   nothing: the journal is yet to be created
no stream, or behind     further on                  *seed*: the local journal is filled from the target
at the same command      at the same command         nothing
further on               no stream, or behind        *ship*: local is the truth, and the target gets the rest
another chain            another chain               refused (OrphanedTail), with the commands that only local has
another epoch            another epoch               refused (OrphanedTail), of whatever length they are
of another journal       of another journal          refused (UsageError)
=======================  ==========================  ================================================================

Epochs go before entries, so that a copy that was cut short ends before what its epochs say, and is opened by nobody as whole.
Every entry is checked against the one before it on its way.  What was interrupted goes on when it is done again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final, NamedTuple

from journal.errors import BrokenChain, EngineMismatch, Gap, OrphanedTail, UsageError
from journal.files import kill_point
from journal.journal import START, Journal
from journal.records import Entry, Head
from journal.store import JournalStore

BATCH_ENTRIES: Final = 1000
BATCH_BYTES: Final = 4 * 2**20
ORPHANS_SHOWN: Final = 10

logger = logging.getLogger("recovery")


class Reconciled(NamedTuple):
    """What was done: commands copied to the local journal, and to the target; where both end now."""

    seeded: int
    shipped: int
    head: Head


def reconcile(local: JournalStore, target: JournalStore, stream: str, *, engine: str) -> Reconciled:
    """Make two journals, both held for write, one.  See the table; where it refuses, nothing was written."""
    here, there = Journal(local, stream), Journal(target, stream)
    if not here.exists and not there.exists:
        return Reconciled(0, 0, START)
    compare(here, there, engine=engine)
    ours, theirs = here.head(), there.head()
    _create_missing(local, target, stream)
    newest = _copy_epochs(local, target, stream)
    seeded = _copy(there, local, ours, theirs, newest, "seed")
    shipped = _copy(here, target, theirs, ours, newest, "ship")
    if here.head() != there.head():
        raise BrokenChain(
            f"{target.location} does not hold what was written to it",
            position=here.head().command_id,
            expected=here.head().chain.hex(),
            found=there.head().chain.hex(),
            hint="run recovery check on both",
        )
    return Reconciled(seeded, shipped, here.head())


def compare(here: Journal, there: Journal, *, engine: str = "") -> None:
    """Raise unless one of them is the beginning of the other: UsageError, EngineMismatch, OrphanedTail.  Writes nothing."""
    found = [journal.identity for journal in (here, there) if journal.exists]
    if len(found) == 2 and found[0] != found[1]:
        raise UsageError(
            f"{here.store.location} and {there.store.location} are of two journals",
            expected=found[1].journal_id,
            found=found[0].journal_id,
            hint="ship each journal to a stream, schema or file of its own",
        )
    for identity in found:
        if engine and identity.engine != engine:
            raise EngineMismatch(
                f"the journal is of engine {identity.engine!r}, not {engine!r}",
                hint="check --engine, --journal and --ship-to",
            )
    if len(found) < 2:
        return
    lower = min(here.head().command_id, there.head().command_id)
    common = last_common(here, there, lower)
    if common < lower:
        raise _orphaned(here, there, common)
    epochs = zip(here.store.epochs(here.stream), there.store.epochs(there.stream), strict=False)
    for ours, theirs in epochs:
        if ours != theirs:
            raise _other_epoch(here, there, ours[0], common)


def last_common(here: Journal, there: Journal, lower: int) -> int:
    """The last command, at most ``lower``, up to which both have one chain; 0 for none.  A chain is equal only up to a point."""
    if chain_at(here, lower) == chain_at(there, lower):
        return lower
    same, other = 0, lower
    while other - same > 1:
        middle = (same + other) // 2
        if chain_at(here, middle) == chain_at(there, middle):
            same = middle
        else:
            other = middle
    return same


def chain_at(journal: Journal, command_id: int) -> bytes:
    """The chain after a command, which must be there; after none for command 0."""
    if command_id == 0:
        return START.chain
    entry = journal.entry(command_id)
    if entry is None:
        raise Gap(
            f"the entry is missing in {journal.store.location}",
            position=command_id,
            hint=f"run: recovery check --journal {journal.store.location}",
        )
    return entry.chain


def _orphaned(here: Journal, there: Journal, common: int) -> OrphanedTail:
    ours, theirs = here.head().command_id, there.head().command_id
    return OrphanedTail(
        f"{here.store.location} and {there.store.location} are the same up to command {common}; then the target went on "
        f"without, to command {theirs}, and {_tail(here, common, ours)}",
        position=common + 1,
        expected=chain_at(there, common + 1).hex(),
        found=chain_at(here, common + 1).hex(),
        hint=_WAY_ON.format(after=common, local=here.store.location),
    )


def _other_epoch(here: Journal, there: Journal, number: int, common: int) -> OrphanedTail:
    return OrphanedTail(
        f"{here.store.location} was opened for write without {there.store.location}, which another writer had: they have "
        f"the same commands up to {common}, and {_tail(here, common, here.head().command_id)}",
        position=f"epoch {number}",
        hint=_WAY_ON.format(after=common, local=here.store.location),
    )


_WAY_ON: Final = (
    "read them: recovery log --journal {local} --after {after}; then move that journal away and open again: it is filled "
    "from the target, and what is still wanted can be sent again"
)


def _tail(here: Journal, common: int, end: int) -> str:
    if end == common:
        return "no command is here alone"
    shown = here.store.page(here.stream, common, min(end, common + ORPHANS_SHOWN))
    named = "; ".join(f"{entry.command_id} {entry.type} (request {entry.request_id})" for entry in shown)
    more = f"; and {end - common - len(shown)} more" if end - common > len(shown) else ""
    return f"{end - common} commands are here alone: {named}{more}"


def _create_missing(local: JournalStore, target: JournalStore, stream: str) -> None:
    ours, theirs = local.identity(stream), target.identity(stream)
    if ours is None and theirs is not None:
        local.create(stream, theirs)
    elif theirs is None and ours is not None:
        target.create(stream, ours)
    kill_point("seed.created")


def _copy_epochs(local: JournalStore, target: JournalStore, stream: str) -> int:
    ours, theirs = local.epochs(stream), target.epochs(stream)
    for number, document in theirs[len(ours) :]:
        local.append_epoch(stream, number, document)
    for number, document in ours[len(theirs) :]:
        target.append_epoch(stream, number, document)
    kill_point("seed.epochs")
    return max(len(ours), len(theirs))


def _copy(source: Journal, into: JournalStore, after: Head, until: Head, epoch: int, what: str) -> int:
    """Copy the commands between two heads, if there are any; how many."""
    count = max(0, until.command_id - after.command_id)
    if not count:
        return 0
    logger.warning(
        "%s gets commands %d to %d from %s",
        into.location,
        after.command_id + 1,
        until.command_id,
        source.store.location,
    )
    for batch in batches(source.read(after.command_id, until.command_id)):
        kill_point(f"{what}.before")
        into.append(source.stream, epoch, batch)
        kill_point(f"{what}.after")
    return count


def batches(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    """Entries, as many together as one append should take."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += entry.size
        if len(batch) >= BATCH_ENTRIES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
