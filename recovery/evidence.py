"""Evidence: what is needed to look into a mismatch elsewhere, in one zip file, kept when it is met.

::

    README.txt         what it is of, and the line to type
    report.json        the finding: command, fields, both sides, cause
    rows.json          the rows that the command touched: before it, as recorded, as replayed
    environment.json   who recorded (the epoch), and who did not reproduce it: code, Python, libraries, hash seed, locale, machine
    history.journal    the commands around, with the image that they are replayed from

It is kept in ``.recovery/evidence``, or where ``RECOVERY_EVIDENCE`` says; ``off`` keeps none.  A finding has one name, so that
meeting it again writes nothing.  Keeping evidence never fails and never hides the mismatch: what goes wrong is logged.  A
bundle is at most about ``BYTES_MAX``: the image is left out first, then the commands around, and README.txt says so.  Where
``RECOVERY_REDACT`` names a hook (recovery/redaction.py), payloads are replaced by what it gives, and there is no image.
"""

from __future__ import annotations

import importlib.metadata
import json
import locale
import logging
import os
import platform
import shlex
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import xxhash

from journal import values
from journal.errors import CorruptionError, DivergenceError, RecoveryError
from journal.files import write_whole
from journal.journal import Journal
from journal.urls import open_reader
from recovery.divergence import ABSENT, Divergence, sides
from recovery.exporting import export_history
from recovery.history import rows_at
from recovery.images import open_catalog
from recovery.json_values import to_json
from recovery.loading import code_revision, engine_factory, engine_spec
from recovery.plain_text import visible
from recovery.redaction import Redact, redactor
from recovery.report import SCHEMA_VERSION, Report
from recovery.settings import Settings
from recovery.stepper import Factory
from recovery.version import VERSION
from snapshots.catalog import Catalog

VARIABLE: Final = "RECOVERY_EVIDENCE"
REDACT_VARIABLE: Final = "RECOVERY_REDACT"
FOLDER: Final = ".recovery/evidence"
OFF: Final = "off"
BYTES_MAX: Final = 64 * 2**20
BEFORE: Final = 50
AFTER: Final = 10
_IMAGE_TOO_LARGE: Final = "the image: it was too large"
NEAR: Final = 2_000
"""An image so many commands before is taken as it is; else one is made closer by."""

logger = logging.getLogger("recovery")


def evidence_folder(given: str | None = None) -> str | None:
    """Where bundles are kept: what is given, else the environment, else the default; None for "off"."""
    found = given or os.environ.get(VARIABLE) or FOLDER
    return None if found == OFF else found


def keep_evidence(
    finding: Divergence | DivergenceError,
    *,
    where: str,
    factory: Factory,
    journal: Journal,
    catalog: Catalog | None,
    app_dir: str = ".",
    folder: str | None = None,
    redact: str = "",
) -> str | None:
    """Keep a bundle of a mismatch met ``where`` ("replay", "cold start", "live", "pytest"); its path, None where none was kept.

    Never raises.
    """
    try:
        place = evidence_folder(folder)
        if place is None or journal.store.location.startswith("memory:"):
            return None
        hook = redactor(redact or os.environ.get(REDACT_VARIABLE, ""))
        return _Bundle(finding, where, factory, journal, catalog, app_dir, hook).written(place)
    except Exception as error:  # whatever it is, the mismatch is what counts
        logger.warning("no evidence was kept: %s: %s", type(error).__name__, error)
        return None


def keep_live_evidence(
    error: DivergenceError,
    factory: Factory,
    journal: str | None,
    snapshots: str | None,
    stream: str,
    app_dir: str = ".",
) -> None:
    """The same beside a runtime that has stopped, on a thread of its own; nothing where its journal has no URL."""
    if journal is None or evidence_folder() is None:
        return

    def keep() -> None:
        try:
            with Journal(open_reader(journal), stream) as reader:
                catalog = open_catalog(snapshots, stream)
                keep_evidence(error, where="live", factory=factory, journal=reader, catalog=catalog, app_dir=app_dir)
        except RecoveryError as failed:
            logger.warning("no evidence was kept: %s", failed)

    threading.Thread(target=keep, name="recovery-evidence").start()


def keep_reported(
    report: Report, settings: Settings, *, where: str = "replay", folder: str | None = None, redact: str = ""
) -> str | None:
    """Keep a bundle of the first divergence of a report, if any; its path.  Never raises."""
    if not report.divergences or evidence_folder(folder) is None or settings.journal.startswith("memory:"):
        return None
    try:
        factory = engine_factory(settings.engine, app_dir=settings.app_dir)
        with Journal(open_reader(settings.journal), settings.stream) as reader:
            return keep_evidence(
                report.divergences[0],
                where=where,
                factory=factory,
                journal=reader,
                catalog=open_catalog(settings.snapshots, settings.stream),
                app_dir=settings.app_dir,
                folder=folder,
                redact=redact,
            )
    except RecoveryError as error:
        logger.warning("no evidence was kept: %s", error)
        return None


class _Bundle:
    """One bundle being made."""

    def __init__(
        self,
        finding: Divergence | DivergenceError,
        where: str,
        factory: Factory,
        journal: Journal,
        catalog: Catalog | None,
        app_dir: str,
        redact: Redact | None,
    ) -> None:
        found = finding.evidence if isinstance(finding, DivergenceError) else finding
        self._divergence = found if isinstance(found, Divergence) else None
        self._error = finding if isinstance(finding, DivergenceError) else None
        self._where = where
        self._journal = journal
        self._catalog = catalog
        self._app_dir = app_dir
        self._redact = redact
        self._identity = journal.identity
        self._engine = engine_spec(factory) or ""
        self._revision = code_revision(factory)
        self._last = journal.head().command_id
        self.command_id = self._command_id()
        self._left_out: list[str] = []

    def _command_id(self) -> int:
        if self._divergence is not None:
            return self._divergence.command_id
        position = None if self._error is None else self._error.position
        return position if isinstance(position, int) and 0 < position <= self._last else self._last

    def written(self, folder: str) -> str:
        """Write the bundle unless it is there; its path."""
        path = os.path.join(folder, self._name())
        if os.path.exists(path):
            return path
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".evidence-", dir=folder) as scratch:
            bundle = os.path.join(scratch, "bundle.zip")
            with zipfile.ZipFile(bundle, "w", zipfile.ZIP_DEFLATED) as file:
                history = self._history(scratch)
                if history:
                    file.write(history, "history.journal", zipfile.ZIP_STORED)
                for name, document in self._documents():
                    file.writestr(
                        name, json.dumps({"schema_version": SCHEMA_VERSION} | document, ensure_ascii=False, indent=1)
                    )
                file.writestr("README.txt", self._readme(path, bool(history)))
            with suppress(FileExistsError), open(bundle, "rb") as whole:
                write_whole(path, iter(lambda: whole.read(2**20), b""), over=False)
        return path

    def _name(self) -> str:
        """The same for the same finding of the same code on the same journal."""
        divergence = self._divergence
        what = (
            [str(self._error)]
            if divergence is None
            else [divergence.cause, *divergence.what, *map(str, divergence.fields)]
        )
        parts = [str(self._identity.journal_id), str(self.command_id), self._revision, self._where, *what]
        mark = xxhash.xxh3_64_hexdigest("\0".join(parts).encode("utf-8", "replace"))
        engine = "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in self._identity.engine)
        return f"{engine}-{self.command_id}-{self._where.replace(' ', '-')}-{mark}.zip"

    # The history

    def _history(self, scratch: str) -> str:
        """Export the commands around, with the image they begin from where that is not too large; empty for none."""
        path = os.path.join(scratch, "history.journal")
        before, start = max(self.command_id - 1, 0), self._journal.start().command_id
        around = self._begin(before, start)
        tries = [(around, True), (max(before - BEFORE, start), False), (before, False)]
        for after, with_image in tries:
            try:
                size = self._export(path, after, with_image=with_image)
            except CorruptionError as error:
                self._left_out.append(f"the image: {error}")
                continue
            if size <= BYTES_MAX:
                return path
            self._left_out.append(_IMAGE_TOO_LARGE)
        self._left_out.append("the history")
        return ""

    def _export(self, path: str, after: int, *, with_image: bool) -> int:
        if self._redact is not None and not self._left_out:
            self._left_out.append("the image: payloads are redacted")
        exported = export_history(
            self._journal,
            self._catalog,
            path,
            after=after,
            until=min(self.command_id + AFTER, self._last),
            with_image=with_image,
            engine=self._engine,
            app_dir=self._app_dir,
            over=True,
            redact=self._redact,
        )
        return exported.bytes

    def _begin(self, before: int, start: int) -> int:
        """Where the history begins: at an image that is near, else a few commands before."""
        if before <= NEAR and not start:
            return 0
        images = [] if self._catalog is None else self._catalog.images(self._identity.journal_id)
        near = [
            image.command_id
            for image in images
            if image.state == "good" and before - NEAR <= image.command_id <= before
        ]
        return max([*near, start, before - BEFORE]) if not near else max(max(near), start)

    # The documents

    def _documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "report.json", {"where": self._where, "engine": self._identity.engine, **self._finding()}
        rows = self._rows()
        if rows:
            yield "rows.json", {"rows": rows}
        entry = self._journal.entry(self.command_id)
        epochs = {epoch.number: epoch for epoch in self._journal.epochs()}
        recorded = {} if entry is None or entry.epoch not in epochs else epochs[entry.epoch]._asdict()
        recorded.pop("schema", None)
        yield "environment.json", {"recorded_by": recorded, "replayed_by": _environment(self._revision)}

    def _finding(self) -> dict[str, Any]:
        if self._divergence is not None and self._redact is None:
            return {"divergence": self._divergence.to_dict()}
        if self._divergence is not None:
            kept = ("command_id", "request_id", "type", "what", "cause", "tables")
            document = self._divergence.to_dict()
            return {"divergence": {name: document[name] for name in kept}, "redacted": True}
        assert self._error is not None
        said = "" if self._redact else self._error.message
        return {"error": type(self._error).__name__, "message": said, "command_id": self.command_id}

    def _rows(self) -> list[dict[str, Any]]:
        """The rows that differ or were written: before the command where that is known, recorded and replayed."""
        entry = self._journal.entry(self.command_id)
        found: dict[tuple[str, str], dict[str, Any]] = {}
        changes = [] if entry is None else entry.changes or []
        tables = frozenset(change.table for change in changes)
        befores = {} if self._left_out or not tables else self._before(tables)
        for change in changes:
            row = ABSENT if change.deleted else self._shown("row", change.row)
            document = {"table": change.table, "key": to_json(self._shown("key", change.key)), **sides(row, ABSENT)}
            before = befores.get(change.table, {}).get(change.key_bytes)
            if before is not None:
                document["before"] = to_json(before)
            found[change.table, repr(change.key)] = document
        for difference in () if self._divergence is None else self._divergence.fields:
            document = found.setdefault(
                (difference.table, repr(difference.key)),
                {"table": difference.table, "key": to_json(self._shown("key", difference.key))},
            )
            both = (difference.recorded, difference.replayed)
            shown = [side if side is ABSENT else self._shown("row", side) for side in both]
            document.setdefault("fields", []).append({"field": difference.field, **sides(*shown)})
        return list(found.values())

    def _before(self, tables: frozenset[str]) -> dict[str, dict[bytes, Any]]:
        if self._identity.changes != "rows" or not self.command_id:
            return {}
        try:
            rows = rows_at(self._journal, self._catalog, self.command_id - 1, tables=tables)
        except RecoveryError:  # rows changed behind the framework do not add up, which is what is being reported
            return {}
        return {table: {key: values.decode_bare(row) for key, row in pairs.items()} for table, pairs in rows.items()}

    def _shown(self, what: str, value: Any) -> Any:
        return value if self._redact is None else self._redact(what, value)

    def _readme(self, path: str, history: bool) -> str:
        name = os.path.basename(path)
        said = self._divergence if self._error is None or self._divergence is not None else self._error
        lines = [f"A mismatch of the engine {self._identity.engine}, met in: {self._where}.", ""]
        lines += [] if self._redact else [*map(visible, str(said).splitlines()), ""]
        lines += [visible(f"Left out: {line}.") for line in dict.fromkeys(self._left_out)]
        if history and not self._left_out:
            folder = name.removesuffix(".zip")
            words = ["recovery", "replay", "--journal", f"file:{folder}/history.journal"]
            words += ["--engine", self._engine] if self._engine else ["--engine", "MODULE:ATTR"]
            words += ["--stream", self._identity.stream] if self._identity.stream != "main" else []
            words += ["--until", str(self.command_id)]
            lines += ["To see it again, where the engine's module can be imported:", ""]
            lines += [f"    python -m zipfile -e {shlex.quote(name)} {shlex.quote(folder)} && {shlex.join(words)}"]
        elif history:
            lines += ["history.journal can be read: recovery log --journal file:history.journal"]
        return "\n".join([*lines, ""])


def _environment(revision: str) -> dict[str, Any]:
    """What may have made the difference, besides the code.  Of the environment only what is named here: some of it is secret."""
    named = ("PYTHONHASHSEED", "PYTHONOPTIMIZE", "TZ", "LANG", "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_NUMERIC")
    return {
        "recovery": VERSION,
        "code_revision": revision,
        "python": sys.version,
        "implementation": platform.python_implementation(),
        "libraries": {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()},
        "hash_seed": os.environ.get("PYTHONHASHSEED", "random"),
        "variables": {name: os.environ[name] for name in named if name in os.environ},
        "locale": list(locale.getlocale()),
        "time_zone": list(time.tzname),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "host": platform.node(),
        "kept_at_ms": time.time_ns() // 1_000_000,
    }
