"""The catalog: which image is used, what is done with a bad one, and what proves that a journal lost its end."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from journal.errors import (
    BrokenChain,
    ChecksumMismatch,
    EngineMismatch,
    EvidenceAhead,
    Gap,
    StoreUnavailable,
    UnknownFormat,
    UsageError,
)
from snapshots.catalog import Catalog, Image, Loaded, StepDown
from snapshots.image import ImageHeader, ImageReader, write_image
from snapshots.retention import Retention
from snapshots.snapshotter import make_image
from snapshots.store import SnapshotStore
from snapshots.stores.directory import DirectorySnapshots
from snapshots.stores.memory import MemorySnapshots
from snapshots.testing import RowHistory

Tables = list[tuple[str, Any, Any]]


class Fixture:
    """A history of ten commands, and a catalog with images of some of them."""

    def __init__(self, *images: int, store: SnapshotStore | None = None) -> None:
        self.history = RowHistory()
        for command_id in range(1, 11):
            self.history.command({("t", command_id): (command_id, "row"), ("t", command_id // 2): None})
        self.store = MemorySnapshots() if store is None else store
        self.catalog = Catalog(self.store, "main")
        self.steps: list[StepDown] = []
        for command_id in images:
            self.publish(command_id)

    def publish(self, command_id: int, *, created_at_ms: int = 0) -> str:
        header = self.history.header(command_id, created_at_ms=created_at_ms)
        return self.catalog.publish(self.history, header, write_image(header, self.history.tables(command_id)))

    def name(self, command_id: int) -> str:
        return self.catalog.name_of(command_id, self.history.entries[command_id - 1].chain)

    def damage(self, command_id: int, at: int = -30) -> None:
        """Flip a byte; where the store keeps it is known here only."""
        name = self.name(command_id)
        with self.store.open(name) as file:
            data = bytearray(file.read())
        data[at] ^= 1
        self.store.delete(name)
        self.store.put(name, [bytes(data)])

    def load(self, at_or_before: int | None = None) -> Loaded[Tables] | None:
        self.steps.clear()
        return self.catalog.load(
            self.history,
            lambda reader: list(reader.tables()),
            journal_id=self.history.identity.journal_id,
            engine="till",
            at_or_before=at_or_before,
            report=self.steps.append,
        )

    def loaded(self, at_or_before: int | None = None) -> int:
        """The command of the image that is loaded, its content right; 0 for none."""
        found = self.load(at_or_before)
        if found is None:
            return 0
        rows = [key for _, keys, _ in found.value for key in keys]
        assert rows == sorted(self.history.states[found.header.command_id]["t"])
        assert found.name == self.name(found.header.command_id)
        return found.header.command_id

    def states(self) -> list[tuple[int, str]]:
        images = self.catalog.images(self.history.identity.journal_id)
        return [(image.command_id, image.state) for image in images]

    def make(self, command_id: int) -> ImageHeader:
        self.steps.clear()
        return make_image(
            self.history,
            self.catalog,
            identity=self.history.identity,
            state_version=3,
            logic_version=4,
            schema=b"shape",
            command_id=command_id,
            created_at_ms=99,
            report=self.steps.append,
        )

    def expendable(self, keep: int, keep_seconds: int = 0) -> list[int]:
        images = self.catalog.expendable(self.history, Retention(keep, keep_seconds), **self.pruning())
        return [image.command_id for image in images]

    def pruning(self) -> dict[str, Any]:
        journal_id = self.history.identity.journal_id
        return {"journal_id": journal_id, "now_ms": 10_000, "report": self.steps.append}


class Unwritable(MemorySnapshots):
    """A store on a disk that has become read-only."""

    def put(self, name: str, chunks: Iterable[bytes]) -> bool:
        raise StoreUnavailable("the disk is read-only")


def test_the_newest_is_used_and_nothing_is_reported() -> None:
    fixture = Fixture(2, 5, 9)
    assert [fixture.loaded(at) for at in (None, 10, 9, 8, 5, 4, 2, 1, 0)] == [9, 9, 9, 5, 5, 2, 2, 0, 0]
    assert fixture.steps == []
    assert fixture.states() == [(2, "good"), (5, "good"), (9, "good")]
    assert Fixture().loaded() == 0


def test_a_name_says_command_and_chain_of_a_stream() -> None:
    fixture = Fixture(7)
    chain = fixture.history.entries[6].chain.hex()
    assert fixture.store.names("main") == [f"main/00000000000000000007-{chain[:16]}.image"]
    assert Catalog(fixture.store, "a/../b.é").name_of(1, bytes(16)).startswith("a%2F%2E%2E%2Fb%2E%C3%A9/0000")
    assert Catalog(fixture.store, "..").name_of(1, bytes(16)).startswith("%2E%2E/")


@pytest.mark.parametrize("at", [0, 9, 40, -30, -1])
def test_a_bad_image_is_marked_and_the_next_older_used(at: int) -> None:
    fixture = Fixture(2, 5, 9)
    fixture.damage(9, at)
    fixture.damage(5, at)
    assert fixture.loaded() == 2
    assert [step.command_id for step in fixture.steps] == [9, 5]
    assert all("byte" in step.reason for step in fixture.steps)
    assert [state for _, state in fixture.states()] == ["good", "quarantined", "quarantined"]
    with fixture.store.open(fixture.name(9) + ".bad") as file:
        assert json.load(file)["reason"] == fixture.steps[0].reason
    first_reasons = [step.reason for step in fixture.steps]
    assert fixture.loaded() == 2
    assert [step.reason for step in fixture.steps] == [f"quarantined: {reason}" for reason in first_reasons]
    assert fixture.name(9) in fixture.store.names("main")


def test_when_all_are_bad_there_is_none() -> None:
    fixture = Fixture(2, 5)
    fixture.damage(2)
    fixture.damage(5)
    assert fixture.loaded() == 0
    assert [step.command_id for step in fixture.steps] == [5, 2]


def test_what_cannot_be_marked_is_said() -> None:
    fixture = Fixture(2, 5)
    fixture.damage(5)
    readonly = Unwritable()
    readonly._images = fixture.store._images  # type: ignore[attr-defined]
    fixture.catalog = Catalog(readonly, "main")
    assert fixture.loaded() == 2
    assert "could not be marked as bad: the disk is read-only" in fixture.steps[0].reason
    assert [name for name in readonly.names("main") if name.endswith(".bad")] == []


def test_an_image_of_another_history_of_this_journal_is_marked() -> None:
    fixture, other = Fixture(2), RowHistory()
    other.identity = fixture.history.identity
    for command_id in range(1, 6):
        other.command({("t", command_id): "other"})
    header = other.header(5)
    fixture.catalog.publish(other, header, write_image(header, other.tables(5)))
    assert fixture.loaded() == 2
    assert "of another history" in fixture.steps[0].reason
    assert fixture.publish(5) != fixture.catalog.name_of(5, header.chain)
    assert fixture.loaded() == 5


def test_an_image_of_another_digest_is_marked() -> None:
    fixture = Fixture(2)
    header = fixture.history.header(5)._replace(post_digest_bytes=fixture.history.header(4).post_digest_bytes)
    fixture.store.put(fixture.name(5), write_image(header, fixture.history.tables(4)))
    assert fixture.loaded() == 2
    assert "its digest is" in fixture.steps[0].reason


def test_where_the_entry_has_no_digest_the_chain_vouches() -> None:
    fixture = Fixture(2, 5)
    fixture.history.entries[4] = fixture.history.entries[4]._replace(post_digest_bytes=None)
    assert fixture.loaded() == 5


def test_a_renamed_image_is_marked() -> None:
    fixture = Fixture(2, 5)
    with fixture.store.open(fixture.name(5)) as file:
        fixture.store.put(fixture.name(8), [file.read()])
    assert fixture.loaded() == 5
    assert [(step.command_id, "not what its name says" in step.reason) for step in fixture.steps] == [(8, True)]


def test_an_image_beyond_the_head_refuses_until_the_loss_is_accepted() -> None:
    fixture = Fixture(2, 5, 8, 9)
    del fixture.history.entries[6:]
    for at in (None, 5, 2):
        with pytest.raises(EvidenceAhead) as ahead:
            fixture.load(at)
        assert ahead.value.position in (8, 9)
        assert "--accept-loss" in ahead.value.hint
    with pytest.raises(EvidenceAhead):
        fixture.expendable(1)
    journal_id = fixture.history.identity.journal_id
    accepted = fixture.catalog.accept_loss(fixture.history, journal_id=journal_id)
    assert [step.command_id for step in accepted] == [8, 9]
    assert fixture.loaded() == 5
    assert [step.command_id for step in fixture.steps] == [9, 8]
    assert fixture.catalog.accept_loss(fixture.history, journal_id=journal_id) == []


def test_a_damaged_journal_is_not_blamed_on_the_images() -> None:
    class Damaged(RowHistory):
        def entry(self, command_id: int) -> Any:
            raise Gap("gone", position=command_id)

    fixture = Fixture(2, 5)
    identity = fixture.history.identity
    fixture.history = Damaged()
    fixture.history.identity = identity
    with pytest.raises(Gap):
        fixture.load()
    assert [state for _, state in fixture.states()] == ["good", "good"]


def test_images_of_another_journal_are_ignored() -> None:
    theirs = Fixture(2, 5, 9)
    ours = Fixture(3, store=theirs.store)
    assert ours.loaded() == 3
    assert ours.steps == []
    assert ours.states() == [(2, "other journal"), (3, "good"), (5, "other journal"), (9, "other journal")]
    assert ours.expendable(1) == []
    assert [checked.error for checked in ours.catalog.check(ours.history, journal_id=uuid.uuid4())] == [None] * 4


def test_evidence_of_a_journal_that_was_here_before() -> None:
    fixture = Fixture(2, 5)
    assert fixture.catalog.foreign_evidence("till") == fixture.catalog.images()[-1]
    assert fixture.catalog.foreign_evidence("ledger") is None
    assert Catalog(fixture.store, "other").foreign_evidence("till") is None
    fixture.damage(5, 40)
    found = fixture.catalog.foreign_evidence("ledger")
    assert found is not None
    assert (found.command_id, found.header) == (5, None)


def test_an_image_of_another_engine_is_passed_over_unmarked() -> None:
    fixture = Fixture(2)
    header = fixture.history.header(5)._replace(engine="ledger")
    fixture.catalog.publish(fixture.history, header, write_image(header, fixture.history.tables(5)))
    assert fixture.loaded() == 2
    assert fixture.steps == [StepDown(5, "it is an image of the engine ledger")]
    assert fixture.states() == [(2, "good"), (5, "good")]


def test_what_the_loader_cannot_use_is_passed_over_and_what_it_finds_damaged_is_marked() -> None:
    fixture = Fixture(2, 5, 9)
    seen = []

    def load(reader: ImageReader) -> int:
        seen.append(reader.header.command_id)
        if reader.header.command_id == 9:
            raise EngineMismatch("of an older shape")
        if reader.header.command_id == 5:
            raise ChecksumMismatch("not what it was")
        return reader.header.command_id

    journal_id = fixture.history.identity.journal_id
    found = fixture.catalog.load(
        fixture.history, load, journal_id=journal_id, engine="till", report=fixture.steps.append
    )
    assert found is not None
    assert (found.value, seen) == (2, [9, 5, 2])
    assert fixture.steps == [StepDown(9, "of an older shape"), StepDown(5, "not what it was")]
    assert fixture.states() == [(2, "good"), (5, "quarantined"), (9, "good")]


class Vanishing(MemorySnapshots):
    """Another process prunes an image between the listing and the reading; another cannot be read today."""

    vanished = ""
    unreadable = ""

    def open(self, name: str) -> BinaryIO:
        if name == self.vanished:
            self.delete(name)
        return FaultyFile(super().open(name).read()) if name == self.unreadable else super().open(name)


class FaultyFile(io.BytesIO):
    """It can be read, but not to its end."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size == 1:
            raise OSError(5, "Input/output error")
        return super().read(size)


def test_an_image_that_goes_away_or_cannot_be_read_is_not_marked() -> None:
    store = Vanishing()
    fixture = Fixture(2, 5, 9, store=store)
    store.unreadable = fixture.name(9)
    assert fixture.loaded() == 5
    assert [step.command_id for step in fixture.steps] == [9]
    assert "Input/output error" in fixture.steps[0].reason
    store.vanished = fixture.name(5)
    assert fixture.states() == [(2, "good"), (9, "good")]


def test_nothing_is_published_that_the_journal_does_not_hold() -> None:
    fixture = Fixture()
    header = fixture.history.header(9)
    tables = fixture.history.tables(9)
    del fixture.history.entries[8:]
    for wrong in (header, header._replace(command_id=3), fixture.history.header(3)._replace(chain=header.chain)):
        with pytest.raises(BrokenChain):
            fixture.catalog.publish(fixture.history, wrong, write_image(wrong, tables))
    with pytest.raises(BrokenChain):
        fixture.catalog.publish(fixture.history, header._replace(command_id=0), [])
    assert fixture.store.names("main") == []


def test_publishing_twice_is_once_unless_the_first_is_bad() -> None:
    fixture = Fixture(5)
    assert fixture.publish(5) == fixture.name(5)
    fixture.damage(5)
    assert fixture.loaded() == 0
    with pytest.raises(StoreUnavailable, match="quarantined"):
        fixture.publish(5)


def test_a_marker_whose_image_is_gone_marks_no_new_one() -> None:
    fixture = Fixture(5)
    fixture.damage(5)
    assert fixture.loaded() == 0
    fixture.store.delete(fixture.name(5))
    fixture.publish(5)
    assert fixture.loaded() == 5


def test_check_reads_every_byte_and_marks_nothing() -> None:
    fixture = Fixture(2, 3, 5, 7, 9)
    fixture.damage(3)
    fixture.damage(5, 40)
    with fixture.store.open(fixture.name(2)) as file:
        fixture.store.put(fixture.name(8), [file.read()])
    fixture.store.put("main/notes.txt", [b"not an image"])
    del fixture.history.entries[8:]
    checked = list(fixture.catalog.check(fixture.history, journal_id=fixture.history.identity.journal_id))
    kinds = {check.image.command_id: type(check.error) for check in checked}
    nothing = type(None)
    assert kinds == {2: nothing, 3: ChecksumMismatch, 5: UnknownFormat, 7: nothing, 8: UnknownFormat, 9: EvidenceAhead}
    assert not any(name.endswith(".bad") for name in fixture.store.names("main"))


def test_check_holds_images_against_the_journal() -> None:
    fixture = Fixture(2, 5)
    fixture.history.entries[1] = fixture.history.entries[1]._replace(chain=bytes(16))
    checked = list(fixture.catalog.check(fixture.history, journal_id=fixture.history.identity.journal_id))
    assert [type(check.error) for check in checked] == [BrokenChain, type(None)]


def test_pruning_keeps_as_many_whole_ones_as_it_says() -> None:
    fixture = Fixture(1, 2, 4, 6, 8, 10)
    assert fixture.expendable(2) == [1, 2, 4, 6]
    fixture.damage(10)
    fixture.damage(6)
    assert fixture.expendable(2) == [1, 2]
    assert [step.command_id for step in fixture.steps] == [10, 6]
    assert fixture.expendable(3) == [1]
    assert fixture.expendable(9) == []
    assert fixture.expendable(1, keep_seconds=11) == []
    pruned = fixture.catalog.prune(fixture.history, Retention(1), **fixture.pruning())
    assert [image.command_id for image in pruned] == [1, 2, 4]
    assert fixture.states() == [(6, "quarantined"), (8, "good"), (10, "quarantined")]
    assert fixture.loaded() == 8


def test_deleting_a_quarantined_image_takes_its_marker_too() -> None:
    fixture = Fixture(2, 5)
    fixture.damage(5)
    assert fixture.loaded() == 2
    fixture.catalog.delete([image for image in fixture.catalog.images() if image.command_id == 5])
    assert fixture.store.names("main") == [fixture.name(2)]
    assert fixture.publish(5) == fixture.name(5)
    assert fixture.loaded() == 5


def test_images_tell_their_size_and_header(tmp_path: Path) -> None:
    fixture = Fixture(3, store=DirectorySnapshots(str(tmp_path)))
    size = (tmp_path / fixture.name(3)).stat().st_size
    assert fixture.catalog.images() == [Image(fixture.name(3), 3, size, "good", "", fixture.history.header(3))]


def test_an_image_is_made_from_the_beginning_and_then_from_the_newest() -> None:
    fixture = Fixture()
    first = fixture.make(4)
    assert first == fixture.history.header(4)._replace(
        state_version=3, logic_version=4, schema=b"shape", base="genesis", created_at_ms=99
    )
    second = fixture.make(9)
    assert second.base == fixture.name(4)
    assert fixture.loaded() == 9
    assert fixture.make(7).base == fixture.name(4)
    assert fixture.make(9) == second
    assert [state for _, state in fixture.states()] == ["good"] * 3


def test_a_bad_base_is_marked_and_the_next_older_taken() -> None:
    fixture = Fixture(2, 5, 7)
    fixture.damage(7)
    fixture.damage(5, 40)
    assert fixture.make(9).base == fixture.name(2)
    assert [step.command_id for step in fixture.steps] == [7, 5]
    assert fixture.loaded() == 9


def test_a_journal_that_does_not_add_up_is_not_blamed_on_the_base() -> None:
    fixture = Fixture(2, 5)
    entry = fixture.history.entries[7]
    fixture.history.entries[7] = entry._replace(changes_bytes=fixture.history.entries[6].changes_bytes)
    with pytest.raises(BrokenChain) as broken:
        fixture.make(9)
    assert broken.value.position == 8
    assert fixture.states() == [(2, "good"), (5, "good")]
    assert fixture.make(7).base == fixture.name(5)


def test_an_image_that_cannot_be_redone_is_refused() -> None:
    fixture = Fixture()
    with pytest.raises(UsageError):
        fixture.make(11)
    fixture.history.entries[8] = fixture.history.entries[8]._replace(changes_bytes=None)
    fixture.history.entries[9] = fixture.history.entries[9]._replace(post_digest_bytes=None)
    for command_id in (9, 10):
        with pytest.raises(UsageError) as refused:
            fixture.make(command_id)
        assert refused.value.position == command_id
