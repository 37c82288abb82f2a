"""``channels-run interface``: the process that holds the clients' sockets, in the foreground."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import click

from procman.cli.options import layer_option, pick, settings_option, settings_options
from procman.errors import ConfigurationError
from procman.settings import ENV_LAYER, InterfaceSettings, SupervisorSettings


@click.command("interface")
@click.option("--fd", type=click.IntRange(0), help="Descriptor of a listening socket to serve, instead of --port.")
@settings_options(SupervisorSettings, only=("bind", "port"))
@layer_option
@settings_option
@settings_options(InterfaceSettings)
def command(fd: int | None, layer: str | None, settings: str | None, **values: Any) -> None:
    """Serve HTTP and WebSockets; consumers run in workers, which are started separately."""
    from procman.cli.project import choose_layer, project_of_role, with_layer
    from procman.interface.server import run_interface
    from procman.log import setup_logging

    setup_logging()
    limits = InterfaceSettings.load(**pick(InterfaceSettings, values))
    listener = inherited_listener(fd) if fd is not None else _listen(values)
    if layer:
        os.environ[ENV_LAYER] = choose_layer(layer, "")
    project = project_of_role(settings)
    project = with_layer(project, choose_layer(None, project.layer))
    sys.exit(run_interface(limits, project, [listener]))


def inherited_listener(fd: int) -> socket.socket:
    """The listening socket at descriptor *fd*, private to this process.

    Raises:
        ConfigurationError: *fd* is closed or no listening socket.
    """
    try:
        listener = socket.socket(fileno=fd)
        is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigurationError(f"--fd {fd} is no socket: {error.strerror}; pass a listening one") from None
    if not is_listening:
        listener.detach()
        raise ConfigurationError(f"--fd {fd} does not listen: call listen() before passing it on")
    listener.set_inheritable(False)
    return listener


def _listen(values: dict[str, Any]) -> socket.socket:
    from procman.supervision.listeners import listen_tcp

    where = SupervisorSettings.load(**pick(SupervisorSettings, values))
    return listen_tcp(where.bind, where.port)
