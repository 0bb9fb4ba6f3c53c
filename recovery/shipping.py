"""Shipping as a runtime sees it: how a journal is opened with one behind it, what of it may be shown to others, and its lag."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from journal.errors import CorruptionError, RecoveryError, StoreUnavailable, UsageError
from journal.journal import Journal
from journal.reconciliation import compare
from journal.records import Head
from journal.redaction import redacted
from journal.shipped_store import BOTH, LOCAL, ShippedStore
from journal.store import JournalStore
from journal.urls import open_reader, open_target, open_writer

LAG_S_MAX: Final = 60.0
"""Older commands that are not shipped yet make a journal unhealthy."""

IMAGE_WAIT_S: Final = 10.0
_LOCAL_SCHEMES: Final = ("memory", "sqlite", "wal")


class ShipTo(NamedTuple):
    """Where a journal is shipped, and what a receipt waits for: "both" journals, or the "local" one."""

    url: str
    ack: str

    @classmethod
    def of(cls, url: str, ack: str) -> ShipTo | None:
        """The choice of a call; None where nothing is shipped.  UsageError for an ``ack`` that is none."""
        if ack not in (BOTH, LOCAL):
            raise UsageError(f'ack is {ack!r}; it is "both" or "local"')
        return cls(url, ack) if url else None


def open_store(
    journal: str | JournalStore, shipping: ShipTo | None, *, stream: str, takeover: bool, engine: str, durable: bool
) -> JournalStore:
    """A journal held for write, with the one it is shipped to; both are then one.  Raises what ``reconcile`` does.

    ``durable`` forbids a target that is not, before anything is written, unless a journal in memory is asked for.
    """
    if shipping is None:
        return open_writer(journal, stream=stream, takeover=takeover) if isinstance(journal, str) else journal
    if isinstance(journal, str):
        _require_local(journal, shipping.url)
    # The local lock first: a takeover of the target must not end a writer that then turns out to be on this very journal.
    try:
        local = open_writer(journal, stream=stream) if isinstance(journal, str) else journal
    except CorruptionError as error:
        error.hint = (
            "keep it elsewhere, and open again: what is shipped is filled in from the target; or restore a copy"
        )
        raise
    target: JournalStore | None = None
    try:
        target = open_target(shipping.url, stream=stream, takeover=takeover, ack=shipping.ack)
        if durable and not target.durable and not local.location.startswith("memory:"):
            raise UsageError(
                f"{target.location} does not survive a power cut",
                hint="ship to a durable store, or say durable=False if that is what you want",
            )
        return ShippedStore.open(local, target, stream, ack=shipping.ack, engine=engine)
    except BaseException:
        if target is not None:
            target.close()
        if isinstance(journal, str):
            local.close()
        raise


def _require_local(journal: str, target: str) -> None:
    if journal.partition(":")[0] not in _LOCAL_SCHEMES:
        raise UsageError(
            f"{redacted(journal)} is not on this machine, so nothing of it is shipped",
            hint="ship from wal:DIR or sqlite:PATH; a server's own replication keeps copies of its journal",
        )
    if journal == target:
        raise UsageError(f"{redacted(journal)} cannot be shipped to itself", hint="name another journal: --ship-to")


class Shipping:
    """What a runtime asks of its store about shipping; of one that ships nothing, whatever is durable may be shown."""

    def __init__(self, store: JournalStore, stream: str) -> None:
        self._store = store if isinstance(store, ShippedStore) else None
        self._stream = stream

    def watch(self, *, shipped: Callable[[], None], failed: Callable[[], None]) -> None:
        """Be told, on the shipper's thread, of each move, and once of its end."""
        if self._store is not None and self._store.shipper is not None:
            self._store.shipper.on_shipped = shipped
            self._store.shipper.on_failed = failed
            if self._store.shipper.failure is not None:  # so soon
                failed()

    def require_sound(self) -> None:
        """Raise what stopped the shipper."""
        shipper = None if self._store is None else self._store.shipper
        if shipper is not None and shipper.failure is not None:
            raise shipper.failure.with_traceback(None)

    def published(self, head: Head) -> int:
        """The last command that may be shown to others, ``head`` being durable here."""
        shipper = None if self._store is None else self._store.shipper
        return head.command_id if shipper is None else min(head.command_id, shipper.shipped)

    def require_published(self, head: Head) -> None:
        """Wait a while until the head may be shown to others; StoreUnavailable where it may not."""
        store = self._store
        if store is None or store.shipper is None or store.shipper.wait_for(head.command_id, IMAGE_WAIT_S):
            return
        raise StoreUnavailable(
            f"{store.target.location} has the journal only up to command {store.shipper.shipped}, and no image may be ahead "
            f"of it: {store.shipper.last_error or store.shipper.failure or 'it is slow'}",
            position=head.command_id,
            hint="see: recovery status --ship-to",
        )

    def status(self, problems: list[str]) -> dict[str, Any] | None:
        """The part ``shipping`` of a running engine's status; None where nothing is shipped."""
        store = self._store
        if store is None:
            return None
        document = {"ack": store.ack, "seeded": store.reconciled.seeded}
        if store.shipper is not None:
            document |= store.shipper.to_dict()
        if "last_error" in document and document.get("state") != "failed":
            problems.append(f"shipping to {store.target.location} waits: {document['last_error']}")
        return (
            _lag(Journal(store, self._stream), store.shipped(self._stream), store.target.location, problems) | document
        )


def outside_status(journal: Journal, url: str, problems: list[str]) -> dict[str, Any]:
    """The same from outside: where the journal at ``url`` stands against this one."""
    try:
        with Journal(open_reader(url), journal.stream) as target:
            # The target first: it may go on meanwhile, as the journal may, which is ahead of it.
            reached = target.head().command_id if target.exists else 0
            location = target.store.location
            compare(journal, target)
    except RecoveryError as error:
        problems.append(f"shipping to {redacted(url)}: {error}")
        return {"location": redacted(url), "last_error": str(error)}
    return _lag(journal, reached, location, problems)


def _lag(journal: Journal, reached: int, location: str, problems: list[str]) -> dict[str, Any]:
    head = journal.head().command_id
    waiting = journal.entry(reached + 1) if reached < head else None
    seconds = 0.0 if waiting is None else max(0.0, time.time() - waiting.recorded_at_ms / 1000)
    if seconds > LAG_S_MAX:
        problems.append(f"{head - reached} commands are not in {location} yet, the oldest for {seconds:.0f} s")
    return {
        "location": location,
        "command_id": reached,
        "commands_behind": max(0, head - reached),
        "seconds_behind": round(seconds, 3),
    }


def findings(journal: Journal, url: str) -> list[str]:
    """What ``check`` says of a journal and the one it is shipped to: whether one is the beginning of the other."""
    with Journal(open_reader(url), journal.stream) as target:
        try:
            compare(journal, target)
        except (CorruptionError, UsageError) as error:
            return [str(error)]
    return []
