"""``ChannelLiveServerTestCase``: the whole site beside a test, for browsers and for clients of one's own.

Interface, layer and workers are threads of the test's process, as in ``manage.py runserver``. Thus overridden settings
and patches of a test reach the consumers, what the test sends reaches the sockets, nothing has to be forked from a
process that has threads, and nothing is left behind when a run is killed. Each test has a server of its own, with the
routing of its class. What only several processes show (a worker that dies) is out of reach; run the site for that.

This file may import the interface package: it is one of the two doors to it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test import TransactionTestCase, modify_settings

from procman.channels import DEFAULT_CHANNEL_LAYER
from procman.channels.asgi import COMMON_OPTIONS, ChannelLayerWrapper, channel_layers
from procman.channels.describe import build_configuration
from procman.channels.handler import ViewConsumer
from procman.channels.staticfiles import StaticFilesConsumer
from procman.channels.worker import Worker
from procman.clock import SystemClock
from procman.interface.embedded import InterfaceThread
from procman.layers.memory import InMemoryChannelLayer
from procman.settings import InterfaceSettings

_BACKLOG = 128
# Seconds that requests may take that are still running when their test ends, and that anything may take to end.
_DRAIN_TIMEOUT, _END_TIMEOUT = 1.0, 10.0
# Seconds within which the disconnects of a test's sockets are run: consumers that send to themselves have no end.
_DISCONNECT_TIMEOUT = 5.0


class LiveServer:
    """An interface on a free port of *host* with *threads* workers, over *layer*, which is in memory."""

    def __init__(self, host: str, layer: ChannelLayerWrapper, threads: int) -> None:
        self._layer = layer
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, 0), family=family, backlog=_BACKLOG)
        self.port: int = self._socket.getsockname()[1]
        project = build_configuration(os.environ.get("DJANGO_SETTINGS_MODULE", ""), "memory://")
        limits = InterfaceSettings.load(drain_timeout=_DRAIN_TIMEOUT, access_log=False)
        self._interface = InterfaceThread(limits, project, layer.channel_layer)
        self._workers = [Worker(layer, signal_handlers=False) for _ in range(threads)]
        self._threads = [
            threading.Thread(target=self._work, args=(worker,), name=f"worker-{number}", daemon=True)
            for number, worker in enumerate(self._workers, 1)
        ]

    def start(self) -> None:
        """Serve; returns when requests are taken. Raises whatever the interface meets."""
        for worker, thread in zip(self._workers, self._threads, strict=True):
            worker.ready()
            thread.start()
        self._interface.start([self._socket])

    def stop(self) -> None:
        """Close what clients hold, run the disconnects, and end every thread.

        Raises:
            RuntimeError: a consumer or a request did not end.
        """
        try:
            self._interface.stop()
            if not self._interface.join(_END_TIMEOUT):
                self._interface.stop(hurry=True)
                self._interface.join(_END_TIMEOUT)
        finally:
            for worker in self._workers:
                worker.termed = True
            for worker in self._workers:
                worker.stop()
            for thread in self._threads:
                if thread.ident is not None:
                    thread.join(_END_TIMEOUT)
            self._socket.close()
        stuck = [thread.name for thread in self._threads if thread.is_alive()]
        if stuck or not self._interface.join(0):
            raise RuntimeError(
                f"the live server did not end within {_END_TIMEOUT} s: {stuck or 'interface'} still runs"
            )

    def _work(self, worker: Worker) -> None:
        try:
            worker.run()
            # The interface has gone by now: what is left are the disconnects of its sockets.
            channels = sorted(self._layer.router.channels)
            deadline = SystemClock.monotonic() + _DISCONNECT_TIMEOUT
            while SystemClock.monotonic() < deadline:
                delivery = self._layer.take(channels, 0)
                if delivery is None:
                    break
                worker.handle(delivery)
        finally:
            # A test database cannot be destroyed while somebody is connected to it.
            connections.close_all()


class ChannelLiveServerTestCase(TransactionTestCase):
    """A ``TransactionTestCase`` with the project served at ``live_server_url`` and ``live_server_ws_url``.

    Raises:
        ImproperlyConfigured: a database lives in memory, where threads do not share it, or there are several layers.
    """

    host = "localhost"
    worker_threads = 1
    serve_static = True  # through the staticfiles finders, whatever DEBUG is
    _server: LiveServer

    @property
    def live_server_url(self) -> str:
        """Where the site is, without a slash at the end."""
        return f"http://{self._authority}"

    @property
    def live_server_ws_url(self) -> str:
        """Where its WebSockets are, without a slash at the end."""
        return f"ws://{self._authority}"

    @property
    def _authority(self) -> str:
        return f"[{self.host}]:{self._server.port}" if ":" in self.host else f"{self.host}:{self._server.port}"

    @classmethod
    def setUpClass(cls) -> None:
        """Refuse what cannot work."""
        for connection in connections.all():
            if connection.vendor == "sqlite" and connection.is_in_memory_db():  # type: ignore[attr-defined]
                raise ImproperlyConfigured(
                    f"{cls.__name__} cannot use the database {connection.alias!r}, which is in memory: name a file in "
                    f"DATABASES[{connection.alias!r}]['TEST'], such as {{'NAME': BASE_DIR / 'test.sqlite3'}}"
                )
        if len(channel_layers.configs) > 1:
            raise ImproperlyConfigured(
                f"{cls.__name__} serves one channel layer, and CHANNEL_LAYERS has {len(channel_layers.configs)}: "
                "override the setting"
            )
        allowed = f"[{cls.host}]" if ":" in cls.host else cls.host
        cls.enterClassContext(modify_settings(ALLOWED_HOSTS={"append": allowed}))
        super().setUpClass()

    # Within Django's own set-up and before its clean-up: no consumer meets a database that is being emptied.
    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test with a server of its own."""
        method = getattr(self, self._testMethodName)
        if result is None or getattr(type(self), "__unittest_skip__", getattr(method, "__unittest_skip__", False)):
            return super().run(result)
        with _reporting_to(self, result), self._serving():
            super().run(result)
        return result

    def debug(self) -> None:
        """As ``run``, but let errors through."""
        with self._serving():
            super().debug()

    @contextmanager
    def _serving(self) -> Iterator[None]:
        before = channel_layers[DEFAULT_CHANNEL_LAYER]
        config = channel_layers.configs[DEFAULT_CHANNEL_LAYER]
        # What another kind of layer has beyond these says how it is reached.
        limits = {k: v for k, v in (config.get("TEST_CONFIG") or {}).items() if k in COMMON_OPTIONS}
        layer = ChannelLayerWrapper(InMemoryChannelLayer(**limits), DEFAULT_CHANNEL_LAYER, before.routing)
        has_static = self.serve_static and apps.is_installed("django.contrib.staticfiles")
        layer.router.check_default(http_consumer=StaticFilesConsumer() if has_static else ViewConsumer())
        channel_layers.set(DEFAULT_CHANNEL_LAYER, layer)
        try:
            self._server = LiveServer(self.host, layer, self.worker_threads)
            try:
                self._server.start()
                yield
            finally:
                self._server.stop()
        finally:
            channel_layers.set(DEFAULT_CHANNEL_LAYER, before)


@contextmanager
def _reporting_to(test: unittest.TestCase, result: Any) -> Iterator[None]:
    """Make an error of what surrounds the test an error of the test, so that the others still run."""
    try:
        yield
    except Exception:
        result.addError(test, sys.exc_info())
