"""Heavy mode: around each command, that a Reject changed nothing, and that what is captured and restored is the same again.

It finds state that no image holds.  An engine that declares its own ``digest`` is compared by that: bytes may differ then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from journal import digest, values
from journal.errors import DivergenceError, RecoveryError
from recovery.stepper import CaptureStepper, Factory, Step, Stepper, TableStepper
from recovery.tables import Index

_HINT: Final = "declare what apply depends on in a Table or Cell, or capture it"


class HeavyMode:
    """Looks at one stepper's engine before and after each step."""

    def __init__(self, stepper: Stepper, factory: Factory) -> None:
        self._stepper = stepper
        self._factory = factory
        self._before = b""

    def before(self) -> None:
        """A step is about to be made."""
        if isinstance(self._stepper, CaptureStepper):
            self._before = captured_state(self._stepper)

    def after(self, step: Step) -> None:
        """A step was made.  DivergenceError where it left what it should not, or what no restore brings back."""
        if step.rejected:
            self.check_reject()
        check_round_trip(self._stepper, self._factory)

    def check_reject(self) -> None:
        """Raise DivergenceError unless the state is what it was at ``before``.  Tables are rolled back by the framework."""
        if isinstance(self._stepper, CaptureStepper) and captured_state(self._stepper) != self._before:
            raise DivergenceError(
                f"{self._stepper.name}: a Reject left a trace in the state",
                hint="change nothing before raising Reject",
            )


def captured_state(stepper: CaptureStepper) -> bytes:
    """What tells two states of an engine without tables apart: its own digest where it declares one, else all it captures."""
    captured = stepper.capture_bytes()
    return stepper.digest_of(captured) if declares_digest(stepper) else captured


def declares_digest(stepper: Stepper) -> bool:
    """Whether an engine without tables says itself what counts of its state."""
    return isinstance(stepper, CaptureStepper) and callable(getattr(stepper.engine, "digest", None))


def copied(stepper: Stepper, factory: Factory) -> Stepper:
    """A stepper over a fresh engine that was given the state of another's, as an image would give it."""
    if isinstance(stepper, CaptureStepper):
        return stepper.copy(factory)
    assert isinstance(stepper, TableStepper)
    state = stepper.state
    fresh = TableStepper(factory(), stepper.seed)
    blocks = (
        (name, tuple(values.decode_bare(key) for key, _ in rows), tuple(values.decode_bare(row) for _, row in rows))
        for name, rows in ((name, list(rows)) for name, rows in state.rows())
    )
    fresh.load(blocks, digest.StateDigest.unpack(state.digest_bytes))
    return fresh


def check_round_trip(stepper: Stepper, factory: Factory) -> None:
    """Raise DivergenceError unless a restored copy of the engine is the same in rows, order, indexes and digest."""
    _blamed(stepper, lambda: require_same(stepper, copied(stepper, factory)))


def _blamed(stepper: Stepper, check: Callable[[], None]) -> None:
    try:
        check()
    except RecoveryError:
        raise
    except Exception as error:  # the engine's own restore, capture or rebuild
        raise DivergenceError(
            f"{stepper.name} cannot be captured and restored: {type(error).__name__}: {error}", hint=_HINT
        ) from error


def require_same(live: Stepper, restored: Stepper) -> None:
    """Raise DivergenceError unless two steppers are in the same state, to everything that reads it."""
    if isinstance(live, CaptureStepper) and isinstance(restored, CaptureStepper):
        _same("capture", captured_state(live), captured_state(restored))
        return
    assert isinstance(live, TableStepper)
    assert isinstance(restored, TableStepper)
    _same("digest", digest.root_of(live.state.recomputed()), digest.root_of(live.state.digest_bytes))
    for name, table in live.state.tables.items():
        _same(f"table {name}", list(table.items()), list(restored.state.tables[name].items()))
    for name, member in live.state.members.items():
        again: Any = restored.state.members[name]
        if isinstance(member, Index):
            _same(f"index {name}", list(member), list(again))


def _same(what: str, live: object, restored: object) -> None:
    if live != restored:
        raise DivergenceError(
            f"{what} is not the same after capture and restore",
            expected=repr(live)[:200],
            found=repr(restored)[:200],
            hint=_HINT,
        )
