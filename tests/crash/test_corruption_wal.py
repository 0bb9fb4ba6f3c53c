"""Bytes of a ``wal:`` folder flipped, zeroed and cut off: every reader says what it said before, or that it is damaged.

The readers are test_corruption_journal.py's.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from journal.errors import CorruptionError, StoreUnavailable
from journal.stores import wal_writer
from recovery import Command, Runtime
from tests.crash.test_corruption_journal import COMMANDS, READERS, lookups, outcome
from tests.engines import Till

FLIPS_A_FILE = 20
WHOLE = {**READERS, "lookups": lookups}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A journal of several segments, and what its readers say."""
    place = tmp_path_factory.mktemp("wal") / "journal"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wal_writer, "SEGMENT_BYTES", 2500)
        patch.setattr(wal_writer, "ZEROED_BYTES", 1000)
        with Runtime.open(Till, journal=f"wal:{place}", snapshots="memory:", snapshot_every=0, seed=7) as till:
            for number, what in enumerate(COMMANDS):
                time_ms = 1_700_000_000_000 + number
                till.execute(Command(*what, request_id=f"r{number}", received_at_ms=time_ms, entity_id="ada"))
    assert len(list(place.glob("*.wal"))) > 1
    return place, {name: outcome(f"wal:{place}", reader) for name, reader in WHOLE.items()}


def said(place: Path) -> dict[str, Any]:
    return {name: outcome(f"wal:{place}", reader) for name, reader in WHOLE.items()}


def files_of(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.suffix in (".wal", ".index") or path.name == "durable")


def test_flipped_bytes_are_found_or_harmless(sound: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    place, before = sound
    for path in files_of(place):
        copy = tmp_path / path.name
        shutil.copytree(place, copy)
        data = path.read_bytes()
        used = len(data.rstrip(b"\0"))
        refused = 0
        for at in range(0, used, max(1, used // FLIPS_A_FILE)):
            (copy / path.name).write_bytes(data[:at] + bytes([data[at] ^ 0x5A]) + data[at + 1 :])
            found = said(copy)
            assert all(found[name] in (before[name], "refused") for name in WHOLE), (path.name, at)
            # What is flipped in the record is found by each reader that comes by, and always by the check.
            refused += found["check"] == "refused"
            assert found["check"] == "refused" or path.suffix != ".wal", at
        assert refused or path.name == "durable"


def test_what_is_cut_off_or_gone_is_found(sound: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """A journal that was closed has lost nothing: not a byte of its last frame may be missing, nor a segment."""
    place, before = sound
    for path in files_of(place):
        for size in (None, 0, 40, len(path.read_bytes().rstrip(b"\0")) - 1):
            copy = tmp_path / f"{path.name} {size}"
            shutil.copytree(place, copy)
            if size is None:
                (copy / path.name).unlink()
            else:
                (copy / path.name).write_bytes(path.read_bytes()[:size])
            found = said(copy)
            assert all(found[name] in (before[name], "refused") for name in WHOLE), (path.name, size)
            if path.suffix == ".wal":
                assert found["check"] == "refused", (path.name, size)
                with pytest.raises((CorruptionError, StoreUnavailable)):
                    Runtime.open(Till, journal=f"wal:{copy}", snapshots="memory:")
