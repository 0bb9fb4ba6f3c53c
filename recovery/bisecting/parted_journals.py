"""Two recorded histories: the command at which they part, found on the chain.

The chain at a command covers every command, answer and digest up to it, so two chains that differ once differ for good.  That
makes the first difference a matter of halving: about log2(n) pairs of entries are read, whatever the length.  It rests on the
chains being right, which is ``recovery check``'s to prove; the two entries at the difference are proven here to continue the
entry before them.

Where the inputs differ (another request, other data, another time) the histories are of two courses of events, and no engine
is to blame: that is what is said then, and nothing more is compared.  Where they are the same, so is the state before, and
the recorded answers, events and changed rows say what differs, down to the field.  *Recorded* is the journal, *replayed* the
other journal.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from journal import digest, values
from journal.errors import Gap, RecoveryError, Trimmed, UsageError
from journal.framing import Change
from journal.journal import PAGE_ENTRIES, Journal, check_continues
from journal.records import Entry, Head
from journal.urls import open_history, open_reader, redacted
from recovery import divergence as words
from recovery.bisecting.bisected import JOURNALS, Bisection
from recovery.divergence import ABSENT, Divergence, FieldDifference
from recovery.loading import EngineArgument, engine_factory
from recovery.report import DIVERGED, NOTHING, VERIFIED
from recovery.table_engine import TableEngine, state_of

LOOKED_BACK_MAX: Final = 20_000
"""How many entries are read backwards for a row that only one side changed."""

Names = Callable[[str], tuple[str, ...]]


def compare_journals(
    journal: str | Journal,
    other: str | Journal,
    *,
    stream: str = "main",
    other_stream: str | None = None,
    after: int | None = None,
    until: int | None = None,
    engine: EngineArgument | None = None,
    app_dir: str = ".",
) -> Bisection:
    """The first command with ``after < id <= until`` at which the histories differ.

    UsageError where they differ at ``after`` already; Trimmed where they do at the first command that both still keep.
    """
    with ExitStack() as opened:
        pair = [
            opened.enter_context(_opened(each, name, stream)) if isinstance(each, str) else each
            for each, name in ((journal, stream), (other, other_stream))
        ]
        search = _Search(pair[0], pair[1])
        names = {} if engine is None else search.field_names(engine, app_dir)
        return search.run(after, until, names=lambda table: names.get(table, ()))


def _opened(url: str, stream: str | None, default: str) -> Journal:
    if stream is None and url.startswith("file:"):
        return open_history(url.removeprefix("file:"))  # it holds one stream, whatever its name
    return Journal(open_reader(url), default if stream is None else stream)


class _Search:
    """One search; counts what it reads."""

    def __init__(self, ours: Journal, theirs: Journal) -> None:
        self._pair = (ours, theirs)
        self._steps = 0
        self._read = 0
        self._not_checked: list[str] = []

    def run(self, after: int | None, until: int | None, *, names: Names) -> Bisection:
        ours, theirs = self._pair
        low = max(each.start().command_id for each in self._pair)
        low = low if after is None else max(after, low)
        heads = [each.head() for each in self._pair]
        self._read += 2
        high = min(head.command_id for head in heads)
        high = high if until is None else min(until, high)
        notes = [*_identities(ours, theirs), *_ends(ours, theirs, heads, high)]
        if low > high or high == 0:
            return self._result(NOTHING, None, "no command is in both journals", notes)
        if self._differ(low):
            raise _earlier(low, asked=after)
        if low == high:
            return self._result(NOTHING, None, "the range holds no command", notes)
        if not self._differ(high):
            shared = f"the chains are equal at command {high}, and so is all up to it"
            return self._result(VERIFIED, None, shared, notes)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._differ(middle) else (middle, high)
        evidence = f"the chains are equal at command {high - 1} and differ at {high}"
        return self._result(DIVERGED, self._divergence(high, names), evidence, notes)

    def _result(self, verdict: str, found: Divergence | None, evidence: str, notes: list[str]) -> Bisection:
        ours, theirs = self._pair
        proves = "the entries in between were not read: recovery check proves that a chain is right"
        return Bisection(
            JOURNALS,
            verdict,
            found,
            0,
            self._steps,
            True,
            evidence,
            (_place(ours), _place(theirs)),
            notes=tuple(notes),
            not_checked=(proves, *self._not_checked) if self._steps else (),
            engine=ours.identity.engine,
            details={"entries_read": self._read},
        )

    def field_names(self, engine: EngineArgument, app_dir: str) -> dict[str, tuple[str, ...]]:
        """The names of the fields of each table's rows, where the engine can be loaded to tell."""
        try:
            made = engine_factory(engine, app_dir=app_dir)()
        except RecoveryError as error:
            self._not_checked.append(f"the names of fields, which are numbered instead: {error}")
            return {}
        tables = state_of(made).tables if isinstance(made, TableEngine) else {}
        return {name: getattr(table._row_type, "_fields", ()) for name, table in tables.items()}

    # Chains

    def _differ(self, command_id: int) -> bool:
        self._steps += 1
        return self._head(0, command_id).chain != self._head(1, command_id).chain

    def _head(self, side: int, command_id: int) -> Head:
        journal = self._pair[side]
        start = journal.start()
        return start if command_id == start.command_id else self._entry(side, command_id).head

    def _entry(self, side: int, command_id: int) -> Entry:
        journal = self._pair[side]
        self._read += 1
        entry = journal.entry(command_id)
        if entry is None:
            raise Gap(
                f"the entry is missing in {journal.store.location}", position=command_id, hint="run: recovery check"
            )
        return entry

    # The finding

    def _divergence(self, command_id: int, names: Names) -> Divergence:
        ours, theirs = (self._entry(side, command_id) for side in (0, 1))
        for side, entry in enumerate((ours, theirs)):
            check_continues(self._head(side, command_id - 1), entry)
        common = (command_id, str(ours.request_id), ours.type)
        if ours.part_hashes[:16] != theirs.part_hashes[:16]:
            parts = {"inputs": words.sides(_inputs(ours), _inputs(theirs))}
            return Divergence(*common, ("inputs",), words.DIFFERENT_INPUTS, (), parts)
        what = [
            name
            for name, differs in (
                ("pre_digest", _root(ours.pre_digest_bytes) != _root(theirs.pre_digest_bytes)),
                ("post_digest", _root(ours.post_digest_bytes) != _root(theirs.post_digest_bytes)),
                ("response", ours.part_hashes[16:32] != theirs.part_hashes[16:32]),
                ("events", ours.part_hashes[32:48] != theirs.part_hashes[32:48]),
            )
            if differs
        ]
        return Divergence(
            *common,
            tuple(what),
            self._cause(ours, theirs, what),
            self._fields(ours, theirs, names),
            _parts(ours, theirs, what),
        )

    def _cause(self, ours: Entry, theirs: Entry, what: list[str]) -> str:
        if "pre_digest" in what and ours.pre_digest_bytes is not None and theirs.pre_digest_bytes is not None:
            return words.TOUCHED_OUTSIDE
        if (
            what == ["events"]
            and not (ours.events_reduced or theirs.events_reduced)
            and words.same_in_any_order(ours.events, theirs.events)
        ):
            return words.ORDER_ONLY
        revisions = [
            next((epoch.code_revision for epoch in journal.epochs() if epoch.number == entry.epoch), "")
            for journal, entry in zip(self._pair, (ours, theirs), strict=True)
        ]
        return words.LOGIC_CHANGED if revisions[0] != revisions[1] else words.UNKNOWN

    def _fields(self, ours: Entry, theirs: Entry, names: Names) -> tuple[FieldDifference, ...]:
        if ours.changes is None or theirs.changes is None:
            self._not_checked.append("the rows that were changed: one of the journals records none")
            return ()
        sides = [{(each.table, each.key_bytes) for each in entry.changes or ()} for entry in (ours, theirs)]
        rows = self._rows_before(ours.command_id, sides[0] ^ sides[1])

        def before(table: str, key: Any) -> Any:
            row_bytes = rows.get((table, values.encode_bare(key)))
            return ABSENT if row_bytes is None else values.decode_bare(row_bytes)

        widths = _widths([*ours.changes, *theirs.changes])
        return words.field_differences(
            ours.changes, theirs.changes, before=before, names=lambda table: names(table) or widths.get(table, ())
        )

    def _rows_before(self, command_id: int, wanted: set[tuple[str, bytes]]) -> dict[tuple[str, bytes], bytes | None]:
        """The rows with these keys before a command, which are the same in both journals; from the newest entries that
        changed them."""
        journal, found = self._pair[0], dict[tuple[str, bytes], bytes | None]()
        start = journal.start().command_id
        at, floor = command_id - 1, max(start, command_id - 1 - LOOKED_BACK_MAX)
        while at > floor and wanted - found.keys():
            below = max(floor, at - PAGE_ENTRIES)
            for entry in reversed(journal.store.page(journal.stream, below, at)):
                entry.verify()
                self._read += 1
                for change in entry.changes or ():
                    place = (change.table, change.key_bytes)
                    if place in wanted:
                        found.setdefault(place, change.row_bytes)
            at = below
        missing = wanted - found.keys()
        if missing and floor > 0:
            self._not_checked.append(
                f"{len(missing)} rows that one side left as they were: no entry after {floor} changed them, so that side "
                "is left out"
            )
        return found


def _root(packed: bytes | None) -> bytes:
    return digest.root_of(packed)


def _place(journal: Journal) -> str:
    where = redacted(journal.store.location)
    return where if journal.stream == "main" else f"{where}, stream {journal.stream}"


def _inputs(entry: Entry) -> dict[str, Any]:
    return {
        "request_id": str(entry.request_id),
        "type": entry.type,
        "data": entry.data,
        "received_at_ms": entry.received_at_ms,
        "entity_id": entry.entity_id,
    }


def _parts(ours: Entry, theirs: Entry, what: list[str]) -> dict[str, dict[str, Any]]:
    parts = {}
    if "response" in what:
        parts["response"] = words.sides(words.result_of(ours), words.result_of(theirs))
    if "events" in what:
        both = (ABSENT if each.events_reduced else words.events_plain(each.events) for each in (ours, theirs))
        parts["events"] = words.sides(*both)
    return parts


def _identities(ours: Journal, theirs: Journal) -> list[str]:
    """What differs between the journals themselves, and may be why their histories do."""
    pair = [journal.identity._asdict() for journal in (ours, theirs)]
    named = {"engine": "engine", "seed": "seed of random numbers", "digest_every": "digest_every", "changes": "changes"}
    notes = [
        f"the {label} differs: {pair[0][name]} and {pair[1][name]}"
        for name, label in named.items()
        if pair[0][name] != pair[1][name]
    ]
    if pair[0]["journal_id"] == pair[1]["journal_id"]:
        notes.append("both have the same journal_id: they are copies of one journal, or went on from one")
    return notes


def _ends(ours: Journal, theirs: Journal, heads: list[Head], high: int) -> list[str]:
    if heads[0].command_id == heads[1].command_id:
        return []
    names = ("the journal", "the other journal")
    short = 0 if heads[0].command_id < heads[1].command_id else 1
    return [
        f"{names[short]} ends at command {heads[short].command_id}, "
        f"{names[1 - short]} at {heads[1 - short].command_id}; compared up to {high}"
    ]


def _earlier(command_id: int, *, asked: int | None) -> RecoveryError:
    if asked is not None and asked >= command_id:
        return UsageError(
            f"the histories differ at command {command_id} already, after which they were to be compared",
            hint="leave out --after",
        )
    return Trimmed(
        f"the histories differ at command {command_id} already, and one of the journals keeps none before it",
        position=command_id,
        hint="compare journals that are kept from an earlier command on",
    )


def _widths(changes: list[Change]) -> dict[str, tuple[str, ...]]:
    """The numbers of the fields of rows that are tuples, by table: their names are the engine's."""
    found: dict[str, tuple[str, ...]] = {}
    for change in changes:
        if not change.deleted and isinstance(change.row, tuple):
            found[change.table] = tuple(map(str, range(len(change.row))))
    return found
