"""``channels-run logs``: what the processes of the running site have printed last, and what they print."""

from __future__ import annotations

import re
import sys

import click

from procman.cli.running import NAMES, control_socket, leave_not_running, site_options
from procman.supervision.logformat import LEVELS, LevelFilter
from procman.supervision.output import strip_colors


@click.command("logs", epilog=NAMES + " The supervisor's own lines are those of `system`.")
@click.argument("names", nargs=-1)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed from now on, until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, show_default=True, help="Lines of before.")
@click.option("--grep", metavar="REGEX", help="Only lines in which this is found.")
@click.option("--level", type=click.Choice(LEVELS), default=LEVELS[0], help="Only lines of this level and above.")
@site_options
def command(
    names: tuple[str, ...],
    follow: bool,
    lines: int,
    grep: str | None,
    level: str,
    layer: str | None,
    settings: str | None,
) -> None:
    """Print the last lines of NAMES of the running site, or of all.

    The site keeps the last 256 KiB of each process and 1 MiB of all.
    """
    from procman.supervision import control
    from procman.supervision.errors import NotRunning

    try:
        pattern = re.compile(grep.encode()) if grep is not None else None
    except re.error as error:
        raise click.UsageError(f"--grep is no regular expression: {error}") from None
    is_plain = not sys.stdout.isatty()
    levels = LevelFilter(level)

    def is_wanted(line: bytes) -> bool:
        plain = strip_colors(line)
        return levels.passes(plain) and (pattern is None or pattern.search(plain) is not None)

    def show(line: bytes) -> None:
        sys.stdout.buffer.write(strip_colors(line) if is_plain else line)

    path = control_socket(layer, settings)
    try:
        recent, later = control.logs(path, names, follow)
        before = [line for line in recent if is_wanted(line)]
        for line in before[-lines:] if lines else []:
            show(line)
        sys.stdout.flush()
        for line in later:
            if is_wanted(line):
                show(line)
                sys.stdout.flush()
    except NotRunning as error:
        leave_not_running(error)
    except KeyboardInterrupt:
        sys.exit(0)
