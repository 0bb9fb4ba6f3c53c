"""Order flow of our own for ``exchange:Exchange``, from a seed: accounts are filled, then trade, change their minds, and leave.

Nothing but ``random()`` and ``getrandbits()`` is drawn, which Python promises to keep, so a seed gives the same commands
everywhere.  The generator knows no book.  It remembers some ids that it entered, and asks to cancel or modify these; that
some of them have traded away meanwhile is what happens to clients, and makes for rejections, as do orders beyond the
means of an account.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, Literal

from recovery import Command, Receipt
from recovery.examples.exchange import BUY, Exchange
from recovery.examples.request_ids import numbered

BEGAN_MS: Final = 1_700_000_000_000
COMMANDS: Final = 100_000

_ACCOUNTS: Final = 256
_REMEMBERED_MAX: Final = 4096
_CASH: Final = 4_000_000
_LOTS: Final = 400


class Generated:
    """The workload.  ``commands``: how many."""

    engine = "recovery.examples.exchange:Exchange"

    def __init__(self, seed: int = 1, *, commands: int | None = None) -> None:
        self.name = f"generated {seed}"
        self.total = self.count = COMMANDS if commands is None else commands
        self._seed = seed

    def commands(self, after: int = 0) -> Iterator[Command]:
        """The commands after the first ``after``."""
        request_id = numbered(self.name)
        asked = islice(_asked(self._seed), after, self.count)
        for number, (type, data) in enumerate(asked, after):
            yield Command(type, data, request_id=request_id(number), received_at_ms=BEGAN_MS + number)

    def right_answer(self, engine: Exchange, receipts: Iterable[Receipt]) -> Literal["match", "mismatch", "none"]:
        """Always "none": nobody but the engine itself knows what is right here."""
        return "none"


def _asked(seed: int) -> Iterator[tuple[str, dict[str, Any]]]:
    draw = random.Random(seed)
    bits, chance = draw.getrandbits, draw.random
    names = [f"account-{number:03}" for number in range(_ACCOUNTS)]
    for name in names:
        yield "deposit", {"account": name, "cash": _CASH, "lots": _LOTS}
    remembered: list[tuple[int, int]] = []
    price = 10_000.0
    order_id = 0
    while True:
        kind = chance()
        price = max(1_000.0, price + chance() - 0.5)
        if kind < 0.5 or not remembered:
            order_id += 1
            side = bits(1)
            data = {
                "order_id": order_id,
                "side": side,
                "price": _price(price, side, bits(5)),
                "quantity": 1 + bits(6),
                "owner": names[bits(8)],
            }
            if kind < 0.06:
                data["ioc"] = True
            elif len(remembered) < _REMEMBERED_MAX:
                remembered.append((order_id, side))
            else:
                remembered[bits(12)] = order_id, side
            yield "new", data
            continue
        at = int(chance() * len(remembered))
        order, side = remembered[at]
        if kind < 0.85:
            remembered[at] = remembered[-1]
            remembered.pop()
            yield "cancel", {"order_id": order}
        elif kind < 0.98:
            yield "modify", {"order_id": order, "price": _price(price, side, bits(5)), "quantity": 1 + bits(6)}
        else:
            type = "withdraw" if bits(1) else "deposit"
            yield type, {"account": names[bits(8)], "cash": bits(20), "lots": bits(6)}


def _price(middle: float, side: int, draw: int) -> int:
    """A limit around the middle: most keep some distance from it, on their own side; one in eight reaches across."""
    distance = draw - 4
    return int(middle) + (-distance if side == BUY else distance)
