"""``channels-run stop``: the running site, or some of its processes."""

from __future__ import annotations

import click

from procman.cli.running import NAMES, ask, control_socket, leave_not_running, print_states, site_options


@click.command("stop", epilog=NAMES)
@click.argument("names", nargs=-1)
@site_options
def command(names: tuple[str, ...], layer: str | None, settings: str | None) -> None:
    """Stop NAMES of the running site until `restart` or `start` is told to start them; without NAMES, all of the site.

    Requests and frames that are being worked on are finished first, within --shutdown-timeout of `start`.
    """
    from procman.supervision import control
    from procman.supervision.errors import NotRunning

    if names:
        print_states(ask(layer, settings, "procman.stop", *names), "STOPPED")
        return
    try:
        control.shut_down(control_socket(layer, settings))
    except NotRunning as error:
        leave_not_running(error)
    click.echo("stopped")
