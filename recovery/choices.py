"""The choices of ``Runtime.open`` that can be judged without opening anything."""

from __future__ import annotations

from journal.errors import UsageError


def check_choices(
    *,
    replay: str,
    changes: str,
    snapshot_every: int,
    keep: int,
    queue_max: int,
    batch_max: int,
    digest_every: int,
    dedup_window: int,
) -> None:
    """Raise UsageError for the first that is none."""
    if replay not in ("execute", "redo"):
        raise UsageError(f'replay is {replay!r}; it is "execute" or "redo"')
    if changes not in ("rows", "none"):
        raise UsageError(f'changes is {changes!r}; it is "rows" or "none"')
    for name, value, least in (
        ("snapshot_every", snapshot_every, 0),
        ("keep", keep, 1),
        ("queue_max", queue_max, 1),
        ("batch_max", batch_max, 1),
        ("digest_every", digest_every, 1),
        ("dedup_window", dedup_window, 0),
    ):
        if value < least:
            raise UsageError(f"{name} is {value}; it is at least {least}")
