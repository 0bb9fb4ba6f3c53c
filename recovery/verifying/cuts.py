"""Places where a replay can begin in the middle of a history: at an image, or at rows folded from the record.

An *anchor* is an image that the journal vouches for.  Nothing is written here, not even a marker beside a bad image: who
looks for places to begin is not who judges images.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from journal.errors import BrokenChain, CorruptionError, EngineMismatch, StoreUnavailable, UsageError
from journal.framing import Change, unpack_changes
from journal.journal import Journal
from recovery.images import load_image, place
from recovery.stepper import Stepper, TableStepper
from snapshots.catalog import GOOD, Catalog, mismatch
from snapshots.image import ImageHeader

PAGE_ENTRIES: Final = 1000
FOLDED_AT_ONCE: Final = 50_000


class Anchor(NamedTuple):
    """An image that the journal vouches for, by its header alone: the rest is proven by loading it."""

    command_id: int
    name: str
    digest_bytes: bytes
    bytes: int


class NoCut(Exception):
    """An engine cannot be placed at this command: no image lies there, and the record does not lead there."""


def anchors(catalog: Catalog | None, journal: Journal, engine: str) -> list[Anchor]:
    """All anchors of a journal, oldest first.  Those whose entry is damaged are none."""
    if catalog is None:
        return []
    found = []
    for image in catalog.images(journal.identity.journal_id):
        header = image.header
        if image.state == GOOD and header is not None and header.engine == engine and _vouched(journal, header):
            found.append(Anchor(header.command_id, image.name, header.post_digest_bytes, image.bytes))
    return found


def _vouched(journal: Journal, header: ImageHeader) -> bool:
    try:
        return mismatch(journal, header) is None
    except CorruptionError:
        return False


def place_at_anchor(stepper: Stepper, catalog: Catalog, journal: Journal, name: str) -> int:
    """Load one image by its name; the command it is of.  NoCut where it cannot be used."""
    try:
        with catalog.reader(name) as reader:
            header = reader.header
            if header.journal_id != journal.identity.journal_id or not _vouched(journal, header):
                raise NoCut(f"the journal does not vouch for {name}")
            load_image(stepper, reader)
    except (CorruptionError, EngineMismatch, StoreUnavailable) as error:
        raise NoCut(str(error)) from error
    return header.command_id


def place_at_cut(stepper: Stepper, catalog: Catalog | None, journal: Journal, command_id: int, image: str) -> int:
    """Place an engine exactly after a command: at ``image`` where one is named, else by folding the recorded rows over the
    newest image before it; the command of the image (0: none).  NoCut where the record does not lead there.

    What is between is not judged: the state is proven by the digest that the entry of the command records.
    """
    if image and catalog is not None:
        try:
            return place_at_anchor(stepper, catalog, journal, image)
        except NoCut:
            stepper.reset()
    try:
        base = place(stepper, catalog, journal, command_id).command_id
        if base < command_id:
            _fold(stepper, journal, base, command_id)
    except (CorruptionError, EngineMismatch, UsageError, KeyError, TypeError, ValueError) as error:
        raise NoCut(str(error)) from error
    return base


def _fold(stepper: Stepper, journal: Journal, base: int, command_id: int) -> None:
    entry = journal.entry(command_id)
    if not isinstance(stepper, TableStepper) or entry is None or entry.post_digest_bytes is None:
        raise UsageError("the state cannot be redone: no rows are recorded", position=command_id)
    # Some at a time, so that memory grows with the state and not with every key that ever was.
    for at in range(base, command_id, FOLDED_AT_ONCE):
        stepper.write(_latest(journal, at, min(at + FOLDED_AT_ONCE, command_id)))
    if stepper.digest_bytes != entry.post_digest_bytes:
        raise BrokenChain("the recorded rows do not lead to the recorded digest", position=command_id)


def _latest(journal: Journal, after: int, until: int) -> list[Change]:
    """The last recorded row of each key changed by the commands with ``after < id <= until``."""
    rows: dict[tuple[str, bytes], bytes | None] = {}
    at = after
    while at < until:
        # As they are stored: each entry is judged by who replays it, and these rows by the digest they lead to.
        page = journal.store.page(journal.stream, at, min(at + PAGE_ENTRIES, until))
        if not page:
            raise UsageError("the entry is missing", position=at + 1)
        for entry in page:
            if entry.changes_bytes is None:
                raise UsageError("the command was recorded without its changes", position=entry.command_id)
            for change in unpack_changes(entry.changes_bytes):
                rows[change.table, change.key_bytes] = change.row_bytes
        at = page[-1].command_id
    return [Change(table, key_bytes, row_bytes, None) for (table, key_bytes), row_bytes in rows.items()]
