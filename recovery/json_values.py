"""Plain values as JSON, and back, for people and for programs.

What JSON cannot hold is tagged, in output as in the CLI's keys: ``{"$decimal": "1.50"}``, ``{"$bytes": base64}``,
``{"$uuid": …}``, ``{"$datetime": …}``, ``{"$int": "9007199254740993"}`` beyond 2**53, ``{"$tuple": […]}``, and
``{"$dict": [[key, value], …]}`` for a dict with a key that is no str or begins with ``$``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from journal.errors import UsageError

_SAFE_INT: Final = 2**53


def to_json(value: Any) -> Any:
    """A plain value as what ``json.dumps`` writes without loss."""
    kind = type(value)
    if kind is int and not -_SAFE_INT <= value <= _SAFE_INT:
        return {"$int": str(value)}
    if kind is list:
        return [to_json(item) for item in value]
    if isinstance(value, tuple):
        return {"$tuple": [to_json(item) for item in value]}
    if kind is dict:
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: to_json(item) for key, item in value.items()}
        return {"$dict": [[to_json(key), to_json(item)] for key, item in value.items()]}
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    if kind is Decimal:
        return {"$decimal": str(value)}
    if kind is UUID:
        return {"$uuid": str(value)}
    if kind is datetime:
        return {"$datetime": value.isoformat().replace("+00:00", "Z")}
    return value


def from_json(value: Any) -> Any:
    """The plain value of ``to_json``'s output.  UsageError where a tag is unknown or its content wrong."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, content),) = value.items()
        if tag.startswith("$"):
            return _untag(tag, content)
    if any(key.startswith("$") for key in value):
        raise UsageError(f'{json.dumps(value)[:200]} mixes a $ tag with other keys; use {{"$dict": [[key, value], …]}}')
    return {key: from_json(item) for key, item in value.items()}


def _untag(tag: str, content: Any) -> Any:
    if tag not in _TAGS:
        raise UsageError(f"{tag} is no known tag")
    wanted, read = _TAGS[tag]
    if not isinstance(content, wanted):
        raise UsageError(f"{tag} holds {content!r}, not a {wanted.__name__}")
    try:
        return read(content)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise UsageError(f"{tag} holds {content!r}, which is none: {error}") from error


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        # Whose clock is meant depends on the machine it is read on.
        raise ValueError("it names no time zone; end it with Z or +00:00")
    return moment.astimezone(UTC)


_TAGS: Final[dict[str, tuple[type, Callable[[Any], Any]]]] = {
    "$int": (str, int),
    "$decimal": (str, Decimal),
    "$uuid": (str, UUID),
    "$bytes": (str, lambda content: base64.b64decode(content, validate=True)),
    "$datetime": (str, _utc),
    "$tuple": (list, lambda content: tuple(from_json(item) for item in content)),
    "$dict": (list, lambda content: {from_json(key): from_json(item) for key, item in content}),
}


def parse_key(text: str) -> Any:
    """A table key as typed: JSON where it reads as such, else the text itself."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return from_json(value) if isinstance(value, int | dict | str) and not isinstance(value, bool) else text
