"""Conditions: what an outcome may depend on besides its command, and how each is set otherwise for an experiment.

A *factor* is the kind of thing; a *setting* is one way to change it and nothing else.  Every experiment holds all factors
still and changes those of its settings, so that a difference is that setting's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

MEMORY_ADDRESSES: Final = "memory addresses"
HASH_SEED: Final = "hash seed"
TIME_ZONE: Final = "time zone"
LOCALE: Final = "locale"
CLOCK: Final = "clock"
RANDOM: Final = "random"
GARBAGE_COLLECTION: Final = "garbage collection"
DECIMAL_CONTEXT: Final = "decimal context"
THREAD: Final = "thread"
ENVIRONMENT: Final = "environment"
WORKING_DIRECTORY: Final = "working directory"
OPTIMIZATION: Final = "optimization"
PROCESS: Final = "process"
RESTORE_POINT: Final = "restore point"

FACTORS: Final = (
    *(MEMORY_ADDRESSES, HASH_SEED, TIME_ZONE, LOCALE, CLOCK, RANDOM, GARBAGE_COLLECTION, DECIMAL_CONTEXT, THREAD),
    *(ENVIRONMENT, WORKING_DIRECTORY, OPTIMIZATION, PROCESS, RESTORE_POINT),
)
"""All factors; where several are found, the one named first is the likelier root: everything moves addresses about."""

HASH_SEEDS_MAX: Final = 5
_HASH_SEEDS: Final = ("0", "1", "2", "3", "4", "5", "6")
_TIME_ZONES: Final = ("EAST-13:45", "WEST+11:30")
"""More than a day apart, so that the date differs too; POSIX rules, which need no database of zones."""
_LOCALE_VARIABLES: Final = ("LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_NUMERIC", "LC_TIME", "LC_MONETARY", "LANG")
BIRTH_VARIABLES: Final = (*_LOCALE_VARIABLES, "PYTHONHASHSEED", "PYTHONOPTIMIZE", "PYTHONCOERCECLOCALE", "PYTHONUTF8")
"""What Python looks at as it starts, and later no more."""
_LOCALES_MAX: Final = 3
_ELSEWHEN_S: Final = 400 * 86400 + 3723.456789
_KEPT: Final = (
    "PATH",
    "PYTHON",
    "LD_",
    "DYLD_",
    "VIRTUAL_ENV",
    "TMP",
    "TEMP",
    "TZ",
    "LC_",
    "LANG",
    "HOME",
    "PG",
    "AWS_",
)
_TIMEOUT_S: Final = 10


class Setting(NamedTuple):
    """One factor set otherwise: variables of the environment (None: taken out), pins of the experiment, another folder."""

    factor: str
    label: str
    environment: Mapping[str, str | None] = {}
    pins: Mapping[str, Any] = {}
    elsewhere: bool = False

    @property
    def at_birth(self) -> bool:
        """Whether it takes a process of its own."""
        return any(name in BIRTH_VARIABLES for name in self.environment)


def still_environment(path: Iterable[str]) -> dict[str, str]:
    """This process's environment with a fixed hash seed and ``path`` to import from."""
    seed = os.environ.get("PYTHONHASHSEED", "")
    optimize = {"PYTHONOPTIMIZE": str(sys.flags.optimize)} if sys.flags.optimize else {}
    return {
        **os.environ,
        "PYTHONHASHSEED": seed if seed.isdecimal() else _HASH_SEEDS[0],
        "PYTHONPATH": os.pathsep.join(os.path.abspath(folder) for folder in path),
        **optimize,
    }


def still_pins(clock_s: float) -> dict[str, Any]:
    """What an experiment holds still by itself, with the clock at ``clock_s`` seconds since 1970."""
    chance = {"random": 1, "varied": 0}
    return {"clock": clock_s, **chance, "process_id": 4242, "collect": 0, "worker_thread": 0, "decimals": 0}


CHANCES: Final = tuple(
    Setting(RANDOM, "other random numbers", pins={"random": seed, "varied": 1}) for seed in (11, 12, 13, 14)
)
"""Other random numbers in each run of an experiment: what is decided by a rare chance shows in one of many.  One in ten is missed
by 48 runs once in 150 times, by half as many once in twelve."""


def settings(*, clock_s: float, recorded_s: float) -> dict[str, list[Setting]]:
    """Each factor's settings.  ``recorded_s`` is the time of the command."""
    still = still_environment(())
    seeds = [seed for seed in _HASH_SEEDS if seed != still["PYTHONHASHSEED"]][:HASH_SEEDS_MAX]
    found = [Setting(HASH_SEED, f"PYTHONHASHSEED={seed}", {"PYTHONHASHSEED": seed}) for seed in seeds]
    found += [Setting(TIME_ZONE, f"TZ={zone}", {"TZ": zone}) for zone in _TIME_ZONES]
    found += _locale_settings()
    found += [
        Setting(CLOCK, "the clock at the time of the command", pins={"clock": recorded_s}),
        Setting(CLOCK, "the clock 400 days on", pins={"clock": clock_s + _ELSEWHEN_S}),
    ]
    found += [Setting(RANDOM, "other random numbers", pins={"random": seed}) for seed in (2, 3, 4)]
    found.append(Setting(GARBAGE_COLLECTION, "garbage collected before each command", pins={"collect": 1}))
    found.append(Setting(DECIMAL_CONTEXT, "another default decimal context", pins={"decimals": 1}))
    found.append(Setting(THREAD, "a thread other than the main one", pins={"worker_thread": 1}))
    others = {name: None for name in os.environ if not name.startswith(_KEPT)}
    found.append(Setting(ENVIRONMENT, "an environment with nothing of the user's", others))
    found.append(Setting(WORKING_DIRECTORY, "an empty working directory", elsewhere=True))
    found.append(Setting(OPTIMIZATION, "python -O", {"PYTHONOPTIMIZE": "" if sys.flags.optimize else "1"}))
    found.append(Setting(PROCESS, "another process id", pins={"process_id": 5353}))
    groups: dict[str, list[Setting]] = {}
    for setting in found:
        groups.setdefault(setting.factor, []).append(setting)
    return groups


def at_once(groups: Mapping[str, list[Setting]], number: int, *, at_birth: bool) -> list[Setting]:
    """One setting of each factor, the ``number``-th, counted around; of those that take a process of their own, or the others."""
    return [group[number % len(group)] for group in groups.values() if group[0].at_birth is at_birth]


def _locale_settings() -> list[Setting]:
    now = os.environ.get("LC_ALL") or os.environ.get("LANG") or ""
    names = [name for name in _installed_locales() if name != now]
    names.sort(key=lambda name: name.split(".")[0] in ("C", "POSIX"))
    return [
        Setting(
            LOCALE,
            f"the locale {name}",
            {**dict.fromkeys(_LOCALE_VARIABLES, name), "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        )
        for name in names[:_LOCALES_MAX]
    ]


def _installed_locales() -> list[str]:
    if shutil.which("locale") is None:
        return ["C"]
    listed = subprocess.run(["locale", "-a"], capture_output=True, timeout=_TIMEOUT_S, check=False)
    return listed.stdout.decode(errors="replace").split() or ["C"]


def variable_settings(variables: Iterable[str]) -> list[Setting]:
    """Settings of single variables, two of each: without it (or with one, where there is none), and another value."""
    found = []
    for name in variables:
        if name in _LOCALE_VARIABLES or name == "TZ" or name.startswith("PYTHON"):
            continue
        if name in os.environ:
            found.append(Setting(ENVIRONMENT, f"{name} taken out of the environment", {name: None}))
        else:
            found.append(Setting(ENVIRONMENT, f"{name}=1 in the environment", {name: "1"}))
        found.append(Setting(ENVIRONMENT, f"{name}=other in the environment", {name: "other"}))
    return found
