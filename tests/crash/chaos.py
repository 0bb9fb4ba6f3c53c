"""Kills of a PostgreSQL server and of all that works on it, at random and at every named point; and what must hold after each.

``python -m tests.crash.chaos --kills 300`` (or ``scripts/chaos``) prints seed, counts and verdict; test_chaos.py does fewer.
Two lives of a journal, one with a projection and one without, whose lone commands are then one statement each:

* the schema is migrated, and killed at it; an engine then works through its stream, with images in the same database, an outbox
  in it and another in a process of its own; the server (all its processes), the engine, the outbox, and the processes that make
  images are killed; at last the projection's tables are filled anew, and that is killed.
* After each kill what is new is read, as recorded: the journal is the stream, command for command, chained; what was acknowledged
  is in it; the projection stands where the journal does, with each fill once; messages came in order, none left out, none ahead.
* At the end the journal has the chain of an uninterrupted life in memory, every receipt said the same as there, the tables
  are that engine's, every image is verified, and the whole replays.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import psycopg

from journal.backfill import clear
from journal.files import KILL_VARIABLE
from journal.postgres_schema import schema_state
from journal.testing.postgres_server import PostgresServer, children_of, memory_folder
from journal.urls import open_writer
from recovery import Receipt, Runtime, open_journal, open_snapshots, verify
from recovery.examples.exchange import Exchange
from recovery.examples.fills_and_balances import FillsAndBalances
from recovery.examples.generated import Generated
from tests.crash.chaos_children import SEED, last_acknowledged, line_of

ROOT: Final = Path(__file__).parents[2]
WAIT_S: Final = 90
COMMANDS_PER_KILL: Final = 700

POINTS: Final = (
    "create.after", "epoch.before", "epoch.after", "append.before:7", "commit.before:7", "commit.after:7", "append.after:7",
    "receipt.before:9", "project.before:7", "deliver.before:3", "deliver.after:3", "cursor.before:3", "cursor.after:3",
    "image.write", "publish.before", "publish.after", "prune.before", "prune.after", "cold_start.loaded",
    "cold_start.replayed",
)  # fmt: skip
"""Where an engine is killed, at the n-th pass; those of images are reached by the engine's own captures."""
LONE_POINTS: Final = ("epoch.after", "append.before:7", "commit.before:7", "commit.after:7", "append.after:7")
OUTBOX_POINTS: Final = ("deliver.before:3", "deliver.after:3", "cursor.before:3", "cursor.after:3")
VICTIMS: Final = ("server",) * 4 + ("engine",) * 4 + ("outbox",) * 2 + ("image", "both")


class Children:
    """The process that forks the others (chaos_children.py)."""

    def __init__(self, url: str, folder: Path, commands: int, *, projected: bool) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop(KILL_VARIABLE, None)
        kind = "projected" if projected else "plain"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.chaos_children", url, str(folder), str(commands), kind],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read()

    def start(self, role: str, kill_at: str = "") -> int:
        """The process id of a new one."""
        pid: int = self._ask({"start": role, "kill_at": kill_at})["pid"]
        return pid

    def status(self, pid: int) -> int | None:
        """The exit code of one, once; None while it lives."""
        status: int | None = self._ask({"look": pid})["status"]
        return status

    def wait(self, pid: int) -> int:
        """The exit code of one, when it has ended."""
        deadline = time.monotonic() + WAIT_S
        while (status := self.status(pid)) is None:
            assert time.monotonic() < deadline, "a process did not end in time"
            time.sleep(0.005)
        return status

    def _ask(self, question: dict[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that forks the others is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it, and all of them."""
        self._process.communicate(timeout=WAIT_S)


class Seen:
    """What an outbox handed out, read as it grows: in order, nothing left out, a repeat at most a batch back."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_to = 0
        self._rest = b""
        self._at = -1
        self.places: dict[tuple[int, int], int] = {}
        """Where each message stands among all that were recorded."""

    @property
    def size(self) -> int:
        """How many bytes it has said so far."""
        return self._path.stat().st_size if self._path.exists() else 0

    def check(self, size: int) -> None:
        """Look at what is new in the first ``size`` bytes; every message of it must be recorded by now."""
        with suppress(FileNotFoundError), open(self._path, "rb") as file:
            file.seek(self._read_to)
            data = file.read(size - self._read_to)
            self._read_to += len(data)
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                command_id, index = map(int, line.split())
                place = self.places.get((command_id, index))
                assert place is not None, (
                    f"message {command_id}/{index} came before it was durable, or was never recorded"
                )
                assert place <= self._at + 1, f"messages were left out before {command_id}/{index}"
                self._at = place

    @property
    def newest(self) -> int:
        """How many were seen of all."""
        return self._at + 1


class Life:
    """One journal under fire."""

    def __init__(
        self, server: PostgresServer, folder: Path, rng: random.Random, kills: int, *, projected: bool
    ) -> None:
        self.server = server
        self.folder = folder
        self.rng = rng
        self.kills = kills
        self.projected = projected
        self.schema = f"chaos{uuid.uuid4().hex[:8]}"
        self.url = server.url(schema=self.schema)
        commands = 40_000 + kills * COMMANDS_PER_KILL
        self.stream = list(Generated(1, commands=commands).commands())
        self.children = Children(self.url, folder, commands, projected=projected)
        self.engine = self.outbox = 0
        self.counts: Counter[str] = Counter()
        self.read_to = self.events = 0
        self.outboxes = [Seen(folder / name) for name in ("mail", "post")]
        for seen in self.outboxes:
            seen.places = self.outboxes[0].places

    def run(self) -> None:
        """All of it."""
        try:
            self.migrate()
            (self.folder / "acknowledged").touch()
            self.named_points()
            self.random_kills()
            self.settle()
            self.judge()
            if self.projected:
                self.fill_anew()
        finally:
            self.children.close()

    # Before there is a journal

    def migrate(self) -> None:
        """The schema, killed at each of its points, and with the server."""
        for point in ("migrate.before:1", "migrate.after:1", "migrate.before:2"):
            self.reach("migrate", point)
        self.until_done("migrate", kills=max(2, self.kills // 30), kinds=("migrate", "server"))
        found, wanted = schema_state(self.url)
        assert found == wanted

    # While it grows

    def named_points(self) -> None:
        """The engine, and an outbox beside it, at every point; some once more in the life after."""
        for point in POINTS if self.projected else LONE_POINTS:
            self.reach("engine", point)
            if point.startswith(("epoch.", "cold_start.")):
                self.reach("engine", point)
            self.check()
        for point in OUTBOX_POINTS if self.projected else ():
            self.reach("outbox", point)
            self.reach("outbox", point.partition(":")[0])
        self.check()

    def reach(self, role: str, point: str) -> None:
        """Start one armed with a point; it must get there."""
        deadline = time.monotonic() + WAIT_S
        while (status := self.children.wait(self.children.start(role, point))) != -signal.SIGKILL:
            self.no_findings()
            assert status == 3, f"{role} did not reach {point}: {status}"
            assert time.monotonic() < deadline, f"{role} did not reach {point}"
        self.counts[f"point {point.partition(':')[0]}"] += 1

    def random_kills(self) -> None:
        """Kill this or that, and look."""
        self.keep_alive()
        for _ in range(self.kills):
            time.sleep(self.rng.uniform(0.02, 0.3))
            self.kill(self.rng.choice(VICTIMS))
            self.keep_alive()
            self.check()

    def kill(self, victim: str) -> None:
        """End it without a warning."""
        if victim in ("server", "both"):
            self.server.kill()
            if victim == "both":
                self.end(self.engine)
                if self.rng.random() < 0.5:  # the next one meets a server that is not there, or just comes up
                    self.engine = self.children.start("engine")
            time.sleep(self.rng.uniform(0, 0.15))
            self.server.start()
        elif victim == "engine":
            self.end(self.engine)
        elif victim == "outbox":
            self.end(self.outbox)
        elif not self.kill_image():
            return
        self.counts[victim] += 1

    def kill_image(self) -> bool:
        """A process that makes an image: one the engine started, or one of ours; False where none was met."""
        found = list(children_of(self.engine))
        if not found:
            self.until_done("image", kills=1, kinds=("image",))
            return False  # counted there
        with suppress(ProcessLookupError):
            os.kill(found[0], signal.SIGKILL)
        return True

    def end(self, pid: int) -> None:
        """SIGKILL, and wait."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        self.children.wait(pid)

    def keep_alive(self) -> None:
        """Start again whatever ended: killed, or because the server was away when it came up."""
        if not self.engine or self.has_ended(self.engine):
            self.engine = self.children.start("engine")
        self.keep_alive_outbox()

    def keep_alive_outbox(self) -> None:
        """The same of the outbox alone."""
        if not self.outbox or self.has_ended(self.outbox):
            self.outbox = self.children.start("outbox")

    def has_ended(self, pid: int) -> bool:
        """Whether one is to be started again."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        status = self.children.status(pid)
        if status is not None:
            self.counts[f"exit {status}"] += 1
        return status is not None

    def until_done(self, role: str, *, kills: int, kinds: tuple[str, ...]) -> None:
        """Start one again and again, killing it or the server under it so many times, until it says that it is done."""
        while True:
            pid = self.children.start(role)
            if kills:
                time.sleep(self.rng.uniform(0, 0.06))
                kills -= 1
                if self.rng.choice(kinds) == "server":
                    self.server.restart()
                    self.counts["server"] += 1
                else:
                    os.kill(pid, signal.SIGKILL)
            status = self.children.wait(pid)
            self.counts[role] += status == -signal.SIGKILL
            self.no_findings()
            if status == 0 and not kills:
                return

    def settle(self) -> None:
        """Stop the engine; let the outboxes come to the end, and an image be made, which a short life may not have got to."""
        deadline = time.monotonic() + WAIT_S
        while self.read_to <= last_acknowledged(self.folder) - 1 or self.read_to < 500:
            self.keep_alive()
            self.check()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        while any(seen.newest < self.events - 500 for seen in self.outboxes):
            self.keep_alive()
            self.check()
            assert time.monotonic() < deadline, "an outbox does not come on"
            time.sleep(0.05)
        self.end(self.engine)
        self.check()
        while self.outboxes[1].newest < self.events:
            self.keep_alive_outbox()
            self.check()
            assert time.monotonic() < deadline, "an outbox does not come to the end"
            time.sleep(0.05)
        self.end(self.outbox)
        self.until_done("image", kills=0, kinds=())

    # What must hold

    def no_findings(self) -> None:
        """No process of ours found anything wrong."""
        path = self.folder / "findings"
        assert not path.exists(), path.read_text()

    def check(self) -> None:
        """Everything recorded since the last look, and all that was said of it."""
        self.no_findings()
        known = last_acknowledged(self.folder)
        # What was seen first: it was durable then, so it is in what is read after it.
        sizes = [seen.size for seen in self.outboxes]
        with open_journal(self.url) as journal:
            head = journal.head().command_id
            assert head >= known, f"command {known} was acknowledged, and the journal ends at {head}"
            fills = []
            for entry in journal.read(self.read_to, head):
                asked = self.stream[entry.command_id - 1]
                assert entry.request_key == asked.request_key, f"command {entry.command_id} is another than was sent"
                for index, event in enumerate(entry.events):
                    self.outboxes[0].places[entry.command_id, index] = self.events
                    self.events += 1
                    if event.type == "Filled":
                        fills.append(
                            (entry.command_id, index, event.key, event.data["order_id"], event.data["quantity"])
                        )
        if self.projected and head:
            self.check_projection(head, fills)
        self.read_to = head
        for seen, size in zip(self.outboxes, sizes, strict=True):
            seen.check(size)

    def check_projection(self, head: int, fills: list[tuple[object, ...]]) -> None:
        """In one look: the tables stand at the head, and each new fill is there once."""
        with psycopg.connect(self.server.url(options=f"-csearch_path={self.schema}")) as db:
            db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            (stands,) = db.execute("SELECT command_id FROM projection_progress").fetchone() or (0,)
            (end,) = db.execute("SELECT coalesce(max(command_id), 0) FROM engine_journal").fetchone() or (0,)
            assert stands == end, f"the tables stand at command {stands}, the journal at {end}"
            found = db.execute(
                "SELECT command_id, event, account, order_id, quantity FROM fills WHERE command_id > %s AND command_id <= %s"
                " ORDER BY 1, 2",
                (self.read_to, head),
            ).fetchall()
        assert found == fills

    def judge(self) -> None:
        """Against a life that nobody disturbed."""
        head = self.read_to
        with Runtime.open(Exchange, journal="memory:", snapshots="memory:", snapshot_every=0, seed=SEED) as twin:
            said: dict[bytes, bytes] = {}
            for outcome in twin.execute_many(self.stream[:head]):
                assert isinstance(outcome, Receipt)
                line = line_of(outcome)
                said[line.split()[0]] = line
            chain = twin.head.chain
            accounts = [(name, *account) for name, account in twin.engine.accounts.items()]
            twin.close(snapshot=False)
        for line in (self.folder / "acknowledged").read_bytes().splitlines(keepends=True):
            assert line == said[line.split()[0]], "a receipt said another thing"
        with open_journal(self.url) as journal:
            assert (journal.head().command_id, journal.head().chain) == (head, chain)
            self.counts["epochs"] = len(journal.epochs())
        self.balances = accounts
        if self.projected:
            self.check_balances()
        images = list(open_snapshots(self.url).images())
        assert images, "no image was made"
        self.counts["images"] = len(images)
        for image in images:
            report = verify(Exchange, self.url, self.url, start=image.command_id, after=image.command_id)
            assert report.verdict in ("verified", "nothing"), report
        report = verify(Exchange, self.url, self.url)
        assert (report.verdict, report.commands) == ("verified", head), report
        self.counts["commands"], self.counts["messages"] = head, self.events

    def check_balances(self) -> None:
        """The table is the engine's, and there is a fill for each that was recorded."""
        with psycopg.connect(self.server.url(options=f"-csearch_path={self.schema}")) as db:
            found = db.execute(
                "SELECT account, cash, cash_held, lots, lots_held FROM balances ORDER BY account"
            ).fetchall()
            assert found == self.balances
            assert db.execute("SELECT count(*) FROM fills").fetchone() == (self.events,)

    # At last

    def fill_anew(self) -> None:
        """Drop the tables, and fill them under fire."""
        with closing(open_writer(self.url)) as store:
            clear(store, "main", FillsAndBalances())
        self.until_done("backfill", kills=max(3, self.kills // 20), kinds=("backfill", "backfill", "server"))
        self.check_balances()


def run(kills: int, seed: int, *, tell: Callable[[str], object] = print) -> Counter[str]:
    """So many random kills, two thirds of them with a projection; what was done.  AssertionError where anything is wrong."""
    counts: Counter[str] = Counter()
    with PostgresServer(parent=memory_folder()) as server:
        for projected, some in ((True, kills * 2 // 3), (False, kills - kills * 2 // 3)):
            began = time.monotonic()
            with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
                life = Life(server, Path(folder), random.Random(f"{seed} {projected}"), some, projected=projected)
                life.run()
            counts += life.counts
            with_it = "with" if projected else "without"
            tell(f"{with_it} a projection, {time.monotonic() - began:.0f} s: {dict(sorted(life.counts.items()))}")
    return counts


def main() -> int:
    """Run it, and say what came of it."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300, help="random kills, besides those at named points  [300]")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="what decides who is killed when")
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    counts = run(arguments.kills, arguments.seed)
    killed = sum(counts[name] for name in (*set(VICTIMS), "migrate", "backfill"))
    points = sum(count for name, count in counts.items() if name.startswith("point "))
    print(
        f"{killed} random kills, {points} at named points; {counts['commands']} commands, {counts['messages']} messages"
    )
    print("nothing acknowledged was lost, nothing applied or projected twice, all messages came in order")
    return 0


if __name__ == "__main__":
    sys.exit(main())
