"""Histories from end to end: exported, read in place by every verb, imported again."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from journal.errors import StoreUnavailable, Trimmed
from journal.files import write_whole
from journal.journal import Journal
from journal.stores.memory import MemoryStore
from journal.testing.power_cut import PowerCut, PowerCutDisk
from journal.urls import migrate_journal, open_history
from recovery import Command, Runtime, open_journal, verify
from recovery.cli.main import run
from recovery.importing import import_history
from tests.engines import Counter, Till


class Shell:
    """Runs verbs in a folder of its own."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        out, err = self._capture.readouterr()
        assert "Traceback" not in err
        return code, out, err

    def json(self, *arguments: str, code: int = 0) -> Any:
        found, out, err = self(*arguments, "--json")
        assert found == code, (out, err)
        return json.loads(out)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECOVERY_ENGINE", "tests.engines:Till")
    monkeypatch.setenv("RECOVERY_JOURNAL", "sqlite:j.db")
    monkeypatch.setenv("RECOVERY_SNAPSHOTS", "dir:s")
    return Shell(capsys)


def deposits(count: int, first: int = 1) -> list[Command]:
    return [
        Command("deposit", {"number": f"n{n % 7}", "cents": n % 5 - 1}, request_id=f"r{n}", received_at_ms=n * 1000)
        for n in range(first, first + count)
    ]


@pytest.fixture
def till(shell: Shell) -> Shell:
    """A till that was opened three times, with an image where it was closed."""
    for first in (1, 21, 41):
        with Runtime.open(Till, journal="sqlite:j.db", snapshots="dir:s", snapshot_every=0) as runtime:
            list(runtime.execute_many(deposits(20, first)))
    return shell


VERBS = (
    ["status", "--check"],
    ["check"],
    ["log", "--table", "accounts", "--key", "n3"],
    ["replay", "--strict"],
    ["replay", "--mode", "redo"],
    ["state", "--at", "33"],
    ["diff", "30", "44"],
)


def essence(document: Any) -> Any:
    """What two places of one history have in common."""
    for name in ("seconds", "commands_per_second", "journal", "snapshots", "durability", "estimated_recovery_seconds"):
        document.pop(name, None)
    return document


def test_every_verb_reads_a_file_as_it_reads_the_journal(till: Shell) -> None:
    exported = till.json("export", "till.journal", "--image-every", "20")
    assert (exported["after"], exported["last"], exported["commands"]) == (0, 60, 60)
    assert exported["images"] == [20, 40, 60]
    assert exported["bytes"] == Path("till.journal").stat().st_size
    for arguments in VERBS:
        wanted = essence(till.json(*arguments))
        assert essence(till.json(*arguments, "--journal", "file:till.journal")) == wanted
    assert [i["command_id"] for i in till.json("snapshot", "list", "--journal", "file:till.journal")["images"]] == [
        20,
        40,
        60,
    ]


def test_a_part_is_replayed_from_the_image_it_carries(till: Shell) -> None:
    exported = till.json("export", "part.journal", "--after", "33", "--until", "50")
    assert (exported["after"], exported["last"], exported["images"]) == (33, 50, [33])
    report = till.json("replay", "--journal", "file:part.journal", "--strict")
    assert (report["first"], report["last"], report["snapshot"]["command_id"]) == (34, 50, 33)
    check = till.json("check", "--journal", "file:part.journal")
    assert (check["verdict"], check["commands"], check["last_good"], check["images"]) == ("sound", 17, 50, 1)
    at = ["--at", "44"]
    assert till.json("state", *at, "--journal", "file:part.journal") == till.json("state", *at)
    assert len(till.json("log", "--journal", "file:part.journal")["entries"]) == 17
    assert till.json("status", "--check", "--journal", "file:part.journal")["head"]["command_id"] == 50
    assert till.json("log", "--journal", "file:part.journal", "--request-id", "r40")["entries"][0]["command_id"] == 40
    with open_journal("file:part.journal") as journal:
        assert [summary.command_id for summary in journal.recent(3)] == [50, 49, 48]
        with pytest.raises(Trimmed) as before:
            next(journal.read(after=3))
        assert before.value.position == 4
    assert verify(Till, "file:part.journal").verdict == "verified"


def test_a_part_is_exported_again_from_a_part(till: Shell) -> None:
    till.json("export", "part.journal", "--after", "30")
    smaller = till.json("export", "smaller.journal", "--journal", "file:part.journal", "--after", "35", "--until", "37")
    assert (smaller["after"], smaller["commands"]) == (35, 2)
    assert till.json("replay", "--journal", "file:smaller.journal", "--strict")["commands"] == 2


def test_a_part_without_its_image_says_what_it_takes(till: Shell) -> None:
    till.json("export", "part.journal", "--after", "33", "--no-image")
    report = till.json("replay", "--journal", "file:part.journal", code=4)
    assert "up to 33 are not kept" in report["damage"]
    assert (
        till.json("replay", "--journal", "file:part.journal", "--snapshots", "dir:s", "--after", "40")["commands"] == 20
    )
    assert till.json("check", "--journal", "file:part.journal")["verdict"] == "sound"


def test_nothing_is_written_over_and_nothing_is_left(till: Shell) -> None:
    till.json("export", "till.journal")
    before = Path("till.journal").read_bytes()
    code, _, err = till("export", "till.journal", "--after", "10")
    assert code == 2
    assert "--force" in err
    assert Path("till.journal").read_bytes() == before
    till.json("export", "till.journal", "--after", "10", "--force")
    assert Path("till.journal").read_bytes() != before
    assert till("export", "missing/till.journal")[0] == 3
    assert till("export", "other.journal", "--after", "61")[0] == 2
    there = {path.name for path in Path().iterdir() if not path.name.startswith("j.db")}
    assert there == {"s", "till.journal"}


@pytest.mark.parametrize("where", ["sqlite:again.db", "wal:again", "postgresql"])
def test_the_same_journal_comes_back(till: Shell, where: str, request: pytest.FixtureRequest) -> None:
    if where == "postgresql":
        where = request.getfixturevalue("postgres_url")
        migrate_journal(where)
    exported = till.json("export", "till.journal")
    imported = till.json("import", "till.journal", "--journal", where)
    assert (imported["commands"], imported["chain"]) == (60, exported["chain"])
    with open_journal("sqlite:j.db") as was, open_journal(where) as now:
        assert list(was.read()) == list(now.read())
        assert was.identity == now.identity
        assert now.epochs()[:-1] == was.epochs()
        assert now.epochs()[-1].head == 60
    code, _, err = till("import", "till.journal", "--journal", where)
    assert code == 2
    assert "already" in err
    with Runtime.open(Till, journal=where, snapshots="dir:again-images") as runtime:
        assert runtime.cold_start.replayed == 60
        assert runtime.execute(deposits(1)[0]).duplicate
        assert runtime.execute(deposits(1, 61)[0]).command_id == 61
    assert till.json("replay", "--journal", where, "--snapshots", "dir:again-images")["commands"] == 61


class Failing(MemoryStore):
    """Fails at the n-th append."""

    appends_left = 1

    def append(self, stream: str, epoch: int, entries: Any) -> None:
        if not self.appends_left:
            raise StoreUnavailable("made to fail")
        self.appends_left -= 1
        super().append(stream, epoch, entries)


def test_an_interrupted_import_is_opened_by_nobody_and_can_be_finished(
    till: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recovery.importing.BATCH_ENTRIES", 25)
    till.json("export", "till.journal")
    store = Failing.open_for_write("interrupted")
    with open_history("till.journal") as source, pytest.raises(StoreUnavailable):
        import_history(source, store)
    assert Journal(store).head().command_id == 25
    store.close()
    code, _, err = till("replay", "--journal", "memory:interrupted")
    assert code == 4, err
    with pytest.raises(Exception, match="lost its end"):
        Runtime.open(Till, journal="memory:interrupted", snapshots="memory:")
    till.json("export", "other.journal", "--until", "50")
    with open_history("other.journal") as source:
        again = MemoryStore.open_for_write("interrupted")
        with pytest.raises(Exception, match="already"):
            import_history(source, again)
        again.close()
    imported = till.json("import", "till.journal", "--journal", "memory:interrupted")
    assert (imported["resumed_after"], imported["commands"]) == (25, 60)
    assert till.json("replay", "--journal", "memory:interrupted")["commands"] == 60


def test_what_cannot_be_imported_says_why(till: Shell) -> None:
    till.json("export", "part.journal", "--after", "33")
    code, _, err = till("import", "part.journal", "--journal", "sqlite:new.db")
    assert code == 2
    assert "only the part after command 33" in err
    assert till("import", "missing.journal", "--journal", "sqlite:new.db")[0] == 3
    till.json("export", "till.journal")
    assert till("import", "till.journal", "--journal", "file:other.journal")[0] == 2
    code, _, err = till("import", "till.journal", "--journal", "sqlite:new.db", "--stream", "other")
    assert code == 2
    assert "'main'" in err
    damaged = bytearray(Path("till.journal").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    Path("damaged.journal").write_bytes(damaged)
    assert till("import", "damaged.journal", "--journal", "sqlite:new.db")[0] == 4
    code, _, err = till("check", "--journal", "file:damaged.journal")
    assert code == 4


def test_a_journal_of_another_stream_keeps_its_name(shell: Shell) -> None:
    with Runtime.open(Till, journal="sqlite:j.db", snapshots="dir:s", stream="eu.1") as runtime:
        list(runtime.execute_many(deposits(9)))
    shell.json("export", "eu.journal", "--stream", "eu.1", "--after", "4")
    assert shell.json("replay", "--journal", "file:eu.journal", "--stream", "eu.1")["commands"] == 5
    code, _, err = shell("replay", "--journal", "file:eu.journal")
    assert code == 3
    assert "'eu.1'" in err
    shell.json("export", "eu-whole.journal", "--stream", "eu.1")
    assert shell.json("import", "eu-whole.journal", "--journal", "sqlite:again.db")["stream"] == "eu.1"


def test_an_engine_without_tables(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECOVERY_ENGINE", "tests.engines:Counter")
    with Runtime.open(Counter, journal="sqlite:j.db", snapshots="dir:s", digest_every=10, snapshot_every=0) as runtime:
        list(runtime.execute_many(Command("count", {"name": f"n{n % 3}"}, received_at_ms=n) for n in range(1, 36)))
    exported = shell.json("export", "part.journal", "--after", "17", "--image-every", "10")
    assert exported["images"] == [17, 20, 30]
    report = shell.json("replay", "--journal", "file:part.journal")
    assert (report["verdict"], report["first"], report["snapshot"]["command_id"]) == ("verified", 18, 17)
    monkeypatch.delenv("RECOVERY_ENGINE")
    code, _, err = shell("export", "other.journal", "--after", "18")
    assert code == 2
    assert "--engine" in err


def test_an_empty_journal_is_carried_too(shell: Shell) -> None:
    Runtime.open(Till, journal="sqlite:j.db", snapshots="dir:s").close()
    assert shell.json("export", "empty.journal")["commands"] == 0
    assert shell.json("replay", "--journal", "file:empty.journal", code=5)["verdict"] == "nothing"
    assert shell.json("import", "empty.journal", "--journal", "sqlite:again.db")["commands"] == 0


def test_a_power_cut_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    old, new = b"old" * 100, [b"new" * 50] * 3
    for over in (True, False):
        for cut_at in range(1, 12):
            for seed in range(20):
                disk = PowerCutDisk()
                if over:
                    write_whole("d/f", [old], over=False, files=disk)
                disk._cut_at = disk.operations + cut_at
                done = False
                try:
                    write_whole("d/f", new, over=over, files=disk)
                    done = True
                except PowerCut:
                    pass
                after = disk.after_cut(random.Random(seed))
                found = after.read("d/f").read() if "f" in after.names("d") else None
                assert found in (b"".join(new), old if over else None)
                assert not done or found == b"".join(new)
