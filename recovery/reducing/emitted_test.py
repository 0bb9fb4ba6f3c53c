"""Writes the pytest file of a divergence: a few lines, beside the small history that they run (recovery/shrinking.py).

It needs this library and the engine's module, and nothing else.  It fails on the engine that diverged, and passes on the one that
recorded, or on one that no longer does two things.
"""

from __future__ import annotations

import os
import pprint
from typing import Final

from journal.errors import StoreUnavailable, UsageError
from journal.files import write_whole
from recovery.plain_text import visible
from recovery.shrinking import NOT_DETERMINISTIC, NOT_RESTORABLE, RECORDED, TWO_ENGINES, Shrunk, shrink

_CALLS: Final = {
    RECORDED: "assert_reproduces",
    TWO_ENGINES: "assert_reproduces",
    NOT_DETERMINISTIC: "assert_deterministic",
    NOT_RESTORABLE: "assert_restorable",
}
_SAYS: Final = {
    RECORDED: "it comes out otherwise than it was recorded",
    TWO_ENGINES: "it comes out otherwise than with {against}",
    NOT_DETERMINISTIC: "it comes out otherwise in another environment",
    NOT_RESTORABLE: "it comes out otherwise where the state was taken down and put up again before it",
}
_TEMPLATE: Final = '''"""Command {command_id}, {type}: {says}.

Written by engine-recovery; {size}.
"""

from pathlib import Path

from recovery.reproduction import {call}

HISTORY = Path(__file__).with_suffix(".journal")


def test_{name}() -> None:
    {call}({arguments})
'''


def emit_pytest(
    path: str,
    *,
    engine: str,
    journal: str,
    snapshots: str | None,
    command_id: int,
    stream: str = "main",
    app_dir: str = ".",
    against: str = "",
    against_app_dir: str = "",
) -> Shrunk:
    """Write the test of the divergence at a command to ``path``, a ``.py`` file, and its history beside it.

    UsageError where the divergence cannot be shown again, or ``path`` is not named ``test_NAME.py``.
    """
    root, suffix = os.path.splitext(path)
    if suffix != ".py" or not os.path.basename(path).startswith("test_"):
        raise UsageError(f"{path} is no test that pytest collects", hint="say --emit-pytest tests/test_NAME.py")
    try:
        shrunk = shrink(
            engine,
            journal,
            snapshots,
            command_id,
            f"{root}.journal",
            stream=stream,
            app_dir=app_dir,
            against=against,
            against_app_dir=against_app_dir,
        )
        text = _text(shrunk, engine, app_dir, against)
        write_whole(path, [text.encode()], over=True)
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be written: {error.strerror or error}") from error
    return shrunk


def _text(shrunk: Shrunk, engine: str, app_dir: str, against: str) -> str:
    arguments = [repr(engine), "HISTORY"]
    if shrunk.environments:
        arguments.append(f"environments={pprint.pformat(list(shrunk.environments))}")
    if app_dir != ".":
        arguments.append(f"app_dir={app_dir!r}")
    name = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in shrunk.type)
    return _TEMPLATE.format(
        command_id=shrunk.command_id,
        type=_quotable(shrunk.type),
        says=_SAYS[shrunk.judge].format(against=_quotable(against)),
        size=describe(shrunk),
        call=_CALLS[shrunk.judge],
        name=f"{name}_{shrunk.command_id}",
        arguments=", ".join(arguments),
    )


def describe(shrunk: Shrunk) -> str:
    """How small it is, in words."""
    less = "" if shrunk.exact else ", and perhaps not the smallest: the runs were used up"
    commands = "1 command" if shrunk.commands == 1 else f"{shrunk.commands} commands"
    rows = "1 row" if shrunk.rows == 1 else f"{shrunk.rows} rows"
    return f"{commands} from a state of {rows}{less}"


def _quotable(text: str) -> str:
    # A sender names the command's type: it must not end the docstring that it stands in.
    return visible(text).replace("\\", "/").replace('"', "'")
