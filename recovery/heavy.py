"""Heavy mode: after each command, capture, restore into a fresh engine, and compare.  Finds state that no image holds."""

from __future__ import annotations

from typing import Final

from journal import digest, values
from journal.errors import DivergenceError, RecoveryError
from recovery.stepper import CaptureStepper, Factory, Stepper, TableStepper
from recovery.tables import Index

_HINT: Final = "declare what apply depends on in a Table or Cell, or capture it"


def check_round_trip(stepper: Stepper, factory: Factory) -> None:
    """Raise DivergenceError unless a restored copy of the engine is the same in rows, order, indexes and digest."""
    try:
        if isinstance(stepper, TableStepper):
            _check_tables(stepper, factory)
        elif isinstance(stepper, CaptureStepper):
            _check_value(stepper, factory)
    except RecoveryError:
        raise
    except Exception as error:  # the engine's own restore, capture or rebuild
        raise DivergenceError(
            f"{stepper.name} cannot be captured and restored: {type(error).__name__}: {error}", hint=_HINT
        ) from error


def _check_value(stepper: CaptureStepper, factory: Factory) -> None:
    captured = stepper.capture_bytes()
    fresh = factory()
    fresh.restore(values.decode(captured))
    _same("capture", captured, values.encode(fresh.capture()))


def _check_tables(stepper: TableStepper, factory: Factory) -> None:
    state = stepper.state
    _same("digest", digest.root_of(state.recomputed()), digest.root_of(state.digest_bytes))
    fresh = TableStepper(factory(), stepper.seed)
    blocks = (
        (name, tuple(values.decode_bare(key) for key, _ in rows), tuple(values.decode_bare(row) for _, row in rows))
        for name, rows in ((name, list(rows)) for name, rows in state.rows())
    )
    fresh.load(blocks, digest.StateDigest.unpack(state.digest_bytes))
    for name, table in state.tables.items():
        _same(f"table {name}", list(table.items()), list(fresh.state.tables[name].items()))
    for name, member in state.members.items():
        restored = fresh.state.members[name]
        if isinstance(member, Index) and isinstance(restored, Index):
            _same(f"index {name}", list(member), list(restored))


def _same(what: str, live: object, restored: object) -> None:
    if live != restored:
        raise DivergenceError(
            f"{what} is not the same after capture and restore",
            expected=repr(live)[:200],
            found=repr(restored)[:200],
            hint=_HINT,
        )
