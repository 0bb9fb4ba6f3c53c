"""The child of test_restore_everywhere: ``python -m tests.property.elsewhere FOLDER write|read``, in its own environment.

``write`` runs a history full of what could depend on the process (sets, times, decimals, random draws) and prints its
chains and states; ``read`` verifies one, from every image, and prints what the verbs show of it.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from recovery import (
    Command,
    Context,
    Index,
    Reject,
    Runtime,
    Table,
    TableEngine,
    command,
    open_journal,
    open_snapshots,
    verify,
)
from recovery.cli.main import run

COMMANDS = 80
BEGAN_MS = 1_700_000_000_000
SPEC = "tests.property.elsewhere:Diary"


class Note(NamedTuple):
    due: datetime
    share: Decimal
    mark: UUID
    words: tuple[str, ...]


class Diary(TableEngine):
    """Careful where Python is not the same everywhere: what comes out of a set is sorted."""

    name = "diary"

    notes = Table(tuple[int, str], Note)  # type: ignore[arg-type]
    by_due = Index(notes, key=lambda key, note: note.due)
    by_word = Index(notes, key=lambda key, note: note.words[:1] or None)

    @command
    def write(self, context: Context, owner: str, due: datetime, text: str) -> dict[str, object]:
        """A note of the words in a text, each once."""
        words = {word for word in text.split() if len(word) > 1}
        if not words:
            raise Reject("empty", text)
        now = datetime.fromtimestamp(context.now_ms / 1000, UTC)
        share = Decimal(1) / Decimal(len(words)) * Decimal(str(context.random.random()))
        note = Note(max(due, now), share, context.new_uuid(), tuple(sorted(words)))
        self.notes[context.command_id % 7, owner] = note
        context.emit("Noted", {word: len(word) for word in words}, key=owner)
        return {"due": note.due, "words": {word: word.encode() for word in words}, "left": [len(self.notes), 1.5]}

    @command
    def tear_out(self, context: Context, until: datetime) -> list[tuple[int, str]]:
        """All notes due before a time."""
        torn = list(self.by_due.range(None, until))
        for key in torn:
            del self.notes[key]
        return torn


def history() -> Iterator[Command]:
    """The same everywhere."""
    draw = random.Random(5)
    for number in range(COMMANDS):
        moment = datetime(2026, 3, 29, 0, 30, tzinfo=UTC) + timedelta(minutes=draw.randrange(-9000, 9000))
        if draw.random() < 0.1:
            asked: tuple[str, dict[str, object]] = ("tear_out", {"until": moment - timedelta(days=3)})
        else:
            text = " ".join(draw.choice(["ab", "cd", "éf", "x", "gh", "ij"]) for _ in range(draw.randrange(6)))
            asked = ("write", {"owner": draw.choice("uvw"), "due": moment, "text": text})
        yield Command(*asked, request_id=f"note {number}", received_at_ms=BEGAN_MS + 977_000 * number)


def write(folder: str) -> None:
    """Live through the history, with an image every now and then."""
    with Runtime.open(
        Diary, journal=f"sqlite:{folder}/j.db", snapshots=f"dir:{folder}/s", snapshot_every=0, keep=99, seed=11
    ) as runtime:
        for number, asked in enumerate(history()):
            runtime.execute(asked)
            if number % 9 == 8:
                runtime.snapshot()
        print(runtime.query(lambda diary: (list(diary.notes.items()), list(diary.by_due), list(diary.by_word))))
    with open_journal(f"sqlite:{folder}/j.db") as journal:
        for entry in journal.read():
            print(entry.chain.hex(), entry.post_digest, entry.response, entry.rejection)


def read(folder: str) -> None:
    """Verify it with this process's own hash seed and time zone."""
    journal, snapshots = f"sqlite:{folder}/j.db", f"dir:{folder}/s"
    for start in (0, *(image.command_id for image in open_snapshots(snapshots).images())):
        for mode in ("execute", "redo"):
            report = verify(SPEC, journal, snapshots, after=start, start=start, mode=mode)
            print(report.verdict, mode, start, report.commands)
    place = ["--journal", journal, "--snapshots", snapshots]
    for verb in (
        ["log"],
        ["log", "--after", "2023-11-14T22:30:00"],
        ["state", "--at", "2023-11-15T01:00:00"],
        ["diff", "9", "70"],
    ):
        run([*verb, *place])


if __name__ == "__main__":
    {"write": write, "read": read}[sys.argv[2]](sys.argv[1])
