"""A second execution of one command, in another process under another PYTHONHASHSEED.

What depends on the order of a set is the same for as long as a process lives, so executing twice in one process cannot
show it.  The child stands where the command began by redoing recorded rows, applies it, and prints a hash of what came out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Final

import xxhash

from journal.errors import RecoveryError
from journal.journal import Journal
from journal.urls import open_reader
from recovery.images import open_catalog, place
from recovery.loading import engine_factory, engine_spec
from recovery.stepper import Asked, Factory, Stepper, TableStepper, make_stepper

HASH_SEEDS: Final = ("1", "2", "3")
TIMEOUT_S: Final = 600


def other_outcome(factory: Factory, journal: str, stream: str, snapshots: str, app_dir: str, command_id: int) -> bool:
    """Whether the command's outcome depends on the hash seed; False too where no other process can open the same."""
    spec = engine_spec(factory)
    if spec is None or journal.startswith("memory:"):
        return False
    task = json.dumps([spec, journal, stream, snapshots, app_dir, command_id])
    outcomes = set()
    for seed in HASH_SEEDS:
        child = subprocess.run(
            [sys.executable, "-m", "recovery.second_execution"],
            input=task,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if child.returncode != 0:
            return False
        outcomes.add(child.stdout)
        if len(outcomes) > 1:
            return True
    return False


def execute_one(spec: str, journal: str, stream: str, snapshots: str, app_dir: str, command_id: int) -> str:
    """The hash of what the command does to the recorded state before it."""
    with Journal(open_reader(journal), stream) as reader:
        identity = reader.identity
        stepper = make_stepper(engine_factory(spec, app_dir=app_dir), identity.seed, identity.digest_every)
        assert isinstance(stepper, TableStepper)
        placed = place(stepper, open_catalog(snapshots or None, stream), reader, command_id - 1)
        for before in reader.read(placed.command_id, command_id - 1):
            stepper.redo(before)
            stepper.settle(before.command_id)
        (entry,) = reader.read(command_id - 1, command_id)
        logic_versions = {epoch.number: epoch.logic_version for epoch in reader.epochs()}
        return outcome_hash(stepper, Asked(*entry[1:6]), command_id, logic_versions[entry.epoch])


def outcome_hash(stepper: Stepper, asked: Asked, command_id: int, logic_version: int) -> str:
    """A hash of all that a command does to the state a stepper is in: 32 hex digits, the same for the same outcome."""
    try:
        step = stepper.step(asked, command_id, logic_version)
    except Exception as error:  # what an engine raises is an outcome like another
        return xxhash.xxh3_128_hexdigest(f"{type(error).__name__}: {error}".encode())
    return xxhash.xxh3_128_hexdigest(repr(step[:5]).encode())


if __name__ == "__main__":
    try:
        print(execute_one(*json.loads(sys.stdin.read())))
    except RecoveryError as failure:
        sys.exit(str(failure))
