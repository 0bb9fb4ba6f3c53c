"""The verbs on a journal that is shipped, as a session types them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from journal.postgres_schema import migrate, migrations

ROOT = Path(__file__).parents[2]
SECRET = "s3cr3t-w0rd"


class Session:
    """A folder, and a database behind it."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "NO_COLOR": "1",
            "RECOVERY_ENGINE": "tests.engines:Till",
            "RECOVERY_JOURNAL": "wal:journal",
            "RECOVERY_SNAPSHOTS": "dir:snapshots",
            # A password, which a server that trusts everyone does not ask for.
            "RECOVERY_SHIP_TO": f"{url}&password={SECRET}",
        }

    def run(self, *arguments: str, stdin: str = "", expect: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "recovery.cli.main", *arguments],
            cwd=self.folder,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert SECRET not in done.stdout + done.stderr
        assert done.returncode == expect, done.stdout + done.stderr
        return done

    def deposit(self, *numbers: int, options: tuple[str, ...] = ()) -> list[int]:
        lines = [
            json.dumps({"type": "deposit", "data": {"number": "ada", "cents": number}, "request_id": f"r{number}"})
            for number in numbers
        ]
        done = self.run("run", "-", "-q", *options, stdin="\n".join(lines))
        return [json.loads(line)["command_id"] for line in done.stdout.splitlines()]


@pytest.fixture
def session(tmp_path: Path, postgres_url: str) -> Session:
    migrate(postgres_url)
    return Session(tmp_path, postgres_url)


def test_a_session_on_a_shipped_journal(session: Session) -> None:
    assert session.deposit(1, 2, options=("--ack", "local")) == [1, 2]
    document = json.loads(session.run("status", "--check", "--json").stdout)
    shipping = document["shipping"]
    assert (shipping["command_id"], shipping["commands_behind"], shipping["seconds_behind"]) == (2, 0, 0.0)
    assert "shipped to postgresql://" in session.run("status").stdout
    # The disk is lost; its images are evidence of what the target has.
    shutil.rmtree(session.folder / "journal")
    assert session.deposit(2, 3) == [2, 3]
    session.run("check", "-q")
    said = session.run("outbox", "--name", "mail", "--once", "-q", "--", "sh", "-c", "cat >> mail").stderr
    assert not said
    assert [json.loads(line)["command_id"] for line in (session.folder / "mail").read_text().splitlines()] == [1, 2, 3]
    (lag,) = json.loads(session.run("status", "--json").stdout)["outboxes"]
    assert (lag["name"], lag["command_id"]) == ("mail", 3)


def test_migrate_and_doctor_look_at_the_target_too(tmp_path: Path, postgres_url: str) -> None:
    session = Session(tmp_path, postgres_url)
    wanted = len(migrations())
    found, target = session.run("migrate", "--check", expect=3).stdout.splitlines()
    assert found == "wal:journal has no schema to migrate"
    assert f"the schema is at version 0, and this release wants {wanted}" in target
    assert f"brought from version 0 to {wanted}" in session.run("migrate").stdout
    document = json.loads(session.run("migrate", "--check", "--json").stdout)
    assert not document["behind"]
    assert [each["found"] for each in document["schemas"]] == [0, wanted]
    assert session.deposit(1) == [1]
    said = json.loads(session.run("doctor", "--json").stdout)
    assert said["shipped_to"]["fsync"] == "on"
    assert "fdatasync" in said["durability"]["sync"]


def test_what_went_another_way_is_said_by_every_verb(session: Session) -> None:
    session.deposit(1)
    del session.environment["RECOVERY_SHIP_TO"]
    shutil.copytree(session.folder / "journal", session.folder / "copy")
    session.deposit(2)
    # Somebody else goes on with a copy and the target.
    session.environment["RECOVERY_JOURNAL"] = "wal:copy"
    session.environment["RECOVERY_SHIP_TO"] = f"sqlite:{session.folder}/other.db"
    session.environment["RECOVERY_SNAPSHOTS"] = "memory:"
    session.deposit(3)
    session.environment["RECOVERY_JOURNAL"] = "wal:journal"
    said = session.run("run", "-", expect=4).stderr
    assert "1 commands are here alone: 2 deposit (request " in said
    assert "recovery log --journal wal:journal --after 1" in said
    assert "1 commands are here alone" in session.run("check", "-q", expect=4).stdout
    document = json.loads(session.run("status", "--check", "--json", expect=3).stdout)
    assert not document["healthy"]
    assert "here alone" in document["shipping"]["last_error"]
    orphans = session.run("log", "--after", "1", "--json").stdout
    assert json.loads(orphans.splitlines()[0])
