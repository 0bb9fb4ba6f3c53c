"""Sound engines whose record is not: rows written behind the framework, and records spoilt as they were written."""

from __future__ import annotations

import functools

from recovery.examples.exchange import Account, Exchange
from zoology.bases import Tagging
from zoology.specimen import EXCHANGE, FEED, Act, specimen

spoilt = functools.partial(specimen, flow=EXCHANGE)


@spoilt(
    "somebody writes a row between two commands, past the tables' gate",
    cause="touched outside a command",
    acts=(Act("call:touch", (290,)),),
)
class TouchedOutside(Exchange):
    def touch(self) -> None:
        """Enrich the one whom the next command meets, which then records what it found."""
        rows = self.accounts._rows
        rows["account-222"] = Account(rows["account-222"].cash + 1000, *rows["account-222"][1:])


@spoilt(
    "a row that a command changed is missing from its record",
    cause="changes incomplete",
    spoilt="drop a change",
    spoilt_at=301,
)
class ChangeDropped(Exchange):
    pass


@spoilt(
    "a row is recorded otherwise than it was written", cause="changes incomplete", spoilt="bend a change", spoilt_at=320
)
class ChangeBent(Exchange):
    pass


@spoilt(
    "the recorder's sum of a table goes wrong, so that no rows give its digest",
    cause="recorder fault",
    spoilt="bend the sum",
    spoilt_at=310,
)
class SumBent(Exchange):
    pass


@specimen(
    "an answer is recorded otherwise than it was given",
    flow=FEED,
    cause=("hidden state", "unknown"),
    spoilt="bend the answer",
    spoilt_at=222,
)
class AnswerBent(Tagging):
    pass
