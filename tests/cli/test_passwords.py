"""A password is nowhere: every verb, a runtime and what they leave behind, on a server that asks for it, are searched for it."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest

from journal.testing.postgres_server import PostgresServer, memory_folder
from recovery import Command, RecoveryError, Runtime
from recovery.cli.main import VERBS, run
from tests.cancelling import BentTill
from tests.engines import Till

CORE = "hunter2"
PASSWORD = f"{CORE}/ä@%3D x"
IN_URL = f"{CORE}%2F%C3%A4%40%253D%20x"
ENGINE = "tests.cancelling:BentTill"
TRUSTED = "local all postgres trust\nlocal all all scram-sha-256\n"
LINES = "".join(
    json.dumps({"type": "deposit", "data": {"number": "ada", "cents": n}, "request_id": f"r{n}"}) + "\n"
    for n in range(1, 31)
)


class Heard(subprocess.Popen[Any]):
    """A process whose arguments are remembered: they are for all to see."""

    arguments: ClassVar[list[str]] = []

    def __init__(self, args: Any, *rest: Any, **named: Any) -> None:
        self.arguments.append(repr(args))
        super().__init__(args, *rest, **named)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One that asks everybody but its superuser for a password."""
    with PostgresServer(parent=memory_folder()) as server:
        server.execute(f"CREATE ROLE till LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
        (server.data / "pg_hba.conf").write_text(TRUSTED)
        server.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 30
        while _lets_in(server):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield server


def _lets_in(server: PostgresServer) -> bool:
    try:
        psycopg.connect(host=str(server.folder), user="till", dbname="postgres", password="guessed").close()
    except psycopg.OperationalError:
        return False
    return True


def url_of(server: PostgresServer, schema: str, *, password: str = IN_URL) -> str:
    """A URL with the password where most people have it."""
    return f"postgresql://till:{password}@/postgres?host={server.folder}&schema={schema}&ride_out_s=0.2"


GOOD: list[tuple[str, int]] = [
    ("migrate --check", 3),
    ("migrate --sql", 0),
    ("migrate", 0),
    ("run commands.jsonl --snapshot-every 10 --projection tests.projections:Totals --json-not-known", 2),
    ("run commands.jsonl --snapshot-every 10", 0),
    ("status --json", 0),
    ("status", 0),
    ("log --json", 0),
    ("log --table accounts --key ada", 0),
    ("replay", 0),
    ("replay --jobs 2 --json", 0),
    ("state --at 7", 0),
    ("diff 3 9", 0),
    ("snapshot take", 0),
    ("snapshot list", 0),
    ("snapshot prune", 0),
    ("check --json", 0),
    ("audit", 1),
    ("outbox --name mail -- cat", 0),
    ("outbox --name mail2 --attempts-max 1 -- false", 3),
    ("export kept.journal --image-every 10", 0),
    ("backfill --projection tests.projections:Totals --json", 2),
    ("doctor", 0),
    ("doctor --json", 0),
    ("status --check --json", 3),
]
"""What is typed where all is well, in order; some of it fails all the same."""
BENT: list[tuple[str, int]] = [
    ("replay --html r.html --junit-xml r.xml --emit-pytest test_r.py --evidence evidence", 1),
    ("replay --git-bisect", 1),
    ("bisect --git-bisect --json --html b.html --junit-xml b.xml --emit-pytest test_b.py", 1),
    ("bisect --against tests.engines:Till --json", 1),
    ("run commands.jsonl --snapshot-every 0", 0),
]
"""The same journal, with an engine that has changed."""
BAD = (
    "status",
    "run commands.jsonl",
    "replay",
    "check",
    "log --json",
    "migrate",
    "outbox --name mail -- cat",
    "doctor",
    "audit",
)


def test_a_password_is_nowhere(
    server: PostgresServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "commands.jsonl").write_text(LINES)
    for name, value in {
        "RECOVERY_ENGINE": ENGINE,
        "BENT_AT": "0",
        "BENT": "",
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["recovery"])
    monkeypatch.setattr(subprocess, "Popen", Heard)
    said: list[str] = []
    unexpected: list[str] = []

    def typed(line: str, wanted: int | None = None) -> None:
        code = run(line.split())
        out, err = capfd.readouterr()
        said.append(f"$ recovery {line.partition(' ')[0]}\n{out}{err}")  # what was typed may hold it
        if wanted not in (None, code) or "defect" in err:
            unexpected.append(f"exit {code}, not {wanted}: {said[-1]}")

    def here(url: str, *, ship_to: str = "") -> None:
        monkeypatch.setenv("RECOVERY_JOURNAL", url)
        monkeypatch.setenv("RECOVERY_SNAPSHOTS", url)
        monkeypatch.setenv("RECOVERY_SHIP_TO", ship_to)

    here(url_of(server, "till"))
    for line, wanted in GOOD:
        typed(line, wanted)
    monkeypatch.setenv("BENT_AT", "17")
    monkeypatch.setenv("BENT", "row")
    for line, wanted in BENT:
        typed(line, wanted)
    monkeypatch.setenv("BENT_AT", "0")
    for wrong in (
        url_of(server, "till", password=f"{CORE}wrong"),
        url_of(server, "none"),
        f"postgresql://till:{IN_URL}@127.0.0.1:1/till",
        f"postgresql://till:{CORE}@@h/d",
        f"postgres:till:{CORE}@h",
        f"mysql://till:{CORE}@h/d",
        f"sqlite://till:{CORE}@h/d",
    ):
        here(wrong)
        for line in BAD if "schema=till" in wrong else BAD[:3]:
            typed(line)
    here(url_of(server, "demo"))
    typed("migrate", 0)
    typed(f"demo --workload generated --commands 300 --json --journal {url_of(server, 'demo')}")
    here(url_of(server, "imported"))
    typed("import kept.journal", 3)
    typed("migrate", 0)
    typed("import kept.journal", 0)
    typed("import kept.journal", 2)
    in_a_runtime(url_of(server, "runtime"), said)
    here("wal:journal", ship_to=url_of(server, "runtime"))
    typed("run commands.jsonl")
    typed("status")
    here("wal:another", ship_to=url_of(server, "none"))
    typed("run commands.jsonl")
    here("sqlite:journal.db")
    (tmp_path / "recovery.toml").write_text(f'jurnal = "{url_of(server, "till")}"\n')
    typed("status")
    (tmp_path / "recovery.toml").write_text(f'journal = "{url_of(server, "till")}\n')
    typed("status")
    (tmp_path / "recovery.toml").unlink()
    assert not unexpected, "\n".join(unexpected)
    assert {
        line.split()[1] for line in (one.partition("\n")[0][2:] for one in said) if line.startswith("recovery ")
    } >= set(VERBS)
    modules = ("recovery.image_process", "recovery.explaining.experiment", "recovery.demo.child")
    assert not [module for module in modules if module not in "".join(Heard.arguments)], "no such process was started"
    for text in [*said, *Heard.arguments, caplog.text, *(repr(record.__dict__) for record in caplog.records)]:
        assert CORE not in text, text
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert CORE.encode() not in path.read_bytes(), path
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as bundle:
                    assert not [name for name in bundle.namelist() if CORE.encode() in bundle.read(name)]
    for name in ("r.html", "r.xml", "b.html", "b.xml", "test_r.py", "summary.md", "kept.journal", "evidence"):
        assert (tmp_path / name).exists(), f"{name} was not written, so nothing was looked for in it"
    with server.connect() as db:
        titles = db.execute("SELECT application_name, query FROM pg_stat_activity").fetchall()
        assert CORE not in repr(titles)


def in_a_runtime(url: str, said: list[str]) -> None:
    """An engine at work, with images and an outbox beside it; then without its server."""
    import recovery

    run(["migrate", "--journal", url])
    with Runtime.open(Till, journal=url, snapshots=url, snapshot_every=5) as till:
        outbox = till.outbox("mail", deliver=lambda message: None)
        for number in range(12):
            till.execute(Command("deposit", {"number": "ada", "cents": number}))
        said += [repr(till.status()), repr(till), repr(outbox), repr(till.cold_start), str(till.cold_start)]
    for wrong in (url.replace(IN_URL, f"{CORE}wrong"), url.replace("schema=runtime", "schema=none")):
        try:
            Runtime.open(BentTill, journal=wrong, snapshots=wrong)
        except RecoveryError as error:
            cause: BaseException | None = error
            while cause is not None:
                # Of the driver's exception what it says: in private it keeps the connection, password and all.
                said.append(f"{cause} {cause!r} {vars(cause) if isinstance(cause, RecoveryError) else ''}")
                cause = cause.__cause__
        else:
            raise AssertionError("it was opened")
    with recovery.open_journal(url) as journal:
        said += [repr(journal), repr(journal.store), journal.store.location]
