"""Heavy mode on engines without tables: a Reject that left something, bytes that differ under an own digest."""

from __future__ import annotations

from typing import Any

from recovery import Command, Context, DivergenceError, Reject, Runtime
from tests.engines import Counter


class Partial(Counter):
    """Counts before it refuses."""

    def apply(self, context: Context, command: Command) -> Any:
        self.totals["seen"] = self.totals.get("seen", 0) + 1
        if command.type == "reject":
            raise Reject("refused")
        return self.totals["seen"]


class Restless(Counter):
    """Its bytes hold a change counter that no two instances share; its digest does not."""

    def apply(self, context: Context, command: Command) -> Any:
        if command.type == "reject":
            self.log.append(("refused", 0))
        return super().apply(context, command)

    def restore(self, value: Any) -> None:
        super().restore(value)
        self.log = [("restored", 0)]

    def digest(self) -> bytes:
        return repr(sorted(self.totals.items())).encode()[-64:] or b"none"


def run(engine: Any, types: str) -> list[Any]:
    with Runtime.open(engine, journal="memory:", snapshots="memory:", heavy=True) as runtime:
        commands = [Command("reject" if type == "r" else "count", {"name": "a"}) for type in types]
        return [*runtime.execute_many(commands), runtime.query(lambda engine: dict(engine.totals))]


def test_a_reject_that_left_a_trace_is_not_recorded() -> None:
    first, refused, again, totals = run(Partial, "crc")
    assert isinstance(refused, DivergenceError)
    assert "a Reject left a trace" in str(refused)
    assert (first.command_id, again.command_id) == (1, 2)
    assert totals == {"seen": 2}


def test_a_clean_reject_is_recorded() -> None:
    *receipts, _ = run(Counter, "crc")
    assert [receipt.command_id for receipt in receipts] == [1, 2, 3]
    assert receipts[1].rejection.code == "refused"


def test_an_engine_with_its_own_digest_is_compared_by_it() -> None:
    *receipts, _ = run(Restless, "crc")
    assert not [receipt for receipt in receipts if isinstance(receipt, Exception)], receipts
    bare = type("Bare", (Restless,), {"digest": None})
    refused, _ = run(bare, "c")
    assert "capture is not the same after capture and restore" in str(refused)
