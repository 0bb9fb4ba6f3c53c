"""``recovery outbox``: events to a command's stdin, in order, at least once."""

from __future__ import annotations

import signal
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from recovery.cli.options import quiet_option, shared, take
from recovery.cli.output import say

if TYPE_CHECKING:
    from journal.outbox import Outbox
    from recovery.settings import Settings


@click.command("outbox", short_help="Hand events to a command, in order, at least once.")
@click.argument("arguments", metavar="[--] [COMMAND…]", nargs=-1, type=click.UNPROCESSED)
@shared
@click.option("--name", metavar="NAME", required=True, help="Whose cursor: each name gets every event.")
@click.option("--follow/--once", default=False, help="Go on as events come, or end with the last.  [default: --once]")
@click.option("--after", metavar="N|TIME|head", help="Where a new cursor begins.  [default: 0, the beginning]")
@click.option("--batch-max", type=click.IntRange(1), default=500, show_default=True, help="Messages a run of COMMAND.")
@click.option("--timeout-s", type=click.FloatRange(0.1), default=300.0, show_default=True, help="Seconds for a run.")
@click.option(
    "--attempts-max", type=click.IntRange(1), default=10, show_default=True, help="Runs for one batch before giving up."
)
@click.option("--reset", is_flag=True, help="Put the cursor to --after, whatever it says; without COMMAND do no more.")
@click.option("--forget", is_flag=True, help="Take the cursor away: nothing waits for it any more.")
@quiet_option
def command(
    arguments: tuple[str, ...],
    name: str,
    follow: bool,
    after: str | None,
    batch_max: int,
    timeout_s: float,
    attempts_max: int,
    reset: bool,
    forget: bool,
    quiet: bool,
    **rest: Any,
) -> int:
    """Hand every event to COMMAND: JSON lines on its stdin, in order, at least once, from a durable cursor.

    COMMAND is run once a batch, and has accepted the batch when it has read all of its stdin and exits 0.  Whatever else happens,
    the batch is sent again, with pauses, and after --attempts-max times the outbox stops with exit code 3; run again, it goes on
    where it was.  Each line carries command_id and index, which name the event.  Runs beside the engine.

    \b
    recovery outbox --name mail --follow -- python send_mail.py
    recovery outbox --name lake --once -- sh -c 'cat >> events.jsonl'
    recovery outbox --name mail --reset --after 4711
    """
    from journal.errors import UsageError
    from recovery.message_lines import CommandConsumer

    found = take(rest)
    # What is shipped lies in the target, and the cursors beside it.
    found = found._replace(journal=found.ship_to or found.journal)
    if not (arguments or reset or forget) or (forget and (arguments or reset)):
        raise UsageError("an outbox needs a COMMAND, or --reset, or --forget alone", hint="run: recovery outbox --help")
    if reset or forget:
        _set(found, name, after, remove=forget)
        say(f"outbox {name}: {'forgotten' if forget else f'goes on after {after or 0}'}", quiet=quiet)
        if not arguments:
            return 0
    from recovery import Outbox

    with Outbox(
        found.journal,
        name=name,
        deliver_batch=CommandConsumer(arguments, timeout_s=timeout_s),
        stream=found.stream,
        after=0 if reset else _position(found, after),
        batch_max=batch_max,
        attempts_max=attempts_max,
    ) as outbox:
        _stop_on_signals(outbox)
        if follow:
            outbox.run()
        else:
            say(f"outbox {name}: {outbox.run_once()} messages accepted", quiet=quiet)
    return 0


def _position(found: Settings, text: str | None) -> int:
    """A command id as typed: digits, a time, or the journal's head."""
    from recovery import open_journal
    from recovery.moments import command_at

    if text is None or text == "0":
        return 0
    with open_journal(found.journal, stream=found.stream) as journal:
        return journal.head().command_id if text == "head" else command_at(journal, text)


def _set(found: Settings, name: str, after: str | None, *, remove: bool) -> None:
    from journal.cursors import check_name
    from journal.delivery import new_cursor
    from journal.urls import open_cursors
    from recovery import open_journal

    check_name(name)
    position = 0 if remove else _position(found, after)
    hold = open_cursors(found.journal).hold(found.stream, name)
    try:
        if remove:
            hold.remove()
            return
        with open_journal(found.journal, stream=found.stream) as journal:
            hold.write(new_cursor(journal, name, position).pack())
    finally:
        hold.release()


def _stop_on_signals(outbox: Outbox) -> None:
    """The first signal ends it after the batch under way; a second interrupt ends it at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        outbox.stop()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
