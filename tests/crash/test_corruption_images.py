"""Cold starts beside images that are damaged, ahead of the journal, or another one's: the right state and a word, or a refusal.

That every flipped byte and every cut of an image is found is tests/unit/test_image.py's; what is done then is tested here,
on a runtime.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

from journal import values
from journal.errors import EvidenceAhead, StoreUnavailable
from journal.journal import Journal
from journal.stores.memory import MemoryStore
from recovery import Command, Runtime, open_journal, open_snapshots, verify
from recovery.check import CheckReport, check
from recovery.cli.main import run
from recovery.status import journal_status
from snapshots.catalog import Catalog
from snapshots.stores.memory import MemorySnapshots
from tests.engines import Counter, Till
from tests.places import copy_of, forget, images_of, new_place

IMAGES: Final = (3, 5, 8)
NEWEST: Final = IMAGES[-1]
COMMANDS: Final = 10


def command(number: int) -> Command:
    """One that both engines understand the same everywhere."""
    name = "abc"[number % 3]
    if number % 4 == 3:
        return Command("draw", {"number": name}, request_id=f"r{number}", received_at_ms=1_700_000_000_000 + number)
    data = {"number": name, "cents": 10 * number}
    return Command("deposit", data, request_id=f"r{number}", received_at_ms=1_700_000_000_000 + number)


class Tally(Counter):
    """An engine without tables that takes the same commands."""

    def apply(self, context: Any, command: Command) -> Any:
        data = {"name": command.data["number"], "by": command.data.get("cents", 1)}
        return super().apply(context, Command("count", data))


def seen(engine: Any) -> Any:
    """All that a reader of an engine can see."""
    if isinstance(engine, Till):
        return list(engine.accounts.items()), list(engine.by_wealth), engine.deposits.value
    return values.encode(engine.capture())


def live(till: Runtime, *, after: int = 0, until: int = COMMANDS, images: tuple[int, ...] = IMAGES) -> list[Any]:
    """Execute commands, with images behind some; the state after each."""
    states = []
    for number in range(after + 1, until + 1):
        till.execute(command(number))
        states.append(till.query(seen))
        if number in images:
            till.snapshot()
    return states


class World:
    """A history with images, of which any part can be put anywhere to start from."""

    def __init__(self, engine: type) -> None:
        self.engine = engine
        self.place = new_place()
        with Runtime.open(engine, **where(self.place), seed=7) as till:
            self.states = [seen(engine()), *live(till)]
            till.close(snapshot=False)
        self.images = images_of(self.place)
        self.names = sorted(self.images)
        assert len(self.names) == len(IMAGES)

    def start(self, images: dict[str, bytes], **options: Any) -> Start:
        """A cold start on the whole journal beside these images."""
        return Start(self, copy_of(self.place, images=images), **options)


def where(place: str) -> dict[str, Any]:
    """The options that lead a runtime to a place."""
    return {"journal": f"memory:{place}", "snapshots": f"memory:{place}", "snapshot_every": 0}


class Start:
    """A cold start in a place, which is cleared afterwards."""

    def __init__(self, world: World, name: str, **options: Any) -> None:
        self.name = name
        self.world = world
        try:
            with Runtime.open(world.engine, **where(name), **options) as till:
                self.report = till.cold_start
                self.state = till.query(seen)
                self.marked = sorted(image for image in images_of(name) if image.endswith(".bad"))
                self.checked = self._check(till)
                self.epochs = [epoch.accepted_loss for epoch in Journal(MemoryStore(name)).epochs()]
                # What follows is as in a life without damage.
                self.later = live(till, after=till.head.command_id, images=())
                till.close(snapshot=False)
        finally:
            forget(name)

    def _check(self, till: Runtime) -> CheckReport:
        catalog = Catalog(MemorySnapshots(self.name))
        return check(Journal(MemoryStore(self.name)), catalog, lambda done, everything: None)


@pytest.fixture(scope="module", params=[Till, Tally], ids=["tables", "value"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def test_without_damage_the_newest_is_used(world: World) -> None:
    start = world.start(world.images)
    assert (start.report.image, start.report.replayed) == (NEWEST, COMMANDS - NEWEST)
    assert (start.report.steps_down, start.marked, start.state) == ((), [], world.states[-1])


def test_every_byte_and_every_length_of_the_newest_image(world: World) -> None:
    """The next older is used instead; the report says which was not, and why; it is marked, not deleted; the check says so."""
    data = world.images[world.names[-1]]
    flips = (data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :] for at in range(len(data)))
    cuts = (data[:size] for size in range(len(data)))
    for damaged in (*flips, *cuts, data + b"\0"):
        start = world.start({**world.images, world.names[-1]: damaged})
        assert (start.report.image, start.report.replayed) == (IMAGES[-2], COMMANDS - IMAGES[-2])
        ((command_id, reason),) = start.report.steps_down
        assert command_id == NEWEST
        assert f"image {NEWEST} was not used: {reason}" in str(start.report)
        assert start.report.to_dict()["steps_down"] == [{"command_id": NEWEST, "reason": reason}]
        assert start.state == world.states[-1]
        assert start.marked == [world.names[-1] + ".bad"]
        assert len(start.checked.damage) == 1
        assert world.names[-1] in start.checked.damage[0]


@pytest.mark.parametrize("bad", [(2, 1), (2, 1, 0), (1,), (0,), (2, 0)])
def test_it_goes_down_to_the_newest_good_one(world: World, bad: tuple[int, ...]) -> None:
    """And to the beginning where there is none; those below the one that is used are not looked at."""
    images = dict(world.images)
    for at in bad:
        images[world.names[at]] = images[world.names[at]][:-1] + b"\xff"
    good = max((IMAGES[at] for at in range(3) if at not in bad), default=0)
    start = world.start(images)
    assert start.report.image == good
    assert [command_id for command_id, _ in start.report.steps_down] == [IMAGES[at] for at in bad if IMAGES[at] > good]
    assert start.state == world.states[-1]
    assert len(start.checked.damage) == len(bad)


def test_an_image_under_the_name_of_another_is_not_used(world: World) -> None:
    """Nor one of the right command of another history, whose chain is another."""
    other = World(world.engine)
    for wrong in (world.images[world.names[1]], other.images[other.names[-1]]):
        start = world.start({**world.images, world.names[-1]: wrong})
        assert (start.report.image, start.state) == (IMAGES[-2], world.states[-1])


@pytest.mark.parametrize("entries", range(IMAGES[0], NEWEST))
def test_an_image_beyond_the_head_refuses_until_the_loss_is_accepted(world: World, entries: int) -> None:
    """The journal lost its end: nothing is written; with accept_loss it goes on, says so for ever, and is whole again."""
    name = copy_of(world.place, entries=entries)
    lost = [command_id for command_id in IMAGES if command_id > entries]
    before = Journal(MemoryStore(name)).epochs(), dict(images_of(name))
    with pytest.raises(EvidenceAhead) as found:
        Runtime.open(world.engine, **where(name))
    assert found.value.position in lost
    assert "--accept-loss" in found.value.hint
    assert (Journal(MemoryStore(name)).epochs(), images_of(name)) == before
    report = verify(world.engine, Journal(MemoryStore(name)), f"memory:{name}")
    assert report.verdict == "damaged"
    start = Start(world, name, accept_loss=True)
    assert (start.report.head, start.state) == (entries, world.states[entries])
    assert str(lost[-1]) in start.report.accepted_loss
    assert start.report.accepted_loss in str(start.report)
    assert start.epochs == [None, start.report.accepted_loss]
    assert start.marked == [name + ".bad" for name in world.names[-len(lost) :]]
    assert start.later == world.states[entries + 1 :]


def test_after_an_accepted_loss_there_is_nothing_to_accept(world: World) -> None:
    """The next start refuses nothing, and images of the new history stand beside those of the lost one."""
    name = copy_of(world.place, entries=4)
    with Runtime.open(world.engine, accept_loss=True, **where(name)) as till:
        for number in range(11, 11 + COMMANDS):
            till.execute(command(number))
        state = till.query(seen)
    for accept_loss in (False, True):
        with closing(Runtime.open(world.engine, accept_loss=accept_loss, **where(name))) as till:
            assert (till.cold_start.image, till.cold_start.accepted_loss) == (4 + COMMANDS, "")
            assert till.query(seen) == state
    forget(name)


@pytest.mark.parametrize("entries", range(COMMANDS))
def test_a_journal_shorter_than_when_it_was_last_opened_refuses_without_any_image(world: World, entries: int) -> None:
    again = copy_of(world.place, images={})
    Runtime.open(world.engine, **where(again)).close(snapshot=False)
    name = copy_of(again, entries=entries, images={})
    forget(again)
    with pytest.raises(EvidenceAhead) as found:
        Runtime.open(world.engine, **where(name))
    assert found.value.position == COMMANDS
    journal = Journal(MemoryStore(name))
    assert verify(world.engine, journal).verdict == "damaged"
    (problem,) = (
        one for one in journal_status(journal, Catalog(MemorySnapshots()))["problems"] if "lost its end" in one
    )
    assert f"command {COMMANDS}: " in problem
    assert check(journal, None, lambda done, everything: None).exit_code == 4
    start = Start(world, name, accept_loss=True)
    assert (start.report.head, start.state) == (entries, world.states[entries])
    assert start.epochs == [None, None, start.report.accepted_loss]
    assert f"command {COMMANDS}" in start.report.accepted_loss


# On disk: a journal that is not where it was, and images of others


class Disk:
    """A till on disk, with images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.snapshots = f"dir:{folder}/snapshots"

    def open(self, journal: str = "journal.db", engine: Any = Till, **options: Any) -> Runtime:
        return Runtime.open(
            engine,
            journal=f"sqlite:{self.folder}/{journal}",
            snapshots=self.snapshots,
            snapshot_every=0,
            seed=7,
            **options,
        )

    def images(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "snapshots").rglob("*") if path.is_file())


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    made = Disk(tmp_path)
    with made.open() as till:
        live(till)
        till.close(snapshot=False)
    assert len(made.images()) == len(IMAGES)
    return made


def test_a_new_journal_beside_old_images_refuses(disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    """The disk of the journal was not mounted: nobody begins anew by mistake, and nothing is made."""
    with pytest.raises(EvidenceAhead) as found:
        disk.open("elsewhere.db")
    assert found.value.position == NEWEST
    with open_journal(f"sqlite:{disk.folder}/elsewhere.db") as journal:
        assert not journal.exists
    verb = ["run", "--engine", "tests.engines:Till", "/dev/null", "--snapshots", disk.snapshots]
    assert run([*verb, "--journal", f"sqlite:{disk.folder}/elsewhere.db"]) == 4
    assert "--accept-loss" in capsys.readouterr().err
    with disk.open("elsewhere.db", accept_loss=True) as till:
        assert (till.cold_start.created, till.cold_start.head) == (True, 0)
        assert "a new journal was created beside" in till.cold_start.accepted_loss
        live(till, until=2)
    with open_journal(f"sqlite:{disk.folder}/elsewhere.db") as journal:
        assert [epoch.accepted_loss for epoch in journal.epochs()] == [till.cold_start.accepted_loss]


def test_images_of_others_are_no_evidence_for_a_new_journal(disk: Disk) -> None:
    """Another engine, another stream, or a journal that was never to last."""

    class Other(Till):
        name = "other"

    disk.open("a.db", Other).close()
    disk.open("b.db", stream="side").close()
    Runtime.open(Till, journal="memory:", snapshots=disk.snapshots).close()


def test_images_of_another_journal_are_ignored_and_not_judged(disk: Disk) -> None:
    """They are neither used nor marked nor deleted nor evidence, whatever their command."""
    theirs = disk.images()
    with disk.open("other.db", accept_loss=True) as till:
        till.execute(Command("draw", {"number": "d"}))
        states = live(till, until=4)
        till.close(snapshot=False)
    ours = [name for name in disk.images() if name not in theirs]
    assert len(ours) == 1
    with disk.open("other.db", keep=1) as till:
        assert (till.cold_start.image, till.cold_start.steps_down) == (1 + IMAGES[0], ())
        assert till.query(seen) == states[-1]
        live(till, after=4)
    assert set(theirs) < set(disk.images())
    assert not any(name.endswith(".bad") for name in disk.images())
    with disk.open() as till:
        assert (till.cold_start.image, till.cold_start.steps_down) == (NEWEST, ())


def test_a_name_that_another_journal_took_is_said_to_be_taken(disk: Disk) -> None:
    """Two journals of the same commands have the same chain and the same names: an image is not made, and that is said."""
    theirs = disk.images()
    with disk.open("other.db", accept_loss=True) as till:
        with pytest.raises(StoreUnavailable, match="of journal"):
            live(till)
        assert till.head.command_id == IMAGES[0]
        till.close(snapshot=False)
    assert disk.images() == theirs


def test_verbs_end_with_4_where_an_image_is_ahead_or_bad(disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--journal", f"sqlite:{disk.folder}/journal.db", "--snapshots", disk.snapshots]
    engine = ["--engine", "tests.engines:Till"]
    assert run(["check", *place]) == 0
    newest = open_snapshots(disk.snapshots).images()[-1].name
    path = disk.folder / "snapshots" / newest
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert run(["check", *place]) == 4
    assert newest in capsys.readouterr().out
    assert run(["replay", *place, *engine]) == 0
    path.write_bytes(data)
    cut_journal(disk.folder / "journal.db", NEWEST - 1)
    for verb in (["check"], ["replay", *engine, "--after", "1"], ["run", *engine, "/dev/null"], ["snapshot", "take"]):
        assert run([*verb, *place]) == 4, verb
        out, err = capsys.readouterr()
        assert f"command {NEWEST}" in out + err, (verb, out, err)
        assert "Traceback" not in err
    assert run(["run", *engine, "/dev/null", "--accept-loss", *place]) == 0
    assert run(["replay", *engine, *place]) == 0


def cut_journal(path: Path, last: int) -> None:
    """Take the end away, as a restored backup would."""
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DELETE FROM entries WHERE command_id > ?", (last,))
