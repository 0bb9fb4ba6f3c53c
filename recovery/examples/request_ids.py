"""Request ids of a workload: the same command has the same id in every run, so that a stream can be sent again after a crash."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Final

_NAMESPACE: Final = uuid.UUID("0b3c5f0e-55d1-4c52-9d0c-5c2f7f1d7a11")
_NUMBER_BITS: Final = 64


def numbered(scope: str) -> Callable[[int], uuid.UUID]:
    """A function from a command's number, below 2**64, to its request id; ``scope`` keeps workloads apart."""
    base = uuid.uuid5(_NAMESPACE, scope).int >> _NUMBER_BITS << _NUMBER_BITS
    return lambda number: uuid.UUID(int=base + number)
