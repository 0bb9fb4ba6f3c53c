"""The page in a real browser: it renders, runs nothing, and loads nothing, even where the escaping is taken away."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from recovery.reports.page import html_page
from tests.unit.test_reports import HOSTILE, divergence, replayed

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# CI must have one: there these tests fail without it.
pytestmark = pytest.mark.skipif(BROWSER is None and not os.environ.get("CI"), reason="no Chromium on this machine")
ATTACK = "<script>document.title='taken'</script><img src='x' onerror=\"document.title='taken'\">"


def browse(folder: Path, page: str, *arguments: str) -> str:
    assert BROWSER is not None, "CI must have Chromium: apt-get install chromium"
    path = folder / "page.html"
    path.write_text(page)
    found = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
            f"--user-data-dir={folder / 'profile'}", *arguments, path.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return found.stdout


def test_the_page_is_shown_and_hostile_text_is_text(tmp_path: Path) -> None:
    shown = browse(tmp_path, html_page(replayed(divergence(HOSTILE + ATTACK)), title="replay"), "--dump-dom")
    assert "<title>replay: diverged</title>" in shown
    assert "<script" not in shown
    assert "<img" not in shown
    assert "&lt;script&gt;" in shown


def test_a_script_that_got_in_is_not_run(tmp_path: Path) -> None:
    page = html_page(replayed(divergence("HERE")), title="replay")
    broken = page.replace("HERE", ATTACK)
    assert "<title>replay: diverged</title>" in browse(tmp_path, broken, "--dump-dom")
    # The browser does run what the policy does not forbid, so it is the policy that holds.
    without = broken.replace("Content-Security-Policy", "X-Nothing")
    assert "<title>taken</title>" in browse(tmp_path, without, "--dump-dom")


def test_the_style_sheet_is_let_through(tmp_path: Path) -> None:
    page = html_page(replayed(divergence()), title="replay")
    pictures = []
    for name, content in (("styled", page), ("bare", page.replace("<style>", "<style>/* */"))):
        browse(tmp_path, content, "--window-size=800,900", f"--screenshot={tmp_path / name}.png")
        pictures.append((tmp_path / f"{name}.png").read_bytes())
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert pictures[0] != pictures[1], "a changed style sheet does not match its hash, so it is not used"
