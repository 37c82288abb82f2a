"""``channels-run interface``: the process that holds the clients' sockets, in the foreground."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import click

from procman.cli.options import fd_option, layer_option, pick, settings_option, settings_options
from procman.settings import ENV_LAYER, InterfaceSettings, SupervisorSettings


@click.command("interface")
@fd_option
@settings_options(SupervisorSettings, only=("bind", "port", "socket_mode"))
@layer_option
@settings_option
@settings_options(InterfaceSettings)
def command(fd: tuple[int, ...], layer: str | None, settings: str | None, **values: Any) -> None:
    """Serve HTTP and WebSockets; consumers run in workers, which are started separately."""
    from procman.cli.listening import open_listeners
    from procman.cli.project import choose_layer, project_of_role, with_layer
    from procman.interface.server import run_interface
    from procman.log import setup_logging

    setup_logging()
    limits = InterfaceSettings.load(**pick(InterfaceSettings, values))
    listening = open_listeners(SupervisorSettings.load(**pick(SupervisorSettings, values)), fd, os.environ)
    if layer:
        os.environ[ENV_LAYER] = choose_layer(layer, "")
    project = project_of_role(settings)
    project = with_layer(project, choose_layer(None, project.layer))
    with contextlib.ExitStack() as stack:
        stack.callback(listening.close)
        status = run_interface(limits, project, listening.each[0])
    sys.exit(status)
