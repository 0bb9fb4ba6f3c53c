"""The exchange, with an answer that is another at the command that ``BENT_AT`` names: what a bisection looks for."""

from __future__ import annotations

import os
from typing import Any

from recovery import Command, Context, Reject
from recovery.examples.exchange import Exchange

BENT_AT = int(os.environ.get("BENT_AT", "0"))


class BentExchange(Exchange):
    """Bent at one command."""

    def apply(self, context: Context, command: Command) -> Any:
        """Answer, and at one command otherwise."""
        if context.command_id != BENT_AT:
            return super().apply(context, command)
        try:
            return {"bent": super().apply(context, command)}
        except Reject as rejection:
            raise Reject("bent", rejection.code) from rejection
