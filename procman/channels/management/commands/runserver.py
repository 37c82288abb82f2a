"""``manage.py runserver``: the whole site for development: interface, layer and worker threads.

With Django's reloader two processes share the work (``channels/keeper.py``): browsers' sockets stay open while the one
that runs the code is exchanged. Without it, and for a ``server_cls`` of somebody else's, there is one. Replaces
Django's command where ``procman.channels`` comes before ``django.contrib.staticfiles`` in ``INSTALLED_APPS``.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

from django import get_version
from django.apps import apps
from django.conf import settings
from django.core.management import CommandError
from django.core.management.commands import runserver as django_runserver
from django.db import connections
from django.utils import autoreload

from procman.channels import DEFAULT_CHANNEL_LAYER, checks, development, staticfiles
from procman.channels.asgi import ChannelLayerWrapper, channel_layers
from procman.channels.describe import describe
from procman.channels.handler import ViewConsumer
from procman.channels.keeper import Keeper, Kept, watched_files
from procman.channels.log import setup_logger
from procman.channels.management.commands._server import Server
from procman.clock import SystemClock
from procman.errors import ConfigurationError, ProcmanError
from procman.layers.ipc.address import private_directory

_THREADS = 4
_END_TIMEOUT = 0.7
# What a reload leaves to consumers that run: one that is cut off runs again in the next process, if that is safe.
_RELOAD_TIMEOUT = 2.0
_NEEDS_SHARED = "--noworker needs a layer that workers of other processes reach"


def _base() -> Any:
    if apps.is_installed("django.contrib.staticfiles"):
        from django.contrib.staticfiles.management.commands import runserver

        return runserver.Command
    return django_runserver.Command


class Command(_base()):  # type: ignore[misc]
    """Django's development server, for HTTP and WebSockets. ``--noasgi`` gives Django's own."""

    help = "Serves HTTP and WebSockets for development: interface, channel layer and workers."
    protocol = "http"
    server_cls: Any = Server
    _kept: Kept | None = None

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

    def run(self, **options: Any) -> None:
        """Serve; with the reloader this process keeps the sockets, and a child runs the code."""
        use_reloader = options["use_reloader"]
        self._kept = Kept.inherited() if use_reloader else None
        if self._kept is not None:
            self._kept.watch()
            self._watch_failures()
        elif use_reloader and self._is_asgi(options) and self._can_be_kept():
            self._keep(**options)
            return
        super().run(**options)

    def inner_run(self, *args: Any, **options: Any) -> None:
        """One life of the code: the reloader begins another one when a file has changed."""
        if self._kept is not None:
            self._run_kept(self._kept, **options)
            return
        autoreload.raise_last_exception()
        if not self._is_asgi(options):
            self._run_wsgi(*args, **options)
            return
        self._check(**options)
        try:
            self._serve(**options)
        except KeyboardInterrupt:
            shutdown_message = options.get("shutdown_message", "")
            if shutdown_message:
                self.stdout.write(shutdown_message)
            sys.exit(0)
        except OSError as error:
            self._fail(self._not_listening(error), **options)
        except (ProcmanError, ValueError) as error:
            self._fail(str(error), **options)

    def _is_asgi(self, options: dict[str, Any]) -> bool:
        return bool(options.get("use_asgi", True)) and DEFAULT_CHANNEL_LAYER in channel_layers

    def _check(self, **options: Any) -> None:
        if not options.get("skip_checks"):
            self.stdout.write("Performing system checks...\n\n")
            checks.expect_one_process()
            self.check(display_num_errors=True)
        self.check_migrations()
        for connection in connections.all(initialized_only=True):
            connection.close()

    # -- one process -------------------------------------------------------------------------------------------------

    def _serve(self, **options: Any) -> None:
        layer, note = development.choose_layer(channel_layers)
        if note:
            self.stdout.write(self.style.WARNING(note))
        workers = self._make_workers(layer, **options)
        if workers is None and layer.local_only():
            raise ConfigurationError(_NEEDS_SHARED)
        server = self._make_server(layer, _root_path(), **options)

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

    def _make_workers(self, layer: ChannelLayerWrapper, **options: Any) -> development.WorkerThreads | None:
        if not options.get("run_worker", True):
            return None
        layer.router.check_default(http_consumer=self.get_consumer(**options))
        return development.WorkerThreads(layer, _THREADS if options.get("use_threading", True) else 1)

    def _make_server(self, layer: ChannelLayerWrapper, root_path: str, **options: Any) -> Any:
        return self.server_cls(
            channel_layer=layer,
            endpoints=[f"tcp:port={int(self.port)}:interface={self.addr}"],
            signal_handlers=not options["use_reloader"],
            action_logger=self.log_action,
            http_timeout=self.http_timeout,
            ws_protocols=getattr(settings, "CHANNELS_WS_PROTOCOLS", None),
            root_path=root_path,
            websocket_handshake_timeout=self.websocket_handshake_timeout,
        )

    # -- two processes: this one keeps the sockets -------------------------------------------------------------------

    def _can_be_kept(self) -> bool:
        # A server of somebody else's runs in the process that has the code, as in 1.x.
        is_ours = isinstance(self.server_cls, type) and issubclass(self.server_cls, Server)
        return is_ours and development.can_be_kept(channel_layers)

    def _keep(self, **options: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
        sockets: list[socket.socket] = []
        try:
            # Its routing is the children's business: the code is not imported here.
            layer = development.layer_without_routing(channel_layers)
            sockets = self._make_server(layer, _root_path(), **options).listen()
            keeper = Keeper(
                describe(load=False),
                _root_path(),
                lambda project, root_path: self._make_server(layer, root_path, **options),
                sockets,
                lambda text: self.stderr.write(text, self.style.WARNING),
                f"ipc://{private_directory()}/runserver-{os.getpid()}.sock",
                Path(sys.modules[settings.SETTINGS_MODULE].__file__ or "").parent,
            )
            environ = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
            status = keeper.run(autoreload.get_child_arguments(), environ)
        except OSError as error:
            raise CommandError(self._not_listening(error)) from error
        except (ProcmanError, ValueError) as error:
            raise CommandError(str(error)) from error
        finally:
            for each in sockets:
                each.close()
        sys.exit(status if status >= 0 else 1)

    # -- two processes: this one runs the code -----------------------------------------------------------------------

    def _run_kept(self, kept: Kept, **options: Any) -> None:
        try:
            autoreload.raise_last_exception()
            if not self._is_asgi(options) or not self._can_be_kept():
                raise ConfigurationError("CHANNEL_LAYERS has no layer 'default' of procman any more: restart runserver")
            self._check(**options)
            self._work(kept, **options)
        except Exception as error:
            self._failed_files |= watched_files(error)
            self._add_failed_files()
            kept.broken(error)
            if not isinstance(error, ProcmanError):
                raise
            self.stderr.write(f"Error: {error}")

    def _work(self, kept: Kept, **options: Any) -> None:
        if not options.get("run_worker", True) and channel_layers[DEFAULT_CHANNEL_LAYER].local_only():
            raise ConfigurationError(_NEEDS_SHARED)
        layer = development.use_address(channel_layers, kept.private_address)
        workers = self._make_workers(layer, **options)
        project = describe()
        changed_at = float("-inf")

        def on_change(**facts: Any) -> None:
            nonlocal changed_at
            changed_at = SystemClock.monotonic()

        def end() -> None:
            kept.ending()
            is_reload = SystemClock.monotonic() - changed_at < _RELOAD_TIMEOUT
            if workers is not None:
                # The disconnects of closed sockets are still to be run, except on a reload, which closes none.
                workers.stop(_RELOAD_TIMEOUT if is_reload else _END_TIMEOUT, lingers=not is_reload)

        autoreload.file_changed.connect(on_change, weak=False)
        atexit.register(end)
        if workers is not None:
            workers.start()
        kept.ready(project, _root_path())
        self._greet(layer)
        threading.Event().wait()  # the main thread watches the files, and ends this one with the process

    def _watch_failures(self) -> None:
        self._failed_files: set[Path] = set()
        self._reloader: Any = None

        def on_start(sender: Any, **facts: Any) -> None:
            self._reloader = sender
            self._add_failed_files()

        autoreload.autoreload_started.connect(on_start, weak=False)

    def _add_failed_files(self) -> None:
        if self._reloader is not None:
            # Assigned, not added to: the reloader's thread may be walking through them.
            self._reloader.extra_files = self._reloader.extra_files | self._failed_files

    # -- both --------------------------------------------------------------------------------------------------------

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
        host = f"[{self.addr}]" if self._raw_ipv6 else "0.0.0.0" if self.addr == "0" else self.addr
        self.stdout.write(
            f"{datetime.now():%B %d, %Y - %X}\n"
            f"Django version {get_version()}, using settings {settings.SETTINGS_MODULE!r}\n"
            f"Starting Channels development server at {self.protocol}://{host}:{self.port}/\n"
            f"Channel layer {layer}\n"
            "Quit the server with CONTROL-C."
        )
        if os.environ.get("DJANGO_RUNSERVER_HIDE_WARNING") != "true":
            self.stdout.write(
                self.style.WARNING(
                    "WARNING: This is a development server. Do not use it in a production setting: `channels-run` "
                    "serves the same site there."
                )
            )

    def _not_listening(self, error: OSError) -> str:
        return f"{self.addr}:{self.port} cannot be listened on: {os.strerror(error.errno) if error.errno else error}"

    def _fail(self, text: str, **options: Any) -> None:
        if not options.get("use_reloader"):
            raise CommandError(text)
        self.stderr.write(f"Error: {text}")
        # Below the reloader sys.exit would end this thread only.
        os._exit(1)


def _root_path() -> str:
    return getattr(settings, "FORCE_SCRIPT_NAME", "") or ""
