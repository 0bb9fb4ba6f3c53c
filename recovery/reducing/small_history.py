"""A small history made from nothing: a state, a few commands, and what an engine did with them, in one file.

It begins with an anchor of type ``$start``, which stands for all that led to the state, and carries the image of that state;
so it is replayed, checked and read like any other.  The same content gives the same bytes, and the same journal id.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, Final

from journal import digest, values
from journal.files import write_whole
from journal.framing import NO_EVENTS
from journal.history_file import HistoryHeader, write_history
from journal.records import Entry, Epoch, Head, JournalIdentity, checksum, next_chain, part_hashes
from recovery.images import open_catalog
from recovery.reducing.candidate_process import Answer, Candidate
from snapshots.image import ImageHeader, write_image, write_value_image

START: Final = "$start"
_NAMESPACE: Final = uuid.UUID("5a0d0f0e-6d5b-5b5c-9d4e-7a4c1d2e3f40")


def write_small_history(
    path: str, candidate: Candidate, answer: Answer, *, identity: JournalIdentity, epoch: Epoch
) -> None:
    """Write a candidate with an engine's answer over ``path``.  ``identity`` and ``epoch`` are those it was taken from."""
    content = values.encode([*candidate, list(answer)], bytes_max=values.CAPTURE_BYTES_MAX)
    own = identity._replace(journal_id=uuid.uuid5(_NAMESPACE, digest.hash_parts(content).hex()), created_at_ms=0)
    base = candidate.first - 1
    own_epoch = epoch._replace(number=1, host="", pid=0, opened_at_ms=0, head=0, accepted_loss=None)
    anchor = _anchor(candidate, answer, base) if base else None
    entries = list(_entries(candidate, answer, anchor))
    header = HistoryHeader(own.pack(), (own_epoch.pack(),), base, False)
    images = [] if anchor is None else [_image(candidate, answer, anchor.head, own, epoch)]
    write_whole(path, write_history(header, entries, images), over=True)


def _anchor(candidate: Candidate, answer: Answer, base: int) -> Entry:
    nothing = values.encode(None)
    asked = (bytes(16), START, None, candidate.commands[0][3], nothing)
    return _sealed(base, asked, (False, nothing, NO_EVENTS, None, answer.begin), answer.begin, digest.CHAIN_START)


def _entries(candidate: Candidate, answer: Answer, anchor: Entry | None) -> Iterator[Entry]:
    if anchor is not None:
        yield anchor
    pre = answer.begin if anchor is not None or answer.captured is None else None
    chain = digest.CHAIN_START if anchor is None else anchor.chain
    for command_id, (asked, outcome) in enumerate(
        zip(candidate.commands, answer.outcomes, strict=True), candidate.first
    ):
        assert not isinstance(outcome, str), "a command that raised is not recorded"
        entry = _sealed(command_id, asked, outcome, pre, chain)
        pre, chain = entry.post_digest_bytes, entry.chain
        yield entry


def _sealed(
    command_id: int, asked: tuple[Any, ...], outcome: tuple[Any, ...], pre: bytes | None, chain: bytes
) -> Entry:
    rejected, result, events, changes, post = outcome
    request_key, kind, entity_id, received_at_ms, data = asked
    parts = part_hashes(request_key, kind, entity_id, received_at_ms, data, rejected, result, events, changes)
    chain = next_chain(chain, parts, pre, post)
    fields = (command_id, *asked, rejected, result, events, changes, pre, post, chain, parts, False, 1, 0, asked[3])
    return Entry._make((*fields, checksum(*fields)))


def _image(
    candidate: Candidate, answer: Answer, at: Head, identity: JournalIdentity, epoch: Epoch
) -> tuple[str, Iterable[bytes]]:
    header = ImageHeader(
        journal_id=identity.journal_id,
        stream=identity.stream,
        engine=identity.engine,
        state_version=epoch.state_version,
        logic_version=epoch.logic_version,
        schema=epoch.schema,
        command_id=at.command_id,
        chain=at.chain,
        received_at_ms=at.received_at_ms,
        post_digest_bytes=at.post_digest_bytes or b"",
        kind="tables" if answer.captured is None else "value",
        base="capture",
        created_at_ms=0,
    )
    catalog = open_catalog("memory:", identity.stream)
    assert catalog is not None
    name = catalog.name_of(at.command_id, at.chain)
    if answer.captured is not None:
        return name, write_value_image(header, answer.captured)
    tables = itertools.groupby(candidate.rows, key=lambda row: row[0])
    return name, write_image(header, ((table, [row[1:] for row in rows]) for table, rows in tables))
