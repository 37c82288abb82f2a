"""``channels-run restart``: processes of the running site, one after the other."""

from __future__ import annotations

import sys

import click

from procman.cli.running import NAMES, ask, control_socket, print_states, site_options

LINES = 20  # of the log, shown where a restart was called off


@click.command("restart", epilog=NAMES)
@click.argument("names", nargs=-1)
@site_options
def command(names: tuple[str, ...], layer: str | None, settings: str | None) -> None:
    """Restart NAMES of the running site, or its workers: one after the other.

    A worker goes only when its successor is ready. If that one does not start, the old one stays, the rest is left
    alone, the error is shown and the exit status is 1. Sockets stay open. What had been stopped is started.
    """
    from procman.supervision import control
    from procman.supervision.methods import KEPT

    states = ask(layer, settings, "procman.restart", *(names or ("worker",)))
    kept = [name for name, state in states.items() if state == KEPT]
    if kept:
        lines, _ = control.logs(control_socket(layer, settings), [*kept, "system"], follow=False)
        sys.stderr.buffer.writelines(lines[-LINES:])
        click.echo("channels-run: what was to be restarted does not start; the old processes stay", err=True)
    print_states(states, "RUNNING")
