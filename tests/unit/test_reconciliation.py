"""The truth table of shipping, row by row: what is done with a local journal and the one it is shipped to."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from journal.errors import CorruptionError, EngineMismatch, OrphanedTail, UsageError
from journal.journal import Journal
from journal.postgres_schema import migrate
from journal.reconciliation import BATCH_ENTRIES, ORPHANS_SHOWN, Reconciled, last_common, reconcile
from journal.records import Entry, Epoch, JournalIdentity, checksum
from journal.store import JournalStore
from journal.testing.contract import STREAM, make_entries
from journal.urls import open_reader, open_writer
from recovery import shipping

IDENTITY = JournalIdentity(uuid.UUID(int=7), STREAM, "till", 1, 0, "rows", 3600, 0)
ENTRIES = make_entries(1, 12)
# Entry 9 of another run, and what follows it.
OTHERS = ENTRIES[:8] + make_entries(9, 14, chain=ENTRIES[7].chain, salt="other ")


def epoch(number: int, *, pid: int = 1) -> bytes:
    return Epoch(number, "till", 1, 1, b"s", "r", "3", "l", "h", pid, 28, 0, 0, None).pack()


class Pair:
    """Two journals by URL."""

    def __init__(self, local: str, target: str) -> None:
        self.local = local
        self.target = target

    def write(
        self, url: str, entries: Sequence[Entry], *, epochs: int = 1, pid: int = 1, identity: JournalIdentity = IDENTITY
    ) -> None:
        """A journal with these entries, and epochs whose last was opened by process ``pid``."""
        with closing(open_writer(url)) as store:
            store.create(STREAM, identity.pack())
            for number in range(1, epochs + 1):
                store.append_epoch(STREAM, number, epoch(number, pid=pid if number == epochs else 1))
            store.append(STREAM, epochs, entries)

    def reconcile(self, *, engine: str = "till") -> Reconciled:
        with closing(open_writer(self.local)) as local, closing(open_writer(self.target)) as target:
            return reconcile(local, target, STREAM, engine=engine)

    def contents(self) -> list[tuple[bytes | None, list[tuple[int, bytes]], list[Entry]]]:
        found = []
        for url in (self.local, self.target):
            with closing(open_reader(url)) as store:
                found.append((store.identity(STREAM), store.epochs(STREAM), store.page(STREAM, 0, 99)))
        return found

    def require_same(self, entries: Sequence[Entry], *, epochs: int = 1) -> None:
        local, target = self.contents()
        assert local == target
        assert local[2] == list(entries)
        assert len(local[1]) == epochs

    def refused(self, kind: type[Exception], **asked: str) -> str:
        """That it is refused, and both are as they were."""
        before = self.contents()
        with pytest.raises(kind) as refused:
            self.reconcile(**asked)
        assert self.contents() == before
        assert getattr(refused.value, "hint", "")
        return f"{refused.value} | {refused.value.hint}"  # type: ignore[attr-defined]


@pytest.fixture(params=["sqlite", "postgresql"])
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Pair:
    if request.param == "sqlite":
        target = f"sqlite:{tmp_path}/target.db"
    else:
        target = request.getfixturevalue("postgres_url")
        migrate(target)
    return Pair(f"wal:{tmp_path}/local", target)


def test_neither_is_there(pair: Pair) -> None:
    done = pair.reconcile()
    assert (done.seeded, done.shipped, done.head.command_id) == (0, 0, 0)
    assert [contents[0] for contents in pair.contents()] == [None, None]


def test_local_is_empty(pair: Pair) -> None:
    pair.write(pair.target, ENTRIES, epochs=3)
    assert pair.reconcile()[:2] == (12, 0)
    pair.require_same(ENTRIES, epochs=3)


def test_local_is_behind(pair: Pair) -> None:
    pair.write(pair.target, ENTRIES, epochs=2)
    pair.write(pair.local, ENTRIES[:5])
    assert pair.reconcile()[:2] == (7, 0)
    pair.require_same(ENTRIES, epochs=2)


def test_both_are_at_the_same_command(pair: Pair) -> None:
    pair.write(pair.target, ENTRIES, epochs=2)
    pair.write(pair.local, ENTRIES, epochs=2)
    assert pair.reconcile()[:2] == (0, 0)
    pair.require_same(ENTRIES, epochs=2)


def test_the_target_took_an_epoch_and_then_power_went(pair: Pair) -> None:
    pair.write(pair.target, ENTRIES, epochs=2)
    pair.write(pair.local, ENTRIES, epochs=1)
    assert pair.reconcile()[:2] == (0, 0)
    pair.require_same(ENTRIES, epochs=2)


def test_local_is_ahead(pair: Pair) -> None:
    pair.write(pair.target, ENTRIES[:4])
    pair.write(pair.local, ENTRIES)
    assert pair.reconcile()[:2] == (0, 8)
    pair.require_same(ENTRIES)


def test_local_is_ahead_and_a_later_writer_of_the_target_wrote_nothing(pair: Pair) -> None:
    """The entries of the older epoch go behind the newer one, and keep their own."""
    pair.write(pair.target, ENTRIES[:4], epochs=3)
    pair.write(pair.local, ENTRIES, epochs=2)
    assert pair.reconcile()[:2] == (0, 8)
    pair.require_same(ENTRIES, epochs=3)
    assert {entry.epoch for entry in pair.contents()[1][2]} == {1}


def test_the_target_is_empty(pair: Pair) -> None:
    pair.write(pair.local, ENTRIES, epochs=2)
    assert pair.reconcile()[:2] == (0, 12)
    pair.require_same(ENTRIES, epochs=2)


def test_they_went_different_ways(pair: Pair) -> None:
    pair.write(pair.target, OTHERS)
    pair.write(pair.local, ENTRIES)
    said = pair.refused(OrphanedTail)
    assert "the same up to command 8" in said
    assert "to command 14" in said
    assert "4 commands are here alone" in said
    for entry in ENTRIES[8:]:
        assert f"{entry.command_id} {entry.type} (request {entry.request_id})" in said
    assert f"recovery log --journal {pair.local} --after 8" in said


def test_they_went_different_ways_and_local_is_longer(pair: Pair) -> None:
    pair.write(pair.target, ENTRIES[:9])
    pair.write(pair.local, OTHERS)
    assert "6 commands are here alone: 9 " in pair.refused(OrphanedTail)


def test_they_have_nothing_in_common_and_few_of_many_orphans_are_listed(pair: Pair) -> None:
    pair.write(pair.target, ENTRIES)
    pair.write(pair.local, make_entries(1, 40, salt="other "))
    said = pair.refused(OrphanedTail)
    assert said.count("(request ") == ORPHANS_SHOWN
    assert f"and {40 - ORPHANS_SHOWN} more" in said
    assert len(said) < 2000


@pytest.mark.parametrize(("ours", "theirs"), [(12, 12), (12, 4), (4, 12)])
def test_another_writer_had_one_of_them(pair: Pair, ours: int, theirs: int) -> None:
    pair.write(pair.target, ENTRIES[:theirs], epochs=2, pid=2)
    pair.write(pair.local, ENTRIES[:ours], epochs=2, pid=1)
    said = pair.refused(OrphanedTail)
    assert "epoch 2" in said
    assert ("no command is here alone" in said) == (ours <= theirs)
    assert "move that journal away" in said


def test_they_are_of_two_journals(pair: Pair) -> None:
    pair.write(pair.target, ENTRIES, identity=IDENTITY._replace(journal_id=uuid.UUID(int=8)))
    pair.write(pair.local, ENTRIES)
    assert "two journals" in pair.refused(UsageError)


@pytest.mark.parametrize("there", ["local", "target"])
def test_it_is_of_another_engine(pair: Pair, there: str) -> None:
    pair.write(getattr(pair, there), ENTRIES)
    empty = pair.target if there == "local" else pair.local
    open_writer(empty).close()
    pair.refused(EngineMismatch, engine="exchange")


def test_what_is_copied_is_checked_on_its_way(pair: Pair) -> None:
    bad = ENTRIES[6]._replace(chain=bytes(16))
    bad = bad._replace(checksum=checksum(*bad[:-1]))
    pair.write(pair.target, [*ENTRIES[:6], bad, *ENTRIES[7:]])
    open_writer(pair.local).close()
    with pytest.raises(CorruptionError) as damage:
        pair.reconcile()
    assert damage.value.position == 7
    assert pair.contents()[0][2] == []


def test_it_goes_on_where_it_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each write of a seed and of a ship the process ends; the last attempt finds all done."""
    monkeypatch.setattr("journal.reconciliation.BATCH_ENTRIES", 3)

    class Ended(Exception):
        pass

    def failing_after(store: JournalStore, writes: list[int]) -> JournalStore:
        def counted(write: Callable[..., None]) -> Callable[..., None]:
            def call(*arguments: object) -> None:
                if not writes[0]:
                    raise Ended
                writes[0] -= 1
                write(*arguments)

            return call

        for name in ("create", "append_epoch", "append"):
            setattr(store, name, counted(getattr(store, name)))
        return store

    for full in ("local", "target"):
        for allowed in range(9):
            folder = tmp_path / f"{full}{allowed}"
            pair = Pair(f"wal:{folder}/local", f"sqlite:{folder}/target.db")
            pair.write(getattr(pair, full), ENTRIES, epochs=3)
            with closing(open_writer(pair.local)) as local, closing(open_writer(pair.target)) as target:
                budget = [allowed]
                stores = failing_after(local, budget), failing_after(target, budget)
                try:
                    reconcile(*stores, STREAM, engine="till")
                    assert allowed == 8
                except Ended:
                    assert allowed < 8
            pair.reconcile()
            pair.require_same(ENTRIES, epochs=3)


@pytest.mark.parametrize("common", [0, 1, 7, 11, 12])
def test_the_last_common_command_is_found_by_halves(tmp_path: Path, common: int) -> None:
    pair = Pair(f"sqlite:{tmp_path}/a.db", f"sqlite:{tmp_path}/b.db")
    pair.write(pair.local, ENTRIES)
    chain = ENTRIES[common - 1].chain if common else make_entries(1, 1, salt="x")[0].chain
    rest = make_entries(common + 1, 12, chain=chain, salt="other ")
    pair.write(pair.target, ENTRIES[:common] + rest)
    with closing(open_reader(pair.local)) as local, closing(open_reader(pair.target)) as target:
        assert last_common(Journal(local, STREAM), Journal(target, STREAM), 12) == common


def test_a_long_history_is_copied_in_batches(tmp_path: Path) -> None:
    pair = Pair(f"wal:{tmp_path}/local", f"sqlite:{tmp_path}/target.db")
    entries = make_entries(1, 2 * BATCH_ENTRIES + 1)
    pair.write(pair.local, entries)
    assert pair.reconcile().shipped == len(entries)
    shutil.rmtree(tmp_path / "local")
    assert pair.reconcile().seeded == len(entries)


def test_check_compares_the_two(pair: Pair) -> None:
    pair.write(pair.target, OTHERS)
    pair.write(pair.local, ENTRIES)
    with closing(open_reader(pair.local)) as local:
        (said,) = shipping.findings(Journal(local, STREAM), pair.target)
    assert "4 commands are here alone" in said
