"""check(): are the bytes of a journal and its images what was written?  Needs no engine.

It looks at every entry (checksum, gaps, chain, columns against their hashes, canonical encodings, digest arithmetic), the
store's own structure, and every byte of every image.  It does not say whether the engine would do the same again: that is
what replay is for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from journal import values
from journal.cursors import CursorStore
from journal.errors import BrokenChain, ChecksumMismatch, CorruptionError, UnknownFormat
from journal.journal import Journal
from journal.records import Entry
from recovery import shipping
from recovery.outboxes import findings
from snapshots.catalog import Catalog
from snapshots.redo import check_arithmetic


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What was looked at, the last good command, and what is damaged."""

    commands: int
    last_good: int
    images: int
    damage: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0, 4 where something is damaged, 5 where there was nothing."""
        return 4 if self.damage else 0 if self.commands or self.images else 5

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON can hold it."""
        verdict = {0: "sound", 4: "damaged", 5: "nothing"}[self.exit_code]
        return {
            "verdict": verdict,
            "commands": self.commands,
            "last_good": self.last_good,
            "images": self.images,
            "damage": list(self.damage),
        }


def check(
    journal: Journal,
    catalog: Catalog | None,
    progress: Callable[[int, int], None],
    *,
    cursors: CursorStore | None = None,
    ship_to: str = "",
) -> CheckReport:
    """Check the journal up to its first damage, then every cursor and image, in constant memory."""
    damage: list[str] = []
    last_good = commands = 0
    try:
        head = journal.head().command_id
        last_good = journal.start().command_id
        for entry in journal.read():
            if not journal.store.redacted:  # its payloads are not those that its chain covers
                check_entry(entry)
            last_good = entry.command_id
            commands += 1
            if commands % 1000 == 0:
                progress(commands, head)
        journal.require_end()
        journal.store.check()
    except CorruptionError as error:
        damage.append(f"{error}; command {last_good} is the last good one")
    damage += findings(journal, cursors)
    damage += shipping.findings(journal, ship_to) if ship_to else []
    images = 0
    if catalog is not None:
        for checked in catalog.check(journal, journal_id=journal.identity.journal_id):
            images += 1
            if checked.error is not None:
                damage.append(f"image {checked.image.name}: {checked.error}")
    return CheckReport(commands, last_good, images, tuple(damage))


def check_entry(entry: Entry) -> None:
    """Raise CorruptionError unless an entry's parts agree with each other; its chain is ``Journal.read``'s to check."""
    hashes = entry.computed_part_hashes()
    if entry.events_reduced:
        # The hash is of events that are no longer all there; the other parts are.
        hashes = hashes[:32] + entry.part_hashes[32:48] + hashes[48:]
    if hashes != entry.part_hashes:
        raise ChecksumMismatch(
            "the entry's columns are not those that its chain covers",
            position=entry.command_id,
            expected=entry.part_hashes.hex(),
            found=hashes.hex(),
        )
    for name in ("data_bytes", "result_bytes"):
        data = getattr(entry, name)
        if data[:1] != values.VERSION or not values.is_canonical(data[1:]):
            raise UnknownFormat(f"{name} are not the canonical bytes of a value", position=entry.command_id)
    try:
        entry.events  # noqa: B018 - decoding them is the check
        check_arithmetic(entry)
    except BrokenChain:
        raise
    except CorruptionError as error:
        raise UnknownFormat(str(error), position=entry.command_id) from error
