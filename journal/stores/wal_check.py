"""Every byte of a ``wal:`` folder looked at, as far as it is known to be durable."""

from __future__ import annotations

from contextlib import suppress

from journal.errors import CorruptionError, Gap, UnknownFormat
from journal.stores.wal_frames import ENTRIES, STREAM, damaged, unpack_entries
from journal.stores.wal_index import build_index
from journal.stores.wal_log import Log
from journal.stores.wal_segments import OpenContents, index_name, read_segment_head, walk

_BLOCK_BYTES = 2**20


def check_log(log: Log) -> None:
    """CorruptionError where a byte is not as it was written, or entries, streams or epochs do not follow each other."""
    ends: dict[int, int] = {}
    epochs: dict[int, int] = {}
    for number, contents in enumerate(log.segments, 1):
        path = log.segment_path(number)
        with log.file(number) as file:
            head = read_segment_head(file, path, number)
            read = OpenContents(head)
            for offset, frame, payload in walk(
                file, path, number, start=read.end, end=contents.end, previous=head.previous
            ):
                read.add(frame, payload)
                if frame.kind == ENTRIES:
                    _check_entries(path, offset, payload, frame.entries, ends.get(frame.stream, 0) + 1)
                    ends[frame.stream] = frame.first + frame.entries - 1
                elif frame.epoch != epochs.get(frame.stream, -1) + 1:
                    what = f"epoch {frame.epoch}" if frame.kind != STREAM else "a stream"
                    raise damaged(path, offset, f"{what} does not follow epoch {epochs.get(frame.stream)}")
                else:
                    epochs[frame.stream] = frame.epoch
            if (read.end, read.seal) != (contents.end, contents.seal):
                raise damaged(path, read.end, "the segment does not end where its index says")
            if number < len(log.segments):
                _check_rest(log, number, read.end)
                _check_index(log, number, build_index(read))


def _check_entries(path: str, offset: int, payload: bytes, count: int, first: int) -> None:
    try:
        for wanted, entry in enumerate(unpack_entries(payload, count), first):
            if entry.command_id != wanted:
                raise Gap(f"the entry is missing; the next there is {entry.command_id}", position=wanted)
    except UnknownFormat as error:
        raise damaged(path, offset, str(error)) from error


def _check_rest(log: Log, number: int, end: int) -> None:
    """Behind the last frame of a sealed segment there are zeros."""
    path = log.segment_path(number)
    with log.file(number) as file:
        while block := file.read_at(_BLOCK_BYTES, end):
            if any(block):
                raise damaged(path, end + len(block) - len(block.lstrip(b"\0")), "there must be zeros to the end")
            end += len(block)


def _check_index(log: Log, number: int, wanted: bytes) -> None:
    path = log.path(index_name(number))
    with suppress(FileNotFoundError):
        if bytes(log.files.view(path)[:]) != wanted:
            raise CorruptionError(
                "the index is not the segment's",
                position=path,
                hint="delete the file: it is made again from the segment",
            )
