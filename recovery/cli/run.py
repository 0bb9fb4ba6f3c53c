"""``recovery run``: execute commands from JSON lines, print receipts as JSON lines."""

from __future__ import annotations

import json
import select
import sys
from collections.abc import Iterable, Iterator
from io import BufferedReader
from typing import Any, Final

import click

from recovery.cli.options import guard_option, projection_option, quiet_option, require_engine, shared, take
from recovery.cli.output import say

CHUNK: Final = 1000
FIELDS: Final = {"type", "data", "request_id", "received_at_ms", "entity_id"}


@click.command("run", short_help="Execute commands from JSON lines.")
@click.argument("source", metavar="[FILE.jsonl|-]", default="-")
@shared
@click.option(
    "--snapshot-every", type=click.IntRange(0), default=10_000, show_default=True, help="Commands between images."
)
@click.option("--accept-loss", is_flag=True, help="Go on although something proves that the journal lost its end.")
@click.option("--takeover", is_flag=True, help="Replace a writer that lives (PostgreSQL).")
@click.option(
    "--ack",
    type=click.Choice(["both", "local"]),
    default="both",
    show_default=True,
    help="With --ship-to: what a receipt waits for.",
)
@projection_option
@guard_option
@quiet_option
def command(
    source: str,
    snapshot_every: int,
    accept_loss: bool,
    takeover: bool,
    ack: str,
    projection: tuple[str, ...],
    guard: str,
    quiet: bool,
    **rest: Any,
) -> int:
    """Execute commands, one JSON object a line with the fields of Command; print one receipt a line, in order.

    Given request_ids, it can be run again on the same input: what is recorded is answered from the record.

    \b
    echo '{"type": "deposit", "data": {"number": "ada", "cents": 5}, "request_id": "r1"}' |
        recovery run --engine shop.engine:Till --journal sqlite:till.db
    recovery run commands.jsonl --engine shop.engine:Till --journal wal:till --ship-to postgresql://app@db/till
    """
    from recovery import Runtime
    from recovery.loading import load_projections

    found = take(rest)
    engine = require_engine(found)
    with (
        _opened(source) as file,
        Runtime.open(
            _loadable(engine, found.app_dir),
            journal=found.journal,
            snapshots=found.snapshots,
            stream=found.stream,
            snapshot_every=snapshot_every,
            accept_loss=accept_loss,
            takeover=takeover,
            ship_to=found.ship_to,
            ack=ack,
            projections=load_projections(projection, app_dir=found.app_dir),
            guard=guard,
        ) as runtime,
    ):
        say(str(runtime.cold_start), quiet=quiet)
        worst = 0
        for chunk in _chunks(file):
            worst = max(worst, _execute(runtime, chunk))
        return worst


def _opened(source: str) -> BufferedReader:
    from journal.errors import StoreUnavailable

    if source == "-":
        return sys.stdin.buffer  # type: ignore[return-value]
    try:
        return open(source, "rb")
    except OSError as error:
        raise StoreUnavailable(f"{source} cannot be read: {error.strerror}") from error


def _loadable(engine: str, app_dir: str) -> Any:
    from recovery.loading import engine_factory

    return engine_factory(engine, app_dir=app_dir)


def _chunks(file: BufferedReader) -> Iterator[list[tuple[int, str]]]:
    """Numbered lines, as many as are there: a producer that waits for its receipt before the next line must get it."""
    chunk: list[tuple[int, str]] = []
    number = 0
    for line in _lines(file):
        number += line is not None
        if line is not None and line.strip():
            chunk.append((number, line))
        if chunk and (line is None or len(chunk) >= CHUNK):
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _lines(file: BufferedReader) -> Iterator[str | None]:
    """Lines, with a None wherever the next one is not there yet."""
    rest = b""
    while True:
        if not _ready(file):
            yield None
        data = file.read1(2**16)
        if not data:
            if rest:
                yield rest.decode("utf-8", "surrogateescape")
            return
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "surrogateescape")


def _ready(file: BufferedReader) -> bool:
    try:
        return bool(select.select([file], [], [], 0)[0])
    except (OSError, ValueError):
        return True


def _execute(runtime: Any, chunk: Iterable[tuple[int, str]]) -> int:
    from journal.errors import UsageError

    names, commands, refusal = [], [], None
    for number, line in chunk:
        try:
            name, asked = _command(line)
            names.append(name)
            commands.append(asked)
        except UsageError as error:
            refusal = UsageError(f"line {number}: {error}", hint="the lines before it were executed")
            break
    worst = 0
    for name, outcome in zip(names, runtime.execute_many(commands), strict=True):
        document, code = _document(name, outcome)
        worst = max(worst, code)
        sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()
    if refusal is not None:
        raise refusal
    return worst


def _command(line: str) -> tuple[str, Any]:
    """A command, and its request id as its sender wrote it: what the receipt must be found by."""
    from journal.errors import UsageError
    from recovery import Command
    from recovery.json_values import from_json

    try:
        found = json.loads(line)
    except ValueError as error:
        raise UsageError(f"not JSON: {error}") from error
    if not isinstance(found, dict) or not {"type", "data"} <= found.keys() <= FIELDS:
        raise UsageError(f"a command is an object with type and data, and at most {', '.join(sorted(FIELDS))}")
    command = Command(found.pop("type"), from_json(found.pop("data")), **found)
    return found.get("request_id") or str(command.request_id), command


def _document(name: str, outcome: Any) -> tuple[dict[str, Any], int]:
    from journal.errors import RecoveryError
    from recovery.divergence import events_plain
    from recovery.json_values import to_json

    document: dict[str, Any] = {"request_id": name}
    if isinstance(outcome, Exception):
        document["error"] = {"kind": type(outcome).__name__, "message": str(outcome)}
        return document, outcome.exit_code if isinstance(outcome, RecoveryError) else 2
    rejection = outcome.rejection
    return document | {
        "command_id": outcome.command_id,
        "response": to_json(outcome.response),
        "events": to_json(events_plain(outcome.events)),
        "events_reduced": outcome.events_reduced,
        "rejection": None if rejection is None else rejection._asdict(),
        "duplicate": outcome.duplicate,
    }, 0
