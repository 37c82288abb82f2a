"""``channels-run interface``: the process that holds the clients' sockets, in the foreground."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any

import click

from procman.cli.environment import load_environment, recognise_platform
from procman.cli.options import fd_option, layer_option, pick, settings_option, settings_options
from procman.settings import ENV_LAYER, ENV_RUN, InterfaceSettings, SupervisorSettings


@click.command("interface")
@fd_option
@settings_options(SupervisorSettings, only=("bind", "port", "socket_mode", "platform"))
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
    # Below a supervisor the conventions of the platform have come with the flags.
    platform = None if ENV_RUN in os.environ else recognise_platform(values["platform"])
    load_environment(values["platform"])
    defaults = platform.defaults if platform else {}
    limits = InterfaceSettings.load(defaults=defaults, **pick(InterfaceSettings, values))
    place = SupervisorSettings.load(defaults=defaults, **pick(SupervisorSettings, values))
    if platform:
        logging.getLogger("procman").info("%s", platform.describe())
    listening = open_listeners(place, fd, os.environ)
    if layer:
        os.environ[ENV_LAYER] = choose_layer(layer, "")
    project = project_of_role(settings)
    project = with_layer(project, choose_layer(None, project.layer))
    with contextlib.ExitStack() as stack:
        stack.callback(listening.close)
        status = run_interface(limits, project, listening.each[0])
    sys.exit(status)
