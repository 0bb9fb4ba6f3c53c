"""(e) How long a commit takes while images of 1 M rows are made beside the engine, one after the other, against none.

One client, which waits for each receipt.  Images come from a process of their own, on the same two cores.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import quantiles

from big_state import ByText, places, record
from rounds import Table

from recovery import Command, Runtime

ROWS = 1_000_000
SECONDS = 8.0


def latencies(folder: str, seconds: float, images: bool) -> tuple[float, float, float, int]:
    """p50, p99 and the longest, in milliseconds; and how many images were made."""
    where = places(folder, ByText)
    with Runtime.open(ByText, snapshot_every=1 if images else 0, keep=1, **where) as runtime:
        began_at = runtime.head.command_id
        taken = []
        deadline = time.perf_counter() + seconds
        while (began := time.perf_counter()) < deadline:
            runtime.execute(Command("fill", {"first": len(taken) % 1000, "count": 1}))
            taken.append((time.perf_counter() - began) * 1000)
        newest = runtime.status()["snapshot"]["command_id"]
        runtime.close(snapshot=False)
    cuts = quantiles(taken, n=100)
    return cuts[49], cuts[98], max(taken), int(newest > began_at)


def _elsewhere(folder: str, seconds: float, images: bool) -> list[float]:
    said = subprocess.check_output([sys.executable, __file__, folder, str(seconds), "images" if images else ""])
    return [float(figure) for figure in said.split()]


def tables(folder: str, *, rounds: int, quick: bool) -> Iterator[Table]:
    """One table for each figure."""
    record(folder, ByText, ROWS // 100 if quick else ROWS)
    seconds = 0.5 if quick else SECONDS
    found: dict[str, list[list[float]]] = {"no image": [], "images being made": []}
    for _ in range(rounds):
        for side in found:
            found[side].append(_elsewhere(folder, seconds, side != "no image"))
    for at, name in enumerate(("p50", "p99", "max")):
        figures = {side: [each[at] for each in rounds_of] for side, rounds_of in found.items()}
        added = sorted(ours - none for none, ours in zip(*figures.values(), strict=True))
        yield Table(
            f"commit latency, {name}",
            "ms",
            figures,
            base="no image",
            aims={"images being made": "+ 5 ms"} if name == "max" else {},
            notes=[f"images add {added[len(added) // 2]:+.2f} ms (median of the rounds)"],
        )
    assert quick or all(each[3] for each in found["images being made"]), "no image was made while it was measured"


if __name__ == "__main__":
    print(*latencies(sys.argv[1], float(sys.argv[2]), bool(sys.argv[3])))
