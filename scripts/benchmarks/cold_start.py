"""(d) A cold start of 1 M rows, every row rehashed, against decoding the same rows from zstd and msgpack, the collector off.

Each figure is taken in a process of its own, as a restart is.  *floor* is a dict of key to tuple out of one compressed file.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import msgpack
import zstandard
from big_state import ENGINES, places, record
from rounds import Table, by_turns

from recovery import Runtime

ROWS = 1_000_000


def floor(path: str) -> float:
    """Seconds."""
    gc.disable()
    began = time.perf_counter()
    with open(path, "rb") as file:
        packed = zstandard.ZstdDecompressor().decompress(file.read())
    rows = msgpack.unpackb(packed, use_list=False, strict_map_key=False)
    seconds = time.perf_counter() - began
    assert rows
    return seconds


def cold_start(folder: str, keys: str) -> float:
    """Seconds."""
    engine_type = ENGINES[keys]
    began = time.perf_counter()
    runtime = Runtime.open(engine_type, **places(folder, engine_type))
    seconds = time.perf_counter() - began
    assert runtime.cold_start.image
    assert not runtime.cold_start.replayed
    runtime.close(snapshot=False)
    return seconds


def _floor_file(folder: str, keys: str) -> str:
    engine_type = ENGINES[keys]
    path = os.path.join(folder, f"{engine_type.name}.zst")
    with Runtime.open(engine_type, **places(folder, engine_type)) as runtime, open(path, "wb") as file:
        rows = {key: tuple(row) for key, row in runtime.engine.accounts.items()}
        file.write(zstandard.ZstdCompressor(level=1).compress(msgpack.packb(rows)))
    return path


def _elsewhere(*arguments: str) -> float:
    return float(subprocess.check_output([sys.executable, __file__, *arguments]))


def tables(folder: str, *, rounds: int, quick: bool) -> Iterator[Table]:
    """One table for each kind of key."""
    for keys, engine_type in ENGINES.items():
        count = ROWS // 100 if quick else ROWS
        record(folder, engine_type, count)
        path = _floor_file(folder, keys)
        sides = {
            "floor": lambda path=path: _elsewhere("floor", path),  # type: ignore[misc]
            "cold start": lambda keys=keys: _elsewhere("cold start", folder, keys),  # type: ignore[misc]
        }
        yield Table(
            f"cold start of {count:,} rows, {keys}",
            "seconds",
            by_turns(sides, rounds),
            base="floor",
            aims={"cold start": "<= 2"},
        )


if __name__ == "__main__":
    print(floor(sys.argv[2]) if sys.argv[1] == "floor" else cold_start(sys.argv[2], sys.argv[3]))
