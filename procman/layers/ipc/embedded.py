"""A hub on a thread of its own, for a process that does other things too: ``manage.py runserver``.

Nothing but the thread; the hub is that of ``channels-run layer``, at the same address.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from pathlib import Path

from procman.errors import ConfigurationError
from procman.layers.ipc import address as addresses
from procman.layers.ipc.server import bind, loop_factory, serve
from procman.settings import LayerSettings

_END_TIMEOUT = 1.0


class HubThread:
    """Serves the layer at *address* (``ipc://``) from ``start`` to ``stop``.

    Raises:
        ConfigurationError: *address* is no IPC address.
    """

    def __init__(self, address: str, settings: LayerSettings | None = None) -> None:
        parsed = addresses.parse(address)
        if parsed.scheme != "ipc":
            raise ConfigurationError(f"a hub serves ipc:// addresses, not {address!r}")
        self.address, self._path = address, parsed.path
        self._settings = settings or LayerSettings.load()
        self._listener: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="layer", daemon=True)

    def is_needed(self) -> bool:
        """Whether no other hub answers at the address."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self._path)
            except OSError:
                return True
            return False

    def start(self) -> None:
        """Listen; clients may connect when this returns.

        Raises:
            ConfigurationError: another hub answers there, or the socket cannot be made.
        """
        self._listener = bind(self._path)
        self._thread.start()

    def stop(self) -> None:
        """Close every connection and end, within a second. What no worker has taken is gone."""
        loop, end = self._loop, self._end
        if loop is not None and end is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                loop.call_soon_threadsafe(end.set)
        if self._listener is not None:
            self._thread.join(_END_TIMEOUT)
            self._listener.close()
            Path(self._path).unlink(missing_ok=True)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._end = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        assert self._listener is not None
        await serve(self._listener, self.address, self._settings, self._end)
