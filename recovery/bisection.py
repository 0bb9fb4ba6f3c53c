"""bisect(): the first command at which two runs of one history part, down to the field.

Four questions, by what is given besides the engine and its journal:

* nothing: at which command does this code first do other than what is recorded?
* ``against``: at which recorded command do two engines first do two things?  (bisecting/parted_engines.py)
* ``other_journal``: at which command do two recorded histories part?  (bisecting/parted_journals.py)
* ``good`` and ``bad``: which commit of the engine's repository is the first that does other than what is recorded, and at
  which command?  (bisecting/first_bad_commit.py)

Halving alone proves something only where the evidence is monotone.  A chain is: once two differ they differ for good.  What an
engine does is not: a bug may show once, and a state that went astray may come back.  So the *first* divergence of an engine
is what it is said to be only if every command before it was executed and compared.  That is done in segments between images,
several at a time (``jobs``); the earliest segment that diverges wins, and those behind it are stopped as soon as one before
them has.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from journal.errors import CorruptionError, NothingVerified, UsageError
from journal.journal import Journal
from journal.urls import redacted
from recovery.bisecting.bisected import RECORD, Bisection
from recovery.divergence import Divergence
from recovery.explaining.explanation import QUICK_S
from recovery.loading import EngineArgument, engine_factory, engine_spec
from recovery.plain_text import visible
from recovery.report import DAMAGED, DIVERGED, NOTHING
from recovery.verification import Progress, verify
from snapshots.store import SnapshotStore


def bisect(
    engine: EngineArgument | None,
    journal: str | Journal,
    snapshots: str | SnapshotStore | None = None,
    *,
    against: str | None = None,
    other_journal: str | Journal | None = None,
    good: str | None = None,
    bad: str | None = None,
    jobs: int = 1,
    **options: Any,
) -> Divergence | None:
    """The first divergence; None where there is none.  The arguments are ``find_divergence``'s.

    CorruptionError where damage leaves it unknown, NothingVerified where there was nothing to compare.
    """
    found = find_divergence(
        engine,
        journal,
        snapshots,
        against=against,
        other_journal=other_journal,
        good=good,
        bad=bad,
        jobs=jobs,
        **options,
    )
    if found.verdict == DAMAGED and not (found.first_divergence is not None and found.proven):
        raise CorruptionError(f"what comes first is not known: {found.damage}", hint="run: recovery check")
    if found.verdict == NOTHING:
        raise NothingVerified("there was nothing to compare: the range holds no command")
    return found.first_divergence


def find_divergence(
    engine: EngineArgument | None,
    journal: str | Journal,
    snapshots: str | SnapshotStore | None = None,
    *,
    against: str | None = None,
    against_app_dir: str | None = None,
    other_journal: str | Journal | None = None,
    other_stream: str | None = None,
    good: str | None = None,
    bad: str | None = None,
    jobs: int = 1,
    stream: str = "main",
    after: int | None = None,
    until: int | None = None,
    app_dir: str = ".",
    explain_s: float = QUICK_S,
    progress: Progress | None = None,
    told: Callable[[str], None] = lambda line: None,
) -> Bisection:
    """What ``bisect`` finds, with how it was found and what it rests on.

    ``after`` and ``until`` are the range looked at.  Two engines and two revisions run in processes of their own, so they are
    named by strings, as the journal and its images then must be; ``against_app_dir`` is where the other engine's module is
    looked for, where it is elsewhere.  ``good`` and ``bad`` are names of commits in the git repository that holds ``app_dir``.
    Two journals need no engine; with one, rows have the names of their fields.  ``explain_s`` is about how long it is looked for
    why, in processes of its own, where the engine is compared with the record; 0 for not at all.
    ``progress`` is told (done, all); ``told`` hears, in a line, of each revision that was judged, and of a divergence before it
    is looked for why.
    """
    asked = [name for name, given in (("against", against), ("other_journal", other_journal)) if given is not None]
    asked += ["good"] if good is not None or bad is not None else []
    if len(asked) > 1:
        raise UsageError(f"{asked[0]} and {asked[1]} are two questions", hint="ask one at a time")
    if (good is None) != (bad is None):
        raise UsageError("one revision is given", hint="name both: --good REV --bad REV")
    began = time.perf_counter()
    there: dict[str, Any] = {"stream": stream, "after": after, "until": until, "app_dir": app_dir}
    images = snapshots if isinstance(snapshots, str) else None
    if other_journal is not None:
        from recovery.bisecting.parted_journals import compare_journals

        found = compare_journals(journal, other_journal, other_stream=other_stream, engine=engine, **there)
    elif engine is None:
        raise UsageError("no engine is named", hint="say --engine MODULE:ATTR, or set RECOVERY_ENGINE")
    elif against is not None:
        from recovery.bisecting.parted_engines import compare_engines

        named = _names(engine, journal)
        found = compare_engines(
            named[0], against, named[1], images, against_app_dir=against_app_dir, progress=progress, **there
        )
    elif good is not None and bad is not None:
        from recovery.bisecting.first_bad_commit import find_first_bad_commit

        found = find_first_bad_commit(
            *_names(engine, journal), images, good=good, bad=bad, jobs=jobs, progress=progress, told=told, **there
        )
    else:
        found = _in_record(engine, journal, snapshots, progress, told, **there, jobs=jobs, explain_s=explain_s)
    return replace(found, seconds=time.perf_counter() - began)


def _names(engine: EngineArgument, journal: str | Journal) -> tuple[str, str]:
    """The engine and the journal as other processes are given them; UsageError where they cannot find it."""
    if not isinstance(engine, str):
        engine = engine_spec(engine_factory(engine)) or engine
    for what, given in (("engine", engine), ("journal", journal)):
        if not isinstance(given, str) or given.startswith("memory:"):
            raise UsageError(
                f"the code runs in processes of its own, which cannot find this {what}: {given!r}",
                hint='name the engine as "module:attr", and the journal by the URL of a file or a server',
            )
    return str(engine), str(journal)


def _in_record(
    engine: EngineArgument,
    journal: str | Journal,
    snapshots: str | SnapshotStore | None,
    progress: Progress | None,
    told: Callable[[str], None],
    **options: Any,
) -> Bisection:
    """The first command that this code does otherwise than it is recorded."""
    reached, began, found_after = 0, time.perf_counter(), dict[str, float]()

    def tell(done: int, everything: int) -> None:
        nonlocal reached
        reached = done
        if progress is not None:
            progress(done, everything)

    def diverged(first: Divergence) -> None:
        found_after["found_after_s"] = round(time.perf_counter() - began, 3)
        what = ", ".join(first.what)
        why = "; looking for why" if options["explain_s"] else ""
        told(f"command {first.command_id} ({visible(first.type)}) diverges in {what}{why}")

    report = verify(
        engine, journal, snapshots, progress=tell, diverged=diverged, explain=options["explain_s"] > 0, **options
    )
    first = report.divergences[0] if report.divergences else None
    before = report.commands if first is None else first.command_id - report.first
    # Each command of the range up to the divergence was replayed, or what is missing is named under not_checked.
    proven = report.verdict != NOTHING and (first is None or report.commands == before + 1)
    proven = proven and (report.verdict != DAMAGED or first is not None)
    if report.verdict == NOTHING:
        evidence = "no command was compared"
    elif proven:
        evidence = (
            f"each of the {before} commands {'before it ' if first else ''}was replayed, and agrees with its record"
        )
    else:
        evidence = "not every command before it could be replayed"
    notes: tuple[str, ...] = ()
    if first is not None and "post_digest" in first.what and report.checked["post_digest"] <= before:
        notes = (
            "the state is compared at some commands alone, and may have gone astray at any since the last of them; "
            "--against an engine that does right names the command itself",
        )
    return Bisection(
        RECORD,
        DIVERGED if first is not None and proven else report.verdict,
        first,
        max(report.commands, reached - report.first + 1) if report.commands else 0,
        report.segments,
        False,
        evidence,
        (
            f"the record in {redacted(journal) if isinstance(journal, str) else journal.store.location}",
            f"{engine if isinstance(engine, str) else report.engine} as it is here",
        ),
        proven=proven,
        notes=notes,
        not_checked=tuple(line for line in report.not_checked if first is None or not line.endswith("stopped there")),
        damage=report.damage,
        engine=report.engine,
        details={**found_after},
    )
