"""``recovery check --repair``: a torn tail is cut with a copy kept; what other evidence reaches is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recovery import Command, Runtime
from recovery.cli.main import run
from tests.engines import Till
from tests.unit.test_wal_store import Tail


def lived(folder: Path, *, image: bool) -> tuple[list[str], Tail]:
    """A journal whose last batch is torn, with an image of all of it or with none; and the options to name it."""
    journal, images = f"wal:{folder}/journal", f"dir:{folder}/images"
    with Runtime.open(Till, journal=journal, snapshots=images, snapshot_every=0) as till:
        till.execute(Command("deposit", {"number": "ada", "cents": 1}, entity_id="a"))
        till.execute(Command("deposit", {"number": "ada" * 80, "cents": 2}, entity_id="b"))
        if image:
            till.snapshot()
        till.close(snapshot=False)
    tail = Tail(f"{folder}/journal")
    tail.zero(*tail.sectors()[0])
    tail.mark_at(tail.last)
    return ["--journal", journal, "--snapshots", images], tail


def test_a_torn_tail_is_reported_and_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, tail = lived(tmp_path, image=False)
    assert run(["check", *place]) == 4
    out, err = capsys.readouterr()
    assert f"byte {tail.last}" in out
    assert "never wholly written" in out
    assert run(["check", "--repair", *place]) == 2
    assert "--yes" in capsys.readouterr().err
    assert run(["check", "--repair", "--yes", "--json", *place]) == 0
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["verdict"] == "sound"
    assert document["commands"] == 1
    assert Path(document["repaired"]).exists()
    assert "a copy is" in err
    assert run(["check", "--repair", "--yes", "--json", *place]) == 0
    assert "repaired" not in json.loads(capsys.readouterr().out)


def test_what_an_image_reaches_is_loss_and_is_not_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place, tail = lived(tmp_path, image=True)
    before = tail.segment.read_bytes()
    assert run(["check", "--repair", "--yes", *place]) == 4
    assert run(["run", "--engine", "tests.engines:Till", "/dev/null", *place]) == 4
    assert "the journal" in capsys.readouterr().err
    assert tail.segment.read_bytes() == before
    assert not list(tail.path.glob("*.torn"))
