"""``scripts/bench``: every benchmark, or those named; a table for people, or one JSON document."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from importlib import metadata

import bisect_history
import cold_start
import digest_cost
import durable_append
import images_beside
import live_runtime
import reading
import replay_cost
import verify_parallel
from rounds import Table

BENCHMARKS = {
    "append": durable_append,
    "read": reading,
    "live": live_runtime,
    "replay": replay_cost,
    "digest": digest_cost,
    "cold_start": cold_start,
    "images": images_beside,
    "verify": verify_parallel,
    "bisect": bisect_history,
}
LIBRARIES = ("apsw", "eventsourcing", "msgpack", "msgspec", "sortedcontainers", "xxhash", "zstandard")


def machine(folder: str) -> dict[str, object]:
    """What the figures were taken on."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    disk = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=False)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "revision": revision.stdout.strip(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "file_system": disk.stdout.strip(),
        "libraries": versions,
    }


def main() -> None:
    """Run what is asked for.  Exits 0 whatever the figures are: they are read, not asserted."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME,NAME", help=f"of {', '.join(BENCHMARKS)}")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side is measured, in turn (default 5)")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes, to see that it runs; the figures mean nothing"
    )
    parser.add_argument("--dir", help="where files go (default: a folder here, removed at the end)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    folder = tempfile.mkdtemp(prefix="bench-", dir=arguments.dir or ".")
    tables: dict[str, list[Table]] = {}
    try:
        about = machine(folder)
        if not arguments.json:
            print(json.dumps(about))
        for name in names:
            tables[name] = []
            for table in BENCHMARKS[name].tables(folder, rounds=arguments.rounds, quick=arguments.quick):
                tables[name].append(table)
                if not arguments.json:
                    print(f"\n{table}", flush=True)
    finally:
        shutil.rmtree(folder)
    if arguments.json:
        documents = {name: [table.to_dict() for table in found] for name, found in tables.items()}
        print(json.dumps({"schema_version": 1, "machine": about, "rounds": arguments.rounds, "benchmarks": documents}))


if __name__ == "__main__":
    sys.exit(main())
