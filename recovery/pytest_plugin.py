"""The pytest plugin: recorded history as tests.  A test fails where this code does not reproduce what was recorded.

Exported histories (``*.journal``, made by ``recovery export``) are collected like test files, one item a segment; so is a
journal named by ``--recovery-journal URL``.  Segments begin at the images that the history carries, and every
``recovery_segment_commands``.  The engine is the one of ``--recovery-engine``, the ini option ``recovery_engine`` (one
MODULE:ATTR a line where there are several; each history is replayed by the engine whose name it carries), ``RECOVERY_ENGINE``
or ``recovery.toml``.  Nothing here changes a history: what was recorded is what is expected.

Loaded in every run of pytest, so it imports nothing of ours until there is something to replay.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest

if TYPE_CHECKING:
    from _pytest._code.code import ExceptionInfo, TerminalRepr

    from journal.journal import Journal
    from recovery.report import Report

SUFFIX: Final = ".journal"

_Specs = dict[str, str]
_specs: Final = pytest.StashKey[_Specs]()
_heads: Final = pytest.StashKey[dict[str, int]]()
_WORKER_HEADS: Final = "recovery_heads"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and ini options."""
    group = parser.getgroup("recovery", "replay of recorded history")
    group.addoption(
        "--recovery-journal",
        action="append",
        default=[],
        metavar="URL",
        help="Replay this journal too, up to where it ends now; may be given more than once.",
    )
    group.addoption("--recovery-snapshots", metavar="URL", help="Where the images of --recovery-journal lie.")
    group.addoption("--recovery-stream", metavar="NAME", help="The stream within --recovery-journal.")
    group.addoption("--recovery-engine", metavar="MODULE:ATTR", help="The engine; before recovery_engine.")
    group.addoption("--recovery-evidence", metavar="DIR|off", help="Where evidence of a divergence is kept.")
    parser.addini(
        "recovery_engine", "The engine as MODULE:ATTR; several, one a line, are told apart by their names.", "linelist"
    )
    parser.addini(
        "recovery_segment_commands", "How many commands one test replays at most; 0: from image to image.", default="0"
    )


class _Source(NamedTuple):
    """Where a history is."""

    journal: str
    snapshots: str | None
    stream: str
    until: int | None

    def opened(self) -> Journal:
        from journal.journal import Journal
        from journal.urls import open_reader

        return Journal(open_reader(self.journal), self.stream)


class ReplayFailed(Exception):
    """A segment did not verify; ``report`` says what was found, ``evidence`` where a bundle of it is kept."""

    def __init__(self, report: Report, evidence: str | None) -> None:
        super().__init__(str(report) if evidence is None else f"{report}\n  bundle: {evidence}")
        self.report = report


class HistoryFile(pytest.File):
    """An exported history."""

    def collect(self) -> Iterator[ReplayItem]:
        """One item a segment; where the file cannot be read, one that says so."""
        from journal.errors import RecoveryError
        from journal.urls import open_history

        url = f"file:{os.path.relpath(self.path)}"
        try:
            with open_history(str(self.path)) as journal:
                source = _Source(url, url, journal.stream, None)
        except RecoveryError as error:
            yield ReplayItem.from_parent(self, name="history", source=None, failure=error)
            return
        yield from _items(self, source)


class LiveJournal(pytest.Collector):
    """A journal named by ``--recovery-journal``."""

    def __init__(self, *, source: _Source, **rest: Any) -> None:
        super().__init__(**rest)
        self._source = source

    def collect(self) -> Iterator[ReplayItem]:
        """One item a segment."""
        yield from _items(self, self._source)


class ReplayItem(pytest.Item):
    """The replay of one segment."""

    def __init__(
        self,
        *,
        source: _Source | None,
        engine: str = "",
        after: int = 0,
        until: int = 0,
        failure: Exception | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self._source = source
        self._engine = engine
        self._after = after
        self._until = until
        self._failure = failure

    def runtest(self) -> None:
        """Replay, and raise ReplayFailed unless all of it verified."""
        from recovery.verification import verify

        if self._failure is not None:
            raise self._failure
        assert self._source is not None
        spec = _spec_of(self.config, self._engine)
        report = verify(
            spec,
            self._source.journal,
            self._source.snapshots,
            stream=self._source.stream,
            after=self._after,
            until=self._until,
            app_dir=_app_dir(self.config),
        )
        self.user_properties += [
            ("recovery_verdict", report.verdict),
            ("recovery_commands", str(report.commands)),
            *(("recovery_divergence", str(found.command_id)) for found in report.divergences),
        ]
        if report.verdict != "verified":
            raise ReplayFailed(report, self._evidence(report, spec))

    def _evidence(self, report: Report, spec: str) -> str | None:
        """The bundle that is kept of the first divergence."""
        from recovery.evidence import keep_reported
        from recovery.settings import settings

        assert self._source is not None
        found = settings(
            engine=spec,
            app_dir=_app_dir(self.config),
            journal=self._source.journal,
            snapshots=self._source.snapshots,
            stream=self._source.stream,
        )
        folder = self.config.getoption("recovery_evidence")
        return keep_reported(report, found, where="pytest", folder=folder)

    def repr_failure(self, excinfo: ExceptionInfo[BaseException], style: Any = None) -> str | TerminalRepr:
        """The finding: command, fields, both sides, and what to type to see it again."""
        from journal.errors import RecoveryError

        error = excinfo.value
        if isinstance(error, ReplayFailed):
            return str(error)
        if isinstance(error, RecoveryError):
            return f"{error}\n  hint: {error.hint}" if error.hint else str(error)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        """The history and the segment."""
        return self.path, None, self.name


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> HistoryFile | None:
    """``*.journal``, but for ``test_NAME.journal`` beside ``test_NAME.py``: that is the test's (reducing/emitted_test.py)."""
    if file_path.suffix != SUFFIX or (file_path.name.startswith("test_") and file_path.with_suffix(".py").exists()):
        return None
    return HistoryFile.from_parent(parent, path=file_path)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the items of ``--recovery-journal``: they are of no file."""
    for url in config.getoption("recovery_journal"):
        from journal.urls import redacted

        name = redacted(url)
        items += LiveJournal.from_parent(session, name=name, nodeid=name, source=_live(config, url)).collect()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist: every worker must collect the same, though a live journal goes on."""
    node.workerinput[_WORKER_HEADS] = {
        url: _live(node.config, url).until for url in node.config.getoption("recovery_journal")
    }


def _live(config: pytest.Config, url: str) -> _Source:
    """A live journal up to where it ended when this run began."""
    from recovery.settings import settings

    found = settings(
        journal=url, snapshots=config.getoption("recovery_snapshots"), stream=config.getoption("recovery_stream")
    )
    heads = config.stash.setdefault(_heads, dict(getattr(config, "workerinput", {}).get(_WORKER_HEADS, {})))
    source = _Source(found.journal, found.snapshots, found.stream, None)
    if url not in heads:
        with source.opened() as journal:
            heads[url] = journal.head().command_id
    return source._replace(until=heads[url])


def _items(parent: pytest.Collector, source: _Source) -> Iterator[ReplayItem]:
    """The segments of a history as items; one that fails where there is none or it cannot be read."""
    from journal.errors import NothingVerified, RecoveryError

    try:
        every = int(parent.config.getini("recovery_segment_commands"))
        with source.opened() as journal:
            engine, cuts = journal.identity.engine, _cuts(journal, source, every)
        if len(cuts) < 2:
            raise NothingVerified(f"{source.journal} holds no command, so there is nothing to verify")
    except (RecoveryError, ValueError) as error:
        yield ReplayItem.from_parent(parent, name="history", source=None, failure=error)
        return
    for after, until in itertools.pairwise(cuts):
        yield ReplayItem.from_parent(
            parent, name=f"{after + 1}-{until}", source=source, engine=engine, after=after, until=until
        )


def _cuts(journal: Journal, source: _Source, every: int) -> list[int]:
    """Where segments begin and end: the start, the images, every so many commands, the end."""
    from recovery.images import open_catalog

    start, last = journal.start().command_id, journal.head().command_id
    last = last if source.until is None else min(last, source.until)
    cuts = {start, last}
    catalog = open_catalog(source.snapshots, source.stream)
    if catalog is not None:
        images = catalog.images(journal.identity.journal_id)
        cuts.update(image.command_id for image in images if image.state == "good")
    if every > 0:
        cuts.update(range(start + every, last, every))
    return sorted(cut for cut in cuts if start <= cut <= last)


def _spec_of(config: pytest.Config, name: str) -> str:
    """The engine's MODULE:ATTR among those that are named; UsageError where there is none of this name."""
    from journal.errors import UsageError

    specs = config.stash.get(_specs, None)
    if specs is None:
        specs = config.stash[_specs] = _named_engines(config)
    if name not in specs:
        named = ", ".join(f"{spec} is {found!r}" for found, spec in specs.items()) or "none is named"
        raise UsageError(
            f"the history is of the engine {name!r}, and of the engines {named}",
            hint="set recovery_engine = MODULE:ATTR in pytest's ini file, or say --recovery-engine MODULE:ATTR",
        )
    return specs[name]


def _named_engines(config: pytest.Config) -> _Specs:
    """MODULE:ATTR by the engine's name."""
    from recovery.loading import engine_factory
    from recovery.settings import VARIABLES, configured

    given = config.getoption("recovery_engine")
    lines = [given] if given else config.getini("recovery_engine")
    if not lines:
        one = os.environ.get(VARIABLES["engine"]) or configured(str(config.rootpath)).get("engine")
        lines = [one] if one else []
    app_dir = _app_dir(config)
    return {engine_factory(spec, app_dir=app_dir)().name: spec for spec in lines}


def _app_dir(config: pytest.Config) -> str:
    """Where the engine's module is looked for: as configured, else pytest's root."""
    from recovery.settings import VARIABLES, configured

    found = os.environ.get(VARIABLES["app_dir"]) or configured(str(config.rootpath)).get("app_dir") or "."
    return os.path.relpath(config.rootpath / found)
