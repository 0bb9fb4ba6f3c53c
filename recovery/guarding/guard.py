"""Whether an engine runs under the determinism guard: the words and the way in, which cost nothing where it is off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from journal.errors import UsageError
from recovery.stepper import Stepper

if TYPE_CHECKING:
    from recovery.determinism import Guard

OFF: Final = "off"
WARN: Final = "warn"
STRICT: Final = "strict"
MODES: Final = (OFF, WARN, STRICT)


def check_mode(mode: str) -> None:
    """Raise UsageError unless ``mode`` is one of MODES."""
    if mode not in MODES:
        raise UsageError(f'guard is {mode!r}; it is "off", "warn" or "strict"')


def attach_guard(stepper: Stepper, mode: str) -> Guard | None:
    """Put a stepper's engine under guard until the guard is closed; None for ``off``.  UsageError for a mode that is none."""
    check_mode(mode)
    if mode == OFF:
        return None
    from recovery.determinism import Guard

    guard = Guard(stepper.engine, mode)
    stepper.apply = guard.run
    return guard


@contextmanager
def guarded(stepper: Stepper, mode: str) -> Iterator[Guard | None]:
    """A stepper's engine under guard within the block."""
    guard = attach_guard(stepper, mode)
    try:
        yield guard
    finally:
        if guard is not None:
            guard.close()
