"""The order flow: the recorded half hour of Bitstamp where it is installed, and generated flow; cut to what shows the bugs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from recovery.examples import bitstamp
from recovery.examples.bitstamp import Bitstamp
from recovery.examples.exchange import BUY
from recovery.examples.generated import Generated
from zoology.specimen import EXCHANGE, FEED, LONG

RESTING = 6_512
"""So many rows of the recorded feed are what rested before it began."""
FEED_COMMANDS = 300
NEAR = 40
"""So many orders of each side, nearest the middle, are in the book besides those that the feed speaks of."""
EXCHANGE_COMMANDS = 256 + 300
LONG_COMMANDS = 7_000

Row = tuple[str, dict[str, Any], int]


def write_flows(folder: Path, *, generated: bool = False) -> str:
    """Write each flow as JSON lines of [type, data, received_at_ms]; which feed it is.  ``generated``: never the recorded one."""
    recorded = bitstamp.installed() is not None and not generated
    flows = {FEED: _recorded_feed() if recorded else _made_feed()}
    long = [(each.type, each.data, each.received_at_ms or 0) for each in Generated(commands=LONG_COMMANDS).commands()]
    flows |= {EXCHANGE: long[:EXCHANGE_COMMANDS], LONG: long}
    for name, rows in flows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _forward(rows)))
    return "Bitstamp's recorded feed and generated orders" if recorded else "generated orders alone"


def read_flow(folder: Path, name: str) -> list[Row]:
    """A flow that was written."""
    with (folder / f"{name}.jsonl").open() as file:
        return [tuple(json.loads(line)) for line in file]


def _forward(rows: Iterable[Row]) -> Iterable[Row]:
    """The clock of a journal never goes back."""
    latest = 0
    for type, data, received_at_ms in rows:
        latest = max(latest, received_at_ms)
        yield type, data, latest


def _recorded_feed() -> list[Row]:
    commands = Bitstamp(commands=RESTING + FEED_COMMANDS).commands()
    rows = [(each.type, each.data, each.received_at_ms or 0) for each in commands]
    resting, feed = rows[:RESTING], rows[RESTING:]
    spoken_of = {data["order_id"] for _, data, _ in feed}
    bids = sorted((row for row in resting if row[1]["side"] == "bid"), key=lambda row: -row[1]["cents"])
    asks = sorted((row for row in resting if row[1]["side"] == "ask"), key=lambda row: row[1]["cents"])
    near = {row[1]["order_id"] for row in (*bids[:NEAR], *asks[:NEAR])}
    return [row for row in resting if row[1]["order_id"] in spoken_of | near] + feed


def _made_feed() -> list[Row]:
    """A feed from generated orders: each rests, changes, and is gone."""
    rows: list[Row] = []
    resting: dict[int, str] = {}
    for each in islice(Generated(2, commands=10_000).commands(), 256, None):
        data, at = dict(each.data), each.received_at_ms or 0
        order_id = data.get("order_id")
        if each.type == "new":
            resting[order_id] = "bid" if data["side"] == BUY else "ask"
            rows.append(("created", _order(order_id, resting[order_id], data), at))
        elif each.type == "modify" and order_id in resting:
            rows.append(("changed", _order(order_id, resting[order_id], data), at))
        elif each.type == "cancel":
            resting.pop(order_id, None)
            rows.append(("deleted", {"order_id": order_id}, at))
        if len(rows) == FEED_COMMANDS + 160:
            break
    return rows


def _order(order_id: int, side: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"order_id": order_id, "side": side, "cents": data["price"], "satoshi": data["quantity"] * 1000}
