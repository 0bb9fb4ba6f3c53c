"""``recovery.testing`` passes what is sound and names what is not."""

from __future__ import annotations

from typing import Any

import pytest

from journal.errors import DivergenceError
from recovery import Command, Context, Reject, Table, TableEngine
from recovery.testing import check_engine, trial
from tests.crash.worker import stream_of
from tests.engines import Counter, Till

COUNTS = [Command("count", {"name": f"n{n % 3}"}) for n in range(10)] + [Command("fail", {"name": "n1"})]


class OrderOfASet(TableEngine):
    name = "order-of-a-set"
    rows = Table(str, str)

    def apply(self, context: Context, command: Command) -> Any:
        self.rows["first"] = next(iter(set(command.data)))


class RejectsTooLate(Counter):
    def apply(self, context: Context, command: Command) -> Any:
        self.totals["late"] = self.totals.get("late", 0) + 1
        if command.data["name"] == "n2":
            raise Reject("late")
        return None


class HalfADigest(Counter):
    def digest(self) -> bytes:
        return repr(sorted(self.totals)).encode()[:64]


class Hidden(TableEngine):
    name = "hidden"
    rows = Table(str, int)
    seen: list[int] = []  # noqa: RUF012 - the defect under test: state that no table holds

    def apply(self, context: Context, command: Command) -> Any:
        self.seen.append(1)
        return len(self.seen)


def test_sound_engines_pass() -> None:
    check_engine(Till, list(stream_of(0, 40)))
    check_engine(Counter, COUNTS)


@pytest.mark.parametrize(
    ("engine", "commands", "match"),
    [
        (OrderOfASet, [Command("put", tuple("abcdefgh"))], "PYTHONHASHSEED"),
        (RejectsTooLate, COUNTS, "a Reject left a trace"),
        (HalfADigest, COUNTS, "did not move with the captured value"),
    ],
)
def test_unsound_engines_are_named(engine: Any, commands: list[Command], match: str) -> None:
    with pytest.raises(DivergenceError, match=match):
        check_engine(engine, commands)


def test_a_trial_verifies_on_exit() -> None:
    with trial(Till) as till:
        assert till.execute(Command("deposit", {"number": "ada", "cents": 5})).response == {"cents": 5}
    with pytest.raises(DivergenceError, match=r"hidden state|not deterministic"), trial(Hidden) as runtime:
        runtime.execute(Command("x", None))
