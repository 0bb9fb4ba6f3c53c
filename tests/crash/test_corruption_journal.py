"""Every byte of a journal's rows damaged, every cut of them: refused with the position, or every reader says the same.

The damage is done through a connection of its own to a small journal on disk, one place at a time, and made good again.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from journal.errors import CorruptionError, RecoveryError
from journal.journal import Journal
from journal.records import Entry, checksum
from recovery import Command, Runtime, open_journal, verify
from recovery.check import check
from recovery.cli.main import run
from tests.engines import Till

COMMANDS = (
    ("deposit", {"number": "ada", "cents": 5}),
    ("deposit", {"number": "bob", "cents": 7}),
    ("deposit", {"number": "ada", "cents": -2}),
    ("deposit", {"number": "ada", "cents": -9}),
    ("draw", {"number": "ada"}),
    ("close_account", {"number": "bob"}),
)
LAST = len(COMMANDS)
VICTIM = 3
FILE_FLIPS = 300
FLIPS = (0x01, 0x80, 0xFF)
TEXTS = ("type", "entity_id")
NUMBERS = (
    *("position", "stream", "command_id", "received_at_ms", "rejected"),
    *("events_reduced", "epoch", "duration_ns", "recorded_at_ms"),
)
BLOBS = tuple(name for name in Entry._fields if name not in TEXTS + NUMBERS)
NULLABLE = ("entity_id", "changes_bytes", "pre_digest_bytes", "post_digest_bytes")
OUTSIDE_THE_CHAIN = ("events_reduced", "epoch", "duration_ns", "recorded_at_ms", "checksum")

Reader = Callable[[Journal], Any]


def replayed(journal: Journal) -> Any:
    """What verify reports, but for how long it took."""
    return verify(Till, journal).to_dict() | {"seconds": 0, "commands_per_second": 0}


def pages_backwards(journal: Journal) -> Any:
    """Each entry by itself, from the last."""
    return [journal.entry(command_id) for command_id in range(LAST + 1, 0, -1)]


READERS: dict[str, Reader] = {
    "read": lambda journal: list(journal.read()),
    "read on": lambda journal: [list(journal.read(after)) for after in range(VICTIM - 1)],
    "entry": pages_backwards,
    "head": Journal.head,
    "recent": Journal.recent,
    "identity": lambda journal: journal.identity,
    "epochs": Journal.epochs,
    "verify": replayed,
    "check": lambda journal: check(journal, None, lambda done, everything: None).to_dict(),
}


class Damaged:
    """A journal, a way to damage it, and what its readers say."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.db"
        self.url = f"sqlite:{self.path}"
        for first in (0, VICTIM):
            with Runtime.open(Till, journal=self.url, snapshots="memory:", snapshot_every=0, seed=7) as till:
                for number, what in list(enumerate(COMMANDS))[first : first + VICTIM]:
                    time_ms = 1_700_000_000_000 + number
                    till.execute(Command(*what, request_id=f"r{number}", received_at_ms=time_ms, entity_id="ada"))
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.db.execute("PRAGMA synchronous = OFF")
        self.sound = self.said()

    def said(self) -> dict[str, Any]:
        """What each reader says, or the error it raises.  Opened anew: what a reader keeps in memory is no evidence."""
        said: dict[str, Any] = {}
        with open_journal(self.url) as journal:
            for name, reader in READERS.items():
                try:
                    said[name] = reader(journal)
                except RecoveryError as error:
                    said[name] = error
        return said

    def positions(self, what: str) -> dict[str, set[int | str | None]]:
        """Where each reader refuses, with the exit code of damage.  One that does not must say what it said before."""
        positions: dict[str, set[int | str | None]] = {}
        for name, said in self.said().items():
            if isinstance(said, CorruptionError):
                assert said.exit_code == 4
                assert said.hint, (what, name, said)
                positions[name] = {said.position}
            elif isinstance(said, dict) and said["verdict"] == "damaged":
                damage = json.dumps(said)
                positions[name] = {int(at) for at in re.findall(r"command (\d+): ", damage)} or {damage}
            elif name == "entry":
                # One that is not there is None, and no other is given for it.
                assert all(one in (None, sound) for one, sound in zip(said, self.sound[name], strict=True)), (
                    what,
                    said,
                )
            else:
                assert said == self.sound[name], (what, name, said)
        return positions

    def expect(self, what: str, *possible: int | str) -> None:
        """Whoever reads what is damaged names the position, or one of two; reading, verify and check do."""
        found = self.positions(what)
        assert {"read", "verify", "check"} <= found.keys(), (what, found)
        for name, positions in found.items():
            assert positions <= set(possible), (what, name, positions)

    def expect_epoch(self, what: str, *possible: str) -> None:
        """Entries read the same; whoever asks for the epochs hears which is damaged."""
        found = self.positions(what)
        assert {"epochs", "verify", "check"} <= found.keys(), (what, found)
        for name, positions in found.items():
            (position,) = positions
            assert any(at in str(position) for at in possible), (what, name, position)

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.db.execute(sql, parameters).fetchall()

    @contextmanager
    def undone(self, *statements: tuple[Any, ...]) -> Iterator[None]:
        """Statements, for a while: everything is put back from a copy."""
        tables = ("streams", "epochs", "entries")
        before = {table: self.rows(f"SELECT * FROM {table}") for table in tables}
        self.db.execute("BEGIN")
        for sql, *parameters in statements:
            self.db.execute(sql, parameters)
        self.db.execute("COMMIT")
        try:
            yield
        finally:
            self.db.execute("BEGIN")
            for table, rows in before.items():
                self.db.execute(f"DELETE FROM {table}")
                if rows:
                    self.db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)
            self.db.execute("COMMIT")


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Damaged]:
    damaged = Damaged(tmp_path_factory.mktemp("journal"))
    assert damaged.positions("nothing") == {}
    yield damaged
    assert damaged.positions("all made good") == {}
    damaged.db.close()


def flipped(data: bytes) -> Iterator[bytes]:
    """Each byte with other bits."""
    for at in range(len(data)):
        for flip in FLIPS:
            yield data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]


def cut(data: bytes) -> Iterator[bytes]:
    """Every shorter length, and a longer one."""
    yield from (data[:size] for size in range(len(data)))
    yield data + b"\0"


@pytest.mark.parametrize("column", BLOBS + TEXTS)
def test_every_byte_and_every_length_of_bytes_and_texts(journal: Damaged, column: str) -> None:
    """Bytes, and texts that may then be no UTF-8; and NULL where the layout allows it."""
    ((old,),) = journal.rows(f"SELECT CAST({column} AS BLOB) FROM entries WHERE command_id = ?", VICTIM)
    value = "CAST(? AS TEXT)" if column in TEXTS else "?"
    assert len(old) >= 3
    for damaged in (*flipped(old), *cut(old), *([None] if column in NULLABLE else [])):
        with journal.undone((f"UPDATE entries SET {column} = {value} WHERE command_id = {VICTIM}", damaged)):
            journal.expect(f"{column} {damaged!r}", VICTIM)


@pytest.mark.parametrize("column", NUMBERS)
def test_every_byte_of_a_number_and_other_types(journal: Damaged, column: str) -> None:
    """An entry moved to another place is missing from its own; a flag that is as true as before is no damage."""
    ((old,),) = journal.rows(f"SELECT {column} FROM entries WHERE command_id = ?", VICTIM)
    flags = [(flip << 8 * byte) for byte in range(8) for flip in FLIPS]
    numbers = [int.from_bytes((old ^ flag).to_bytes(8, "big", signed=False), "big", signed=True) for flag in flags]
    taken = (
        {position for (position,) in journal.rows("SELECT position FROM entries")} if column == "position" else set()
    )
    others = [] if column == "position" else ["x", b"\x03", 0.5]
    for damaged in (*numbers, *others):
        if damaged not in taken:
            # An entry that lies elsewhere may be met there before it is missed here.
            elsewhere = [damaged % 2**40] if column == "position" else []
            what = f"{column} {damaged!r}"
            with journal.undone((f"UPDATE entries SET {column} = ? WHERE command_id = {VICTIM}", damaged)):
                if column in ("rejected", "events_reduced") and type(damaged) is int and bool(damaged) == bool(old):
                    assert journal.positions(what) == {}
                else:
                    journal.expect(what, VICTIM, *elsewhere)


@pytest.mark.parametrize("command_id", range(1, LAST))
def test_a_deleted_row_is_missed(journal: Damaged, command_id: int) -> None:
    with journal.undone((f"DELETE FROM entries WHERE command_id = {command_id}",)):
        journal.expect("deleted", command_id)


@pytest.mark.parametrize("with_their_ids", [False, True])
def test_exchanged_rows_are_found(journal: Damaged, with_their_ids: bool) -> None:
    """Two entries in each other's place, as they are or with their command ids changed to fit."""
    for first, second in combinations(range(1, LAST + 1), 2):
        exchange = (f"UPDATE entries SET position = position + 1000 WHERE command_id = {first}",)
        exchange += (f"UPDATE entries SET position = position - {second - first} WHERE command_id = {second}",)
        exchange += (f"UPDATE entries SET position = position - 1000 + {second - first} WHERE command_id = {first}",)
        fit = (
            f"UPDATE entries SET command_id = {first} + {second} - command_id WHERE command_id IN ({first}, {second})",
        )
        with journal.undone(*((sql,) for sql in exchange + (fit if with_their_ids else ()))):
            journal.expect(f"{first} and {second}", first, second)


def test_a_copy_in_the_place_of_another_is_found(journal: Damaged) -> None:
    """All of an entry but its place and request, twice."""
    copied = [name for name in Entry._fields if name not in ("command_id", "request_key")]
    values = ", ".join(f"{name} = (SELECT {name} FROM entries WHERE command_id = 2)" for name in copied)
    with journal.undone((f"UPDATE entries SET {values} WHERE command_id = {VICTIM}",)):
        journal.expect("copied", VICTIM)


@pytest.mark.parametrize("column", [name for name in Entry._fields if name not in ("command_id", "checksum")])
def test_a_column_with_a_checksum_made_to_fit_is_found_by_the_chain_or_the_hashes(
    journal: Damaged, column: str
) -> None:
    """The checksum finds what chance does to a row; the chain and the stored hashes find also a row that was sealed anew."""
    with open_journal(journal.url) as opened:
        entry = opened.entry(VICTIM)
    assert entry is not None
    old = getattr(entry, column)
    damaged = {bytes: lambda: old[:-1] + bytes([old[-1] ^ 1]), str: lambda: old + "x", bool: lambda: not old}
    changed = entry._replace(**{column: damaged.get(type(old), lambda: old + 1)()})
    changed = changed._replace(checksum=checksum(*changed[:-1]))
    values = ", ".join(f"{name} = ?" for name in Entry._fields)
    with journal.undone((f"UPDATE entries SET {values} WHERE command_id = {VICTIM}", *changed)):
        with open_journal(journal.url) as opened:
            report = check(opened, None, lambda done, everything: None)
        assert report.last_good == (LAST if column in OUTSIDE_THE_CHAIN else VICTIM - 1)


# Epochs and the identity


def documents(journal: Damaged, table: str, column: str) -> Iterator[bytes]:
    """Every byte and every length of a document."""
    ((old,),) = journal.rows(f"SELECT {column} FROM {table} LIMIT 1")
    yield from flipped(old)
    yield from cut(old)


def test_every_byte_and_every_length_of_an_epoch(journal: Damaged) -> None:
    """An epoch says under which rules an entry was made: with another, a replay would be another."""
    for damaged in documents(journal, "epochs", "document"):
        with journal.undone(("UPDATE epochs SET document = ? WHERE number = 1", damaged)):
            journal.expect_epoch("document", "epoch 1")
    for damaged in (None, "x", 7):
        if damaged is not None:
            with journal.undone(("UPDATE epochs SET document = ? WHERE number = 1", damaged)):
                journal.expect_epoch("document", "epoch 1")


@pytest.mark.parametrize("number", [1, 2])
def test_an_epoch_that_is_gone_or_elsewhere_is_missed(journal: Damaged, number: int) -> None:
    for sql in (
        f"DELETE FROM epochs WHERE number = {number}",
        f"UPDATE epochs SET number = 9 WHERE number = {number}",
        f"UPDATE epochs SET stream = 0 WHERE number = {number}",
    ):
        with journal.undone((sql,)):
            journal.expect_epoch(sql, "epoch 1", "epoch 2", "epoch 9")
    with journal.undone(("UPDATE epochs SET number = 3 - number + 100",), ("UPDATE epochs SET number = number - 100",)):
        journal.expect_epoch("exchanged", "epoch 1")


IDENTITY = "identity of stream number 1"


def test_every_byte_and_every_length_of_the_identity(journal: Damaged) -> None:
    """The seed of every draw, and what the journal is, stand there."""
    for column in ("identity", "checksum", "name"):
        value = "CAST(? AS TEXT)" if column == "name" else "?"
        ((old,),) = journal.rows(f"SELECT CAST({column} AS BLOB) FROM streams")
        for damaged in (*flipped(old), *cut(old)):
            with journal.undone((f"UPDATE streams SET {column} = {value}", damaged)):
                found = journal.positions(f"{column} {damaged!r}")
                assert found.keys() == READERS.keys()
                said = [str(position) for positions in found.values() for position in positions]
                assert all(IDENTITY in one or journal.url in one for one in said), said


def test_a_journal_whose_name_or_number_is_lost_is_not_taken_for_a_new_one(journal: Damaged) -> None:
    """Nobody begins a new journal in the place of one whose row of identity is gone."""
    for sql in ("DELETE FROM streams", "UPDATE streams SET stream = 2", "UPDATE streams SET name = 'other'"):
        with journal.undone((sql,)):
            assert journal.positions(sql).keys() == READERS.keys()
            with pytest.raises(CorruptionError) as found:
                Runtime.open(Till, journal=journal.url, snapshots="memory:")
            assert found.value.position == IDENTITY


def test_an_identity_in_the_place_of_another_is_found(journal: Damaged) -> None:
    """Also by stores that do not look into what they hold."""
    with open_journal(journal.url) as opened:
        other = opened.identity._replace(stream="other").pack()
        for damaged in (other, other[:-1], b""):
            with (
                mock.patch.object(opened.store, "identity", return_value=damaged),
                pytest.raises(CorruptionError) as found,
            ):
                opened.identity  # noqa: B018 - reading it is the test
            assert found.value.position == "identity of stream 'main'"


# The whole file, and the command line


def lookups(journal: Journal) -> Any:
    """What a writer asks before it applies a command."""
    return [journal.get(f"r{number}") for number in range(LAST)], sorted(journal.request_ids())


def outcome(url: str, reader: Reader) -> Any:
    """What a reader says; "refused" where it raises, or reports damage."""
    try:
        with open_journal(url) as opened:
            said = reader(opened)
    except RecoveryError as error:
        return "refused" if error.exit_code in (2, 3, 4) else error
    return "refused" if isinstance(said, dict) and said["verdict"] == "damaged" else said


def test_bytes_of_the_file_itself(journal: Damaged, tmp_path: Path) -> None:
    """Flipped anywhere, its index and layout among it: every reader says the same, or the check says that it is damaged."""
    journal.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    data = journal.path.read_bytes()
    used = [at for at in range(len(data)) if data[at]]
    readers = {**READERS, "lookups": lookups}
    sound = {name: outcome(journal.url, reader) for name, reader in readers.items()}
    harmless = 0
    for at in used[:: max(1, len(used) // FILE_FLIPS)]:
        (tmp_path / "journal.db").write_bytes(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :])
        said = {name: outcome(f"sqlite:{tmp_path}/journal.db", reader) for name, reader in readers.items()}
        differs = [name for name in readers if said[name] not in (sound[name], "refused")]
        assert not differs or said["check"] == "refused", (at, differs)
        harmless += said == sound
    assert harmless < FILE_FLIPS / 2, harmless


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE entries SET chain = zeroblob(16) WHERE command_id = 3", "command 3: "),
        ("UPDATE entries SET result_bytes = x'01' WHERE command_id = 3", "command 3: "),
        ("UPDATE entries SET type = 7.5 WHERE command_id = 3", "command 3: "),
        ("DELETE FROM entries WHERE command_id = 3", "command 3: "),
        ("UPDATE epochs SET document = x'01' WHERE number = 1", "epoch 1: "),
        ("UPDATE streams SET identity = x'01'", IDENTITY),
    ],
)
def test_verbs_end_with_4_and_say_where(
    journal: Damaged, sql: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--journal", journal.url, "--snapshots", f"dir:{tmp_path}"]
    engine = ["--engine", "tests.engines:Till"]
    with journal.undone((sql,)):
        for verb in (["check"], ["replay", *engine], ["log"], ["run", *engine, "/dev/null"]):
            if verb != ["log"] or "epochs" not in sql:
                assert run([*verb, *place]) == 4, verb
                out, err = capsys.readouterr()
                assert said in out + err, (verb, out, err)
                assert "Traceback" not in err
    assert run(["check", *place]) == 0
