"""``recovery``: the group of verbs, and the one place where errors become one line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Final

import click

from recovery.cli.output import show_error
from recovery.version import VERSION

VERBS: Final = {
    "run": "recovery.cli.run",
    "status": "recovery.cli.status",
    "log": "recovery.cli.log",
    "replay": "recovery.cli.replay",
    "bisect": "recovery.cli.bisect",
    "state": "recovery.cli.state",
    "diff": "recovery.cli.diff",
    "snapshot": "recovery.cli.snapshot",
    "export": "recovery.cli.export",
    "import": "recovery.cli.import_",
    "check": "recovery.cli.check",
    "audit": "recovery.cli.audit",
    "outbox": "recovery.cli.outbox",
    "migrate": "recovery.cli.migrate",
    "backfill": "recovery.cli.backfill",
    "doctor": "recovery.cli.doctor",
    "demo": "recovery.cli.demo",
}

EPILOG: Final = """\b
Exit codes:
  0  verified, or done            3  could not run: unreachable, in use, missing, engine import failed
  1  a divergence was found       4  damaged or lost
  2  the call was wrong           5  nothing, or with --strict not everything, was verified
  130  interrupted

Settings come from the option, its environment variable, recovery.toml or [tool.recovery], the default.
"""

CANNOT_BE_JUDGED: Final = 125


class Verbs(click.Group):
    """Imports a verb when it is asked for, so that ``--help`` and each verb start fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of a life."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command; None for an unknown one."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(VERBS[cmd_name]).command
        return command


@click.command(cls=Verbs, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="recovery")
def recovery() -> None:
    """Record every command of a deterministic engine, restart it where it was, and prove that it is the same."""


def main() -> None:
    """The entry point.  Exits with the code of the verb, or of the error's family."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of a command line; output and errors are written."""
    code = _run(arguments)
    # To `git bisect run` a revision that cannot be judged is neither good nor bad, whatever the reason.
    return CANNOT_BE_JUDGED if "--git-bisect" in arguments and code in range(2, 6) else code


def _run(arguments: list[str]) -> int:
    from journal.errors import RecoveryError

    try:
        code = recovery.main(arguments, prog_name="recovery", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except RecoveryError as error:
        show_error(error, as_json="--json" in arguments)
        return error.exit_code
    except BrokenPipeError:
        # The reader went away (`| head`): nothing more can be said to it, not even by Python at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("RECOVERY_TRACEBACK"):
            raise
        message = f"recovery: error: {type(error).__name__}: {error}"
        click.echo(f"{message}\n  this is a defect; RECOVERY_TRACEBACK=1 shows where", err=True)
        return 3


if __name__ == "__main__":
    main()
