"""``recovery log``: entries, or every command that changed one row."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from recovery.cli.options import json_option, range_options, shared, take
from recovery.cli.output import cut, error_document, show_error

if TYPE_CHECKING:
    from journal.framing import Change
    from journal.records import Entry


@click.command("log", short_help="What was recorded; who changed a row.")
@shared
@range_options
@click.option("--request-id", metavar="ID", help="Only the command of this request.")
@click.option("--entity", metavar="ID", help="Only commands of this entity_id.")
@click.option("--table", metavar="T", help="Only commands that changed this table.")
@click.option("--key", metavar="K", help="Only commands that changed this row of the table: JSON, or text.")
@json_option
def command(
    after: str | None,
    until: str | None,
    request_id: str | None,
    entity: str | None,
    table: str | None,
    key: str | None,
    as_json: bool,
    **rest: Any,
) -> int:
    """Show what was recorded.

    \b
    recovery log --after 4700 --until 4720
    recovery log --table accounts --key ada --json
    """
    from journal import values
    from journal.errors import UsageError
    from recovery import open_journal
    from recovery.json_values import parse_key
    from recovery.moments import command_at, until_at

    found = take(rest)
    if key is not None and table is None:
        raise UsageError("--key needs --table: keys belong to a table")
    wanted = None if key is None else values.encode_bare(parse_key(key))
    with open_journal(found.journal, stream=found.stream) as journal:
        first, last = command_at(journal, after), until_at(journal, until)
        if request_id is None:
            entries = journal.read(first, last)
        else:
            one = journal.get(_request(request_id))
            entries = iter([] if one is None else [one])
        chosen = _chosen(entries, entity, table, wanted)
        return _show_json(chosen) if as_json else _show(chosen)


def _chosen(
    entries: Iterable[Entry], entity: str | None, table: str | None, key_bytes: bytes | None
) -> Iterator[tuple[Entry, list[Change]]]:
    """The entries asked for, each with its changes of the table and row asked for."""
    for entry in entries:
        if entity is not None and entry.entity_id != entity:
            continue
        changes = [c for c in entry.changes or () if c.table == table and key_bytes in (None, c.key_bytes)]
        if table is None or changes:
            yield entry, changes


def _show(chosen: Iterable[tuple[Entry, list[Change]]]) -> int:
    for entry, changes in chosen:
        click.echo(_line(entry))
        for change in changes:
            click.echo(f"    {change.table} {cut(change.key)} {'deleted' if change.deleted else cut(change.row)}")
    return 0


def _show_json(chosen: Iterable[tuple[Entry, list[Change]]]) -> int:
    """One document, written as it is read: a long history does not fit in memory."""
    from journal.errors import RecoveryError

    click.echo('{"schema_version": 1, "entries": [', nl=False)
    separator, end, code = "", "]}", 0
    try:
        for entry, _ in chosen:
            click.echo(separator + json.dumps(_document(entry), ensure_ascii=False), nl=False)
            separator = ", "
    except RecoveryError as error:
        # What is damaged comes after what is not, and the document still is one.
        end, code = f'], "error": {json.dumps(error_document(error))}}}', error.exit_code
        show_error(error, as_json=False)
    click.echo(end)
    return code


def _request(text: str) -> Any:
    import uuid

    try:
        return uuid.UUID(text)
    except ValueError:
        return text


def _document(entry: Entry) -> dict[str, Any]:
    from recovery.divergence import events_plain
    from recovery.json_values import to_json

    document: dict[str, Any] = {
        "command_id": entry.command_id,
        "request_id": str(entry.request_id),
        "type": entry.type,
        "data": to_json(entry.data),
        "received_at_ms": entry.received_at_ms,
        "epoch": entry.epoch,
        "events": to_json(events_plain(entry.events)),
        "events_reduced": entry.events_reduced,
        "chain": entry.chain.hex(),
        "duration_ns": entry.duration_ns,
        "recorded_at_ms": entry.recorded_at_ms,
    }
    if entry.entity_id is not None:
        document["entity_id"] = entry.entity_id
    if entry.rejection is None:
        document["response"] = to_json(entry.response)
    else:
        document["rejection"] = entry.rejection._asdict()
    for name, found in (("pre_digest", entry.pre_digest), ("post_digest", entry.post_digest)):
        if found is not None:
            document[name] = str(found)
    if entry.changes is not None:
        document["changes"] = [
            {"table": change.table, "key": to_json(change.key)}
            | ({"deleted": True} if change.deleted else {"row": to_json(change.row)})
            for change in entry.changes
        ]
    return document


def _line(entry: Entry) -> str:
    from datetime import UTC, datetime

    from recovery.plain_text import visible

    moment = datetime.fromtimestamp(entry.received_at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    rejection = entry.rejection
    outcome = cut(entry.response) if rejection is None else f"rejected {rejection.code}"
    events = f" [{', '.join(event.type for event in entry.events)}]" if entry.events else ""
    events += " (events reduced)" * entry.events_reduced
    what = visible(f"{entry.type} {cut(entry.data)} -> {outcome}{events}")
    return f"{entry.command_id} {moment.replace('+00:00', 'Z')} {what}"
