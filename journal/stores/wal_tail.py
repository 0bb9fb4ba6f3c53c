"""The end of a ``wal:`` journal: is it clean, torn, or damaged?

A frame is written only after the one before it was synced, so at most one can be torn, and it was never acknowledged.  What
lies at the end of the last segment is

* nothing but zeros: the end is clean;
* **torn**: a frame some of whose sectors are still zeros, as they were before it was written, and behind which there is nothing;
* **damaged**: anything else.  So is what looks torn but lies in front of the mark (wal_mark.py), or in front of a whole frame,
  or of another segment.

Other evidence (an image, a cursor, a shipped head) is held against the journal's head by whoever opens it; therefore opening
cuts nothing: the tail is cut before the first write (wal_writer.py).  It is copied aside as ``<segment>-<byte>-<n>.torn``,
and its space is zeroed and synced, so that none of its bytes can be taken for a later frame's.
"""

from __future__ import annotations

from typing import NamedTuple

from journal.errors import ChecksumMismatch
from journal.files import FileOps, RandomAccessFile
from journal.stores.wal_frames import (
    ALIGNMENT,
    HEAD_BYTES,
    MAGIC,
    unpack_head,
    zero_sectors,
)
from journal.stores.wal_segments import Contents


class Torn(NamedTuple):
    """A torn tail: where it begins, and how many bytes there are up to the last that is no zero."""

    path: str
    segment: int
    offset: int
    size: int

    def __str__(self) -> str:
        return (
            f"{self.path}, byte {self.offset}: a batch of {self.size} bytes was never wholly written, nor acknowledged"
        )


def judge(
    file: RandomAccessFile, path: str, contents: Contents, error: ChecksumMismatch, *, size: int, reached: int
) -> Torn | None:
    """None where the last segment ends cleanly at ``contents.end``; what is torn; or raise ``error``, which is damage.

    ``reached`` is the byte up to which the segment is known to have been durable.
    """
    at = contents.end
    rest = file.read_at(max(0, size - at), at)
    written = len(rest.rstrip(b"\0"))
    if at < reached:
        raise error
    if not written:
        return None
    if not _is_torn(rest, contents, written) or _holds_a_frame(rest, contents):
        raise error
    return Torn(path, contents.number, at, written)


def _is_torn(rest: bytes, contents: Contents, written: int) -> bool:
    """Whether a sector of the frame at the beginning of ``rest`` is zeros that must not be."""
    at = contents.end
    head = unpack_head(rest, 0, contents.number, at)
    if head is None:
        return zero_sectors(rest[:HEAD_BYTES], at) > 0 and len(rest) >= HEAD_BYTES
    if written > head.size or head.size > len(rest) or head.previous != contents.seal:
        return False
    return zero_sectors(rest[: head.size], at) > head.zero_sectors


def _holds_a_frame(rest: bytes, contents: Contents) -> bool:
    """Whether a frame's head is found further on: then the one in front of it was synced."""
    at = rest.find(MAGIC, ALIGNMENT)
    while at >= 0:
        if at % ALIGNMENT == 0 and unpack_head(rest, at, contents.number, contents.end + at) is not None:
            return True
        at = rest.find(MAGIC, at + 1)
    return False


def copy_aside(files: FileOps, folder: str, file: RandomAccessFile, torn: Torn) -> str:
    """Keep a copy of a torn tail, durable on return; its path."""
    taken = set(files.names(folder))
    stem = f"{torn.segment:020d}-{torn.offset}"
    number = next(n for n in range(1, len(taken) + 2) if f"{stem}-{n}.torn" not in taken)
    path = f"{folder}/{stem}-{number}.torn"
    copy = files.create(path)
    try:
        copy.write(file.read_at(torn.size, torn.offset))
        copy.sync()
    finally:
        copy.close()
    files.sync_directory(folder)
    return path
