"""An interface server on a thread of its own, for a process that also runs Django: ``manage.py runserver``.

Nothing but the thread: start, stop, and what went wrong. The layer may be one of this process (``memory``).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable, Sequence

from procman.errors import ProcmanError
from procman.interface.server import InterfaceServer, loop_factory, make_layer
from procman.layers.base import AsyncChannelLayer, ChannelLayer
from procman.layers.memory import InMemoryChannelLayer
from procman.layers.memory_aio import AsyncInMemoryLayer
from procman.settings import InterfaceSettings, ProjectConfiguration

logger = logging.getLogger("procman.interface")


class InterfaceThread:
    """Serves *project* over *layer*, the blocking client that this process's workers use."""

    def __init__(self, settings: InterfaceSettings, project: ProjectConfiguration, layer: ChannelLayer) -> None:
        self._settings, self._project, self._layer = settings, project, layer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: InterfaceServer | None = None
        self._thread: threading.Thread | None = None
        self._is_ready = threading.Event()
        self._failure: BaseException | None = None

    def start(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on *sockets*, which are listening; returns when requests are taken.

        Raises:
            ProcmanError: the layer cannot be used, or was not reached. Whatever else went wrong, which is logged too.
        """
        # A daemon: a process that ends does not wait for whoever forgot to stop it.
        self._thread = threading.Thread(target=self._run, args=(sockets,), name="interface", daemon=True)
        self._thread.start()
        self._is_ready.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self, hurry: bool = False) -> None:
        """Begin the end: sockets are closed with 1012, requests in progress may finish. Any thread may call it."""
        loop, server = self._loop, self._server
        if loop is not None and server is not None and not loop.is_closed():
            loop.call_soon_threadsafe(server.stop, hurry)

    def join(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, at most *timeout* seconds; whether it has."""
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    def _run(self, sockets: Sequence[socket.socket]) -> None:
        try:
            with asyncio.Runner(loop_factory=loop_factory()) as runner:
                runner.run(self._serve(sockets, self._is_ready.set))
        except Exception as error:
            self._failure = error
            if self._is_ready.is_set() or not isinstance(error, ProcmanError):
                logger.exception("the interface has ended")
        finally:
            self._is_ready.set()

    async def _serve(self, sockets: Sequence[socket.socket], on_ready: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._server = InterfaceServer(self._settings, self._project, self._make_layer())
        await self._server.run(sockets, on_ready)

    def _make_layer(self) -> AsyncChannelLayer:
        if isinstance(self._layer, InMemoryChannelLayer):
            return AsyncInMemoryLayer(self._layer)
        return make_layer(self._project)
