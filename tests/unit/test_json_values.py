"""Values as JSON and back, and points in a journal as people type them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings

from journal import values
from recovery import Command, Runtime, UsageError, open_journal
from recovery.json_values import from_json, parse_key, to_json
from recovery.moments import command_at, until_at
from tests.engines import Till
from tests.places import new_place
from tests.strategies import plain


@settings(max_examples=200, deadline=None)
@given(plain)
def test_json_gives_the_value_back_with_its_types(value: Any) -> None:
    text = json.dumps(to_json(value), allow_nan=False)
    assert values.encode(from_json(json.loads(text))) == values.encode(value)


@pytest.mark.parametrize(
    ("tagged", "said"),
    [
        ({"$decimal": "one"}, "holds 'one'"),
        ({"$bytes": "*"}, r"\$bytes"),
        ({"$uuid": 7}, r"\$uuid"),
        ({"$datetime": "2026-11-23T12:00:00"}, "names no time zone"),
        ({"$datetime": "noon"}, r"\$datetime"),
        ({"$int": "1.5"}, r"\$int"),
        ({"$int": 1.5}, "not a str"),
        ({"$decimal": 0.1}, "not a str"),
        ({"$tuple": "ab"}, "not a list"),
        ({"$dict": [1]}, r"\$dict"),
        ({"$thing": 1}, "no known tag"),
        ({"$decimal": "1", "x": 2}, "mixes"),
    ],
)
def test_wrong_tags_are_refused(tagged: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        from_json(tagged)


def test_a_time_of_another_zone_is_the_same_moment_in_utc() -> None:
    moment = from_json({"$datetime": "2026-11-23T14:30:00+02:30"})
    assert to_json(moment) == {"$datetime": "2026-11-23T12:00:00Z"}


@pytest.mark.parametrize(
    ("typed", "key"),
    [
        ("ada", "ada"),
        ("7", 7),
        ('"7"', "7"),
        ("true", "true"),
        ("1.5", "1.5"),
        ('{"$tuple": ["a", 1]}', ("a", 1)),
        ('{"$bytes": "AA=="}', b"\0"),
        ("[1]", "[1]"),
    ],
)
def test_keys_are_read_as_json_where_they_are_json(typed: str, key: Any) -> None:
    found = parse_key(typed)
    assert (found, type(found)) == (key, type(key))


def test_points_are_command_ids_or_times() -> None:
    name = new_place()
    with Runtime.open(Till, journal=f"memory:{name}", snapshots="memory:") as till:
        for second in (0, 0, 1, 5):
            at_ms = 1_700_000_000_000 + second * 1000
            till.execute(Command("deposit", {"number": "ada", "cents": 1}, received_at_ms=at_ms))
    journal = open_journal(f"memory:{name}")
    for text, command_id in {
        "3": 3,
        "2023-11-14T22:13:19Z": 0,
        "2023-11-14T22:13:20Z": 2,
        "2023-11-14T22:13:20.999": 2,
        "2023-11-14T23:13:24+01:00": 3,
        "2030-01-01": 4,
    }.items():
        assert command_at(journal, text) == command_id, text
    assert until_at(journal, None) is None
    for text in ("yesterday", "²", "-1", ""):
        with pytest.raises(UsageError, match="neither a command id nor an ISO 8601 time"):
            command_at(journal, text)
