"""Child processes of the zoo: each in a world of its own, with a folder to work in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoology.hosting import Task
from zoology.specimen import World

SCRIPTS = Path(__file__).resolve().parents[1]
TIMEOUT_S = 400
HERE = World()
VARIABLES = {"PYTHONHASHSEED": "0", "TZ": "UTC", "LC_ALL": "C.UTF-8", "NO_COLOR": "1", "RECOVERY_EVIDENCE": "off"}


class Ended(Exception):
    """A child ended as it should not; the text says how."""


class Place:
    """A folder for one animal: its journal and images, a working folder and a home that its world fills."""

    def __init__(self, folder: Path, flows: Path) -> None:
        self.folder, self.flows = folder, flows
        self.work, self.home = folder / "work", folder / "home"
        for each in (folder, self.work, self.home):
            each.mkdir(exist_ok=True)

    def enter(self, world: World, **more: str) -> dict[str, str]:
        """Write the world's files; its environment."""
        for name, text in world.files.items():
            (self.home / name[1:] if name.startswith("~") else self.work / name).write_text(text)
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        return {**kept, "HOME": str(self.home), **VARIABLES, **world.variables, **more}

    def run(self, command: Sequence[str], environment: dict[str, str], given: str = "") -> tuple[int, str, str, int]:
        """Run a child; its exit code, output, errors and process id."""
        with subprocess.Popen(
            command,
            cwd=self.work,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as child:
            try:
                out, err = child.communicate(given, timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                raise Ended(f"{' '.join(command)}: no end after {TIMEOUT_S} s") from None
        return child.returncode, out, err, child.pid

    def module(self, name: str, task: Task, world: World, *arguments: str, trace: str = "") -> str:
        """Run a module of the zoo on a task; its output."""
        path = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent)])
        environment = self.enter(world, PYTHONPATH=path, **({"ZOO_TRACE": trace} if trace else {}))
        code, out, err, _ = self.run([sys.executable, "-m", name, *arguments], environment, json.dumps(task))
        if code:
            raise Ended(f"{name} ended with {code}: {err[-2000:]}")
        return out

    def verb(
        self,
        engine: str,
        *arguments: str,
        world: World = HERE,
        trace: str = "",
        sabotage: str = "",
    ) -> tuple[dict[str, Any], int, int]:
        """``recovery VERB … --json`` as a user would type it; its document, exit code and process id.

        With ``sabotage`` the framework is spoilt first (zoology/canaries.py).
        """
        environment = self.enter(world, **({"ZOO_TRACE": trace} if trace else {}))
        program = [str(Path(sys.executable).with_name("recovery"))]
        if sabotage:
            environment["PYTHONPATH"] = os.pathsep.join([str(SCRIPTS), str(SCRIPTS.parent)])
            program = [sys.executable, "-m", "zoology.canaries", sabotage]
        verb, *more = arguments
        shared = ["--engine", engine, "--app-dir", str(SCRIPTS), "--json", "-q"]
        places = ["--journal", f"sqlite:{self.folder}/journal.db", "--snapshots", f"dir:{self.folder}/images"]
        code, out, err, pid = self.run([*program, verb, *shared, *places, *more], environment)
        try:
            return json.loads(out), code, pid
        except json.JSONDecodeError:
            raise Ended(f"recovery {verb} ended with {code}: {err[-2000:]}") from None
