"""Two of our package names are common: say which file stands in for ours, before anything fails in a stranger way."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Final

OURS: Final = ("journal", "snapshots")


def shadowed() -> dict[str, str]:
    """The packages of ours that another module stands in for, with its file."""
    home = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    found = {}
    for name in OURS:
        spec = importlib.util.find_spec(name)
        where = (spec.origin or next(iter(spec.submodule_search_locations or ()), "")) if spec is not None else ""
        folder = os.path.dirname(os.path.abspath(where))
        if folder != os.path.join(home, name):
            found[name] = where or "nowhere"
    return found


def refuse_shadows() -> None:
    """Raise ImportError, saying which file and what to do, where one of our packages is not ours."""
    for name, where in shadowed().items():
        message = (
            f"engine-recovery needs its package {name!r}, but {where} is imported in its place: "
            "rename that file or folder, or run from another directory"
        )
        if os.path.basename(sys.argv[0]) in ("recovery", "-m"):
            # The command line cannot catch what happens while it is imported, and owes its user one line.
            sys.stderr.write(f"recovery: error: {message}\n")
            raise SystemExit(3)
        raise ImportError(message, name=name, path=where)
