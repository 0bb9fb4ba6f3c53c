"""The part of an audit that changes one leaf of the state at a time: the digest and the image must move.

Rows of tables are changed where they lie, and put back.  Of an engine without tables a restored copy's attributes are changed:
what ``capture`` does not notice is in no image.  Where the engine declares its own ``digest``, only that says what counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from journal import values
from recovery.auditing.audit_report import AuditFinding
from recovery.auditing.leaves import changes, flattened, root, settings
from recovery.heavy import captured_state, copied, declares_digest
from recovery.state import State, encode_row
from recovery.stepper import CaptureStepper, Factory, Stepper, TableStepper
from recovery.tables import Table

SETTINGS_MAX: Final = 100_000
LEAVES_EACH: Final = 10

Result = tuple[int, list[AuditFinding], list[str]]


def leaf_findings(stepper: Stepper, factory: Factory, command_id: int, sample: int) -> Result:
    """How many leaves were changed, what did not move that must, and notes; ``sample`` bounds rows by table and leaves."""
    if isinstance(stepper, TableStepper):
        findings = []
        count = 0
        for table, key, path, changed in _changed_rows(stepper.state, sample):
            count += 1
            still = _still(stepper.state, table, key, changed)
            if still:
                what = f"table {table._name}, key {key!r}: the {still} does not move when {path or 'the row'} changes"
                findings.append(AuditFinding("digest", command_id, what))
        return count, findings, []
    assert isinstance(stepper, CaptureStepper)
    return _attributes(stepper, factory, sample)


def _changed_rows(state: State, sample: int) -> Iterator[tuple[Table[Any, Any], Any, str, Any]]:
    for table in state.tables.values():
        keys = list(table)
        for key in keys[:: max(1, len(keys) // sample)][:sample]:
            for path, changed in changes(table[key]):
                yield table, key, path, changed


def _still(state: State, table: Table[Any, Any], key: Any, changed: Any) -> str:
    """What of digest and image is as before although a row is another; empty where both moved, or the row was refused."""
    digest_before, row_before = state.digest_bytes, encode_row(table[key])
    state.begin()
    try:
        table[key] = changed
        finished = state.finish()
    except Exception:  # an index's key, or the table itself, knows the row cannot be
        state.rollback()
        return ""
    same_digest, same_row = state.digest_bytes == digest_before, encode_row(table[key]) == row_before
    state.undo(finished.undo)
    return " and ".join(["digest"] * same_digest + ["image"] * same_row)


def _attributes(stepper: CaptureStepper, factory: Factory, sample: int) -> Result:
    """An attribute that ``capture`` does not notice and that the commands changed is in no image."""
    copy = copied(stepper, factory)
    assert isinstance(copy, CaptureStepper)
    live, at_first, before = flattened(stepper.engine), flattened(factory()), captured_state(copy)
    every = list(islice(settings(copy.engine), SETTINGS_MAX))
    chosen = every[:: max(1, len(every) // (sample * LEAVES_EACH))]
    unseen: dict[str, None] = {}
    for setting in chosen:
        setting.put()
        try:
            moved = captured_state(copy) != before
        except Exception:  # it noticed
            moved = True
        setting.back()
        if not moved and live.get(setting.path) != at_first.get(setting.path):
            unseen[f"{root(setting.path)} was changed by commands, and the image does not move with it"] = None
    ignored: dict[str, None] = {}
    captured = values.decode(stepper.capture_bytes())
    others = list(islice(changes(captured), sample))
    for path, changed in others:
        if _restores_to(factory, stepper, changed) == before:
            ignored[f"capture() gives {root(path) or path}, and restore() makes nothing of it"] = None
    notes = [] if declares_digest(stepper) else [*unseen, *ignored]
    return len(chosen) + len(others), [], notes


def _restores_to(factory: Factory, stepper: CaptureStepper, captured: Any) -> bytes:
    """The state after restoring a changed captured value; empty where the engine refused it."""
    try:
        fresh = CaptureStepper(factory, stepper.seed, 1)
        fresh.load_value(0, values.encode(captured))
        return captured_state(fresh)
    except Exception:  # it noticed
        return b""
