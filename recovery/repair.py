"""repair(): the one thing that may be mended in a journal without losing anything: a torn tail is cut, and a copy kept."""

from __future__ import annotations

from collections.abc import Callable

from journal.urls import cut_torn_tail
from recovery.images import open_catalog
from recovery.outboxes import cursors_beside, outran


def repair(journal_url: str, snapshots_url: str | None, stream: str, agreed: Callable[[str], bool]) -> str | None:
    """Cut a batch that was never wholly written nor acknowledged, where ``agreed`` says so; the path of its copy, or None.

    EvidenceAhead where an image, a cursor or the newest epoch proves that the journal reached beyond its end; nothing is cut.
    JournalInUse while a writer is there: it cuts by itself.
    """
    from recovery import open_journal

    with open_journal(journal_url, stream=stream) as journal:
        if journal.exists:
            journal.require_end()
            outran(journal, cursors_beside(journal_url), created=False, accepted=False)
            catalog = open_catalog(snapshots_url, stream)
            if catalog is not None:
                identity = journal.identity
                # Asking for the newest compares all of them with the head.
                found = catalog.newest(
                    journal, journal_id=identity.journal_id, engine=identity.engine, report=lambda step: None
                )
                next(found, None)
    return cut_torn_tail(journal_url, agreed)
