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
from recovery.examples.exchange import Exchange
from recovery.examples.request_ids import numbered

BEGAN_MS: Final = 1_700_000_000_000
COMMANDS: Final = 100_000

_ACCOUNTS: Final = 256
_OPEN_MAX: Final = 4096
_CASH: Final = 50_000_000
_LOTS: Final = 5_000


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
    open_ids: list[int] = []
    price = 10_000.0
    order_id = 0
    while True:
        kind = chance()
        price = max(1_000.0, price + (chance() - 0.5) * 2)
        if kind < 0.5 or not open_ids:
            order_id += 1
            side = bits(1)
            # Most orders keep some distance from the price, on their own side of it; one in five reaches across.
            distance = bits(5) - 6
            data = {
                "order_id": order_id,
                "side": side,
                "price": int(price) + (distance if side else -distance),
                "quantity": 1 + bits(6),
                "owner": names[bits(8)],
            }
            if kind < 0.06:
                data["ioc"] = True
            elif len(open_ids) < _OPEN_MAX:
                open_ids.append(order_id)
            else:
                open_ids[bits(12)] = order_id
            yield "new", data
            continue
        at = int(chance() * len(open_ids))
        if kind < 0.85:
            open_ids[at], open_ids[-1] = open_ids[-1], open_ids[at]
            yield "cancel", {"order_id": open_ids.pop()}
        elif kind < 0.98:
            distance = bits(5) - 16
            yield "modify", {"order_id": open_ids[at], "price": int(price) + distance, "quantity": 1 + bits(6)}
        else:
            type = "withdraw" if bits(1) else "deposit"
            yield type, {"account": names[bits(8)], "cash": bits(20), "lots": bits(6)}
