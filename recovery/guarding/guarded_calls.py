"""Which calls bring something into an engine that is not the same on every replay: the clock, chance, the machine.

Judged by the function object that is called, so it does not matter under which name, or how deep in a library.  The names
come first: a call whose name is no suspect costs one look into a set.
"""

from __future__ import annotations

import _locale
import _random
import _socket
import _thread
import _weakrefset
import concurrent.futures
import datetime
import gc
import io
import os
import posix
import random
import select
import sys
import time
import weakref
from collections import deque
from collections.abc import Iterable
from types import CodeType, FrameType, ModuleType
from typing import Any, Final, Protocol

CLOCK: Final = "clock"
TIME_ZONE: Final = "time zone"
RANDOM: Final = "random"
ENVIRONMENT: Final = "environment"
FILES: Final = "files"
SOCKETS: Final = "sockets"
SUBPROCESS: Final = "subprocess"
THREADS: Final = "threads"
IDENTITY: Final = "identity"
SET_ORDER: Final = "set order"
WEAK_REFERENCE: Final = "weak reference"
COLLECTOR: Final = "garbage collector"
LOCALE: Final = "locale"


class Noting(Protocol):
    """A guard, as seen by what finds something for it."""

    def note(self, kind: str, what: str, frame: FrameType) -> None:
        """Something was met in this frame, or deeper."""


WATCHING: Final[dict[int, Noting]] = {}
"""By thread: the guard under which it applies a command just now."""


def watching() -> Noting | None:
    """The guard under which this thread applies a command; None where it does not."""
    return WATCHING.get(_thread.get_ident())


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set of names."""
    return frozenset(text.split())


def _kinds(module: ModuleType, default: str, **others: str) -> dict[str, str]:
    """The kind of each function of a module; what ``others`` lists under ``harmless`` has none."""
    kinds = {name: default for name, value in vars(module).items() if callable(value) and not name.startswith("_")}
    for kind, names in others.items():
        for name in names.split():
            if kind == "harmless":
                kinds.pop(name, None)
            elif name in kinds:
                kinds[name] = kind.replace("_", " ")
    return kinds


_MODULES: Final[dict[str, dict[str, str]]] = {
    # With arguments these are pure; without, guarding/set_order.py sees them, for it sees the arguments.
    "time": _kinds(
        time,
        CLOCK,
        harmless="sleep gmtime strftime asctime strptime struct_time get_clock_info",
        time_zone="localtime ctime mktime tzset",
    ),
    "posix": _kinds(
        posix,
        FILES,
        harmless="fspath strerror major minor makedev register_at_fork WEXITSTATUS WIFEXITED WIFSIGNALED WTERMSIG",
        random="urandom getrandom",
        subprocess="system fork forkpty execv execve posix_spawn posix_spawnp waitpid wait wait3 wait4 waitid kill killpg",
        clock="times",
        environment="getpid getppid getpgid getpgrp getsid getuid geteuid getgid getegid getgroups getlogin uname cpu_count "
        "getcwd getcwdb chdir getloadavg sched_getaffinity sysconf confstr getpriority nice umask putenv unsetenv ttyname "
        "get_terminal_size isatty",
    ),
    "_locale": _kinds(_locale, LOCALE, harmless="getencoding Error"),
    "gc": _kinds(gc, COLLECTOR, harmless="enable disable isenabled freeze unfreeze is_tracked"),
    "_thread": {"start_new_thread": THREADS, "start_new": THREADS, "start_joinable_thread": THREADS},
    "_socket": _kinds(_socket, SOCKETS, harmless="htons htonl ntohs ntohl inet_aton inet_ntoa inet_pton inet_ntop"),
    "_posixsubprocess": {"fork_exec": SUBPROCESS},
    "select": _kinds(select, SOCKETS, harmless="error"),
    "_uuid": {"generate_time_safe": RANDOM},
    "_sqlite3": {"connect": FILES},
    "_io": {"open": FILES, "open_code": FILES},
    "io": {"open": FILES, "open_code": FILES},
    "builtins": {"input": FILES, "id": IDENTITY},
}
_ON_FILES: Final = words(
    "read read1 readall readinto readinto1 readline readlines write writelines seek tell truncate flush fileno"
)
_ON_SOCKETS: Final = frozenset(name for name in dir(_socket.socket) if not name.startswith("_"))
_ON_DATABASES: Final = words("execute executemany executescript fetchone fetchmany fetchall commit")
_NOW: Final = frozenset({"now", "utcnow", "today"})
_CHANCE: Final = frozenset({"random", "getrandbits", "seed", "getstate", "setstate", "randbytes"})

SUSPECT_NAMES: Final = frozenset[str]().union(*_MODULES.values(), _ON_FILES, _ON_SOCKETS, _ON_DATABASES, _NOW, _CHANCE)
"""Names of the C functions worth a closer look."""

_FILE_TYPES: Final = (io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper)
_SHARED_RANDOM: Final = random._inst


def called(function: Any) -> tuple[str, str] | None:
    """The kind and the name of a C function that is about to be called, or None where it is harmless."""
    owner = getattr(function, "__self__", None)
    name = function.__name__
    if isinstance(owner, ModuleType):
        kind = _MODULES.get(owner.__name__, {}).get(name)
        return None if kind is None else (kind, _shown(owner.__name__, name))
    if name in _NOW and isinstance(owner, type) and issubclass(owner, datetime.date):
        return CLOCK, f"{owner.__name__}.{name}()"
    if isinstance(owner, _random.Random):
        # A generator of the engine's own is as deterministic as its seed, which is looked at when it is sown.
        return (RANDOM, f"random.{name}()") if owner is _SHARED_RANDOM else None
    if isinstance(owner, _FILE_TYPES):
        if name not in _ON_FILES or owner in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            return None
        return FILES, f"{type(owner).__name__}.{name}()"
    if isinstance(owner, _socket.socket):
        return (SOCKETS, f"socket.{name}()") if name in _ON_SOCKETS else None
    if type(owner).__module__ == "sqlite3" and name in _ON_DATABASES:
        return FILES, f"sqlite3.{type(owner).__name__}.{name}()"
    return None


def _shown(module: str, name: str) -> str:
    public = {"posix": "os", "_io": "", "io": "", "builtins": ""}.get(module, module.lstrip("_"))
    return f"{public}.{name}()" if public else f"{name}()"


def _codes(kind: str, shown: str, owner: Any, names: Iterable[str]) -> dict[CodeType, tuple[str, str]]:
    found = {}
    for name in names:
        code = getattr(vars(owner).get(name), "__code__", None)
        if code is not None:
            found[code] = (kind, shown if name.startswith("__") else f"{shown}.{name}()")
    return found


_READS: Final = words(
    "__getitem__ __contains__ __len__ __iter__ get keys values items pop popitem setdefault copy __reversed__"
)
_WEAK: Final = (weakref.WeakValueDictionary, weakref.WeakKeyDictionary, _weakrefset.WeakSet)
_EXECUTORS: Final = (
    concurrent.futures.ThreadPoolExecutor,
    concurrent.futures.ProcessPoolExecutor,
    concurrent.futures.Executor,
)

_PYTHON: Final[dict[CodeType, tuple[str, str]]] = {
    **_codes(
        ENVIRONMENT,
        "os.environ",
        type(os.environ),
        words("__getitem__ __setitem__ __delitem__ __iter__ __len__ copy"),
    ),
    **{
        code: found
        for executor in _EXECUTORS
        for code, found in _codes(THREADS, executor.__name__, executor, ("submit", "map")).items()
    },
    **{code: found for weak in _WEAK for code, found in _codes(WEAK_REFERENCE, weak.__name__, weak, _READS).items()},
}
_SEED: Final = random.Random.seed.__code__
# By identity: the hash of a code object is that of its whole content.
_PYTHON_BY_ID: Final = {id(code): found for code, found in _PYTHON.items()}

PYTHON_FILES: Final = frozenset(code.co_filename for code in (*_PYTHON, _SEED))
"""Files of the Python functions worth a closer look."""

HARMLESS_OWNERS: Final = frozenset({list, dict, tuple, str, bytes, int, float, bool, set, frozenset, deque})
"""Types whose methods are all harmless, looked at first because most calls are to them."""

DIRECT_ONLY: Final = frozenset({IDENTITY, WEAK_REFERENCE})
"""Kinds that count only where the author's own code makes the call: libraries use these with care, and often."""


def entered(frame: FrameType) -> tuple[str, str] | None:
    """The kind and the name of a Python function that has just been entered, or None where it is harmless."""
    code = frame.f_code
    if code is _SEED:
        given = frame.f_locals
        if given.get("self") is _SHARED_RANDOM:
            return RANDOM, "random.seed()"
        return (RANDOM, "Random() without a seed") if given.get("a") is None else None
    return _PYTHON_BY_ID.get(id(code))


_AUDITED: Final = {
    "open": FILES,
    "mmap.__new__": FILES,
    "sqlite3.connect": FILES,
    "subprocess.Popen": SUBPROCESS,
    "os.system": SUBPROCESS,
    "os.exec": SUBPROCESS,
    "os.fork": SUBPROCESS,
    "os.forkpty": SUBPROCESS,
    "os.posix_spawn": SUBPROCESS,
    "os.putenv": ENVIRONMENT,
    "os.unsetenv": ENVIRONMENT,
    "_thread.start_new_thread": THREADS,
    "_thread.start_joinable_thread": THREADS,
}
_AUDITED_FAMILIES: Final = {"socket": SOCKETS, "os": FILES, "shutil": FILES, "tempfile": FILES, "glob": FILES}


def audited(event: str) -> str | None:
    """The kind of an audit event of the interpreter, or None where it is harmless."""
    kind = _AUDITED.get(event)
    return kind if kind is not None else _AUDITED_FAMILIES.get(event.partition(".")[0])
