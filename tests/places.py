"""Places in memory, copied whole or in part: what a killed process, a lost disk or an old backup leaves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from journal.stores.memory import PLACES, Place, Stream
from snapshots.stores.memory import _shared

_numbers = itertools.count()


def new_place() -> str:
    """A name that no journal and no images have, for ``memory:NAME``."""
    return f"place {next(_numbers)}"


def copy_of(name: str, *, entries: int | None = None, images: Mapping[str, bytes] | None = None) -> str:
    """Another place with the same journal, or only its first entries, and with the same images or these."""
    place = Place()
    for stream_name, stream in PLACES[name].streams.items():
        copied = place.streams[stream_name] = Stream(stream.identity)
        copied.epochs = list(stream.epochs)
        copied.entries = stream.entries[:entries]
        copied.by_request = {entry.request_key: entry for entry in copied.entries}
    there = new_place()
    PLACES[there], _shared[there] = place, dict(images_of(name) if images is None else images)
    return there


def images_of(name: str) -> dict[str, bytes]:
    """The images in a place, by name."""
    return _shared.setdefault(name, {})


def forget(name: str) -> None:
    """Do away with a place."""
    PLACES.pop(name, None)
    _shared.pop(name, None)
