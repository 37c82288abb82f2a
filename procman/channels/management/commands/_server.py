"""The server of ``manage.py runserver``: an interface on a thread, with the keywords that 1.x gave its server.

Knows no command and no worker. This file may import the interface package: it is one of the two doors to it.
"""

from __future__ import annotations

import logging
import re
import signal
import socket
import threading
from collections.abc import Callable, Sequence

from procman.channels import development
from procman.channels.asgi import ChannelLayerWrapper
from procman.channels.describe import describe
from procman.interface.embedded import InterfaceThread
from procman.interface.workplace import build_page
from procman.layers.base import ChannelLayer
from procman.log import setup_logging
from procman.settings import InterfaceSettings, ProjectConfiguration

_BACKLOG = 128
# Ctrl-C is to be felt at once: what is left of requests after this is dropped.
_DRAIN_TIMEOUT = 0.3
_END_TIMEOUT = 0.7
_ENDPOINT = re.compile(r"tcp:port=(?P<port>\d+):interface=(?P<host>.+)")


class Server:
    """The interface of ``runserver``, with the keywords that 1.x gave its server. ``run`` returns at the end."""

    def __init__(
        self,
        channel_layer: ChannelLayerWrapper,
        endpoints: Sequence[str],
        signal_handlers: bool = True,
        action_logger: development.ActionLogger | None = None,
        http_timeout: float = 60,
        ws_protocols: Sequence[str] | None = None,
        root_path: str = "",
        websocket_handshake_timeout: float = 5,
    ) -> None:
        self.channel_layer = channel_layer
        self.endpoints = endpoints
        self.signal_handlers = signal_handlers
        self.action_logger = action_logger
        self.ws_protocols = ws_protocols
        self.settings = InterfaceSettings.load(
            request_timeout=float(http_timeout),
            handshake_timeout=float(websocket_handshake_timeout),
            root_path=root_path,
            drain_timeout=_DRAIN_TIMEOUT,
            access_log=action_logger is not None,
        )
        self._interface: InterfaceThread | None = None

    def listen(self) -> list[socket.socket]:
        """Listening sockets of the endpoints.

        Raises:
            OSError: one cannot be listened on. ValueError: one is not understood.
        """
        return [_listen(endpoint) for endpoint in self.endpoints]

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until ``stop``, Ctrl-C or, with *signal_handlers*, SIGTERM.

        Raises:
            OSError: an endpoint cannot be listened on. ProcmanError: the layer was not reached, the project is wrong.
        """
        project = describe()
        sockets = self.listen()
        try:
            self.start(project, sockets, self.channel_layer.channel_layer)
            assert self._interface is not None
            on_ready()
            self._interface.join()
        finally:
            self.stop()
            for each in sockets:
                each.close()

    def start(
        self, project: ProjectConfiguration, sockets: Sequence[socket.socket], layer: ChannelLayer | None = None
    ) -> None:
        """Serve *project* on *sockets*, which stay open at the end; without *layer* the workers are elsewhere.

        Raises:
            ProcmanError: the layer cannot be used, or was not reached.
        """
        self._set_up_logging()
        interface = self._interface = InterfaceThread(self.settings, project, layer)
        if self.signal_handlers and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, frame: interface.stop())
        copies = [each.dup() for each in sockets]
        try:
            interface.start(copies)
        except BaseException:
            for each in copies:
                each.close()
            raise

    def update(self, project: ProjectConfiguration) -> None:
        """Serve by *project* from now on; its layer is that of before."""
        if self._interface is not None:
            self._interface.update(project)

    def show(self, title: str, text: str) -> None:
        """Answer browsers with a page that says this, where ``DEBUG`` is on; "" ends that."""
        if self._interface is not None:
            self._interface.show(build_page(title, text) if title else "")

    def is_running(self) -> bool:
        """Whether it serves."""
        return self._interface is not None and not self._interface.join(0)

    def stop(self) -> None:
        """Close the sockets of clients and end; returns when that is done or has taken too long."""
        interface = self._interface
        if interface is not None:
            interface.stop()
            if not interface.join(_END_TIMEOUT):
                interface.stop(hurry=True)

    def _set_up_logging(self) -> None:
        setup_logging(verbosity=0)
        if self.action_logger is not None:
            access = logging.getLogger("procman.interface.access")
            access.handlers[:] = [development.ActionHandler(self.action_logger)]
            access.propagate = False
            access.setLevel(logging.INFO)


def _listen(endpoint: str) -> socket.socket:
    found = _ENDPOINT.fullmatch(endpoint)
    if found is None:
        raise ValueError(f"endpoint {endpoint!r} is not understood: write tcp:port=8000:interface=127.0.0.1")
    family = socket.AF_INET6 if ":" in found["host"] else socket.AF_INET
    host = "0.0.0.0" if found["host"] == "0" else found["host"]
    return socket.create_server((host, int(found["port"])), family=family, backlog=_BACKLOG)
