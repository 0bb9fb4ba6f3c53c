"""Golden vectors: bytes written down by hand or by an earlier release.  A change here breaks every journal there is.

Each line of ``values.txt`` is a Python expression, a tab, and the hex of its canonical bytes.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest

from journal import digest, framing, values
from journal.digest import StateDigest, TableDigest
from journal.framing import Change, Event
from journal.records import REQUEST_NAMESPACE, request_key
from journal.stores.file import FileStore
from journal.testing.contract import STREAM, _epoch, _identity, make_entries
from snapshots.stores.history import HistoryImages
from tests.property.test_words import an_entry

LINES = [
    line.split("\t")
    for line in (Path(__file__).parent / "values.txt").read_text().splitlines()
    if not line.startswith("#")
]
NAMES = {"Decimal": Decimal, "UUID": UUID, "datetime": datetime, "UTC": UTC}


@pytest.mark.parametrize(("expression", "expected"), LINES)
def test_values(expression: str, expected: str) -> None:
    value = eval(expression, NAMES)
    assert values.encode(value).hex() == expected
    assert values.encode(values.decode(bytes.fromhex(expected))).hex() == expected


def test_digests() -> None:
    pair = values.encode_bare("ada") + values.encode_bare(("Ada", 5))
    row = digest.row_hash(pair, digest.table_seed("accounts"))
    assert f"{row:032x}" == ROW
    state = StateDigest(digest.TABLES, {"accounts": TableDigest(1, row)}, b"").pack()
    assert state.hex() == "01" + "08" + b"accounts".hex() + "0000000000000001" + ROW
    assert digest.root_of(state).hex() == ROOT
    assert digest.CHAIN_START.hex() == CHAIN_START


def test_frames() -> None:
    assert framing.pack_events([Event("Moved", 1, "k", 2)]).hex() == "01" + "0300050001000000010000000000000002" + (
        b"Movedk".hex() + "01"
    )
    assert framing.pack_changes([Change("t", b"\x01", b"\x02", 3), Change("t", b"\x02", None, 4)]).hex() == (
        "01" + "03" "01" "00000001" "00000001" + f"{3:032x}" + b"t".hex() + "01" "02"
        + "01" "01" "00000001" "00000000" + f"{4:032x}" + b"t".hex() + "02"
    )  # fmt: skip


def test_an_entry() -> None:
    entry = an_entry()
    assert entry.computed_part_hashes().hex() == PART_HASHES
    assert entry.checksum.hex() == CHECKSUM


def test_a_history_file(tmp_path: Path) -> None:
    """Not its bytes, which are zstd's too, but that what one release wrote the next one reads."""
    path = tmp_path / "part.journal"
    data = bytes.fromhex((Path(__file__).parent / "part.journal.hex").read_text())
    path.write_bytes(data)
    assert data.startswith(b"RECHISTO\0\x01")
    store = FileStore.open_for_read(str(path))
    store.check()
    assert store.page(STREAM, 0, 99) == make_entries(1, 6)[2:]
    assert store.start(STREAM) == make_entries(1, 3)[2]
    assert store.identity(STREAM) == _identity()
    assert store.epochs(STREAM) == [(1, _epoch(1))]
    store.close()
    with HistoryImages(str(path)).open("main/00000000000000000003-aa.image") as file:
        assert file.read() == b"an image"


def test_request_ids() -> None:
    assert str(REQUEST_NAMESPACE) == "6f9619ff-8b86-5d01-b42d-00cf4fc964ff"
    assert str(request_key("order 1")) == REQUEST


ROW = "5935f3eb0912537f3fda1ed36e4e6c3a"
ROOT = "4ee5c32bf3054c3fd2415d1a39af892c"
CHAIN_START = "7905493f8311f7ba7c89064951df5ccf"
PART_HASHES = (
    "f8bf79c116629b0ff38f346e8964481e6c733d3efc2ff4a35f6f7b1a2007ebee"
    "2acc16bc133aef3bd640a0eb139cae784b5ce3c02aa831a0b17d8393e77be58d"
)
CHECKSUM = "42161298eabacdd801abcd097e8bc745"
REQUEST = "381276c7-9e53-5848-a6a6-d9cc158b5e53"
