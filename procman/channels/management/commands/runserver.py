"""``manage.py runserver``: the whole site in one process, for development. Interface, layer and worker threads.

Replaces Django's command where ``procman.channels`` comes before ``django.contrib.staticfiles`` in ``INSTALLED_APPS``.
This file may import the interface package: it is one of the two doors to it.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from django import get_version
from django.apps import apps
from django.conf import settings
from django.core.management import CommandError
from django.core.management.commands import runserver as django_runserver
from django.utils import autoreload

from procman.channels import DEFAULT_CHANNEL_LAYER, checks, development, staticfiles
from procman.channels.asgi import ChannelLayerWrapper, channel_layers
from procman.channels.describe import describe
from procman.channels.handler import ViewConsumer
from procman.channels.log import setup_logger
from procman.errors import ConfigurationError, ProcmanError
from procman.interface.embedded import InterfaceThread
from procman.log import setup_logging
from procman.settings import InterfaceSettings

_THREADS = 4
_BACKLOG = 128
# Ctrl-C is to be felt at once: what is left of requests after this is dropped.
_DRAIN_TIMEOUT = 0.3
_END_TIMEOUT = 0.7
_ENDPOINT = re.compile(r"tcp:port=(?P<port>\d+):interface=(?P<host>.+)")


def _base() -> Any:
    if apps.is_installed("django.contrib.staticfiles"):
        from django.contrib.staticfiles.management.commands import runserver

        return runserver.Command
    return django_runserver.Command


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

    def run(self, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until ``stop``, Ctrl-C or, with *signal_handlers*, SIGTERM.

        Raises:
            OSError: an endpoint cannot be listened on. ProcmanError: the layer was not reached, the project is wrong.
        """
        self._set_up_logging()
        project = describe()
        sockets = [_listen(endpoint) for endpoint in self.endpoints]
        interface = self._interface = InterfaceThread(self.settings, project, self.channel_layer.channel_layer)
        if self.signal_handlers and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda number, frame: interface.stop())
        try:
            interface.start(sockets)
            on_ready()
            interface.join()
        finally:
            self.stop()
            for each in sockets:
                each.close()

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


class Command(_base()):  # type: ignore[misc]
    """Django's development server, for HTTP and WebSockets. ``--noasgi`` gives Django's own."""

    help = "Serves HTTP and WebSockets for development: interface, channel layer and workers in one process."
    protocol = "http"
    server_cls: Any = Server

    def add_arguments(self, parser: Any) -> None:
        """Django's options and those of 1.x."""
        super().add_arguments(parser)
        parser.add_argument(
            "--noworker",
            action="store_false",
            dest="run_worker",
            default=True,
            help="Runs no workers; other processes must, at the layer that CHANNEL_LAYERS names.",
        )
        parser.add_argument(
            "--noasgi",
            action="store_false",
            dest="use_asgi",
            default=True,
            help="Runs Django's own server instead: no WebSockets.",
        )
        parser.add_argument(
            "--http_timeout", type=float, default=60, help="Seconds until a request without a response is answered."
        )
        parser.add_argument(
            "--websocket_handshake_timeout",
            type=float,
            default=5,
            help="Seconds until a WebSocket that no consumer accepted is refused.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until stopped."""
        self.verbosity = options.get("verbosity", 1)
        self.logger = setup_logger("django.channels", self.verbosity)
        self.http_timeout = options.get("http_timeout", 60)
        self.websocket_handshake_timeout = options.get("websocket_handshake_timeout", 5)
        super().handle(*args, **options)

    def inner_run(self, *args: Any, **options: Any) -> None:
        """One life of the server: the reloader begins another one when a file has changed."""
        autoreload.raise_last_exception()
        is_asgi = options.get("use_asgi", True) and DEFAULT_CHANNEL_LAYER in channel_layers
        if not is_asgi:
            self._run_wsgi(*args, **options)
            return
        if not options.get("skip_checks"):
            self.stdout.write("Performing system checks...\n\n")
            checks.expect_one_process()
            self.check(display_num_errors=True)
        self.check_migrations()
        try:
            self._serve(**options)
        except KeyboardInterrupt:
            shutdown_message = options.get("shutdown_message", "")
            if shutdown_message:
                self.stdout.write(shutdown_message)
            sys.exit(0)
        except OSError as error:
            text = error.strerror or str(error)
            self._fail(f"{self.addr}:{self.port} cannot be listened on: {text}", **options)
        except (ProcmanError, ValueError) as error:
            self._fail(str(error), **options)

    def _serve(self, **options: Any) -> None:
        layer, note = development.choose_layer(channel_layers)
        if note:
            self.stdout.write(self.style.WARNING(note))
        workers: development.WorkerThreads | None = None
        if options.get("run_worker", True):
            layer.router.check_default(http_consumer=self.get_consumer(**options))
            workers = development.WorkerThreads(layer, _THREADS if options.get("use_threading", True) else 1)
        elif layer.local_only():
            raise ConfigurationError("--noworker needs a layer that workers of other processes reach")
        protocols = getattr(settings, "CHANNELS_WS_PROTOCOLS", None)
        server = self.server_cls(
            channel_layer=layer,
            endpoints=[f"tcp:port={int(self.port)}:interface={self.addr}"],
            signal_handlers=not options["use_reloader"],
            action_logger=self.log_action,
            http_timeout=self.http_timeout,
            ws_protocols=protocols,
            root_path=getattr(settings, "FORCE_SCRIPT_NAME", "") or "",
            websocket_handshake_timeout=self.websocket_handshake_timeout,
        )

        def end() -> None:
            server.stop()
            if workers is not None:
                workers.stop(_END_TIMEOUT)

        # The reloader ends the process from another thread: this is where sockets are closed then.
        atexit.register(end)
        if workers is not None:
            workers.start()
        try:
            server.run(lambda: self._greet(layer))
        finally:
            atexit.unregister(end)
            end()

    def get_consumer(self, **options: Any) -> ViewConsumer:
        """The consumer of requests: static files too, where Django's ``runserver`` serves them."""
        is_wanted = options.get("use_static_handler", True) and (settings.DEBUG or options.get("insecure_serving"))
        if is_wanted and apps.is_installed("django.contrib.staticfiles"):
            return staticfiles.StaticFilesConsumer()
        return ViewConsumer()

    def log_action(self, protocol: str, action: str, details: dict[str, Any]) -> None:
        """One line of what a client did."""
        line = development.action_line(protocol, action, details)
        if line:
            sys.stderr.write(f"[{datetime.now():%Y/%m/%d %H:%M:%S}] {line}\n")

    def _run_wsgi(self, *args: Any, **options: Any) -> None:
        from django.core.servers.basehttp import WSGIServer

        self.server_cls = WSGIServer
        super().inner_run(*args, **options)

    def _greet(self, layer: ChannelLayerWrapper) -> None:
        host = f"[{self.addr}]" if self._raw_ipv6 else self.addr
        self.stdout.write(
            f"{datetime.now():%B %d, %Y - %X}\n"
            f"Django version {get_version()}, using settings {settings.SETTINGS_MODULE!r}\n"
            f"Starting Channels development server at {self.protocol}://{host}:{self.port}/\n"
            f"Channel layer {layer}\n"
            "Quit the server with CONTROL-C.\n"
        )

    def _fail(self, text: str, **options: Any) -> None:
        if not options.get("use_reloader"):
            raise CommandError(text)
        self.stderr.write(f"Error: {text}")
        # Below the reloader sys.exit would end this thread only.
        os._exit(1)


def _listen(endpoint: str) -> socket.socket:
    found = _ENDPOINT.fullmatch(endpoint)
    if found is None:
        raise ValueError(f"endpoint {endpoint!r} is not understood: write tcp:port=8000:interface=127.0.0.1")
    family = socket.AF_INET6 if ":" in found["host"] else socket.AF_INET
    host = "0.0.0.0" if found["host"] == "0" else found["host"]
    return socket.create_server((host, int(found["port"])), family=family, backlog=_BACKLOG)
