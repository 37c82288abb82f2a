"""Runs the hub as a process: a Unix socket, its connections' bytes, the log. Decides nothing about messages.

Peers of another uid are refused. What a peer does not read is bounded: past 64 MiB its connection is cut, which the
hub treats as its death.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from procman import lifetime
from procman.clock import SystemClock
from procman.errors import ConfigurationError
from procman.layers import codec
from procman.layers.ipc import address as addresses
from procman.layers.ipc import frames
from procman.layers.ipc.hub import BadFrame, Hub
from procman.layers.ipc.peers import Peer
from procman.layers.limits import MAX_MESSAGE_SIZE
from procman.settings import ENV_LIFETIME_FD, LayerSettings

logger = logging.getLogger("procman.layers")
_MAX_UNSENT_BYTES = 64 * 1024 * 1024
_BACKLOG = 1024
_INPUT_LIMIT = frames.limit_bytes(4 * MAX_MESSAGE_SIZE)


class Driver:
    """Feeds frames to a ``Hub`` and writes what it answers, once per connection and loop turn."""

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> None:
        self.hub, self.loop, self.now = hub, loop, now
        self.transports: dict[Peer, asyncio.Transport] = {}
        self._is_flush_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: float | None = None

    def flush_soon(self) -> None:
        """Write when the frames of this loop turn have been handled."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write everything the hub has to say, and set the alarm for what is due next."""
        self._is_flush_due = False
        pack = codec.pack
        for peer, output in self.hub.drain():
            transport = self.transports.get(peer)
            if transport is None or transport.is_closing():
                continue
            transport.write(pack(output[0]) if len(output) == 1 else b"".join(map(pack, output)))
            if transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
                logger.error("%s (pid %d) does not read; its connection is cut", peer.label, peer.pid)
                transport.abort()
        for record in self.hub.drain_logs():
            logger.log(record.level, record.text, *record.arguments)
        due = self.hub.next_deadline()
        if due != self._timer_due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_due = due
            self._timer = None if due is None else self.loop.call_later(max(0.0, due - self.now()), self._tick)

    def _tick(self) -> None:
        self._timer = self._timer_due = None
        self.hub.tick(self.now())
        self.flush_soon()


class _Connection(asyncio.Protocol):
    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._unpacker = codec.Unpacker(_INPUT_LIMIT)
        self._peer: Peer | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        if not _is_own(transport.get_extra_info("socket")):
            logger.warning("a process of another user tried to connect and was refused")
            transport.abort()
            return
        # Each write leaves at once if it can, so that they leave in the order in which they were made.
        transport.set_write_buffer_limits(high=0)
        self._peer = self._driver.hub.connected()
        self._driver.transports[self._peer] = transport

    def data_received(self, data: bytes) -> None:
        peer, driver = self._peer, self._driver
        if peer is None:
            return
        handle, now = driver.hub.handle, driver.now()
        try:
            self._unpacker.feed(data)
            for frame in self._unpacker.frames():
                handle(peer, frame, now)
        except (BadFrame, ValueError) as error:
            logger.warning("%s", error if isinstance(error, BadFrame) else f"{peer.label} sent no frames: {error!r}")
            self._cut(peer)
        driver.flush_soon()

    def _cut(self, peer: Peer) -> None:
        self._driver.flush()  # a refusal is still to be read
        if self._transport is not None:
            self._transport.close()
        self._peer = None
        self._driver.transports.pop(peer, None)
        self._driver.hub.disconnected(peer, self._driver.now())

    def connection_lost(self, error: Exception | None) -> None:
        peer, self._peer = self._peer, None
        if peer is not None:
            self._driver.transports.pop(peer, None)
            self._driver.hub.disconnected(peer, self._driver.now())
            self._driver.flush_soon()


def _is_own(connection: Any) -> bool:
    if not hasattr(socket, "SO_PEERCRED"):  # macOS: the directory's mode has to do
        return True
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return bool(struct.unpack("3i", credentials)[1] == os.getuid())


def run_hub(address: str, fd: int | None = None, settings: LayerSettings | None = None) -> None:
    """Serve the layer at *address* until told to stop; *fd* is its listening socket, if somebody else holds it.

    *settings* are its bounds, by default those of the environment.

    Below a supervisor the hub ignores SIGTERM and SIGINT and ends when the supervisor does, so that it goes last;
    alone it ends with either signal.

    Raises:
        ConfigurationError: *address* is no IPC address, or another hub answers there.
    """
    settings = settings or LayerSettings.load()
    path = addresses.parse(address)
    if path.scheme != "ipc":
        raise ConfigurationError(f"the layer process serves ipc:// addresses, not {address!r}")
    listener = socket.socket(fileno=fd) if fd is not None else _bind(path.path)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(listener, address, settings))
    finally:
        listener.close()
        if fd is None:
            Path(path.path).unlink(missing_ok=True)


def _bind(path: str) -> socket.socket:
    """A listening socket at *path*, mode 0600; a socket file that nobody answers on is replaced."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            Path(path).unlink(missing_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot use {path} for the layer's socket: {error.strerror}") from error
        else:
            raise ConfigurationError(f"a channel layer is already running at {path}")
    listener = socket.socket(socket.AF_UNIX)
    old = os.umask(0o177)
    try:
        listener.bind(path)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"cannot listen at {path}: {error.strerror}") from error
    finally:
        os.umask(old)
    return listener


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.implementation.name == "cpython":
        with contextlib.suppress(ImportError):
            import uvloop

            return uvloop.new_event_loop
    return None


async def _serve(listener: socket.socket, address: str, settings: LayerSettings) -> None:
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    is_supervised = bool(os.environ.get(ENV_LIFETIME_FD))
    for number in (signal.SIGTERM, signal.SIGINT):
        if is_supervised:
            signal.signal(number, signal.SIG_IGN)
        else:
            loop.add_signal_handler(number, end.set)
    if is_supervised:

        def supervisor_has_gone() -> None:
            loop.call_soon_threadsafe(end.set)

        lifetime.watch_lifetime(supervisor_has_gone)
    now = SystemClock.monotonic
    driver = Driver(Hub(secrets.token_hex(4), now(), settings), loop, now)
    listener.setblocking(False)
    server = await loop.create_unix_server(lambda: _Connection(driver), sock=listener, backlog=_BACKLOG)
    logger.info("layer ready at %s", address)
    lifetime.announce_ready()
    driver.flush()
    try:
        await end.wait()
    finally:
        server.close()
        for transport in list(driver.transports.values()):
            transport.abort()
