"""Perturbation: does an outcome depend on anything but its command?  Experiments in child processes, two at a time.

The method is that of a laboratory.  All that can be held still is held still (explaining/experiment.py), and the same experiment
is run again: if two identical ones differ, nothing else may be blamed.  Then everything is changed at once, several times; if
nothing moves, nothing matters.  If something moves, each factor is changed alone, and what moves the outcome is tried again,
as is the untouched experiment, before it is named.

An experiment costs a fork, the engine's import and start, and the replay of its commands; where it needs a process of its
own, the start of Python and the import of this library too (a third of a second).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from recovery.divergence import Divergence
from recovery.explaining.conditions import (
    BIRTH_VARIABLES,
    CHANCES,
    FACTORS,
    MEMORY_ADDRESSES,
    PROCESS,
    RESTORE_POINT,
    Setting,
    at_once,
    settings,
    still_environment,
    still_pins,
    variable_settings,
)

PARALLEL: Final = 2
CHILD_TIMEOUT_S: Final = 3600.0
AT_ONCE: Final = 4
"""How often everything is changed at once, each time to something else."""
LAYOUTS: Final = 12
"""How often a short run is done in one process, and in how many ways the heap is shuffled."""
_LAYOUTS_LONG: Final = 4
_LONG: Final = 50
_WORTH_ANOTHER: Final = 10
"""From so many experiments on a second process pays for its start."""
_MOVED_LAYOUTS_MIN: Final = 3
"""So many layouts must move the outcome, or it may have been chance."""
_FILE_SCHEMES: Final = ("sqlite", "wal", "file", "dir")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a history and its engine are found by another process: strings only, files by absolute paths."""

    engine: str
    journal: str
    stream: str = "main"
    snapshots: str = ""
    app_dir: str = "."

    @classmethod
    def of(cls, engine: str | None, journal: object, *, stream: str, snapshots: object, app_dir: str) -> Place | None:
        """The place; None where another process cannot get there: what is in memory, or has no name."""
        if not engine or not isinstance(journal, str) or journal.startswith("memory:"):
            return None
        images = snapshots if isinstance(snapshots, str) and not snapshots.startswith("memory:") else ""
        return cls(engine, _absolute(journal), stream, _absolute(images), os.path.abspath(app_dir))


def _absolute(url: str) -> str:
    scheme, _, rest = url.partition(":")
    if scheme not in _FILE_SCHEMES or not rest:
        return url
    path, mark, options = rest.partition("?")
    return f"{scheme}:{os.path.abspath(path)}{mark}{options}"


class Run(NamedTuple):
    """The commands ``after < id <= until``, executed by a fresh engine.

    It begins at the image at ``start`` (0: at the beginning; None: at the newest image at or before ``after``) and gets to
    ``after`` by redoing rows, where there are any.  ``layout`` above 0 shuffles the heap, each number in another way.
    """

    after: int
    until: int
    start: int | None = None
    layout: int = 0


class Seen(NamedTuple):
    """What one run showed: the divergences from the record, and a hash of each such outcome, up to ``covered``."""

    divergences: dict[int, Divergence]
    outcomes: dict[int, str]
    covered: int

    def outcome(self, command_id: int) -> str:
        """The outcome of a command: a hash, "recorded", or nothing where the run did not get there."""
        if command_id > self.covered:
            return ""
        return self.outcomes.get(command_id, "recorded")

    def first_difference(self, other: Seen, *, after: int = 0) -> int | None:
        """The first command that came out otherwise in the other run, as far as both go."""
        last = min(self.covered, other.covered)
        ids = sorted(self.outcomes.keys() | other.outcomes.keys())
        return next((i for i in ids if after < i <= last and self.outcome(i) != other.outcome(i)), None)

    def parts(self, command_id: int) -> dict[str, str]:
        """What of a command came out otherwise than recorded, and how: fields by path, response, events."""
        divergence = self.divergences.get(command_id)
        if divergence is None:
            return {}
        found = {part: json.dumps(divergence.parts[part].get("replayed")) for part in divergence.parts}
        found |= {each.path: json.dumps(each.to_dict().get("replayed", "no row")) for each in divergence.fields}
        return found or {"post_digest": self.outcome(command_id)}


class Observed(NamedTuple):
    """What one experiment showed, run by run, and which environment variables the engine asked for."""

    runs: tuple[Seen, ...]
    variables: tuple[str, ...]


class Failed(NamedTuple):
    """An experiment that could not be run, and why."""

    reason: str


Experiment = tuple[Sequence[Setting], Sequence[Run]]
"""What is changed, and what is then run in one process."""


class Laboratory:
    """Runs experiments on one place, for at most ``seconds`` in all (None: for as long as they take)."""

    def __init__(self, place: Place, *, seconds: float | None = None) -> None:
        self.place = place
        self.clock_s = float(round(time.time()))
        self.experiments = 0
        self._ends = None if seconds is None else time.monotonic() + seconds
        self._environment = still_environment(filter(None, [place.app_dir, *sys.path]))

    @property
    def time_left_s(self) -> float:
        """How long it may still take."""
        return CHILD_TIMEOUT_S if self._ends is None else self._ends - time.monotonic()

    def observe(self, changed: Sequence[Setting], runs: Sequence[Run]) -> Observed | Failed:
        """One experiment: the runs, one after the other, in a process with these settings."""
        (observed,) = self.observe_all([(changed, runs)])
        return observed

    def observe_all(self, experiments: Iterable[Experiment]) -> list[Observed | Failed]:
        """Several experiments, none of which sees another; their results in order."""
        asked = list(experiments)
        by_birth: dict[tuple[tuple[str, str | None], ...], list[int]] = {}
        for number, (changed, _) in enumerate(asked):
            at_birth = {k: v for setting in changed for k, v in setting.environment.items() if k in BIRTH_VARIABLES}
            by_birth.setdefault(tuple(sorted(at_birth.items())), []).append(number)
        loads = list(by_birth.items())
        if len(loads) == 1 and len(asked) > _WORTH_ANOTHER:
            ((birth, numbers),) = loads
            loads = [(birth, some) for some in _halves(numbers, [len(runs) for _, runs in asked])]
        self.experiments += len(asked)
        found: dict[int, Observed | Failed] = {}
        with ThreadPoolExecutor(PARALLEL) as pool, tempfile.TemporaryDirectory(prefix="recovery-experiment-") as empty:
            done = pool.map(lambda load: self._process(dict(load[0]), [asked[n] for n in load[1]], empty), loads)
            for (_, numbers), observed in zip(loads, done, strict=True):
                found.update(zip(numbers, observed, strict=True))
        return [found[number] for number in range(len(asked))]

    def _process(self, birth: dict[str, str | None], asked: list[Experiment], empty: str) -> list[Observed | Failed]:
        if self.time_left_s <= 0:
            return [Failed("there was no time for it")] * len(asked)
        task = {
            "place": {name: getattr(self.place, name) for name in Place.__slots__},
            "seconds": min(CHILD_TIMEOUT_S, self.time_left_s + 1),
            "experiments": [self._experiment(changed, runs, empty) for changed, runs in asked],
        }
        environment = self._environment | {name: value for name, value in birth.items() if value is not None}
        for name in (name for name, value in birth.items() if value is None):
            environment.pop(name, None)
        child = subprocess.run(
            [sys.executable, "-P", "-m", "recovery.explaining.experiment"],
            input=json.dumps(task).encode(),
            env=environment,
            capture_output=True,
            timeout=CHILD_TIMEOUT_S * len(asked),
            check=False,
        )
        answers = [json.loads(line) for line in child.stdout.splitlines()]
        if child.returncode != 0 or len(answers) != len(asked):
            lines = child.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with {child.returncode}"]
            return [Failed(lines[-1])] * len(asked)
        return [
            Failed(answer["error"])
            if "error" in answer
            else Observed(tuple(map(_seen, answer["runs"])), tuple(answer["variables"]))
            for answer in answers
        ]

    def _experiment(self, changed: Sequence[Setting], runs: Sequence[Run], empty: str) -> dict[str, Any]:
        environment: dict[str, str | None] = {}
        pins = still_pins(self.clock_s)
        for setting in changed:
            pins |= setting.pins
            environment |= {k: v for k, v in setting.environment.items() if k not in BIRTH_VARIABLES}
        return {
            "environment": environment,
            "folder": empty if any(setting.elsewhere for setting in changed) else "",
            "pins": pins,
            "runs": [{name: part for name, part in run._asdict().items() if part is not None} for run in runs],
        }


def _halves(numbers: list[int], runs: Sequence[int]) -> list[list[int]]:
    """Experiments in two parts with about as many runs.  Neighbours stay together: forks of one process have their memory laid
    out alike, and two processes need not."""
    half, done = sum(runs) / 2, 0
    for at, number in enumerate(numbers, 1):
        done += runs[number]
        if done >= half:
            return [some for some in (numbers[:at], numbers[at:]) if some]
    return [numbers]


def _seen(run: dict[str, Any]) -> Seen:
    divergences = [Divergence.from_dict(each) for each in run["divergences"]]
    return Seen(
        {each.command_id: each for each in divergences},
        {int(command_id): outcome for command_id, outcome in run["outcomes"].items()},
        run["covered"],
    )


@dataclass(slots=True)
class Findings:
    """What a study found out about one command.

    ``ran``: anything could be run at all.  ``steady``: identical experiments agreed.  ``factors``: what was shown to move the
    outcome, likeliest root first, each with the setting that did.  ``suspected``: settings that did so once, and that could
    not be tried again.  ``moved``: the parts of the outcome that all these move.
    ``recorded``: in a fresh process, with everything held still, the outcome is the recorded one.
    """

    ran: bool = True
    steady: bool = True
    recorded: bool = False
    factors: dict[str, str] = field(default_factory=dict)
    suspected: list[str] = field(default_factory=list)
    moved: set[str] = field(default_factory=set)
    evidence: list[str] = field(default_factory=list)


class Study:
    """Finds out what the outcome of one command depends on.

    ``run`` ends with the command.  ``earlier`` are runs that end with it too and begin elsewhere: further back, so that
    what the engine hides can pile up, or at another image.
    """

    def __init__(self, laboratory: Laboratory, run: Run, *, recorded_s: float, earlier: Sequence[Run] = ()) -> None:
        self._laboratory = laboratory
        self._run = run
        self._recorded_s = recorded_s
        self._earlier = earlier
        self._found = Findings()
        self._still: tuple[Seen, ...] = ()
        self._suspects: list[tuple[Setting, Observed]] = []
        self._same: set[str] = set()
        self._times = LAYOUTS if run.until - run.after <= _LONG else _LAYOUTS_LONG

    def findings(self) -> Findings:
        """Run the experiments."""
        found, run, lab = self._found, self._run, self._laboratory
        groups = settings(clock_s=lab.clock_s, recorded_s=self._recorded_s)
        together = [at_once(groups, number, at_birth=False) for number in range(AT_ONCE)]
        together += [at_once(groups, number, at_birth=True) for number in range(AT_ONCE)]
        again = [run] * self._times
        untouched: list[Experiment] = [((), again), ((), again), ((), self._layouts())]
        chances: list[Experiment] = [((chance,), again) for chance in CHANCES]
        changed: list[Experiment] = [(chosen, [run]) for chosen in together]
        before: list[Experiment] = [((), [each, run]) for each in self._earlier]
        # The untouched ones first, so that they are forks of one process: what then differs, differs by itself.
        first, second, memory, *others = lab.observe_all([*untouched, *chances, *changed, *before])
        tossed, others = others[: len(CHANCES)], others[len(CHANCES) :]
        if isinstance(first, Failed) or isinstance(second, Failed):
            found.ran = False
            found.evidence += [f"not run: {each.reason}" for each in (first, second) if isinstance(each, Failed)][:1]
            return found
        self._still = first.runs
        found.recorded = self._outcome(first.runs[0]) == "recorded"
        found.steady = self._outcomes(first) == self._outcomes(second)
        if not found.steady:
            found.evidence.append("two identical processes, with all held still that can be, did not agree")
            return found
        found.evidence.append(
            "two identical processes, with all held still that can be, came out "
            + ("as recorded" if found.recorded else "the same, not as recorded")
        )
        self._sort_out([Setting(MEMORY_ADDRESSES, "objects at other addresses"), *CHANCES], [memory, *tossed])
        self._look_closer(together, others[: len(together)], variable_settings(first.variables))
        self._try_again()
        if found.steady:
            self._judge_history(first, others[len(together) :])
            same = [factor for factor in FACTORS if factor in self._same and factor not in found.factors]
            found.evidence += [f"the same with another: {', '.join(same)}"] if same else []
        found.factors = {factor: found.factors[factor] for factor in FACTORS if factor in found.factors}
        return found

    def _layouts(self) -> list[Run]:
        return [self._run._replace(layout=number) for number in range(1, self._times + 1)]

    def _outcome(self, seen: Seen) -> str:
        return seen.outcome(self._run.until)

    def _outcomes(self, observed: Observed) -> list[str]:
        return [self._outcome(seen) for seen in observed.runs]

    def _differs(self, observed: Observed) -> bool:
        """Whether any run came out otherwise than the untouched one of the same number."""
        pairs = zip(self._still, observed.runs, strict=False)
        outcomes = [(self._outcome(still), self._outcome(seen)) for still, seen in pairs]
        return any(ours != theirs for ours, theirs in outcomes if ours and theirs)

    def _sort_out(self, tried: Sequence[Setting], observed: Sequence[Observed | Failed]) -> None:
        for setting, each in zip(tried, observed, strict=True):
            if isinstance(each, Failed):
                self._found.evidence.append(f"not run: {setting.label} ({each.reason})")
            elif not self._differs(each):
                self._same.add(setting.factor)
            elif all(setting.factor != other.factor for other, _ in self._suspects):
                self._suspects.append((setting, each))

    def _look_closer(
        self,
        together: Sequence[Sequence[Setting]],
        observed: Sequence[Observed | Failed],
        variables: Sequence[Setting],
    ) -> None:
        """Change alone what moved the outcome together with others, and the variables that the engine asked for."""
        closer = list(variables)
        for group in (slice(0, AT_ONCE), slice(AT_ONCE, None)):
            pairs = list(zip(together[group], observed[group], strict=True))
            moved = [chosen for chosen, each in pairs if isinstance(each, Failed) or self._differs(each)]
            if moved:
                closer += moved[0]
            else:
                self._same |= {setting.factor for chosen, _ in pairs for setting in chosen}
        if not closer:
            return
        alone = self._laboratory.observe_all(((setting,), [self._run]) for setting in closer)
        self._sort_out(closer, alone)
        if not self._suspects:
            for chosen, each in zip(together, observed, strict=True):
                if isinstance(each, Observed) and self._differs(each):
                    self._suspect(chosen, [each])

    def _suspect(self, changed: Iterable[Setting], observed: Iterable[Observed]) -> None:
        """Something moved the outcome once, and which of these it was could not be told."""
        self._found.suspected += dict.fromkeys(setting.label for setting in changed)
        for each in observed:
            self._move(self._still, each.runs)

    def _try_again(self) -> None:
        """Nothing is blamed for what happens by itself now and then."""
        if not self._suspects or self._try_memory_again():
            return
        found, run = self._found, self._run
        again: list[Experiment] = [((setting,), [run] * len(each.runs)) for setting, each in self._suspects]
        untouched, *repeated = self._laboratory.observe_all([((), [run] * self._times), *again])
        if isinstance(untouched, Failed):
            self._suspect([setting for setting, _ in self._suspects], [each for _, each in self._suspects])
            return
        if self._differs(untouched):
            found.steady = False
            found.evidence.append("an identical process came out otherwise: it differs by itself, now and then")
            return
        for (setting, each), other in zip(self._suspects, repeated, strict=True):
            if isinstance(other, Observed) and self._differs(other):
                self._blame(setting.factor, setting.label, self._still, each.runs)

    def _try_memory_again(self) -> bool:
        """Whether other addresses alone move the outcome.  Every change moves addresses, and nothing else is blamed then.

        Two processes may lay out their memory in two ways, so what is compared are forks of one.
        """
        memory = next((each for setting, each in self._suspects if setting.factor == MEMORY_ADDRESSES), None)
        if memory is None:
            return False
        self._suspects = [(setting, each) for setting, each in self._suspects if setting.factor != MEMORY_ADDRESSES]
        run = self._run
        still, other = self._laboratory.observe_all([((), [run] * self._times), ((), self._layouts())])
        if isinstance(still, Failed) or isinstance(other, Failed):
            return False
        pairs = [(self._still, memory.runs), (still.runs, other.runs)]
        moved = [sum(self._outcome(a) != self._outcome(b) for a, b in zip(*each, strict=True)) for each in pairs]
        if min(moved) < _MOVED_LAYOUTS_MIN:
            return False
        also = [setting.label for setting, _ in self._suspects]
        self._blame(MEMORY_ADDRESSES, "objects at other addresses", self._still, memory.runs)
        self._found.evidence += [f"otherwise too, as all moves addresses, with: {', '.join(also)}"] if also else []
        return True

    def _judge_history(self, base: Observed, observed: Sequence[Observed | Failed]) -> None:
        """Does it matter what ran before, in this process or since this start?"""
        alone, still = self._outcome(base.runs[0]), self._still
        if any(outcome != alone for outcome in self._outcomes(base)):
            self._blame(
                PROCESS, "the same command executed before in the same process", still[:1] * self._times, base.runs
            )
        for run, each in zip(self._earlier, observed, strict=True):
            origin = "the engine started at " + (f"the image at {run.start}" if run.start else "the beginning")
            if isinstance(each, Failed):
                self._found.evidence.append(f"not run: {origin} ({each.reason})")
                continue
            before, fresh = each.runs
            if not self._outcome(before):
                self._found.evidence.append(f"not run: {origin} (it diverges before)")
            elif self._outcome(fresh) != alone:
                self._blame(
                    PROCESS, f"commands {run.after + 1} to {run.until} run before in the process", still, [fresh]
                )
            elif self._outcome(before) != alone:
                self._blame(RESTORE_POINT, origin, still, [before])
            else:
                self._same |= {PROCESS, RESTORE_POINT}

    def _blame(self, factor: str, label: str, still: Sequence[Seen], runs: Sequence[Seen]) -> None:
        command_id, found = self._run.until, self._found
        for ours, theirs in (
            (one.parts(command_id), other.parts(command_id)) for one, other in zip(still, runs, strict=False)
        ):
            found.moved |= {part for part in ours.keys() | theirs.keys() if ours.get(part) != theirs.get(part)}
        as_recorded = not found.recorded and any(self._outcome(seen) == "recorded" for seen in runs)
        found.factors.setdefault(factor, label)
        found.evidence.append(f"otherwise with: {label}" + (" (and then as recorded)" if as_recorded else ""))

    def _move(self, still: Sequence[Seen], runs: Sequence[Seen]) -> None:
        for one, other in zip(still, runs, strict=False):
            ours, theirs = one.parts(self._run.until), other.parts(self._run.until)
            self._found.moved |= {part for part in ours.keys() | theirs.keys() if ours.get(part) != theirs.get(part)}
