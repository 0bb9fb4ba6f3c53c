"""When a projection refuses a batch: find the commands to blame, and let the others be recorded as if those had never come.

The batch is taken back as a whole.  Its work is then done again in the same order, in groups: one that is refused is halved, one
that is recorded lets the next be twice as large, so that a command to blame ends up alone, and its caller gets the error.
What comes after it is applied to the state without it.  Queries are run again in their places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from journal.errors import RecoveryError, UnavailableError
from journal.records import Entry
from recovery.submissions import Commands, Query, Recorded

Work = tuple[Commands, int] | Query
"""A command, as its unit and its place there, or a query."""


def refuse(work: Sequence[Work], error: Exception) -> None:
    """Make an error the outcome of all this work."""
    for item in work:
        if isinstance(item, Query):
            item.error = error
        else:
            unit, at = item
            unit.outcomes[at] = error


def take_back(work: Sequence[Work], error: Exception, *, head: int, recorded: dict[bytes, Entry]) -> None:
    """Refuse what is not durable, ``head`` being the last command that is, and forget that it was ``recorded``."""
    for item in work:
        if not isinstance(item, Query):
            unit, at = item
            outcome = unit.outcomes[at]
            if isinstance(outcome, Recorded):
                if outcome.entry.command_id <= head:
                    continue
                recorded.pop(outcome.entry.request_key, None)
        # An exception too was raised, and a query's result seen, in a state that is taken back.
        refuse([item], error)


def isolate(work: Sequence[Work], do: Callable[[Work], None], flush: Callable[[], bool]) -> None:
    """Do again the work of a batch that was refused and taken back.

    ``do`` does one item.  ``flush`` records what was done, or takes it back, its refusal being its outcome: then it is False.
    """
    if len(work) == 1:
        return
    at, done, size = 0, 0, len(work) // 2
    try:
        while at < len(work):
            group = work[at : at + size]
            done = at
            for item in group:
                do(item)
                done += 1
            if flush():
                at, size = done, 2 * size
            elif len(group) > 1:
                size = len(group) // 2
            else:
                at = done
    except BaseException as error:
        refuse(work[done:], error if isinstance(error, RecoveryError) else UnavailableError("the runtime stopped"))
        raise
