"""What an emitted test calls: a small history must come out the same, on this engine, now.  DivergenceError where it does not.

::

    assert_reproduces("shop.engine:Till", "test_deposit_4711.journal")          # as it was recorded
    assert_deterministic(…, environments=[{"PYTHONHASHSEED": "1"}, {"PYTHONHASHSEED": "2"}])    # the same in each
    assert_restorable(…)                                                        # the same after a restore before the last command
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from journal import framing, values
from journal.errors import DivergenceError
from journal.journal import Journal
from journal.urls import open_history
from recovery.divergence import events_plain
from recovery.images import open_catalog
from recovery.json_values import to_json
from recovery.plain_text import visible
from recovery.reducing.candidate_process import Answer, Candidate, Outcome, Row, Side
from recovery.report import VERIFIED
from recovery.verification import verify

HASH_SEEDS: Final = tuple({"PYTHONHASHSEED": seed} for seed in ("1", "2", "3", "4"))


def assert_reproduces(engine: str, history: str | Path, *, app_dir: str = ".") -> None:
    """Replay a history; DivergenceError with the report unless all of it verified."""
    with open_history(os.fspath(history)) as journal:
        stream = journal.stream
    report = verify(engine, f"file:{os.fspath(history)}", stream=stream, app_dir=app_dir)
    if report.verdict != VERIFIED:
        error = DivergenceError(f"{engine} does not reproduce {history}\n{report}")
        error.evidence = report
        raise error


def assert_deterministic(
    engine: str, history: str | Path, *, environments: Sequence[Mapping[str, str]] = HASH_SEEDS, app_dir: str = "."
) -> None:
    """Execute a history in one process for each environment; DivergenceError where two of them differ."""
    answers = {
        " ".join(f"{name}={value}" for name, value in each.items()): _answer(engine, history, app_dir, each)
        for each in environments
    }
    _require_same(engine, history, answers)


def assert_restorable(engine: str, history: str | Path, *, app_dir: str = ".") -> None:
    """Execute a history straight, and with a restore before its last command; DivergenceError where they differ."""
    straight = _answer(engine, history, app_dir, HASH_SEEDS[0])
    restored = _answer(engine, history, app_dir, HASH_SEEDS[0], restored=True)
    _require_same(engine, history, {"straight": straight, "restored before the last command": restored})


def _answer(
    engine: str, history: str | Path, app_dir: str, environment: Mapping[str, str], *, restored: bool = False
) -> Answer:
    with open_history(os.fspath(history)) as journal:
        identity = journal.identity
        candidate = _candidate(journal, os.fspath(history))
    with Side(
        engine,
        app_dir,
        seed=identity.seed,
        digest_every=identity.digest_every,
        environment=environment,
        restored=restored,
    ) as side:
        return side.run(candidate)


def _candidate(journal: Journal, path: str) -> Candidate:
    """A history with the state it begins in, from the image it carries."""
    start = journal.start().command_id
    rows: list[Row] = []
    captured = None
    if start:
        catalog = open_catalog(f"file:{path}", journal.stream)
        assert catalog is not None
        image = next(each for each in catalog.images() if each.command_id == start)
        with catalog.reader(image.name) as reader:
            if reader.header.kind == "value":
                captured = reader.value_bytes()
            else:
                for block in reader.rows():
                    pairs = zip(block.key_bytes, block.row_bytes, strict=True)
                    rows += [(block.table, key, row) for key, row in pairs]
    entries = list(journal.read())
    logic = {epoch.number: epoch.logic_version for epoch in journal.epochs()}
    return Candidate(
        tuple(rows),
        captured,
        start + 1,
        tuple(tuple(entry[1:6]) for entry in entries),
        tuple(logic[entry.epoch] for entry in entries),
    )


def _require_same(engine: str, history: str | Path, answers: dict[str, Answer]) -> None:
    first = next(iter(answers))
    for name, answer in answers.items():
        for at, (ours, theirs) in enumerate(zip(answers[first].outcomes, answer.outcomes, strict=True), 1):
            if ours != theirs:
                raise DivergenceError(
                    f"{engine} does two things with command {at} of {history}\n"
                    f"  {first}: {_shown(ours)}\n  {name}: {_shown(theirs)}"
                )


def _shown(outcome: Outcome) -> str:
    """An outcome on one line: what was answered, the events, and the rows that were written."""
    if isinstance(outcome, str):
        return visible(f"raised {outcome}")
    rejected, result, events, changes, _ = outcome
    document = {"rejected" if rejected else "response": values.decode(result)}
    document["events"] = events_plain(framing.unpack_events(events))
    document["rows"] = [
        (each.table, each.key, each.row) for each in framing.unpack_changes(changes or framing.NO_CHANGES)
    ]
    return visible(json.dumps(to_json(document), ensure_ascii=False)[:1000])
