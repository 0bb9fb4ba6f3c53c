"""Catalog: the images of one stream in a store.  The only policy about them; stores only hold bytes.

An image is used only if the journal's entry at its command has the same chain and digest (the chain alone where the
entry carries no digest), its checksums hold, and its rows give its digest.  Else it is *quarantined*: a marker is put
beside it, and the next older is tried; nothing is deleted.  Images of other journals are ignored.  An image of this
journal beyond its head proves that the journal lost its end.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, NamedTuple, TypeVar
from urllib.parse import quote

from journal.errors import (
    BrokenChain,
    CorruptionError,
    EngineMismatch,
    EvidenceAhead,
    RecoveryError,
    StoreUnavailable,
    UnknownFormat,
)
from journal.files import kill_point
from snapshots.image import ImageHeader, ImageReader
from snapshots.retention import QUARANTINED, UNVERIFIED, VERIFIED, Held, Retention, expendable
from snapshots.store import JournalView, SnapshotStore

T = TypeVar("T")

GOOD: Final = "good"
DAMAGED: Final = "damaged"
OTHER_JOURNAL: Final = "other journal"

_MARKER: Final = ".bad"
_NAME: Final = re.compile(r"[^/]+/(\d{20})-([0-9a-f]{16})\.image")


class Image(NamedTuple):
    """One image as it lies there; only its header was looked at.

    ``state`` is "good", "quarantined", "damaged" or "other journal"; ``header`` is None where it cannot be read.
    """

    name: str
    command_id: int
    bytes: int
    state: str
    reason: str
    header: ImageHeader | None


class StepDown(NamedTuple):
    """Why an image was not used."""

    command_id: int
    reason: str


class Checked(NamedTuple):
    """An image of which every byte was read, and what is wrong with it."""

    image: Image
    error: RecoveryError | None


class Loaded(NamedTuple, Generic[T]):
    """What ``Catalog.load`` found: the image's name and header, and what the caller made of it."""

    name: str
    header: ImageHeader
    value: T


Report = Callable[[StepDown], None]


class Candidate:
    """An image that the journal vouches for; its content is proven by reading it to the end."""

    def __init__(self, catalog: Catalog, image: Image, header: ImageHeader, report: Report) -> None:
        self.name = image.name
        self.header = header
        self._catalog = catalog
        self._report = report

    @contextmanager
    def open(self) -> Iterator[ImageReader]:
        """A reader of the image."""
        with self._catalog.reader(self.name) as reader:
            yield reader

    def reject(self, error: CorruptionError) -> None:
        """Quarantine it for what reading it raised, and report the step down."""
        self._report(self._catalog.quarantine(self.name, self.header.command_id, str(error)))

    def pass_over(self, error: Exception) -> None:
        """Report a step down for a reason that says nothing against the image."""
        self._report(StepDown(self.header.command_id, str(error)))


class Catalog:
    """The images of ``stream`` in ``store``."""

    def __init__(self, store: SnapshotStore, stream: str = "main") -> None:
        self.store = store
        self.stream = stream
        self._folder = quote(stream, safe="").replace(".", "%2E")

    def name_of(self, command_id: int, chain: bytes) -> str:
        """The name of an image, the same for all images of one state of one history."""
        return f"{self._folder}/{command_id:020d}-{chain.hex()[:16]}.image"

    def publish(self, journal: JournalView, header: ImageHeader, chunks: Iterable[bytes]) -> str:
        """Put an image where it is found, durable on return, and give its name; one of that name may be there already.

        BrokenChain where the journal does not hold its command as the header says: an image is never ahead.
        StoreUnavailable where its place is taken by a quarantined one, or one of another journal.  What ``chunks`` raises
        passes through.
        """
        reason = mismatch(journal, header)
        if reason is not None:
            raise BrokenChain(f"an image may not be published: {reason}", position=header.command_id)
        name = self.name_of(header.command_id, header.chain)
        written = self.store.put(name, chunks)
        marked = name + _MARKER in self.store.names(self._folder)
        if marked and written:
            self.store.delete(name + _MARKER)  # of an image that was deleted; a cut had spared its marker
        elif marked:
            raise StoreUnavailable(
                f"the place of {name} is taken by an image that is quarantined",
                hint="take a snapshot at a later command",
            )
        elif not written:
            self._require_own(name, header.journal_id)
        return name

    def _require_own(self, name: str, journal_id: uuid.UUID) -> None:
        # Two journals of the same commands have the same chain, and so the same names.
        with self.reader(name) as reader:
            if reader.header.journal_id != journal_id:
                raise StoreUnavailable(
                    f"the place of {name} is taken by an image of journal {reader.header.journal_id}",
                    hint="give each journal a place of its own for its images",
                )

    def images(self, journal_id: uuid.UUID | None = None) -> list[Image]:
        """All images of the stream, oldest first; with a ``journal_id``, others are said to be of another journal."""
        names = self.store.names(self._folder)
        markers = {name for name in names if name.endswith(_MARKER)}
        images = []
        for name in names:
            if _NAME.fullmatch(name):
                try:
                    images.append(self._image(name, name + _MARKER in markers, journal_id))
                except StoreUnavailable:
                    if name in self.store.names(self._folder):
                        raise
        return images

    def newest(
        self,
        journal: JournalView,
        *,
        journal_id: uuid.UUID,
        engine: str,
        at_or_before: int | None = None,
        report: Report,
    ) -> Iterator[Candidate]:
        """Images that the journal vouches for, newest first, at or before a command; every one passed over is reported.

        EvidenceAhead where an image of this journal lies beyond its head.
        """
        images = self.images(journal_id)
        for lost in self._ahead(journal, images):
            raise _evidence_ahead(lost)
        for image in reversed(images):
            if image.state != OTHER_JOURNAL and (at_or_before is None or image.command_id <= at_or_before):
                header = self._vouched(journal, image, report)
                if header is not None and header.engine != engine:
                    report(StepDown(image.command_id, f"it is an image of the engine {header.engine}"))
                elif header is not None:
                    yield Candidate(self, image, header, report)

    def load(
        self,
        journal: JournalView,
        load: Callable[[ImageReader], T],
        *,
        journal_id: uuid.UUID,
        engine: str,
        at_or_before: int | None = None,
        report: Report,
    ) -> Loaded[T] | None:
        """The newest image that ``load`` can take in, as ``newest`` gives them; None where there is none.

        ``load`` reads the image to its end, from a clean start each time it is called.  A CorruptionError out of it
        quarantines the image; EngineMismatch, or a store that cannot be read, only passes it over.
        """
        candidates = self.newest(
            journal, journal_id=journal_id, engine=engine, at_or_before=at_or_before, report=report
        )
        for candidate in candidates:
            try:
                with candidate.open() as reader:
                    return Loaded(candidate.name, candidate.header, load(reader))
            except CorruptionError as error:
                candidate.reject(error)
            except (EngineMismatch, StoreUnavailable) as error:
                candidate.pass_over(error)
        return None

    def accept_loss(self, journal: JournalView, *, journal_id: uuid.UUID) -> list[StepDown]:
        """Quarantine the images beyond the journal's head, for which ``newest`` raises EvidenceAhead."""
        reason = "it is beyond the journal's head, and the loss was accepted"
        ahead = self._ahead(journal, self.images(journal_id))
        return [self.quarantine(image.name, image.command_id, reason) for image in ahead]

    def foreign_evidence(self, engine: str) -> Image | None:
        """The newest image of this engine and stream, of whatever journal: proof that there was one before.

        For who is about to create a journal here.  An image whose header cannot be read cannot be excluded.
        """
        for image in reversed(self.images()):
            if image.header is None or (image.header.engine, image.header.stream) == (engine, self.stream):
                return image
        return None

    def check(self, journal: JournalView, *, journal_id: uuid.UUID) -> Iterator[Checked]:
        """Read every byte of every image, oldest first, and hold those of this journal against it.  Marks nothing."""
        images = self.images(journal_id)
        ahead = self._ahead(journal, images)
        for image in images:
            error = self._fault(image)
            if error is None and image in ahead:
                error = _evidence_ahead(image)
            elif error is None and image.state == GOOD and image.header is not None:
                error = _broken(image, mismatch(journal, image.header))
            yield Checked(image, error)

    def expendable(
        self, journal: JournalView, retention: Retention, *, journal_id: uuid.UUID, now_ms: int, report: Report
    ) -> list[Image]:
        """The images of this journal that may go, oldest first.

        Verifies images from the newest on until there are as many as are kept, whole; bad ones are quarantined.
        """
        images = [image for image in self.images(journal_id) if image.state == GOOD]
        for lost in self._ahead(journal, images):
            raise _evidence_ahead(lost)
        held: list[Held] = []
        verified = 0
        for image in reversed(images):
            if image.header is not None:
                standing = self._standing(journal, image, report) if verified < retention.keep else UNVERIFIED
                verified += standing == VERIFIED
                held.append(Held(image.name, image.command_id, image.header.created_at_ms, standing))
        names = set(expendable(held, retention, now_ms=now_ms))
        return [image for image in images if image.name in names]

    def prune(
        self, journal: JournalView, retention: Retention, *, journal_id: uuid.UUID, now_ms: int, report: Report
    ) -> list[Image]:
        """Delete what is ``expendable``; what it was."""
        images = self.expendable(journal, retention, journal_id=journal_id, now_ms=now_ms, report=report)
        self.delete(images)
        return images

    def delete(self, images: Iterable[Image]) -> None:
        """Delete images, with their markers."""
        for image in images:
            kill_point("prune.before")
            self.store.delete(image.name)
            self.store.delete(image.name + _MARKER)
            kill_point("prune.after")

    def quarantine(self, name: str, command_id: int, reason: str) -> StepDown:
        """Put a marker with the reason beside an image; where that cannot be, the step down says so."""
        marker = json.dumps({"schema_version": 1, "reason": reason}).encode()
        try:
            self.store.put(name + _MARKER, [marker])
        except StoreUnavailable as error:
            return StepDown(command_id, f"{reason} (and it could not be marked as bad: {error})")
        return StepDown(command_id, reason)

    @contextmanager
    def reader(self, name: str) -> Iterator[ImageReader]:
        """A reader of an image by its name; StoreUnavailable where it cannot be read."""
        try:
            with self.store.open(name) as file:
                yield ImageReader(file, name)
        except OSError as error:
            raise StoreUnavailable(f"{self.store.location}: {name} cannot be read: {error}") from error

    def _image(self, name: str, marked: bool, journal_id: uuid.UUID | None) -> Image:
        match = _NAME.fullmatch(name)
        command_id = int(match[1]) if match else 0
        size = self.store.size(name)
        try:
            with self.reader(name) as reader:
                header = reader.header
            if name != self.name_of(header.command_id, header.chain):
                raise UnknownFormat(f"it is of command {header.command_id}, not what its name says", position=name)
        except CorruptionError as error:
            state = QUARANTINED if marked else DAMAGED
            return Image(name, command_id, size, state, self._reason(name) if marked else str(error), None)
        if marked:
            return Image(name, command_id, size, QUARANTINED, self._reason(name), header)
        if header.stream != self.stream or journal_id not in (None, header.journal_id):
            return Image(name, command_id, size, OTHER_JOURNAL, f"of journal {header.journal_id}", header)
        return Image(name, command_id, size, GOOD, "", header)

    def _reason(self, name: str) -> str:
        try:
            with self.store.open(name + _MARKER) as file:
                return str(json.load(file)["reason"])
        except (StoreUnavailable, ValueError, LookupError, TypeError):
            return "its marker cannot be read"

    def _ahead(self, journal: JournalView, images: Iterable[Image]) -> list[Image]:
        good = [image for image in images if image.state == GOOD]
        ahead: list[Image] = []
        while good and journal.entry(good[-1].command_id) is None:
            ahead.insert(0, good.pop())
        return ahead

    def _vouched(self, journal: JournalView, image: Image, report: Report) -> ImageHeader | None:
        """The header of an image the journal vouches for; else None, and the step down is taken and reported."""
        header = image.header
        if image.state == QUARANTINED:
            report(StepDown(image.command_id, f"quarantined: {image.reason}"))
        elif header is None:
            report(self.quarantine(image.name, image.command_id, image.reason))
        else:
            reason = mismatch(journal, header)
            if reason is None:
                return header
            report(self.quarantine(image.name, image.command_id, reason))
        return None

    def _standing(self, journal: JournalView, image: Image, report: Report) -> str:
        if self._vouched(journal, image, report) is None:
            return QUARANTINED
        error = self._fault(image)
        if error is None:
            return VERIFIED
        if not isinstance(error, CorruptionError):
            report(StepDown(image.command_id, str(error)))
            return UNVERIFIED
        report(self.quarantine(image.name, image.command_id, str(error)))
        return QUARANTINED

    def _fault(self, image: Image) -> RecoveryError | None:
        """What reading every byte of an image finds."""
        if image.state == DAMAGED:
            return UnknownFormat(image.reason)
        try:
            with self.reader(image.name) as reader:
                reader.verify()
        except (CorruptionError, StoreUnavailable) as error:
            return error
        return None


def mismatch(journal: JournalView, header: ImageHeader) -> str | None:
    """Why the journal does not vouch for an image; None where it does."""
    entry = journal.entry(header.command_id)
    if entry is None:
        return "the journal holds no such command"
    if entry.chain != header.chain:
        return f"its chain is {header.chain.hex()}, the journal's {entry.chain.hex()}: it is of another history"
    if entry.post_digest_bytes not in (None, header.post_digest_bytes):
        return f"its digest is {header.post_digest}, the journal's {entry.post_digest}"
    return None


def _broken(image: Image, reason: str | None) -> BrokenChain | None:
    return None if reason is None else BrokenChain(f"image {image.name}: {reason}", position=image.command_id)


def _evidence_ahead(image: Image) -> EvidenceAhead:
    return EvidenceAhead(
        f"there is an image of it, {image.name}, and the journal does not hold it: the journal lost its end",
        position=image.command_id,
        hint="restore the journal, or go on without what was lost: --accept-loss",
    )
