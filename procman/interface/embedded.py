"""An interface server on a thread of its own, for a process that also runs Django: ``manage.py runserver``.

Nothing but the thread: start, stop, what went wrong, and what may change on the way. The layer may be one of this
process (``memory``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Sequence

from procman.errors import ProcmanError
from procman.interface.server import InterfaceServer, loop_factory, make_layer
from procman.interface.workplace import Workplace
from procman.layers.base import AsyncChannelLayer, ChannelLayer
from procman.layers.memory import InMemoryChannelLayer
from procman.layers.memory_aio import AsyncInMemoryLayer
from procman.settings import InterfaceSettings, ProjectConfiguration

logger = logging.getLogger("procman.interface")


class InterfaceThread:
    """Serves *project* over *layer*, the blocking client that this process's workers use.

    Without *layer* it connects to the one that *project* names, where workers of other processes are.
    """

    def __init__(
        self, settings: InterfaceSettings, project: ProjectConfiguration, layer: ChannelLayer | None = None
    ) -> None:
        self._settings, self._project, self._layer = settings, project, layer
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: InterfaceServer | None = None
        self._thread: threading.Thread | None = None
        self._is_ready = threading.Event()
        self._failure: BaseException | None = None

    def start(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on *sockets*, which are listening and are closed at the end; returns when requests are taken.

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
        self._call(lambda server: server.stop(hurry))

    def update(self, project: ProjectConfiguration) -> None:
        """Serve by *project* from now on; its layer is that of before. Any thread may call it."""

        def change(server: InterfaceServer) -> None:
            server.site.use(project)

        self._call(change)

    def show(self, page: str) -> None:
        """Answer browsers with *page* where ``DEBUG`` is on; "" ends that. Any thread may call it."""

        def change(server: InterfaceServer) -> None:
            assert isinstance(server.site, Workplace)
            server.site.show(page)

        self._call(change)

    def _call(self, change: Callable[[InterfaceServer], None]) -> None:
        loop, server = self._loop, self._server
        if loop is not None and server is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(change, server)

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
        self._server = InterfaceServer(self._settings, self._project, self._make_layer(), site=Workplace)
        await self._server.run(sockets, on_ready)

    def _make_layer(self) -> AsyncChannelLayer:
        if isinstance(self._layer, InMemoryChannelLayer):
            return AsyncInMemoryLayer(self._layer)
        return make_layer(self._project)
