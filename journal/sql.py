"""SQL of others, looked at before it is run: one statement, that changes rows and cannot end the transaction it runs in.

A parameter is a ``?`` outside of quotes and comments, on every database.  ``postgresql_form`` writes it as psycopg reads it, so
PostgreSQL's own operators with a ``?`` in them cannot be used, nor text in dollar quotes.

A parameter's value is None, bool, int of 64 bits, float, str without NUL, bytes, Decimal, UUID or a UTC datetime.
"""

from __future__ import annotations

import functools
import re
from datetime import datetime
from decimal import Decimal
from typing import Final, NamedTuple
from uuid import UUID

from journal.errors import UsageError, ValueRefused

VERBS: Final = ("INSERT", "UPDATE", "DELETE", "REPLACE", "WITH", "MERGE")
"""What a statement of a projection may begin with."""

_TOKEN: Final = re.compile(
    r"""(?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/)|(?P<mark>\?)|(?P<percent>%)|(?P<end>;)""",
    re.DOTALL,
)
_TYPES: Final = frozenset({type(None), bool, int, float, str, bytes, Decimal, UUID, datetime})
_SHAPES_MAX: Final = 1024


class Shape(NamedTuple):
    """What was found in a statement: how many parameters, whether a semicolon, and the statement as psycopg takes it."""

    parameters: int
    ends: bool
    postgresql: str


@functools.lru_cache(maxsize=_SHAPES_MAX)
def shape(sql: str) -> Shape:
    """The shape of a statement."""
    found = [match.lastgroup for match in _TOKEN.finditer(sql)]
    return Shape(found.count("mark"), "end" in found, _TOKEN.sub(_for_psycopg, sql))


@functools.lru_cache(maxsize=_SHAPES_MAX)
def _require_change(sql: str) -> None:
    words = re.sub(r"--[^\n]*|/\*.*?\*/", " ", sql, flags=re.DOTALL).split(maxsplit=1)
    if not words or words[0].upper() not in VERBS:
        raise UsageError(f"a projection's statement begins with one of {', '.join(VERBS)}, not as {sql[:60]!r}")
    if shape(sql).ends:
        raise UsageError(f"a projection's statement is one, without a semicolon: {sql[:60]!r}")


def postgresql_form(sql: str) -> str:
    """The statement with ``%s`` for each parameter, and ``%%`` for each ``%``, as psycopg takes it."""
    return shape(sql).postgresql


def _for_psycopg(match: re.Match[str]) -> str:
    if match.lastgroup == "mark":
        return "%s"
    return match.group().replace("%", "%%")


def check_statement(sql: object, parameters: object) -> None:
    """Raise UsageError unless this is a statement with its parameters, ValueRefused where one cannot be stored."""
    if type(sql) is not str or not isinstance(parameters, tuple | list):
        raise UsageError(f"a statement is a text and the tuple of its parameters, not {sql!r} and {parameters!r}")
    _require_change(sql)
    if shape(sql).parameters != len(parameters):
        raise UsageError(f"{sql[:60]!r} has {shape(sql).parameters} parameters, and {len(parameters)} are given")
    for at, value in enumerate(parameters):
        kind = type(value)
        if kind not in _TYPES:
            raise ValueRefused(f"parameter {at} of {sql[:60]!r} is {value!r}, a {kind.__name__}, which no column holds")
        if kind is int and not -(2**63) <= value < 2**63:
            raise ValueRefused(f"parameter {at} of {sql[:60]!r} is {value}, an int of more than 64 bits")
        if kind is str and "\0" in value:
            raise ValueRefused(f"parameter {at} of {sql[:60]!r} holds NUL")
