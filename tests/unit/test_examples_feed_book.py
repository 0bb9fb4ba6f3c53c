"""The feed's book, and the Bitstamp workload on a small file of the recorder's form."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from recovery import Command, Receipt, Runtime, UsageError
from recovery.examples.bitstamp import COLUMNS, Bitstamp
from recovery.examples.feed_book import FeedBook, FeedOrder
from recovery.testing import check_engine, trial


def tell(book: Runtime, type: str, order_id: int, *order: Any) -> Receipt:
    data = {"order_id": order_id, **dict(zip(("side", "cents", "satoshi"), order, strict=False))}
    return book.execute(Command(type, data))


def test_the_best_bid_and_ask_answer_every_message_and_their_change_is_an_event() -> None:
    with trial(FeedBook) as book:
        assert tell(book, "created", 1, "bid", 100, 7).response == (100, None)
        assert tell(book, "created", 2, "ask", 105, 7).response == (100, 105)
        quiet = tell(book, "created", 3, "bid", 99, 7)
        assert (quiet.response, quiet.events) == ((100, 105), [])
        moved = tell(book, "deleted", 1)
        assert moved.response == (99, 105)
        assert [(event.type, event.data) for event in moved.events] == [("BestChanged", (99, 105))]
        assert tell(book, "changed", 3, "bid", 106, 7).response == (106, 105)


def test_odd_messages() -> None:
    with trial(FeedBook) as book:
        tell(book, "created", 1, "bid", 100, 7)
        for receipt, code in [
            (tell(book, "deleted", 2), "unknown_order"),
            (tell(book, "created", 1, "bid", 100, 7), "duplicate_order"),
            (tell(book, "created", 2, "north", 100, 7), "bad_order"),
            (tell(book, "changed", 1, "bid", 100, -1), "bad_order"),
        ]:
            assert receipt.rejection is not None
            assert receipt.rejection.code == code
        tell(book, "changed", 9, "ask", 120, 5)
        tell(book, "changed", 1, "ask", 110, 0)
        assert dict(book.engine.orders) == {1: FeedOrder("ask", 110, 0), 9: FeedOrder("ask", 120, 5)}
        assert (list(book.engine.bids), list(book.engine.asks)) == ([], [1, 9])


def test_the_feed_book_is_deterministic_and_undoable() -> None:
    order = {"order_id": 1, "side": "bid", "cents": 100, "satoshi": 7}
    check_engine(
        FeedBook,
        [
            Command("created", order),
            Command("created", {**order, "order_id": 2, "side": "ask"}),
            Command("changed", {**order, "cents": 101}),
            Command("deleted", {"order_id": 3}),
            Command("deleted", {"order_id": 1}),
        ],
    )


SNAPSHOT = [
    (1, 1005, 1000, "78318.0", "1.53453667", "created", "bid"),
    (2, 1005, 1000, "78320.5", "7.18e-06", "created", "ask"),
]
FEED = [
    (3, 1002, 1001, "999999999.0", "0.5", "created", "bid"),
    (3, 1003, 1001, "78320.5", "0.25", "changed", "bid"),
    (9, 1003, 1002, "78000.0", "1.0", "deleted", "ask"),
    (2, 1004, 1004, "78320.5", "0.0", "deleted", "ask"),
    (4, 1009, 1008, "78321.0", "1e-08", "created", "ask"),
]
CLOSING = [
    (1, 1010, 1010, "78318.0", "1.53453667", "deleted", "bid"),
    (3, 1010, 1010, "78320.5", "0.25", "deleted", "bid"),
    (4, 1010, 1010, "78321.0", "1e-08", "deleted", "ask"),
]


def recorded(folder: Path, rows: Iterable[tuple[Any, ...]], head: Iterable[str] = COLUMNS) -> Path:
    path = folder / "orders.csv.gz"
    with gzip.open(path, "wt") as file:
        for row in (tuple(head), *rows):
            file.write(",".join(map(str, row)) + "\n")
    return path


def test_the_book_after_the_feed_is_the_closing_inventory(tmp_path: Path) -> None:
    workload = Bitstamp(recorded(tmp_path, SNAPSHOT + FEED + CLOSING))
    assert (workload.count, workload.total) == (7, 7)
    with trial(workload.engine) as book:
        receipts = [book.execute(command) for command in workload.commands()]
        assert [receipt.command_id for receipt in receipts if receipt.rejection] == [5]
        assert workload.right_answer(book.engine, receipts) == "match"
        assert dict(book.engine.orders) == {
            1: FeedOrder("bid", 7831800, 153453667),
            3: FeedOrder("bid", 7832050, 25000000),
            4: FeedOrder("ask", 7832100, 1),
        }
        tell(book, "changed", 4, "ask", 7832100, 2)
        assert workload.right_answer(book.engine, receipts) == "mismatch"


@pytest.mark.parametrize("clocks", [(1009, 1009), (1010, 1009)])
def test_an_order_that_the_exchange_deleted_last_is_not_in_the_inventory(
    tmp_path: Path, clocks: tuple[int, int]
) -> None:
    live = (5, *clocks, "78318.0", "0.5", "deleted", "bid")
    workload = Bitstamp(recorded(tmp_path, [*SNAPSHOT, *FEED, live, *CLOSING]))
    assert workload.total == 8
    assert sorted(workload.closing) == [1, 3, 4]


def test_commands_begin_again_anywhere_with_the_same_ids_and_times(tmp_path: Path) -> None:
    workload = Bitstamp(recorded(tmp_path, SNAPSHOT + FEED + CLOSING))
    commands = list(workload.commands())
    assert [list(workload.commands(after)) for after in range(8)] == [commands[after:] for after in range(8)]
    assert len({command.request_id for command in commands}) == 7
    assert [command.received_at_ms for command in commands] == [row[1] for row in SNAPSHOT + FEED]


def test_a_cut_workload_has_no_right_answer(tmp_path: Path) -> None:
    workload = Bitstamp(recorded(tmp_path, SNAPSHOT + FEED + CLOSING), commands=3)
    assert (len(list(workload.commands())), workload.count, workload.total) == (3, 3, 7)
    assert workload.right_answer(FeedBook(), ()) == "none"


def test_a_file_that_is_not_the_recorders_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Bitstamp(tmp_path / "missing.csv.gz")
    with pytest.raises(UsageError, match="its columns are not"):
        Bitstamp(recorded(tmp_path, CLOSING, COLUMNS[:-1]))
    with pytest.raises(UsageError, match="row 1 has 2 columns"):
        Bitstamp(recorded(tmp_path, [(1, 2)]))
    with pytest.raises(UsageError, match="no closing inventory"):
        Bitstamp(recorded(tmp_path, SNAPSHOT + FEED))
    for text, said in [("1.234567891", "finer than"), ("many", "no amount"), ("inf", "no amount")]:
        with pytest.raises(UsageError, match=said):
            Bitstamp(recorded(tmp_path, [(1, 1010, 1010, "78318.0", text, "deleted", "bid")]))
    path = recorded(tmp_path, SNAPSHOT + FEED + CLOSING)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    with pytest.raises(UsageError, match="is damaged"):
        Bitstamp(path)
    path.write_bytes(b"no gzip")
    with pytest.raises(UsageError, match="cannot be read"):
        Bitstamp(path)
