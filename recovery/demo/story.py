"""The demo's story: run, kill, cold-start, finish, check against the right answer, verify, plant a bug, and find it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from journal.errors import RecoveryError, StoreUnavailable, UsageError
from journal.journal import Journal
from journal.records import Receipt
from journal.urls import open_reader
from recovery.demo.child import HEADER
from recovery.demo.planted import EVERY, planted_spec
from recovery.examples.workloads import Workload, default_workload, open_workload
from recovery.runtime import Runtime
from recovery.settings import VARIABLES
from recovery.verification import verify

KILL_AT: Final = (0.3, 0.55, 0.8)
IMAGES: Final = 15
BATCHES: Final = 40
BATCH_MAX: Final = 1000
OVERLAP: Final = 100
HASH_SEED: Final = "1"

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass
class Outcome:
    """What came of the demo."""

    workload: str
    commands: int
    cut: bool = False
    acknowledged: int = 0
    kills: list[int] = field(default_factory=list)
    lost: int = 0
    doubled: int = 0
    oracle: str = "none"
    same_as_uninterrupted: bool | None = None
    cold_start: dict[str, Any] = field(default_factory=dict)
    verdict: str = "nothing"
    divergence: dict[str, Any] | None = None
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        """Whether all of it is as it should be."""
        found = self.divergence is not None and bool(self.divergence["fields"])
        same = self.oracle == "match" or bool(self.same_as_uninterrupted)
        whole = self.acknowledged == self.commands and self.lost == self.doubled == 0
        return whole and same and self.verdict == "verified" and found

    @property
    def exit_code(self) -> int:
        """0 only when all is right; 4 where something was lost or doubled, else 1."""
        return 0 if self.right else 4 if self.lost or self.doubled else 1

    def to_dict(self) -> dict[str, Any]:
        """The document of ``recovery demo --json``."""
        return {
            "workload": self.workload,
            "commands": self.commands,
            "acknowledged": self.acknowledged,
            "kills": len(self.kills),
            "lost": self.lost,
            "doubled": self.doubled,
            "oracle": self.oracle,
            "cold_start": self.cold_start,
            "verdict": self.verdict,
            "divergence": self.divergence,
            "seconds": round(self.seconds, 1),
        }


class Story:
    """One telling.  ``say`` gets a line at each turn, ``progress`` how many commands are acknowledged."""

    def __init__(
        self, workload: str | None, commands: int | None, journal: str, snapshots: str, *, say: Say, progress: Progress
    ) -> None:
        self._named = workload or default_workload()
        self._workload: Workload = open_workload(self._named, commands=commands)
        self._asked = commands
        self._journal = journal
        self._snapshots = snapshots
        self._say = say
        self._progress = progress
        self._keys: set[bytes] = set()
        self._began = time.perf_counter()
        count = self._workload.count
        self.outcome = Outcome(self._workload.name, count, cut=count < self._workload.total)

    def tell(self) -> Outcome:
        """Tell it from beginning to end."""
        self._require_new()
        outcome = self.outcome
        if outcome.cut:
            self._note(f"the workload is cut to its first {outcome.commands:,} commands of {self._workload.total:,}")
        self._run_with_kills()
        self._count_lost()
        self._ask_the_oracle()
        self._verify()
        self._plant()
        outcome.seconds = time.perf_counter() - self._began
        return outcome

    def _note(self, line: str) -> None:
        self._say(f"{time.perf_counter() - self._began:6.1f} s  {line}")

    def _require_new(self) -> None:
        try:
            store = open_reader(self._journal)
        except StoreUnavailable:
            return
        found = store.identity("main")
        store.close()
        if found is not None:
            raise UsageError(
                "the demo wants a journal of its own, and there is one already", hint="name another --dir or --journal"
            )

    def _run_with_kills(self) -> None:
        thresholds = [int(self.outcome.commands * part) for part in KILL_AT]
        while not self._one_life(thresholds):
            pass

    def _one_life(self, thresholds: list[int]) -> bool:
        """Start the engine; kill it at the next threshold, or let it finish: then True."""
        child = subprocess.Popen(
            [sys.executable, "-m", "recovery.demo.child"],
            env=_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        with child.stdin as pipe:  # not among its arguments, which are for all to see: a URL may hold a password
            pipe.write(json.dumps(self._task()).encode())
        with child.stdout as pipe:
            while True:
                header = pipe.read(HEADER.size)
                if len(header) < HEADER.size:
                    break
                kind, size = HEADER.unpack(header)
                payload = pipe.read(size)
                if len(payload) < size:
                    break
                if self._hear(kind, payload):
                    child.wait()
                    return True
                if thresholds and len(self._keys) >= thresholds[0]:
                    thresholds.pop(0)
                    child.send_signal(signal.SIGKILL)
                    self.outcome.kills.append(len(self._keys))
                    self._note(f"kill -9 after {len(self._keys):,} acknowledged commands")
                    break
        if child.wait() != -signal.SIGKILL:
            raise RecoveryError(f"the engine's process ended by itself, with exit code {child.returncode}")
        return False

    def _hear(self, kind: bytes, payload: bytes) -> bool:
        if kind == b"O":
            report = json.loads(payload)
            if not report["created"]:
                self.outcome.cold_start = report
                origin = f"image at {report['image']:,}" if report["image"] else "the beginning"
                self._note(
                    f"cold start in {report['seconds']:.2f} s: {origin}, {report['replayed']:,} commands replayed and checked, "
                    f"head at {report['head']:,}"
                )
            else:
                self._note(f"started {report['engine']} on {self._workload.name}, {self._workload.count:,} commands")
        elif kind == b"A":
            self._keys.update(payload[at : at + 16] for at in range(0, len(payload), 16))
            self._progress(len(self._keys), self.outcome.commands)
        return kind == b"D"

    def _task(self) -> dict[str, Any]:
        count = self.outcome.commands
        return {
            "workload": self._named,
            "commands": self._asked,
            # As a client would: what was not acknowledged is sent again, and a little that was, too.
            "after": max(0, len(self._keys) - OVERLAP),
            "journal": self._journal,
            "snapshots": self._snapshots,
            "snapshot_every": max(1, count // IMAGES),
            "batch_max": max(1, min(BATCH_MAX, count // BATCHES)),
        }

    def _count_lost(self) -> None:
        with Journal(open_reader(self._journal)) as journal:
            recorded = Counter(journal.store.request_keys("main", 0))
        outcome = self.outcome
        outcome.acknowledged = len(self._keys)
        outcome.lost = len(self._keys - recorded.keys())
        outcome.doubled = sum(times - 1 for times in recorded.values())
        self._note(f"{outcome.acknowledged:,} acknowledged, {outcome.lost} lost, {outcome.doubled} doubled")

    def _ask_the_oracle(self) -> None:
        outcome, workload = self.outcome, self._workload
        with (
            Runtime.open(workload.engine, journal=self._journal, snapshots=self._snapshots, stream="main") as runtime,
            Journal(open_reader(self._journal)) as journal,
        ):
            receipts = (Receipt.of(entry, duplicate=False) for entry in journal.read())
            outcome.oracle = workload.right_answer(runtime.engine, receipts)
            chain, seed = runtime.head.chain, journal.identity.seed
        if outcome.oracle == "none":
            outcome.same_as_uninterrupted = self._uninterrupted_chain(seed) == chain
            same = "the same, to the last digest, as" if outcome.same_as_uninterrupted else "NOT the same as"
            self._note(f"nothing outside knows the right answer; it is {same} an uninterrupted run in memory")
        else:
            self._note(f"the right answer, from outside: {outcome.oracle}")

    def _uninterrupted_chain(self, seed: int) -> bytes:
        with Runtime.open(
            self._workload.engine, journal="memory:", snapshots="memory:", stream="main", seed=seed, snapshot_every=0
        ) as twin:
            for one in twin.execute_many(self._workload.commands()):
                if isinstance(one, Exception):
                    raise one
            return twin.head.chain

    def _verify(self) -> None:
        report = verify(self._workload.engine, self._journal, self._snapshots)
        self.outcome.verdict = report.verdict
        self._note(f"replayed {report.commands:,} commands from the beginning and checked each: {report.verdict}")

    def _plant(self) -> None:
        """Replay the end of the history with the bug planted, in a process with another hash seed."""
        after = self._image_before(self.outcome.commands - 2 * EVERY)
        arguments = ["replay", "--engine", planted_spec(self._engine_name()), "--stream", "main"]
        arguments += ["--after", str(after), "--json"]
        places = {VARIABLES["journal"]: self._journal, VARIABLES["snapshots"]: self._snapshots}
        child = subprocess.run(
            [sys.executable, "-m", "recovery.cli.main", *arguments],
            env=_environment() | places | {"PYTHONHASHSEED": HASH_SEED},
            capture_output=True,
            text=True,
            check=False,
        )
        found = json.loads(child.stdout or "{}").get("divergences") or [None]
        self.outcome.divergence = found[0]
        if found[0] is None:
            self._note("a bug was planted, and was NOT found")
            return
        found[0]["reproduce"] = f"PYTHONHASHSEED={HASH_SEED} {found[0]['reproduce']}"
        named = found[0]["fields"][0] if found[0]["fields"] else {"path": "?"}
        self._note(
            f"planted a bug (it iterates a set) and replayed under another PYTHONHASHSEED: found at command "
            f"{found[0]['command_id']:,}, {named['path']}, recorded {named.get('recorded')}, replayed {named.get('replayed')}: "
            f"{found[0]['cause']}"
        )

    def _image_before(self, command_id: int) -> int:
        from recovery.images import open_catalog

        catalog = open_catalog(self._snapshots, "main")
        assert catalog is not None
        return max((image.command_id for image in catalog.images() if image.command_id <= command_id), default=0)

    def _engine_name(self) -> str:
        with Journal(open_reader(self._journal)) as journal:
            return journal.identity.engine


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
