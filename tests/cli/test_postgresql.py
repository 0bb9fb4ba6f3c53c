"""The verbs on PostgreSQL, and the queries of docs/postgresql.md and README.md."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from journal import values
from journal.digest import TABLES, StateDigest, TableDigest
from journal.errors import StoreUnavailable
from journal.framing import Event, pack_events
from journal.postgres_schema import migrate, migrations
from journal.testing.postgres_server import PostgresServer
from recovery import Command, Runtime, open_snapshots, verify
from tests.engines import Till

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "postgresql.md").read_text() + (ROOT / "README.md").read_text()
QUERIES = re.findall(r"^```sql\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
SECRET = "s3cr3t-w0rd"


@pytest.fixture
def url(postgres_url: str) -> str:
    """With a password, which a server that trusts everyone does not ask for."""
    return f"{postgres_url}&password={SECRET}"


def typed(folder: Path, url: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
        "RECOVERY_ENGINE": "tests.engines:Till",
        "RECOVERY_JOURNAL": url,
        "RECOVERY_SNAPSHOTS": url,
    }
    done = subprocess.run(
        [sys.executable, "-m", "recovery.cli.main", *arguments],
        cwd=folder,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert SECRET not in done.stdout + done.stderr
    return done


def test_a_session_on_one_database_for_journal_and_images(tmp_path: Path, url: str) -> None:
    for verb in ("status", "run"):
        refused = typed(tmp_path, url, verb)
        assert refused.returncode == 3
        assert "recovery migrate" in refused.stderr
    checked = typed(tmp_path, url, "migrate", "--check", "--json")
    assert checked.returncode == 3
    wanted = len(migrations())
    document = json.loads(checked.stdout)
    (schema,) = document.pop("schemas")
    assert document == {"schema_version": 1, "found": 0, "wanted": wanted, "behind": True}
    assert (schema["found"], schema["wanted"]) == (0, wanted)
    assert "CREATE TABLE engine_journal" in typed(tmp_path, url, "migrate", "--sql").stdout
    assert typed(tmp_path, url, "migrate").returncode == 0
    assert typed(tmp_path, url, "migrate", "--check").returncode == 0
    lines = "".join(
        json.dumps({"type": "deposit", "data": {"number": "ada", "cents": n}, "request_id": f"r{n}"}) + "\n"
        for n in range(1, 13)
    )
    ran = typed(tmp_path, url, "run", "--snapshot-every", "5", stdin=lines)
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line)["command_id"] for line in ran.stdout.splitlines()] == list(range(1, 13))
    status = json.loads(typed(tmp_path, url, "status", "--check", "--json").stdout)
    assert status["healthy"]
    assert status["durability"]["fsync"] == status["durability"]["synchronous_commit"] == "on"
    assert status["snapshot"]["command_id"] == 12
    for arguments in (
        ("replay", "--json"),
        ("check",),
        ("log",),
        ("doctor",),
        ("snapshot", "list"),
        ("state", "--at", "7"),
    ):
        done = typed(tmp_path, url, *arguments)
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    assert verify(Till, url, url).verdict == "verified"


def test_a_writer_that_lives_is_named_and_replaced_only_when_told(tmp_path: Path, url: str) -> None:
    migrate(url)
    line = json.dumps({"type": "deposit", "data": {"number": "ada", "cents": 1}, "request_id": "a"})
    with Runtime.open(Till, journal=url, snapshots=url) as till:
        refused = typed(tmp_path, url, "run", stdin=line)
        assert refused.returncode == 3
        assert re.search(rf"process {os.getpid()} on .+ since \d{{4}}-", refused.stderr)
        assert "--takeover" in refused.stderr
        assert typed(tmp_path, url, "run", "--takeover", stdin=line).returncode == 0
        till.close(snapshot=False)


def test_images_are_made_beside_the_engine_and_survive_a_bad_one(url: str) -> None:
    migrate(url)
    with Runtime.open(Till, journal=url, snapshots=url, snapshot_every=10, keep=5) as till:
        for number in range(25):
            till.execute(Command("deposit", {"number": "ada", "cents": number}))
        till._imager.close()
        assert till.status()["problems"] == []
    catalog = open_snapshots(url)
    assert catalog.store.durable
    names = [name for name in catalog.store.names("main") if name.endswith(".image")]
    assert len(names) >= 2
    with psycopg.connect(url) as db:
        db.execute(
            "UPDATE engine_image_chunks SET data = set_byte(data, 200, 255 - get_byte(data, 200)) "
            "WHERE image = (SELECT image FROM engine_images WHERE name = %s)",
            (names[-1],),
        )
    with Runtime.open(Till, journal=url, snapshots=url) as till:
        assert [step[0] for step in till.cold_start.steps_down] == [25]
        assert till.engine.accounts["ada"].cents == sum(range(25))


def test_the_documented_grants_are_enough(url: str, postgres: PostgresServer) -> None:
    migrate(url)
    (grants,) = (query for query in QUERIES if "GRANT" in query)
    with psycopg.connect(url, autocommit=True) as db:
        (schema,) = db.execute("SELECT current_schema()").fetchone() or ("",)
        db.execute(grants.replace("SCHEMA public", f"SCHEMA {schema}").encode())
        for role in ("till_writer", "till_reader"):
            db.execute(f"ALTER ROLE {role} LOGIN")
            db.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    try:
        writer, reader = (url.replace("user=postgres", f"user={role}") for role in ("till_writer", "till_reader"))
        with Runtime.open(Till, journal=writer, snapshots=writer) as till:
            till.execute(Command("deposit", {"number": "ada", "cents": 1}))
            till.snapshot()
        assert verify(Till, reader, reader).verdict == "verified"
        with pytest.raises(StoreUnavailable) as refused:
            Runtime.open(Till, journal=reader, snapshots=reader)
        assert "docs/postgresql.md" in refused.value.hint
    finally:
        for role in ("till_writer", "till_reader"):
            postgres.execute(f"DROP OWNED BY {role}")
            postgres.execute(f"DROP ROLE {role}")


def test_the_documented_queries_are_answered(url: str) -> None:
    migrate(url)
    with Runtime.open(Till, journal=url, snapshots="memory:") as till:
        for cents in range(-2, 4):  # the first two are rejected
            till.execute(Command("deposit", {"number": "ada", "cents": cents}))
        with psycopg.connect(url) as db:
            recent, of_key, request, hour, changed, holder, of_all = (
                db.execute(query.encode()).fetchall() for query in QUERIES if "GRANT" not in query
            )
    assert [row[0] for row in recent] == [6, 5, 4, 3, 2, 1]
    assert [row[4:] for row in recent] == [(False, 1, ["BalanceChanged"])] * 4 + [(True, 0, [])] * 2
    assert [row[:4] for row in of_key] == [(command_id, 0, "BalanceChanged", None) for command_id in range(3, 7)]
    assert request == []
    assert hour == [("deposit", 6, 2)]
    assert changed == [(6,)]
    assert holder[0][:2] == ("main", 1)
    assert holder[0][3] == os.getpid()
    assert of_all == [("ada", 4, 6)]


def test_events_and_digests_are_split_as_they_were_packed(url: str) -> None:
    migrate(url)
    events = [Event("A", 1), Event("Bé", {"n": "ü"}, "key é", -7), Event("C", None, None, 2**62), Event("D", (), "")]
    digest = StateDigest(TABLES, {"accounts": TableDigest(3, 2**127 + 5), "é": TableDigest(2**40, 1)}, b"")
    with psycopg.connect(url) as db:
        found = db.execute("SELECT * FROM engine_split_events(%s)", (pack_events(events),)).fetchall()
        assert [Event(row[1], values.decode_bare(row[4]), row[2], row[3]) for row in found] == events
        assert [row[0] for row in found] == [0, 1, 2, 3]
        tables = db.execute("SELECT * FROM engine_split_digest(%s)", (digest.pack(),)).fetchall()
        assert tables == [(name, one.rows, f"{one.hash:032x}") for name, one in digest.tables.items()]
        assert db.execute("SELECT * FROM engine_split_digest(%s)", (b"\x02" + bytes(16),)).fetchall() == []
        assert db.execute("SELECT * FROM engine_split_events(%s)", (b"\x01",)).fetchall() == []
