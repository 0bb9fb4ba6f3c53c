"""The right answer by brute force: a plain loop that applies commands and looks at the whole state after each.

It shares with the replayer nothing but the tables and ``Context``.  ``record`` runs in the recorded world and writes what
every command did; ``compare`` runs in the replayed world, beside that, and finds every command that did otherwise, each time
going on from the state that was recorded.  As a process of its own it compares; the task is on stdin.
"""

from __future__ import annotations

import decimal
import gc
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from journal import values
from recovery import Command, Context, Reject, TableEngine
from recovery.json_values import from_json, to_json
from recovery.table_engine import run_rebuild, state_of
from zoology import fixing
from zoology.hosting import SEED, Task, command_of, in_a_process_of_its_own, load, settle_in

State = dict[tuple[str, str], list[Any]]
"""By table and key (JSON text): the row's fields as JSON texts, each with its name."""


class Keeper:
    """An engine and all that can be seen of it."""

    def __init__(self, engine: type, *, digest_every: int) -> None:
        self.make = engine
        self.engine: Any = engine()
        self.tables = isinstance(self.engine, TableEngine)
        self.digest_every = digest_every
        self.seen: dict[str, dict[Any, Any]] = {}
        self.base: bytes | None = None
        self.since: list[tuple[Command, int]] = []

    def apply(self, command: Command, command_id: int) -> dict[str, Any]:
        """Apply one command: the answer and the events as JSON texts, and what changed of the whole state."""
        context = self._context(command, command_id)
        events: list[Any] = []
        try:
            if self.tables:
                state_of(self.engine).begin()
            answer = self._applied(context, command)
            events = [each._asdict() for each in context.events]
            if self.tables:
                state_of(self.engine).finish()
        except Reject as reject:
            answer = {"rejection": {"code": reject.code, "message": reject.message}}
            self._take_back()
        except Exception as error:
            answer = {"exception": f"{type(error).__name__}: {error}"}
            self._take_back()
            self._remake()
        self.since.append((command, command_id))
        plain = [{name: part for name, part in event.items() if part is not None} for event in events]
        return {
            "id": command_id,
            "failed": isinstance(answer, dict) and "exception" in answer,
            "response": json.dumps(to_json(answer), sort_keys=True),
            "events": json.dumps(to_json(plain), sort_keys=True),
            "delta": [[*place, row] for place, row in self._delta()],
            "state": self._captured(command_id),
        }

    def _context(self, command: Command, command_id: int) -> Context:
        return Context(command_id, command.received_at_ms or 0, 1, SEED)

    def _applied(self, context: Context, command: Command) -> Any:
        with decimal.localcontext(decimal.Context(prec=28, rounding=decimal.ROUND_HALF_EVEN)):
            return self.engine.apply(context, command)

    def _take_back(self) -> None:
        if self.tables:
            state_of(self.engine).rollback()
            run_rebuild(self.engine)

    def _remake(self) -> None:
        """What is promised to an engine without tables that failed: a fresh one, the last capture, the commands since."""
        if self.tables:
            return
        self.engine = self.make()
        if self.base is not None:
            self.engine.restore(values.decode(self.base))
        for command, command_id in self.since:
            try:
                self._applied(self._context(command, command_id), command)
            except Reject:
                continue

    def _delta(self) -> Iterator[tuple[tuple[str, str], list[Any] | None]]:
        """Every row that is another than when this was last asked, by looking at all rows."""
        if not self.tables:
            return
        for name, table in state_of(self.engine).tables.items():
            old, new = self.seen.get(name, {}), dict(table._rows)
            for key, row in new.items():
                if key not in old or old[key] is not row:
                    yield (name, json.dumps(to_json(key), sort_keys=True)), self._fields(row)
            for key in old.keys() - new.keys():
                yield (name, json.dumps(to_json(key), sort_keys=True)), None
            self.seen[name] = new

    def _fields(self, row: Any) -> list[Any]:
        names = getattr(row, "_fields", None)
        if names is None:
            return [["", json.dumps(to_json(row), sort_keys=True)]]
        return [[name, json.dumps(to_json(part), sort_keys=True)] for name, part in zip(names, row, strict=True)]

    def _captured(self, command_id: int) -> str:
        if self.tables or command_id % self.digest_every:
            return ""
        return self.capture()

    def capture(self) -> str:
        """All that an engine without tables says it is."""
        self.base = values.encode(self.engine.capture())
        self.since.clear()
        own = getattr(self.engine, "digest", None)
        return self.base.hex() if own is None else own().hex()

    # Images

    def image(self) -> str:
        """The state, for ``become`` in another process."""
        if not self.tables:
            return values.encode(self.engine.capture()).hex()
        tables = state_of(self.engine).tables
        return json.dumps(
            [
                [name, to_json(key), to_json(_plain(row))]
                for name, table in tables.items()
                for key, row in table._rows.items()
            ]
        )

    def become(self, image: str) -> None:
        """Be restored, from an image or for a start in the middle."""
        if not self.tables:
            self.base = bytes.fromhex(image)
            self.engine.restore(values.decode(self.base))
            return
        self.write((name, from_json(key), from_json(row)) for name, key, row in json.loads(image))
        for _ in self._delta():
            pass

    def write(self, rows: Any) -> None:
        """Write rows, past the engine; a row of None is deleted."""
        state = state_of(self.engine)
        state.begin()
        for name, key, row in rows:
            table = state.tables[name]
            if row is None:
                table.pop(key, None)
            else:
                table[key] = table._row_type(*row) if hasattr(table._row_type, "_fields") else row
        state.finish()
        run_rebuild(self.engine)


def _plain(row: Any) -> Any:
    return tuple(row) if hasattr(row, "_fields") else row


# In the recorded world


def record(task: Task) -> None:
    """Run all lives; write outcomes.jsonl, and images for those who begin there."""
    rows = task.rows()
    Path(task.folder, "outcomes.jsonl").unlink(missing_ok=True)
    for life in task.lives(len(rows)):
        in_a_process_of_its_own(lambda: imported_and_run(task, rows, life))  # noqa: B023 - called at once


def imported_and_run(task: Task, rows: list[Any], life: range) -> None:
    """One life: the module is imported on the main thread, and the commands applied on another."""
    load(task.engine)
    on_a_thread(lambda: one_life(task, rows, life))


def on_a_thread(work: Any) -> None:
    """The runtime applies commands on a thread of its own."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def one_life(task: Task, rows: list[Any], life: range) -> None:
    """From the image before, to the image after."""
    keeper = Keeper(load(task.engine), digest_every=task.digest_every)
    if life[0] > 1:
        keeper.become(image_path(task, life[0] - 1).read_text())
    with Path(task.folder, "outcomes.jsonl").open("a") as file:
        for command_id in life:
            for what in task.acts_before(command_id) if command_id > life[0] else ():
                act(task, keeper, what)
            file.write(json.dumps(keeper.apply(command_of(rows[command_id - 1], command_id), command_id)) + "\n")
            if command_id in task.images or command_id == life[-1]:
                image_path(task, command_id).write_text(keeper.image())


def image_path(task: Task, command_id: int) -> Path:
    """Where the image after a command lies."""
    return Path(task.folder, f"truth-{command_id}.image")


def act(task: Task, keeper: Keeper, what: str) -> None:
    """One of specimen.Act, to a bare engine."""
    if what == "collect":
        gc.collect()
    elif what == "decimals":
        decimal.DefaultContext.prec = 9
    elif what == "fail":
        type, data = task.failing()
        _fail(keeper, Command(type, data))
    else:
        getattr(keeper.engine, what.removeprefix("call:"))()


def _fail(keeper: Keeper, command: Command) -> None:
    last = keeper.since[-1][1] if keeper.since else 0
    done = keeper.apply(command, last + 1)
    assert done["failed"], "it should have failed"
    del keeper.since[-1:]


# In the replayed world


def compare(task: Task) -> list[dict[str, Any]]:
    """Every command that came out otherwise than recorded."""
    rows = task.rows()
    keeper = Keeper(load(task.engine), digest_every=task.digest_every)
    if task.after:
        keeper.become(image_path(task, task.after).read_text())
    found: list[dict[str, Any]] = []
    recorded: State = {}
    replayed: State = {}
    with Path(task.folder, "outcomes.jsonl").open() as file:
        for line in file:
            theirs = json.loads(line)
            _merge(recorded, theirs["delta"])
            if theirs["id"] <= task.after:
                _merge(replayed, theirs["delta"])
                continue
            ours = keeper.apply(command_of(rows[theirs["id"] - 1], theirs["id"]), theirs["id"])
            _merge(replayed, ours["delta"])
            places = dict.fromkeys((each[0], each[1]) for each in (*theirs["delta"], *ours["delta"]))
            fields = [each for place in places for each in differences(place, recorded.get(place), replayed.get(place))]
            parts = {
                part: _sides(theirs[part], ours[part]) for part in ("response", "events") if theirs[part] != ours[part]
            }
            if ours["failed"]:
                parts.pop("events", None)
            if fields or parts or theirs["state"] != ours["state"]:
                found.append({"command_id": theirs["id"], "fields": fields, "parts": parts})
                if not (keeper.tables and task.keep_going):
                    return found
                keeper.write(
                    (table, from_json(json.loads(key)), _row(recorded.get((table, key)))) for table, key in places
                )
                _merge(replayed, [[*place, row] for place, row in keeper._delta()])
    return found


def _merge(state: State, delta: list[Any]) -> None:
    for table, key, row in delta:
        if row is None:
            state.pop((table, key), None)
        else:
            state[table, key] = row


def _row(fields: list[Any] | None) -> Any:
    if fields is None:
        return None
    parts = [from_json(json.loads(text)) for _, text in fields]
    return parts[0] if fields[0][0] == "" else parts


def differences(place: tuple[str, str], recorded: Any, replayed: Any) -> Iterator[dict[str, Any]]:
    """The fields in which two rows differ, as ``recovery replay --json`` has them."""
    ours, theirs = dict(recorded or ()), dict(replayed or ())
    for name in {**ours, **theirs}:
        if ours.get(name) != theirs.get(name):
            sides = {"recorded": ours.get(name), "replayed": theirs.get(name)}
            document = {"table": place[0], "key": json.loads(place[1])} | ({"field": name} if name else {})
            yield document | {side: json.loads(text) for side, text in sides.items() if text is not None}


def _sides(recorded: str, replayed: str) -> dict[str, Any]:
    return {"recorded": json.loads(recorded), "replayed": json.loads(replayed)}


def main() -> None:
    """The arguments: the file for random choices, and the process whose choices count."""
    task = Task.read()
    fixing.give(sys.argv[1], int(sys.argv[2]))
    settle_in(task)
    print(json.dumps(compare(task)))


if __name__ == "__main__":
    main()
