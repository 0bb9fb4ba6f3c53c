"""Which images may go, by count and age.  Pure: it is told what is there, and says what of it is not needed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from journal.errors import UsageError

VERIFIED: Final = "verified"
UNVERIFIED: Final = "unverified"
QUARANTINED: Final = "quarantined"


class Retention(NamedTuple):
    """Keep the newest ``keep`` images that are verified, and besides all that are younger than ``keep_seconds``."""

    keep: int = 3
    keep_seconds: int = 0


class Held(NamedTuple):
    """An image as retention sees it; ``standing`` is VERIFIED, UNVERIFIED or QUARANTINED."""

    name: str
    command_id: int
    created_at_ms: int
    standing: str


def expendable(images: Iterable[Held], retention: Retention, *, now_ms: int) -> list[str]:
    """The names of images that are not needed, oldest first.

    Only images older than ``keep`` verified ones go, so none does while there are fewer.  A quarantined image never
    goes by itself, and counts for nothing.  UsageError where ``keep`` is below 1.
    """
    if retention.keep < 1:
        raise UsageError(f"keep is {retention.keep}; at least one image is kept")
    in_order = sorted(images, key=lambda image: (image.command_id, image.created_at_ms))
    verified = [image.command_id for image in in_order if image.standing == VERIFIED]
    if len(verified) < retention.keep:
        return []
    oldest_kept = verified[-retention.keep]
    return [
        image.name
        for image in in_order
        if image.command_id < oldest_kept
        and image.standing != QUARANTINED
        and now_ms - image.created_at_ms >= retention.keep_seconds * 1000
    ]
