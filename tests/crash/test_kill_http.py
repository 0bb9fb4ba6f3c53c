"""A real server, killed between the commit and the response: the client's retry gets the answer, and it was done once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from journal.files import KILL_VARIABLE
from recovery import open_journal

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def serve(folder: Path, port: int, kill_at: str = "") -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RECOVERY_JOURNAL": f"sqlite:{folder}/wallet.db",
        "RECOVERY_SNAPSHOTS": f"dir:{folder}/images",
        KILL_VARIABLE: kill_at,
    }
    command = [sys.executable, "-m", "uvicorn", "recovery.examples.http_wallet:app", "--port", str(port)]
    child = subprocess.Popen([*command, "--log-level", "warning"], cwd=folder, env=environment)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            httpx.get(f"http://127.0.0.1:{port}/accounts/nobody")
            return child
        except httpx.ConnectError:
            assert child.poll() is None
            time.sleep(0.05)
    raise AssertionError("the server did not come up")


def test_a_server_killed_before_its_answer_answers_the_retry(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/deposits"
    first = {"json": {"account": "ada", "cents": 500}, "headers": {"Idempotency-Key": '"k1"'}}
    second = {"json": {"account": "ada", "cents": -1}, "headers": {"Idempotency-Key": '"k2"'}}
    # The first is the answer to the query with which we wait for the server.
    child = serve(tmp_path, port, "receipt.before:3")
    try:
        answered = httpx.post(url, **first)  # type: ignore[arg-type]
        assert answered.json() == {"command_id": 1, "cents": 500}
        with pytest.raises(httpx.TransportError):
            httpx.post(url, **second)  # type: ignore[arg-type]
        assert child.wait(30) == -signal.SIGKILL
        child = serve(tmp_path, port)
        for _ in range(2):
            assert httpx.post(url, **first).content == answered.content  # type: ignore[arg-type]
            retried = httpx.post(url, **second)  # type: ignore[arg-type]
            assert retried.json() == {"command_id": 2, "cents": 499}
        assert httpx.get(f"http://127.0.0.1:{port}/accounts/ada").json() == {"cents": 499}
        child.send_signal(signal.SIGTERM)
        child.wait(30)
    finally:
        child.kill()
        child.wait()
    with open_journal(f"sqlite:{tmp_path}/wallet.db") as journal:
        assert [entry.data["cents"] for entry in journal.read()] == [500, -1]
