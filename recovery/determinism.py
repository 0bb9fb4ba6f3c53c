"""The determinism guard: while a command is applied, what would not be the same on a replay is found, with its line.

Three ways of looking, because none sees all.  A profile function (``sys.setprofile``, on the applying thread alone, while
``apply`` runs) sees each call of a C or Python function.  An audit hook sees what the interpreter itself reports: files,
sockets, processes, threads.  And the engine's own functions are compiled anew with a look at each value they iterate
(guarding/set_order.py), because the order of a set calls nothing.

``warn`` logs each line once and counts.  ``strict`` raises ``Nondeterminism`` at the line; the command fails as if ``apply``
had raised it, also where the engine swallows the exception.  ``off`` is no guard at all: nothing is installed and nothing
is asked.
"""

from __future__ import annotations

import decimal
import gc
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from threading import get_ident
from types import FrameType
from typing import Any, Final

from journal.errors import Nondeterminism
from journal.records import Command
from recovery.engine import Context
from recovery.guarding import guarded_calls
from recovery.guarding.engine_code import origin
from recovery.guarding.guard import STRICT
from recovery.guarding.guarded_calls import DIRECT_ONLY, HARMLESS_OWNERS, PYTHON_FILES, SUSPECT_NAMES, WATCHING
from recovery.guarding.set_order import Instrumented, instrument
from recovery.stepper import pinned_decimals

LINES_MAX: Final = 1000
# What goes out through these brings nothing back in; importlib and _strptime read what every replay reads.
_HARMLESS_MODULES: Final = frozenset(
    {"logging", "warnings", "traceback", "linecache", "importlib", "_strptime", "zipimport", "pkgutil"}
)
_LIBRARY_KINDS: Final = {
    "subprocess": guarded_calls.SUBPROCESS,
    "multiprocessing": guarded_calls.SUBPROCESS,
    "socket": guarded_calls.SOCKETS,
    "concurrent": guarded_calls.THREADS,
    "threading": guarded_calls.THREADS,
    "tempfile": guarded_calls.FILES,
    "uuid": guarded_calls.RANDOM,
}

logger = logging.getLogger("recovery")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of an engine that is not deterministic, how many commands met it, and which was the first."""

    kind: str
    file: str
    line: int
    what: str
    function: str
    first_command: int
    commands: int

    def to_dict(self) -> dict[str, Any]:
        """The finding as in ``status`` and ``recovery replay --json``."""
        return asdict(self)

    @property
    def place(self) -> str:
        """What, and where, in words."""
        return f"{self.kind}: {self.what} at {self.file}:{self.line} in {self.function}"


class Guard:
    """Watches the engine of one stepper.  Made by ``recovery.guarding.guard.attach_guard``; ``close`` takes everything out again.

    ``not_seen`` says in words what it could not look at.
    """

    def __init__(self, engine: Any, mode: str) -> None:
        self.mode = mode
        self.not_seen: tuple[str, ...] = ()
        self._found: dict[tuple[str, str, int], Finding] = {}
        self._met: set[tuple[str, str, int]] = set()
        self._command_id = 0
        self._new: list[Finding] = []
        self._pending: Nondeterminism | None = None
        self._profile = _profile_for(self)
        self._instrumented: Instrumented | None = instrument(engine)
        if self._instrumented.untouched:
            self._miss("the order of sets in " + ", ".join(self._instrumented.untouched))
        _install_audit_hook()

    @property
    def findings(self) -> list[Finding]:
        """What was found, in the order of finding."""
        return list(self._found.values())

    def to_dict(self) -> dict[str, Any]:
        """The guard as in ``status`` and ``recovery replay --json``."""
        return {
            "mode": self.mode,
            "findings": [finding.to_dict() for finding in self._found.values()],
            "not_seen": list(self.not_seen),
        }

    def close(self) -> None:
        """Give the engine its functions back."""
        if self._instrumented is not None:
            self._instrumented.undo()
            self._instrumented = None

    def run(self, engine: Any, context: Context, command: Command) -> Any:
        """``engine.apply``, watched.  Nondeterminism in mode ``strict``."""
        if context.command_id != self._command_id:
            # The same command again, as after a divergence, is counted once.
            self._command_id = context.command_id
            self._met.clear()
        thread, profile = get_ident(), self._profile
        watched = sys.getprofile() is None
        if not watched:
            self._miss("calls: another profiler holds sys.setprofile on the applying thread")
        with decimal.localcontext(_PINNED):
            WATCHING[thread] = self
            try:
                if watched:
                    sys.setprofile(profile)
                answer = engine.apply(context, command)
            finally:
                if watched:
                    sys.setprofile(None)
                del WATCHING[thread]
                self._tell()
                if self._pending is not None:
                    # Also where the engine swallowed it: what came after was not deterministic either.
                    error, self._pending = self._pending, None
                    raise error
        return answer

    def note(self, kind: str, what: str, frame: FrameType) -> None:
        """Something was met in this frame, or deeper.  Counts once a command for each line and kind."""
        kind, where = _author(kind, frame)
        if where is None:
            return
        key = (kind, where.f_code.co_filename, where.f_lineno)
        known = self._found.get(key)
        if known is None and len(self._found) >= LINES_MAX and self.mode != STRICT:
            self._miss(f"more than {LINES_MAX} lines")
            return
        if known is None:
            known = Finding(*key, what, where.f_code.co_name, self._command_id, 0)
            self._new.append(known)
        if key not in self._met:
            self._met.add(key)
            self._found[key] = replace(known, commands=known.commands + 1)
        if self.mode == STRICT and self._pending is None:
            self._pending = Nondeterminism(
                f"{known.place} is not the same on a replay",
                position=self._command_id,
                hint=HINTS.get(kind, "let the caller look it up, and send it in the command's data"),
            )
            raise self._pending

    def _tell(self) -> None:
        for finding in self._new:
            logger.warning("not deterministic: %s", finding.place)
        self._new = []

    def _miss(self, what: str) -> None:
        if what not in self.not_seen:
            self.not_seen += (what,)
            logger.warning("the guard does not see %s", what)


HINTS: Final = {
    guarded_calls.CLOCK: "use context.now_ms, or send the time in the command's data",
    guarded_calls.TIME_ZONE: "give the time zone: datetime.fromtimestamp(…, tz=UTC)",
    guarded_calls.RANDOM: "use context.random and context.new_uuid()",
    guarded_calls.SET_ORDER: "iterate over sorted(…), or keep a dict or a Table",
    guarded_calls.IDENTITY: "number objects yourself: an address is another one in each process",
    guarded_calls.THREADS: "apply runs on one thread; let a thread outside send a command",
    guarded_calls.WEAK_REFERENCE: "keep what the state needs, and drop it by a command",
}
_PINNED: Final = pinned_decimals()
_hooked: list[bool] = []


def _profile_for(guard: Guard) -> Callable[[FrameType, str, Any], None]:
    """The profile function of a guard: called at each call and return, so all it needs for a harmless one is at hand."""

    def profile(
        frame: FrameType,
        event: str,
        argument: Any,
        harmless: frozenset[type] = HARMLESS_OWNERS,
        names: frozenset[str] = SUSPECT_NAMES,
        files: frozenset[str] = PYTHON_FILES,
    ) -> None:
        if event == "call":
            if frame.f_code.co_filename in files:
                found = guarded_calls.entered(frame)
                if found is not None and frame.f_back is not None:
                    guard.note(*found, frame.f_back)
        elif event == "c_call" and argument.__self__.__class__ not in harmless and argument.__name__ in names:
            found = guarded_calls.called(argument)
            if found is not None:
                guard.note(*found, frame)

    return profile


def _author(kind: str, frame: FrameType | None) -> tuple[str, FrameType | None]:
    """The innermost frame of the engine's author, else of an installed package; None where the call is of no interest.

    Where a library stands in between whose purpose is known, the kind is its: what ``subprocess`` does with files is no matter.
    What the host has hung on the collector (``gc.callbacks``) comes in between at any line, and is none of the engine's.
    """
    installed = None
    collecting = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None and frame.f_code is not Guard.run.__code__:
        if frame.f_code in collecting:
            return kind, None
        place = origin(frame.f_code.co_filename)
        if place == "engine" and frame.f_code.co_name != "<module>":
            return kind, frame
        if place == "standard":
            library = str(frame.f_globals.get("__name__")).partition(".")[0]
            if library in _HARMLESS_MODULES:
                return kind, None
            kind = _LIBRARY_KINDS.get(library, kind)
        elif place == "installed":
            installed = installed or frame
        if kind in DIRECT_ONLY and place != "generated":
            break
        frame = frame.f_back
    return kind, installed


def _install_audit_hook() -> None:
    """Once: a hook cannot be taken out.  It asks nothing while no command is applied under guard."""
    if _hooked:
        return

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        guard = WATCHING.get(get_ident()) if WATCHING else None
        kind = None if guard is None else guarded_calls.audited(event)
        if guard is not None and kind is not None:
            guard.note(kind, event, sys._getframe(1))

    sys.addaudithook(hook)
    _hooked.append(True)
