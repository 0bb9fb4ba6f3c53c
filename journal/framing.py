"""How the events and the changes of one command lie in one column each.

Both begin with a version byte ``0x01``; frames follow until the end.  All integers are big-endian, so that a short SQL
function can split them.  A *value* is ``values.encode_bare``'s bytes.

Event frame::

    flags u8 (1: has a key, 2: has a sequence)   type length u16   key length u16   data length u32   sequence i64
    type, key (UTF-8), data (value)

Change frame, sorted by (table, key)::

    flags u8 (1: there was a row before, 2: there is a row after)
    table length u8   key length u32   row length u32
    old row's hash, 16 bytes, only with flag 1      table (UTF-8), key (value), row (value; none without flag 2)
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from journal import values
from journal.errors import UnknownFormat

VERSION: Final = b"\x01"
_EVENT: Final = struct.Struct(">BHHIq")
CHANGE: Final = struct.Struct(">BBII")
HAD_ROW: Final = 1
HAS_ROW: Final = 2
_NONE: Final = values.encode_bare(None)


class Event(NamedTuple):
    """Something that happened while a command was applied; ``key`` and ``sequence`` are for who consumes it."""

    type: str
    data: Any
    key: str | None = None
    sequence: int | None = None


class Change(NamedTuple):
    """One row's net change in one command.  ``row_bytes`` is None where the row was deleted, ``old_hash`` where it was new."""

    table: str
    key_bytes: bytes
    row_bytes: bytes | None
    old_hash: int | None

    @property
    def key(self) -> Any:
        """The row's key."""
        return values.decode_bare(self.key_bytes)

    @property
    def row(self) -> Any:
        """The row afterwards, as a plain tuple or scalar; None where it was deleted."""
        return None if self.row_bytes is None else values.decode_bare(self.row_bytes)

    @property
    def deleted(self) -> bool:
        """Whether the row is gone."""
        return self.row_bytes is None


def pack_events(events: Iterable[Event]) -> bytes:
    """Events as one column."""
    parts = [VERSION]
    for event in events:
        name = event.type.encode()
        key = b"" if event.key is None else event.key.encode()
        data = values.encode_bare(event.data)
        flags = (event.key is not None) | (event.sequence is not None) << 1
        parts += (_EVENT.pack(flags, len(name), len(key), len(data), event.sequence or 0), name, key, data)
    return b"".join(parts)


NO_EVENTS: Final = pack_events(())


def unpack_events(data: bytes) -> list[Event]:
    """The events of ``pack_events``.  UnknownFormat where the bytes are not well formed."""
    events: list[Event] = []
    at = _start(data, "events")
    while at < len(data):
        try:
            flags, name_size, key_size, data_size, sequence = _EVENT.unpack_from(data, at)
        except struct.error as error:
            raise _cut("events", data) from error
        name_at = at + _EVENT.size
        key_at = name_at + name_size
        data_at = key_at + key_size
        at = data_at + data_size
        if at > len(data):
            raise _cut("events", data)
        events.append(
            Event(
                data[name_at:key_at].decode(),
                values.decode_bare(data[data_at:at]),
                data[key_at:data_at].decode() if flags & 1 else None,
                sequence if flags & 2 else None,
            )
        )
    return events


class EventFrame(NamedTuple):
    """One event as it lies in its column; ``data`` is the whole frame's bytes."""

    type: str
    data: bytes
    value_at: int
    """Where in the frame the event's data begins."""


def event_frames(data: bytes) -> Iterator[EventFrame]:
    """The frames of ``pack_events``, their values not decoded.  UnknownFormat where the bytes are not well formed."""
    at = _start(data, "events")
    while at < len(data):
        try:
            _, name_size, key_size, data_size, _ = _EVENT.unpack_from(data, at)
        except struct.error as error:
            raise _cut("events", data) from error
        name_at = at + _EVENT.size
        value_at = name_at + name_size + key_size
        end = value_at + data_size
        if end > len(data):
            raise _cut("events", data)
        yield EventFrame(data[name_at : name_at + name_size].decode(), data[at:end], value_at - at)
        at = end


def without_data(frame: EventFrame) -> bytes:
    """The frame with None for its data."""
    flags, name_size, key_size, _, sequence = _EVENT.unpack_from(frame.data)
    header = _EVENT.pack(flags, name_size, key_size, len(_NONE), sequence)
    return header + frame.data[_EVENT.size : frame.value_at] + _NONE


def pack_changes(changes: Iterable[Change]) -> bytes:
    """Changes, already sorted, as one column."""
    parts = [VERSION]
    for table, key, row, old_hash in changes:
        name = table.encode()
        flags = (old_hash is not None) | (row is not None) << 1
        parts.append(CHANGE.pack(flags, len(name), len(key), len(row or b"")))
        if old_hash is not None:
            parts.append(old_hash.to_bytes(16, "big"))
        parts += (name, key, row or b"")
    return b"".join(parts)


NO_CHANGES: Final = pack_changes(())


def unpack_changes(data: bytes) -> list[Change]:
    """The changes of ``pack_changes``.  UnknownFormat where the bytes are not well formed."""
    changes: list[Change] = []
    at = _start(data, "changes")
    while at < len(data):
        try:
            flags, name_size, key_size, row_size = CHANGE.unpack_from(data, at)
        except struct.error as error:
            raise _cut("changes", data) from error
        at += CHANGE.size
        old_hash = None
        if flags & HAD_ROW:
            old_hash = int.from_bytes(data[at : at + 16], "big")
            at += 16
        key_at = at + name_size
        row_at = key_at + key_size
        end = row_at + row_size
        if end > len(data):
            raise _cut("changes", data)
        row = data[row_at:end] if flags & HAS_ROW else None
        changes.append(Change(data[at:key_at].decode(), data[key_at:row_at], row, old_hash))
        at = end
    return changes


def _start(data: bytes, what: str) -> int:
    if data[:1] != VERSION:
        raise UnknownFormat(f"{what} begin with {data[:1]!r}; this release reads version {VERSION!r}")
    return 1


def _cut(what: str, data: bytes) -> UnknownFormat:
    return UnknownFormat(f"{what} are cut at byte {len(data)}")
