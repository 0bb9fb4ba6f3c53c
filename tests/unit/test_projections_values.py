"""What a projection's columns hold, on each database, and what is peculiar to PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from journal.records import Entry
from journal.urls import migrate_journal
from recovery import Command, Projection, ProjectionFailed, Receipt, Runtime
from recovery.examples.exchange import Exchange
from recovery.examples.fills_and_balances import FillsAndBalances
from recovery.examples.generated import Generated
from tests.engines import Till
from tests.property.test_projections import require_same_tables

VALUES = {
    "truth BOOLEAN": True,
    "whole BIGINT": -(2**63),
    "small SMALLINT": 7,
    "half DOUBLE PRECISION": 0.1,
    "name TEXT": "é ? % ' \" ;",
    "raw {bytes}": b"\x00\xff",
    "price NUMERIC": Decimal("1.50"),
    "id {uuid}": uuid.UUID(int=7),
    "at {time}": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    "absent TEXT": None,
}


class Everything(Projection):
    """One row with a column of every kind, for each command; more, where the command is a draw."""

    name = "everything"
    tables = ("everything",)

    def schema(self, dialect: str) -> Sequence[str]:
        kinds = {"bytes": "BYTEA", "uuid": "UUID", "time": "TIMESTAMPTZ"}
        if dialect == "sqlite":
            kinds = {"bytes": "BLOB", "uuid": "TEXT", "time": "TEXT"}
        columns = ", ".join(VALUES).format(**kinds).replace("NUMERIC", "TEXT" if dialect == "sqlite" else "NUMERIC")
        return [f"CREATE TABLE everything (command_id BIGINT, {columns})"]

    def statements(self, entry: Entry) -> Iterator[tuple[str, Sequence[object]]]:
        marks = ", ".join("?" * (1 + len(VALUES)))
        yield f"INSERT INTO everything VALUES ({marks})", (entry.command_id, *VALUES.values())
        if entry.type == "draw":
            for _ in range(5):
                yield "UPDATE everything SET name = ? /* % ? */ WHERE command_id = ?", ("x" * 2**20, entry.command_id)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A journal in each database."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path}/journal.db"
    url: str = request.getfixturevalue("postgres_url")
    migrate_journal(url)
    return url


def test_columns_hold_what_they_are_given(url: str) -> None:
    with Runtime.open(Till, journal=url, snapshots="memory:", projections=[Everything]) as till:
        asked = [Command("deposit", {"number": "a", "cents": n}) for n in range(3)]
        assert all(isinstance(one, Receipt) for one in till.execute_many(asked))
        store: Any = till._recorder.store
        rows = store.query("SELECT * FROM everything ORDER BY command_id")
        assert [row[0] for row in rows] == [1, 2, 3]
        expected = list(VALUES.values())
        if url.startswith("sqlite"):
            expected = [str(one) if isinstance(one, Decimal | uuid.UUID) else one for one in expected]
            expected[8] = "2026-01-02T03:04:05.000006+00:00"
        assert list(rows[0][1:]) == expected


def test_large_parameters_do_not_hang(url: str) -> None:
    with Runtime.open(Till, journal=url, snapshots="memory:", projections=[Everything]) as till:
        for outcome in till.execute_many(Command("draw", {"number": "a"}) for _ in range(3)):
            assert isinstance(outcome, Receipt)
        store: Any = till._recorder.store
        assert store.query("SELECT DISTINCT length(name) FROM everything WHERE command_id > ?", (0,)) == [(2**20,)]


def test_fills_and_balances_of_a_market(url: str) -> None:
    asked = list(Generated(commands=900).commands())
    for until in (500, 900):  # what was recorded the first time is a duplicate the second
        with Runtime.open(Exchange, journal=url, snapshots="memory:", projections=[FillsAndBalances]) as exchange:
            receipts = [one for one in exchange.execute_many(asked[:until]) if isinstance(one, Receipt)]
            assert len(receipts) == until
            require_same_tables(exchange, receipts)
    assert sum(len(receipt.events) for receipt in receipts) > 50


class Deferred(Projection):
    """A constraint that PostgreSQL looks at only when it commits."""

    name = "deferred"
    tables = ("deferred",)

    def schema(self, dialect: str) -> Sequence[str]:
        return ["CREATE TABLE deferred (number TEXT, UNIQUE (number) DEFERRABLE INITIALLY DEFERRED)"]

    def statements(self, entry: Entry) -> Iterator[tuple[str, Sequence[object]]]:
        yield "INSERT INTO deferred VALUES (?)", (entry.data["number"],)


def test_a_deferred_constraint_names_its_command_too(postgres_url: str) -> None:
    migrate_journal(postgres_url)
    with Runtime.open(Till, journal=postgres_url, snapshots="memory:", projections=[Deferred]) as till:
        asked = [Command("deposit", {"number": number, "cents": 1}) for number in "abcbda"]
        outcomes = list(till.execute_many(asked))
        assert [isinstance(one, ProjectionFailed) for one in outcomes] == [False, False, False, True, False, True]
        assert isinstance(outcomes[3], ProjectionFailed)
        assert isinstance(outcomes[3].__cause__, psycopg.errors.UniqueViolation)
        assert outcomes[3].position == 4
