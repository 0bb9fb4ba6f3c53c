"""The processes that the chaos tests kill, forked from one that has imported everything: ready in a few milliseconds.

``python -m tests.crash.chaos_children URL FOLDER COMMANDS PROJECTED`` reads JSON lines on stdin and answers each with one:
``{"start": ROLE, "kill_at": POINT}`` with ``{"pid": n}``; ``{"look": PID}`` with ``{"status": null | exit code}``.  At the end
of stdin all that it started is killed.  Roles:

* ``engine`` runs ``recovery.examples.exchange:Exchange`` on the generated workload for ever, one command at a time or many.  A
  line ``command_id crc`` goes to FOLDER/acknowledged for each receipt, ``command_id index`` to FOLDER/mail for each message.
* ``outbox`` delivers the same messages, as outbox "post", to FOLDER/post.
* ``image`` makes an image; ``migrate`` brings the schema up to date; ``backfill`` fills the projection's tables.

Exit 0: done; 3: the server was away, or somebody else was there; 1: a finding, which is in FOLDER/findings.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import sys
import time
import traceback
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from journal import backfill, files
from journal.postgres_schema import migrate
from journal.urls import open_reader, open_writer
from recovery import Command, Message, Outbox, Receipt, Runtime, UnavailableError
from recovery.examples.exchange import Exchange
from recovery.examples.fills_and_balances import FillsAndBalances
from recovery.examples.generated import Generated
from recovery.images import open_catalog, redo_image

SEED = 7
SENT_AGAIN = 25
SNAPSHOT_EVERY = 500
CAPTURE_EVERY = 150
PAUSE_S = 0.004
PAGE_ENTRIES = 50


class Child:
    """What one of these processes works on."""

    def __init__(self, url: str, folder: str, commands: list[Command], *, projected: bool) -> None:
        self.url = url
        self.folder = Path(folder)
        self.commands = commands
        self.projections = [FillsAndBalances()] if projected else []

    def engine(self) -> None:
        """Execute the stream from where the journal ends, and a little before that."""
        with (
            open(self.folder / "acknowledged", "ab", buffering=0) as acknowledged,
            open(self.folder / "mail", "ab", buffering=0) as mail,
            Runtime.open(
                Exchange, journal=self.url, snapshots=self.url, projections=self.projections, seed=SEED, batch_max=16,
                snapshot_every=SNAPSHOT_EVERY, keep=2,
            ) as exchange,
        ):  # fmt: skip
            head = exchange.head.command_id
            known = last_acknowledged(self.folder)
            assert head >= known, f"command {known} was acknowledged, and the journal ends at {head}"
            outbox = exchange.outbox("mail", deliver_batch=writer_of(mail))
            draw = random.Random(head)
            at, imaged = max(0, head - SENT_AGAIN), head
            while at < len(self.commands):
                chunk = self.commands[at : at + draw.choice((1, 1, 3, 40))]
                outcomes = [exchange.execute(chunk[0])] if len(chunk) == 1 else exchange.execute_many(chunk)
                for outcome in outcomes:
                    if isinstance(outcome, Exception):
                        raise outcome
                    os.write(acknowledged.fileno(), line_of(outcome))
                at += len(chunk)
                if outbox.failure is not None:
                    raise outbox.failure
                if at - imaged > CAPTURE_EVERY:
                    imaged = exchange.snapshot()
                time.sleep(draw.uniform(0, 2 * PAUSE_S) * len(chunk) ** 0.5)
        raise AssertionError("the stream was too short")

    def outbox(self) -> None:
        """Deliver for ever."""
        with (
            open(self.folder / "post", "ab", buffering=0) as post,
            Outbox(self.url, name="post", deliver_batch=writer_of(post), batch_max=20) as outbox,
        ):
            outbox.run()

    def image(self) -> None:
        """One image, beside the engine."""
        from journal.journal import Journal

        with Journal(open_reader(self.url)) as journal:
            catalog = open_catalog(self.url, "main")
            assert catalog is not None
            redo_image(journal, catalog, engine="", app_dir=".", report=lambda step: None)

    def migrate(self) -> None:
        """The schema."""
        migrate(self.url)

    def backfill(self) -> None:
        """The tables, a few commands at a time."""
        vars(backfill)["PAGE_ENTRIES"] = PAGE_ENTRIES
        with closing(open_writer(self.url)) as store:
            backfill.backfill(store, "main", FillsAndBalances())

    def run(self, role: str) -> int:
        """Play a role to its end."""
        try:
            getattr(self, role)()
        except UnavailableError:
            return 3
        except BaseException:
            with open(self.folder / "findings", "a") as findings:
                findings.write(f"{role}:\n{traceback.format_exc()}\n")
            return 1
        return 0


def last_acknowledged(folder: Path) -> int:
    """The highest command that a receipt was heard of."""
    lines = (folder / "acknowledged").read_bytes()[-4000:].split(b"\n")[1:-1]
    return max((int(line.split()[0]) for line in lines), default=0)


def line_of(receipt: Receipt) -> bytes:
    """An acknowledgement: the command, and a sum over all that the receipt says."""
    said = repr((receipt.response, receipt.events, receipt.rejection))
    return b"%d %d\n" % (receipt.command_id, zlib.crc32(said.encode()))


def writer_of(file: Any) -> Callable[[list[Message]], object]:
    """A consumer that notes the name of every message before it returns."""
    return lambda messages: [file.write(b"%d %d\n" % (message.command_id, message.index)) for message in messages]


def start(child: Child, role: str, kill_at: str) -> int:
    """Fork a process for a role, to be killed at a point: its own, or one of the process that makes images for it."""
    pid = os.fork()
    if pid:
        return pid
    point, _, count = kill_at.partition(":")
    vars(files).update(_armed=point, _passes_left=int(count or 1))
    status = 1
    try:
        os.setpgid(0, 0)
        sys.stdin.close()
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        status = child.run(role)
    finally:
        os._exit(status)


def main(url: str, folder: str, commands: int, projected: bool) -> None:
    """Start what is asked for, until nobody asks any more."""
    child = Child(url, folder, list(Generated(1, commands=commands).commands()), projected=projected)
    gc.collect()
    gc.freeze()
    living: set[int] = set()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if "start" in asked:
            answer: dict[str, int | None] = {"pid": start(child, asked["start"], asked["kill_at"])}
            living.add(answer["pid"] or 0)
        else:
            pid, status = os.waitpid(asked["look"], os.WNOHANG)
            answer = {"status": os.waitstatus_to_exitcode(status) if pid else None}
            living.discard(pid)
        print(json.dumps(answer), flush=True)
    for pid in living:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # and what it started


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "projected")
