"""``recovery bisect``: the first command at which two runs of one history part, and with revisions the first bad commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from recovery.cli.emitting import emit, emit_pytest_option
from recovery.cli.options import explain_option, json_option, quiet_option, range_options, shared, take
from recovery.cli.output import progress, say, show_json
from recovery.cli.publishing import publish, report_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from recovery.bisecting.bisected import Bisection
    from recovery.settings import Settings


@click.command("bisect", short_help="The first command that comes out otherwise.")
@shared
@range_options
@click.option("--against", metavar="MODULE:ATTR", help="Compare with another engine, instead of with the record.")
@click.option("--against-app-dir", metavar="DIR", help="Where the other engine's module is.  [default: --app-dir]")
@click.option("--other-journal", metavar="URL", help="Compare two recorded histories; no engine is run.")
@click.option("--other-stream", metavar="NAME", help="The stream within the other journal.  [default: --stream]")
@click.option("--good", metavar="REV", help="A commit whose code does what is recorded.")
@click.option("--bad", metavar="REV", help="A later commit whose code does not: the first such commit is looked for.")
@click.option("--jobs", type=click.IntRange(1), default=1, metavar="N", help="Replay in N processes.  [default: 1]")
@explain_option
@click.option("--git-bisect", is_flag=True, help="For `git bisect run`: what cannot be judged (2 to 5) exits 125.")
@report_options
@emit_pytest_option
@json_option
@quiet_option
def command(
    as_json: bool,
    quiet: bool,
    git_bisect: bool,
    html: str | None,
    junit_xml: str | None,
    emit_pytest: str | None,
    **asked: Any,
) -> int:
    """Name the first command that comes out otherwise, down to the field.

    Otherwise than it is recorded; with --against, than in that engine, which is then what is called recorded; with
    --other-journal, than in that journal, which is called replayed.  With --good and --bad the code of both commits, and
    of as many in between as are needed, is checked out into git worktrees and replays the history: the first bad commit
    is named.

    \b
    recovery bisect --engine shop.engine:Till --journal sqlite:till.db --jobs 4
    recovery bisect --against shop.old_engine:Till
    recovery bisect --journal sqlite:live.db --other-journal file:standby.journal
    recovery bisect --good v1.4 --bad HEAD
    git bisect run recovery bisect --git-bisect
    """
    if emit_pytest and (asked["other_journal"] or asked["good"]):
        raise click.UsageError("--emit-pytest writes a test of the code here, with the record or with --against")
    against, against_app_dir = asked["against"] or "", asked["against_app_dir"] or ""
    found = take(asked)
    bisection = _bisection(found, asked, git_bisect=git_bisect, quiet=quiet)
    document = bisection.to_dict()
    if as_json:
        show_json(document)
    else:
        click.echo(str(bisection))
    publish(document, title="recovery bisect", html=html, junit_xml=junit_xml, images=lambda: _images(found))
    emit(emit_pytest, bisection.first_divergence, found, against=against, against_app_dir=against_app_dir, quiet=quiet)
    return bisection.exit_code


def _bisection(found: Settings, asked: dict[str, Any], *, git_bisect: bool, quiet: bool) -> Bisection:
    """What was asked for."""
    from journal.errors import UsageError
    from recovery import open_journal
    from recovery.bisection import find_divergence
    from recovery.moments import command_at, until_at

    if git_bisect and (asked["good"] or asked["bad"]):
        raise UsageError("--git-bisect judges one revision, the one checked out", hint="leave out --good and --bad")
    with open_journal(found.journal, stream=found.stream) as journal:
        for name, moment in (("after", command_at), ("until", until_at)):
            asked[name] = None if asked[name] is None else moment(journal, asked[name])
    asked["explain_s"] = 0.0 if git_bisect else asked["explain_s"]
    with progress("replayed", quiet=quiet) as draw:
        return find_divergence(
            found.engine or None,
            found.journal,
            found.snapshots,
            stream=found.stream,
            app_dir=found.app_dir,
            progress=draw,
            told=lambda line: say(line, quiet=quiet),
            **asked,
        )


def _images(found: Settings) -> Iterator[int]:
    """The commands at which images stand."""
    from recovery import open_snapshots

    return (image.command_id for image in open_snapshots(found.snapshots, stream=found.stream).images())
