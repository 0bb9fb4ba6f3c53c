"""The recovery framework that proves itself.

Everything public is importable from here.  It is loaded when the first name is asked for: the command line's help, and every
run of pytest, which loads our plugin, import this package and need none of it.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from recovery.shadowing import refuse_shadows

if TYPE_CHECKING:
    from recovery.public import *
else:
    _MISSING = object()

    def __getattr__(name: str) -> object:
        """A public name."""
        # A module of ours is not asked for here: `from recovery import divergence` imports it when there is no such name.
        inner = name.startswith("_") and name not in ("__version__", "__all__")
        found = _MISSING
        if not inner and importlib.util.find_spec(f"recovery.{name}") is None:
            found = getattr(importlib.import_module("recovery.public"), name, _MISSING)
        if found is _MISSING:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *importlib.import_module("recovery.public").__all__})


refuse_shadows()
