"""The choices of ``Runtime.open`` that can be judged without opening anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from journal.errors import UsageError

_LEAST: Final = {
    "snapshot_every": 0,
    "keep": 1,
    "queue_max": 1,
    "batch_max": 1,
    "digest_every": 1,
    "dedup_window": 0,
}


def check_choices(replay: str, changes: str, numbers: Sequence[int]) -> None:
    """Raise UsageError for the first that is none.  ``numbers``: those of ``_LEAST``, in its order."""
    if replay not in ("execute", "redo"):
        raise UsageError(f'replay is {replay!r}; it is "execute" or "redo"')
    if changes not in ("rows", "none"):
        raise UsageError(f'changes is {changes!r}; it is "rows" or "none"')
    for (name, least), value in zip(_LEAST.items(), numbers, strict=True):
        if value < least:
            raise UsageError(f"{name} is {value}; it is at least {least}")
