"""Spoils one step's record between the engine and the journal, and writes down where: that is then the right answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from journal import digest, framing, values
from recovery.json_values import to_json
from recovery.state import State
from recovery.stepper import Step, TableStepper
from zoology.hosting import Task

ROW = 0


def spoil(task: Task) -> None:
    """From now on this process's recorder errs at one command."""
    honest = TableStepper.step

    def step(stepper: TableStepper, asked: Any, command_id: int, logic_version: int) -> Step:
        if command_id != task.spoilt_at:
            return honest(stepper, asked, command_id, logic_version)
        before = {name: dict(table._rows) for name, table in stepper.state.tables.items()}
        done = honest(stepper, asked, command_id, logic_version)
        bent, answer = WAYS[task.spoilt](stepper, done, before)
        right = {"command_id": command_id, "fields": [], "parts": {}, **answer}
        Path(task.folder, "spoilt.json").write_text(json.dumps([right]))
        return bent

    TableStepper.step = step  # type: ignore[method-assign]


def _drop(stepper: TableStepper, done: Step, before: Any) -> tuple[Step, dict[str, Any]]:
    *kept, dropped = framing.unpack_changes(done.changes_bytes or b"")
    table = stepper.state.tables[dropped.table]
    old, new = before[dropped.table].get(dropped.key), table.get(dropped.key)
    return done._replace(changes_bytes=framing.pack_changes(kept)), {"fields": _fields(dropped, table, old, new)}


def _bend(stepper: TableStepper, done: Step, before: Any) -> tuple[Step, dict[str, Any]]:
    first, *others = framing.unpack_changes(done.changes_bytes or b"")
    table = stepper.state.tables[first.table]
    row = table[first.key]
    bent = row._replace(**{row._fields[ROW]: row[ROW] + 1})
    wrong = first._replace(row_bytes=values.encode_bare(tuple(bent)))
    fields = _fields(first, table, bent, row)
    return done._replace(changes_bytes=framing.pack_changes([wrong, *others])), {"fields": fields}


def _bend_sum(stepper: TableStepper, done: Step, before: Any) -> tuple[Step, dict[str, Any]]:
    state: State = stepper.state
    table = state.tables["accounts"]
    table._sum = (table._sum + 12_345) % digest.MODULUS
    state._repack(table)
    state.digest_bytes = digest.pack_tables(state._parts.values())
    return done._replace(post_digest_bytes=state.digest_bytes), {}


def _bend_answer(stepper: TableStepper, done: Step, before: Any) -> tuple[Step, dict[str, Any]]:
    sides = {"recorded": to_json("otherwise"), "replayed": to_json(values.decode(done.result_bytes))}
    return done._replace(result_bytes=values.encode("otherwise")), {"parts": {"response": sides}}


def _fields(change: Any, table: Any, recorded: Any, replayed: Any) -> list[dict[str, Any]]:
    found = []
    for at, name in enumerate(table._row_type._fields):
        sides = {"recorded": recorded, "replayed": replayed}
        both = {side: to_json(row[at]) for side, row in sides.items() if row is not None}
        if len({json.dumps(value) for value in both.values()}) != 1 or len(both) == 1:
            found.append({"table": change.table, "key": to_json(change.key), "field": name, **both})
    return found


WAYS = {"drop a change": _drop, "bend a change": _bend, "bend the sum": _bend_sum, "bend the answer": _bend_answer}
