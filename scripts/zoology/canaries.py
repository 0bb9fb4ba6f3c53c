"""Canaries: the framework spoilt on purpose.  A score that stays green with one of them scores nothing.

``python -m zoology.canaries SABOTAGE VERB …`` is ``recovery VERB …`` with one thing wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple


class Canary(NamedTuple):
    """What is spoilt, and the animal that must then be scored wrong."""

    sabotage: str
    animal: str
    clean: bool = False


CANARIES = (
    Canary("the digest after a command is not compared", "every few"),
    Canary("no divergence is ever found", "off by one"),
    Canary("the command named is the next one", "off by one"),
    Canary("no field is named", "off by one"),
    Canary("a factor is claimed for nothing", "off by one"),
    Canary("only the first divergence is found", "every few"),
    Canary("half of an image is not restored", "plain feed book", clean=True),
    Canary("a finding is made up", "plain feed book", clean=True),
)


def _put(owner: Any, name: str, replacement: Any) -> None:
    setattr(owner, name, replacement)


def digest_not_compared() -> None:
    """Responses and events alone are compared, and the rows not either."""
    from journal import framing
    from recovery.replayer import Replayer
    from recovery.stepper import TableStepper

    honest = TableStepper.step
    recorded: list[Any] = []
    execute = Replayer._execute

    def executed(self: Any, entry: Any) -> Any:
        recorded[:] = [entry.changes_bytes]
        return execute(self, entry)

    def step(self: Any, *arguments: Any) -> Any:
        return honest(self, *arguments)._replace(changes_bytes=recorded[0] if recorded else framing.NO_CHANGES)

    _put(Replayer, "_execute", executed)
    _put(Replayer, "_differ", lambda self, recorded, replayed: False)
    _put(TableStepper, "step", step)


def nothing_found() -> None:
    """Every command is said to have come out as recorded."""
    from recovery.replayer import Replayer

    execute = Replayer._execute

    def executed(self: Any, entry: Any) -> None:
        execute(self, entry)

    _put(Replayer, "_execute", executed)


def changed_divergence(change: Callable[[Any], Any]) -> Callable[[], None]:
    """Every divergence is changed as it is found."""

    def install() -> None:
        from recovery.replayer import Replayer

        honest = Replayer._diverged
        _put(Replayer, "_diverged", lambda self, *arguments: change(honest(self, *arguments)))

    return install


def factor_for_nothing() -> None:
    """The time zone is always to blame."""
    from recovery.explaining import explanation

    honest = explanation.explained_by
    _put(explanation, "explained_by", lambda *arguments: replace(honest(*arguments), factor="time zone"))


def first_only() -> None:
    """--keep-going does not keep going."""
    from recovery.verifying.range_replay import Range, RangeReplay

    honest = RangeReplay.run

    def run(self: Any, wanted: Range) -> Any:
        return honest(self, wanted._replace(keep_going=False))

    _put(RangeReplay, "run", run)


def half_restored() -> None:
    """Every other row of an image is lost after it was verified."""
    from recovery.stepper import TableStepper

    honest = TableStepper.load

    def load(self: Any, blocks: Any, state_digest: Any) -> None:
        honest(self, blocks, state_digest)
        for table in self.state.tables.values():
            for key in list(table._rows)[::2]:
                del table._rows[key]
            for index in table._indexes:
                index._reset(table._rows.items())

    _put(TableStepper, "load", load)


def made_up() -> None:
    """Command 150 is said to have answered otherwise."""
    from recovery.replayer import Replayer

    execute = Replayer._execute

    def executed(self: Any, entry: Any) -> Any:
        step = self._step(entry) if entry.command_id == 150 else None
        return execute(self, entry) if step is None else self._diverged(entry, ("response",), step)

    _put(Replayer, "_execute", executed)


SABOTAGE: dict[str, Callable[[], None]] = {
    "the digest after a command is not compared": digest_not_compared,
    "no divergence is ever found": nothing_found,
    "the command named is the next one": changed_divergence(lambda each: replace(each, command_id=each.command_id + 1)),
    "no field is named": changed_divergence(lambda each: replace(each, fields=())),
    "a factor is claimed for nothing": factor_for_nothing,
    "only the first divergence is found": first_only,
    "half of an image is not restored": half_restored,
    "a finding is made up": made_up,
}


if __name__ == "__main__":
    SABOTAGE[sys.argv.pop(1)]()
    from recovery.cli.main import main

    main()
