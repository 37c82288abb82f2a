"""``channels-run ctl``: supervisor's own control program, for the running site."""

from __future__ import annotations

import sys
from typing import Any

import click

from procman.cli.running import control_socket, site_options


@click.command("ctl", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, metavar="[COMMAND [ARGUMENT]...]")
@site_options
def command(words: tuple[str, ...], layer: str | None, settings: str | None) -> None:
    """Control the running site with supervisorctl: one COMMAND, or a shell with completion and help.

    \b
        channels-run ctl status
        channels-run ctl tail -f worker.1
        channels-run ctl                      a shell; `help` lists its commands

    Any supervisorctl does the same: the address of the socket is in `status --json`. Exit statuses are its own.
    """
    from supervisor.options import ClientOptions
    from supervisor.supervisorctl import Controller

    options: Any = ClientOptions()
    options.searchpaths = []  # a supervisord.conf of somebody else's that lies about is not meant
    options.realize(["-s", f"unix://{control_socket(layer, settings)}", *words])
    controller: Any = Controller(options)
    if not options.args:
        controller.exec_cmdloop([], options)
        return
    controller.onecmd(" ".join(options.args))
    sys.exit(controller.exitstatus)
