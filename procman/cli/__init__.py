"""The ``channels-run`` command: one module per subcommand, each parses and calls one function.

Modules of subcommands are imported when they are called, so that ``--help`` and the small roles stay light.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

import procman
from procman.cli import exits
from procman.errors import ProcmanError

IS_WINDOWS = os.name == "nt"

_COMMANDS = (
    "start", "status", "restart", "stop", "scale", "logs", "top", "ctl", "run", "export", "check", "new",
    "interface", "worker", "layer", "preloader", "reloader",
)  # fmt: skip

_HELP = """Serve the Django project in this directory: HTTP, WebSockets and their workers, in one command.

Without a COMMAND it starts everything, so these two are the same:

\b
    channels-run
    channels-run start

\b
Examples:
    channels-run --port 9000 --workers 4      another port, four worker processes
    channels-run start --help                 every limit and its default
    channels-run --reload                     for development: a change of the code starts the workers anew
    channels-run --procfile Procfile.dev      what else the site needs, beside it (css: npm run watch)
    channels-run status                       what is running, from another terminal
    channels-run restart                      workers with the code as it is now; sockets stay open
    channels-run logs -f worker.2             what one process prints
    channels-run top                          processes, CPU, memory and messages, live
    channels-run scale worker=4               more workers, now
    channels-run stop                         everything
    channels-run run python manage.py shell   a command in the environment of the site (.env)
    channels-run check                        what would go wrong, before it does
    channels-run new mysite                   a new project with a chat to try
    channels-run worker                       one role in the foreground (containers, Procfiles)

Ctrl-C or SIGTERM stops gracefully, a second Ctrl-C at once; SIGHUP restarts the workers one after the other while
sockets stay open. Exit status: 0 when asked to stop, 4 or 5 when it gave up, 2 for a mistake in flags or settings.
"""


class _Group(click.Group):
    """Subcommands by name of their module; words that begin with an option belong to ``start``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"procman.cli.{cmd_name}").command
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "-h", "--version")):
            args = ["start", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Group, help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(procman.__version__, prog_name="channels-run")
def cli() -> None:
    """The group; its subcommands do the work."""


def main() -> None:
    """Entry point of ``channels-run``; exits with a status of ``exits``."""
    if IS_WINDOWS:
        _fail("Windows is not supported: use Linux, or WSL on this machine")
    _open_standard_streams()
    try:
        cli(prog_name="channels-run")
    except ProcmanError as error:
        _fail(str(error))


def _open_standard_streams() -> None:
    """Put /dev/null where a caller closed stdin, stdout or stderr: no socket may get such a number."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, os.fdopen(fd, mode, closefd=False))


def _fail(text: str) -> None:
    click.echo(f"channels-run: error: {' '.join(text.split())}", err=True)
    sys.exit(exits.USAGE)
