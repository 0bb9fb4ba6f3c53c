"""Replay one range of a history on a fresh engine, and say what was seen: what one segment is to a verification.

A range is replayed in *stretches*, each from a place where the recorded state is known: the beginning, an image, or rows
folded from the record.  A stretch ends with the range, or at damage; the next begins at the next image that lies behind, and
what lies between is said.  Where no rows are recorded, images are also what the state is compared with where the entry
carries no digest, and what a replay that went astray goes on from.  The same code judges a whole history in one process and
a segment of it in another, so that both find the same.
"""

from __future__ import annotations

import decimal
import gc
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from journal.errors import CorruptionError, EvidenceAhead
from journal.journal import Journal
from journal.records import Entry
from recovery.divergence import Divergence
from recovery.guarding.guard import OFF, guarded
from recovery.images import place
from recovery.replayer import CHECKS, Replayer, Span
from recovery.stepper import Factory, Stepper, TableStepper, make_stepper, pinned_decimals
from recovery.verifying.cuts import Anchor, NoCut, anchors, place_at_anchor, place_at_cut
from recovery.verifying.segments import plan
from snapshots.catalog import Catalog

if TYPE_CHECKING:
    from recovery.determinism import Guard

Progress = Callable[[int], None]
"""Told how many commands more were replayed."""

PROGRESS_EVERY: Final = 1000
MODES: Final = ("execute", "redo", "rebuild")

LISTED_MAX: Final = 1000
"""Of one verification's divergences so many are kept; the others are counted, so that memory does not grow with them."""


class Range(NamedTuple):
    """The commands with ``after < id <= until``, and where their replay begins.

    ``cut`` says that it is in the middle of a verification: the engine is placed exactly at ``after``, at ``image`` where
    one is named.  Else it begins as ``verify`` says, at the newest image before ``start``, or before ``after`` where that is
    None.  ``mode`` is "execute", "redo", or "rebuild", which compares nothing.
    """

    after: int
    until: int
    mode: str = "execute"
    keep_going: bool = False
    start: int | None = None
    cut: bool = False
    image: str = ""
    guard: str = OFF


class Loss(NamedTuple):
    """Commands ``first`` to ``last`` that could not be replayed: the record before them is damaged."""

    first: int
    last: int


@dataclass(slots=True)
class Outcome:
    """What replaying a range showed.

    ``placed`` is False where the engine could not be placed at the range's cut, and then nothing was replayed;
    ``snapshot`` is the command of the image that it began with.  ``last`` is the last command replayed.  ``end`` is the
    chain and the digest, in hex, of the record where it ended.  ``unlisted`` are the divergences beyond ``LISTED_MAX``.
    """

    after: int
    until: int
    placed: bool = True
    snapshot: int = 0
    commands: int = 0
    last: int = 0
    checked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CHECKS, 0))
    redone: Span = field(default_factory=Span)
    unjudged: Span = field(default_factory=Span)
    damage: list[str] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    divergences: list[Divergence] = field(default_factory=list)
    unlisted: Span = field(default_factory=Span)
    begin: tuple[str, str] = ("", "")
    end: tuple[str, str] = ("", "")
    guard: dict[str, Any] | None = None

    def add(self, divergence: Divergence) -> None:
        """One more divergence, behind the last."""
        if len(self.divergences) < LISTED_MAX:
            self.divergences.append(divergence)
        else:
            self.unlisted.add(divergence.command_id)

    def join(self, later: Outcome) -> None:
        """Add what replaying the range behind this one showed."""
        self.until = later.until
        self.commands += later.commands
        self.last = later.last or self.last
        for name, count in later.checked.items():
            self.checked[name] += count
        self.redone.join(later.redone)
        self.unjudged.join(later.unjudged)
        self.damage += later.damage
        self.losses += later.losses
        for divergence in later.divergences:
            self.add(divergence)
        self.unlisted.join(later.unlisted)
        self.end = later.end
        self.guard = _both(self.guard, later.guard)

    def to_dict(self) -> dict[str, Any]:
        """The outcome as a plain document, which JSON holds."""
        document = {each.name: getattr(self, each.name) for each in fields(self)}
        document |= {name: _span(getattr(self, name)) for name in _SPANS}
        document["losses"] = [list(loss) for loss in self.losses]
        document["begin"], document["end"] = list(self.begin), list(self.end)
        document["divergences"] = [divergence.to_dict() for divergence in self.divergences]
        return document

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Outcome:
        """The outcome of ``to_dict``'s document."""
        spans = {name: Span(*document[name]) for name in _SPANS}
        places = {name: tuple(document[name]) for name in ("begin", "end")}
        losses = [Loss(*loss) for loss in document["losses"]]
        divergences = [Divergence.from_dict(divergence) for divergence in document["divergences"]]
        return cls(**document | spans | places | {"losses": losses, "divergences": divergences})


def _both(ours: dict[str, Any] | None, theirs: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the determinism guard saw in two ranges, the later one second."""
    if ours is None or theirs is None:
        return ours or theirs
    findings = {(each["kind"], each["file"], each["line"]): dict(each) for each in ours["findings"]}
    for each in theirs["findings"]:
        known = findings.setdefault((each["kind"], each["file"], each["line"]), {**each, "commands": 0})
        known["commands"] += each["commands"]
    not_seen = list(dict.fromkeys([*ours["not_seen"], *theirs["not_seen"]]))
    return {**ours, "findings": list(findings.values()), "not_seen": not_seen}


_SPANS: Final = ("redone", "unjudged", "unlisted")


def _span(span: Span) -> list[int]:
    return [span.count, span.first, span.last]


def cut_in_ranges(wanted: Range, journal: Journal, catalog: Catalog | None, workers: int) -> list[Range]:
    """The ranges that so many workers replay at the same time instead of one, in order; that one where cutting does not pay."""
    identity = journal.identity
    try:
        known = {each.command_id: each.name for each in anchors(catalog, journal, identity.engine)}
    except CorruptionError:
        return [wanted]
    can_fold = identity.changes == "rows" and not identity.digest_every
    segments = plan(wanted.after, wanted.until, list(known), jobs=workers, can_fold=can_fold)
    first = wanted._replace(until=segments[0].until)
    others = [
        wanted._replace(after=each.after, until=each.until, start=None, cut=True, image=known.get(each.after, ""))
        for each in segments[1:]
    ]
    return [first, *others]


class RangeReplay:
    """Replays ranges of one journal, each on a fresh engine.  ``progress`` is told of the commands as they are replayed."""

    def __init__(
        self,
        factory: Factory,
        journal: Journal,
        catalog: Catalog | None,
        *,
        revision: str,
        progress: Progress = lambda count: None,
    ) -> None:
        self.identity = journal.identity
        self._factory = factory
        self._journal = journal
        self._catalog = catalog
        self._epochs = journal.epochs()
        self._revision = revision
        self._progress = progress
        self._anchors: list[Anchor] | None = None
        self._at = 0
        self._watch: Guard | None = None

    def run(self, wanted: Range) -> Outcome:
        """Replay a range; stops at its first divergence unless it says to keep going.

        Meanwhile the decimal context is pinned and the collector off.  Raises what cannot be put down to the record:
        UsageError, UnavailableError.
        """
        outcome = Outcome(wanted.after, wanted.until)
        with decimal.localcontext(pinned_decimals()), steady_collector():
            self._watch = None
            stepper = self.fresh()
            try:
                base = self._placed(stepper, wanted, outcome)
                if wanted.cut:
                    outcome.begin = self._recorded(wanted.after)
            except NoCut:
                outcome.placed = False
                return outcome
            with guarded(stepper, wanted.guard) as self._watch:
                self._stretches(stepper, wanted, outcome, base)
            outcome.guard = None if self._watch is None else self._watch.to_dict()
        return outcome

    def fresh(self) -> Stepper:
        """A stepper over a fresh engine."""
        stepper = make_stepper(self._factory, self.identity.seed, self.identity.digest_every)
        if self._watch is not None:
            stepper.apply = self._watch.run
        return stepper

    # Where it begins

    def _placed(self, stepper: Stepper, wanted: Range, outcome: Outcome) -> int:
        if wanted.cut:
            outcome.snapshot = place_at_cut(stepper, self._catalog, self._journal, wanted.after, wanted.image)
            return wanted.after
        at = wanted.after if wanted.start is None else wanted.start
        try:
            placed = place(stepper, self._catalog, self._journal, at, exactly=bool(wanted.start))
            outcome.snapshot = placed.command_id
        except CorruptionError as error:
            # An image is beyond the head, which is loss; or the entry of one is damaged, and others may be vouched for.
            if isinstance(error, EvidenceAhead):
                outcome.damage.append(str(error))
            known = [anchor for anchor in self._known() if anchor.command_id <= at]
            outcome.snapshot = next((each.command_id for each in reversed(known) if self._load(stepper, each)), 0)
        return outcome.snapshot

    def _recorded(self, command_id: int) -> tuple[str, str]:
        entry = self._journal.entry(command_id)
        return ("", "") if entry is None else _end(entry)

    def _known(self) -> list[Anchor]:
        if self._anchors is None:
            self._anchors = anchors(self._catalog, self._journal, self.identity.engine)
        return self._anchors

    def _load(self, stepper: Stepper, anchor: Anchor) -> bool:
        assert self._catalog is not None
        try:
            place_at_anchor(stepper, self._catalog, self._journal, anchor.name)
        except NoCut:
            stepper.reset()
            return False
        return True

    # Stretches

    def _stretches(self, stepper: Stepper, wanted: Range, outcome: Outcome, base: int) -> None:
        following: tuple[int, Stepper] | None = (base, stepper)
        while following is not None:
            base, stepper = following
            damage = self._stretch(stepper, wanted, outcome, base)
            if damage is None:
                return
            outcome.damage.append(str(damage))
            lost_after = max(self._at, wanted.after)
            following = self._behind(lost_after, wanted.until)
            outcome.losses.append(Loss(lost_after + 1, wanted.until if following is None else following[0]))
            wanted = wanted._replace(after=wanted.until if following is None else following[0])

    def _behind(self, command_id: int, until: int) -> tuple[int, Stepper] | None:
        """An engine at the first anchor behind a command; None where there is none before the end."""
        for anchor in self._known():
            if command_id < anchor.command_id < until:
                stepper = self.fresh()
                if self._load(stepper, anchor):
                    return anchor.command_id, stepper
        return None

    def _stretch(self, stepper: Stepper, wanted: Range, outcome: Outcome, base: int) -> CorruptionError | None:
        """Replay from a place to the end of the range, or to the damage that is returned."""
        replayer = Replayer(stepper, self._epochs, revision=self._revision)
        damage = None
        self._at = base
        try:
            if self._travelled(replayer, wanted, outcome, base):
                for divergence in self._divergences(replayer, wanted, outcome):
                    outcome.add(divergence)
                    if not wanted.keep_going:
                        break
        except CorruptionError as error:
            damage = error
        if self._at > wanted.after:
            outcome.commands += replayer.commands
            outcome.last = self._at
            for name, count in replayer.checked.items():
                outcome.checked[name] += count
            outcome.redone.join(replayer.redone)
            outcome.unjudged.join(replayer.unjudged)
        return damage

    def _travelled(self, replayer: Replayer, wanted: Range, outcome: Outcome, base: int) -> bool:
        """Go from the place to where the range begins; False where that has ended the replay."""
        if base < wanted.after:
            way = self._watched(self._journal.read(base, wanted.after))
            redo = isinstance(replayer.stepper, TableStepper) and self.identity.changes == "rows"
            for divergence in replayer.redo(way) if redo else replayer.execute(way):
                outcome.add(divergence)
                if not wanted.keep_going:
                    return False
            replayer.forget_counts()
        return True

    def _divergences(self, replayer: Replayer, wanted: Range, outcome: Outcome) -> Iterator[Divergence]:
        at = wanted.after
        for anchor in [*self._checkpoints(replayer.stepper, wanted), None]:
            leg_end = wanted.until if anchor is None else anchor.command_id
            entries = self._counted(self._journal.read(at, leg_end), outcome, wanted.until)
            if wanted.mode == "rebuild":
                replayer.rebuild(entries)
            else:
                yield from replayer.execute(entries) if wanted.mode == "execute" else replayer.redo(entries)
            at = leg_end
            entry = None if anchor is None else self._journal.entry(at)
            if anchor is not None and entry is not None:
                yield from replayer.compare_image(entry, anchor.digest_bytes)
                if replayer.astray:
                    self._go_on_from(replayer, anchor)

    def _go_on_from(self, replayer: Replayer, anchor: Anchor) -> None:
        stepper = self.fresh()
        if self._load(stepper, anchor):
            replayer.go_on_from(stepper)

    def _checkpoints(self, stepper: Stepper, wanted: Range) -> list[Anchor]:
        if wanted.mode != "execute" or (isinstance(stepper, TableStepper) and self.identity.changes == "rows"):
            return []  # every entry carries a digest, and rows to go on from
        return [anchor for anchor in self._known() if wanted.after < anchor.command_id <= wanted.until]

    def _watched(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            yield entry
            self._at = entry.command_id

    def _counted(self, entries: Iterable[Entry], outcome: Outcome, until: int) -> Iterator[Entry]:
        entry = None
        for number, entry in enumerate(entries, 1):
            self._at = entry.command_id
            yield entry
            if number % PROGRESS_EVERY == 0:
                self._progress(PROGRESS_EVERY)
        if entry is not None and entry.command_id == until:
            outcome.end = _end(entry)


def _end(entry: Entry) -> tuple[str, str]:
    return entry.chain.hex(), (entry.post_digest_bytes or b"").hex()


@contextmanager
def steady_collector() -> Iterator[None]:
    """Bulk work makes millions of objects and no cycles: the collector would look at all of them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
