"""Every byte of a journal's rows damaged, every cut of them: refused with the position, or every reader says the same.

The damage is done through a connection of its own to a small journal on disk, one place at a time, and made good again.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from journal.errors import CorruptionError, Gap
from journal.journal import Journal
from journal.records import Entry, checksum, next_chain
from journal.stores.sqlite import SqliteStore
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
VICTIM = 3
REJECTED = 4
FLIPS = (0x01, 0x80, 0xFF)
COLUMNS = ("position", "stream", *Entry._fields)
BLOBS = tuple(name for name in COLUMNS if name.endswith("_bytes") or name in ("request_key", "chain", "part_hashes", "checksum"))
TEXTS = ("type", "entity_id")
NUMBERS = tuple(name for name in COLUMNS if name not in BLOBS + TEXTS)


class Damaged:
    """A journal, a way to damage it, and all that its readers say."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.db"
        self.url = f"sqlite:{self.path}"
        with Runtime.open(Till, journal=self.url, snapshots="memory:", snapshot_every=0, seed=7) as till:
            for number, what in enumerate(COMMANDS):
                till.execute(Command(*what, request_id=f"r{number}", received_at_ms=1_700_000_000_000, entity_id="ada"))
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.db.execute("PRAGMA synchronous = OFF")
        self.journal = open_journal(self.url)
        self.sound = self.said()

    def close(self) -> None:
        self.journal.close()
        self.db.close()

    def said(self) -> list[Any]:
        """What every reader says of the journal; raises what reading it raises."""
        # A reader of its own: what another has kept in memory is no evidence.
        with Journal(SqliteStore.open_for_read(str(self.path))) as journal:
            return self.said_by(journal)

    def said_by(self, journal: Journal) -> list[Any]:
        entries = list(journal.read())
        looked_up = [journal.get(f"r{number}") for number in range(len(COMMANDS))]
        report, checked = verify(Till, journal), check(journal, None, lambda done, all: None)
        if report.damage or checked.damage:
            raise CorruptionError(report.damage or checked.damage[0])
        head, recent = journal.head(), journal.recent()
        rest = (report.to_dict() | {"seconds": 0, "commands_per_second": 0}, checked, journal.identity, journal.epochs())
        return [entries, looked_up, head, recent, sorted(journal.request_ids()), *rest]

    @contextmanager
    def row(self, table: str, where: str, column: str, value: object) -> Iterator[None]:
        """One column of one row with another value, for a while."""
        ((rowid, old),) = self.db.execute(f"SELECT rowid, {column} FROM {table} WHERE {where}").fetchall()
        moved = value if column == "position" else rowid
        self.db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, rowid))
        try:
            yield
        finally:
            self.db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (old, moved))

    def refused(self, what: str) -> int | str | None:
        """The position at which readers refuse; None where all of them say what they said before."""
        try:
            said = self.said()
        except CorruptionError as error:
            assert error.exit_code == 4
            assert error.position is not None, f"{what}: {error!r} has no position"
            assert error.hint, f"{what}: {error!r} has no hint"
            return error.position
        assert said == self.sound, what
        return None


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Damaged]:
    damaged = Damaged(tmp_path_factory.mktemp("journal"))
    yield damaged
    assert damaged.said() == damaged.sound
    damaged.close()


def old_value(journal: Damaged, column: str, command_id: int = VICTIM) -> Any:
    kind = f"CAST({column} AS BLOB)" if column in TEXTS else column
    ((value,),) = journal.db.execute(f"SELECT {kind} FROM entries WHERE command_id = ?", (command_id,)).fetchall()
    return value


def flipped(data: bytes) -> Iterator[bytes]:
    for at in range(len(data)):
        for flip in FLIPS:
            yield data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]


@pytest.mark.parametrize("column", BLOBS)
def test_every_byte_and_every_length_of_a_blob(journal: Damaged, column: str) -> None:
    old = old_value(journal, column)
    for damaged in (*flipped(old), *(old[:size] for size in range(len(old))), old + b"\0", None):
        if damaged is not None or column not in ("request_key", "data_bytes", "result_bytes", "events_bytes", "chain"):
            with journal.row("entries", f"command_id = {VICTIM}", column, damaged):
                assert journal.refused(f"{column} {damaged!r}") == VICTIM
