"""Statements of others: what may be run in the journal's transaction, and how each database reads it."""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any

import pytest

from journal.errors import UsageError, ValueRefused
from journal.sql import check_statement, postgresql_form


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("INSERT INTO t VALUES (?, ?)", "INSERT INTO t VALUES (%s, %s)"),
        ("insert into t values ('a?b''?', ?)", "insert into t values ('a?b''?', %s)"),
        ("UPDATE t SET a = ? WHERE b LIKE 'x%' AND c % 2 = ?", "UPDATE t SET a = %s WHERE b LIKE 'x%%' AND c %% 2 = %s"),
        ('DELETE FROM "odd?name" WHERE a = ?', 'DELETE FROM "odd?name" WHERE a = %s'),
        ("-- why?\n WITH x AS (SELECT ?) DELETE FROM t", "-- why?\n WITH x AS (SELECT %s) DELETE FROM t"),
        ("/* ?; */ DELETE FROM t", "/* ?; */ DELETE FROM t"),
    ],
)  # fmt: skip
def test_a_parameter_is_a_question_mark_outside_of_quotes(sql: str, expected: str) -> None:
    assert postgresql_form(sql) == expected
    check_statement(sql, (1,) * expected.count("%s"))


@pytest.mark.parametrize(
    "sql",
    ["COMMIT", "rollback", "BEGIN", "SAVEPOINT a", "PRAGMA synchronous = OFF", "ATTACH 'x' AS y", "DROP TABLE t", "",
     "-- INSERT", "SELECT 1", "DELETE FROM t; COMMIT", "DELETE FROM t;"],
)  # fmt: skip
def test_what_could_end_the_transaction_is_refused(sql: str) -> None:
    with pytest.raises(UsageError):
        check_statement(sql, ())


@pytest.mark.parametrize("parameters", [(), (1, 2), "1", 1, None, {"a": 1}])
def test_parameters_are_counted(parameters: Any) -> None:
    with pytest.raises(UsageError):
        check_statement("DELETE FROM t WHERE a = ?", parameters)


def test_what_no_column_holds_is_refused() -> None:
    held = (
        None,
        True,
        -(2**63),
        1.5,
        "é",
        b"\0",
        Decimal("1.50"),
        uuid.UUID(int=1),
        datetime.datetime.now(datetime.UTC),
    )
    check_statement(f"INSERT INTO t VALUES ({', '.join('?' * len(held))})", held)
    for value in (2**63, "a\0", [1], (1,), {}, object()):
        with pytest.raises(ValueRefused):
            check_statement("DELETE FROM t WHERE a = ?", (value,))
