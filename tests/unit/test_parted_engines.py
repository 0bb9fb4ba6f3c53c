"""Two engines over the same commands, each in a process of its own, against what brute force says of them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from journal.errors import EngineImportError, UsageError
from recovery import Command, Runtime
from recovery.bisection import find_divergence
from recovery.divergence import LOGIC_CHANGED, NOT_DETERMINISTIC
from tests.engines import Till

COMMANDS = 60


def recorded(folder: Path, engine: str, commands: list[Command], **options: Any) -> dict[str, str]:
    where = {"journal": f"sqlite:{folder}/j.db", "snapshots": f"dir:{folder}/s"}
    with Runtime.open(engine, **where, snapshot_every=0, **options) as runtime:
        list(runtime.execute_many(commands))
        runtime.close(snapshot=False)
    return where


def deposits(seed: int) -> list[Command]:
    draw = random.Random(seed)
    return [
        Command("deposit", {"number": draw.choice("abc"), "cents": draw.randint(-9, 40)}, request_id=f"r{number}")
        for number in range(COMMANDS)
    ]


@pytest.mark.parametrize("bent", ["row", "event", "raise"])
def test_the_first_command_that_two_engines_do_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bent: str
) -> None:
    at = random.Random(bent).randint(1, COMMANDS)
    monkeypatch.setenv("BENT_AT", str(at))
    monkeypatch.setenv("BENT", bent)
    monkeypatch.setattr("recovery.bisecting.parted_engines.BATCH", 7)
    where = recorded(tmp_path, "tests.engines:Till", deposits(1))
    found = find_divergence("tests.cancelling:BentTill", **where, against="tests.engines:Till")
    first = found.first_divergence
    assert first is not None
    assert first.command_id == at
    wanted = {"row": ("post_digest",), "event": ("events",)}
    if bent in wanted:
        assert first.what == wanted[bent]
    else:
        assert "response" in first.what
        assert first.parts["response"]["replayed"] == {"exception": "LookupError: a bug"}
    if bent == "row":
        replayed = {each.path: each.replayed for each in first.fields}
        assert replayed["/accounts/b/owner"] == "somebody"
        assert replayed["/accounts/b/cents"] == 99
    assert first.cause == LOGIC_CHANGED
    assert found.sides == ("tests.engines:Till", "tests.cancelling:BentTill")
    assert (found.steps, found.commands_replayed, found.monotone) == (at, 2 * at, False)
    assert "--against tests.engines:Till" in first.reproduce


def test_what_is_recorded_besides_the_commands_is_not_looked_at(tmp_path: Path) -> None:
    """The history is one of the engine that is bent; where the two part first is the same."""
    commands = [Command("add", {"by": number}) for number in range(1, 41)]
    where = recorded(tmp_path, "tests.cancelling:There", commands)
    found = find_divergence("tests.cancelling:Straight", **where, against="tests.cancelling:There")
    assert found.first_divergence is not None
    assert found.first_divergence.command_id == 11
    (field,) = found.first_divergence.fields
    assert (field.path, field.recorded, field.replayed) == ("/total", 67, 66)
    between = find_divergence(
        "tests.cancelling:Straight", **where, against="tests.cancelling:There", after=13, until=30
    )
    assert between.first_divergence is None
    assert between.exit_code == 0
    assert (
        find_divergence("tests.cancelling:Straight", **where, against="tests.cancelling:There", after=40).exit_code == 5
    )


@pytest.mark.parametrize("at", [26, 60])
def test_an_engine_without_tables_is_found_at_the_command_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Though its state is compared at every 25th command alone, and at the end."""
    monkeypatch.setenv("BENT_AT", str(at))
    commands = [Command("add", {"name": "xyz"[number % 3], "by": 1}) for number in range(COMMANDS)]
    where = recorded(tmp_path, "tests.cancelling:Listed", commands, digest_every=25)
    found = find_divergence("tests.cancelling:BentListed", **where, against="tests.cancelling:Listed")
    first = found.first_divergence
    assert first is not None
    assert (first.command_id, first.what) == (at, ("post_digest",))
    (field,) = first.fields
    name = "xyz"[(at - 1) % 3]
    assert (field.table, field.key) == ("totals", name)
    assert field.replayed == field.recorded + 1


def test_one_engine_against_itself_shows_what_the_hash_seed_decides(tmp_path: Path) -> None:
    commands = [Command("add", {"by": 1}), Command("names", {}), Command("names", {})]
    where = recorded(tmp_path, "tests.cancelling:SetOrder", commands)
    found = find_divergence("tests.cancelling:SetOrder", **where, against="tests.cancelling:SetOrder")
    assert found.first_divergence is not None
    assert found.first_divergence.command_id == 2
    assert found.first_divergence.cause == NOT_DETERMINISTIC


def test_engines_of_one_name_in_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from recovery import Cell, TableEngine, command\n"
        "class Shop(TableEngine):\n"
        "    name = 'shop'\n"
        "    sold = Cell(int, 0)\n"
        "    @command\n"
        "    def sell(self, context, pieces: int):\n"
        "        self.sold.value += pieces{}\n"
        "        return self.sold.value\n"
    )
    for folder, bent in (("old", ""), ("new", " + (pieces > 3)")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "two_shops.py").write_text(source.format(bent))
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    where = {"journal": f"sqlite:{tmp_path}/j.db"}
    monkeypatch.syspath_prepend(old)  # as it stays, where a process has loaded that engine before
    with Runtime.open("two_shops:Shop", **where, snapshots="memory:", snapshot_every=0) as runtime:
        list(runtime.execute_many(Command("sell", {"pieces": pieces}) for pieces in (1, 2, 3, 4, 5)))
    found = find_divergence("two_shops:Shop", **where, against="two_shops:Shop", app_dir=new, against_app_dir=old)
    first = found.first_divergence
    assert first is not None
    assert (first.command_id, first.what) == (4, ("post_digest", "response"))
    assert first.parts["response"] == {"recorded": 10, "replayed": 11}
    assert first.cause == LOGIC_CHANGED


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    where = recorded(tmp_path, "tests.engines:Till", deposits(1)[:3])
    with pytest.raises(EngineImportError, match="no_such"):
        find_divergence("tests.engines:Till", **where, against="no_such:Engine")
    with pytest.raises(UsageError, match="memory:x"):
        find_divergence("tests.engines:Till", "memory:x", against="tests.engines:Till")
    with pytest.raises(UsageError, match="two questions"):
        find_divergence("tests.engines:Till", **where, against="tests.engines:Till", other_journal=where["journal"])
    assert find_divergence(Till, **where, against="tests.engines:Till").first_divergence is None
