"""The bytes of one ``wal:`` segment, which must not change: what is on disks is read by every release to come."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from journal.stores.wal import WalStore
from journal.stores.wal_frames import (
    ENTRIES,
    EPOCH,
    STREAM,
    SegmentHead,
    make_frame,
    pack_entries,
    pack_epoch,
    pack_stream,
    seal_of,
)
from journal.testing.contract import make_entries

GOLDEN = Path(__file__).with_name("wal_segment.txt")
LOG_ID = bytes(range(16))


def segment() -> bytes:
    """Head, a stream, an epoch, two entries, one more."""
    entries = make_entries(1, 3)
    frames = [
        (STREAM, pack_stream("main", b"identity"), 1, 0, 0),
        (EPOCH, pack_epoch(b"epoch"), 1, 1, 0),
        (ENTRIES, pack_entries(entries[:2])[0], 2, 1, 1),
        (ENTRIES, pack_entries(entries[2:])[0], 1, 1, 3),
    ]
    data, previous = SegmentHead(1, LOG_ID, LOG_ID).pack(), LOG_ID
    for kind, payload, count, epoch, first in frames:
        frame = make_frame(
            kind, payload, stream=1, count=count, epoch=epoch, first=first, segment=1, offset=len(data), previous=previous
        )  # fmt: skip
        data, previous = data + frame, seal_of(frame)
    return data


def test_a_segment_is_written_as_ever() -> None:
    assert segment() == bytes.fromhex(GOLDEN.read_text())


def test_a_segment_of_old_is_read(tmp_path: Path) -> None:
    (tmp_path / f"{1:020d}.wal").write_bytes(bytes.fromhex(GOLDEN.read_text()))
    with closing(WalStore.open_for_read(str(tmp_path))) as store:
        assert store.identity("main") == b"identity"
        assert store.epochs("main") == [(1, b"epoch")]
        assert store.page("main", 0, 9) == make_entries(1, 3)
        store.check()
