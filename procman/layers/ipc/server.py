"""Runs the hub as a process: a Unix socket, its connections' bytes, the log. Decides nothing about messages.

Refused: peers of another uid, and connections past ``layer_max_connections``. Cut, with a line in the log and a count
in the statistics (the hub treats it as the death of the process): a connection without a greeting for 5 s; one that
sends what is no frame, or more than 64 MiB of one; one that sends nothing more of a frame that it has begun, or reads
nothing of what waits for it, for ``layer_stall_timeout``; one that has more than ``layer_max_unsent_bytes`` to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
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
from procman.layers.ipc.bounds import Throttle
from procman.layers.ipc.hub import BadFrame, Hub
from procman.layers.ipc.peers import Peer
from procman.layers.limits import MAX_MESSAGE_SIZE
from procman.log import escape
from procman.settings import ENV_LIFETIME_FD, LayerSettings

logger = logging.getLogger("procman.layers")
_BACKLOG = 1024
_QUIET = 0.00005  # seconds between two writes; busier than that, one write per loop turn takes all
_INPUT_LIMIT = frames.limit_bytes(4 * MAX_MESSAGE_SIZE)
_GREETING_LIMIT = frames.READ_BYTES
_GREETING_TIMEOUT = 5.0
_WATCH_INTERVAL = 1.0
_LONGEST_ALARM = 3600.0


class Driver:
    """Feeds frames to a ``Hub`` and writes what it answers, once per connection and loop turn.

    Connections that owe something (their greeting, the rest of a frame, reading) are looked at once a second.
    """

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop, now: Callable[[], float]) -> None:
        self.hub, self.loop, self.now = hub, loop, now
        self.settings = hub.settings
        self.connections: dict[Peer, _Connection] = {}
        self._is_flush_due = False
        self._flushed_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: float | None = None
        self._watched: dict[_Connection, None] = {}
        self._lines = Throttle()

    def flush_soon(self) -> None:
        """Write when the frames of this loop turn have been handled."""
        if not self._is_flush_due:
            self._is_flush_due = True
            self.loop.call_soon(self.flush)

    def flush_now_or_soon(self, now: float) -> None:
        """Write at once if the last time is a while ago: a hub with little to do has nothing to put together."""
        if self._is_flush_due or now - self._flushed_at < _QUIET:
            self.flush_soon()
        else:
            self.flush()
            self._flushed_at = now

    def flush(self) -> None:
        """Write everything the hub has to say, and set the alarm for what is due next."""
        if self._is_flush_due:
            self._is_flush_due = False
            self._flushed_at = self.now()
        pack = codec.pack
        for peer, output in self.hub.drain():
            connection = self.connections.get(peer)
            if connection is not None:
                connection.write(pack(output[0]) if len(output) == 1 else b"".join(map(pack, output)))
        for record in self.hub.drain_logs():
            logger.log(record.level, record.text, *record.arguments)
        due = self.hub.next_deadline()
        if due != self._timer_due:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_due = due
            self._timer = None
            if due is not None:
                seconds = min(max(0.0, due - self.now()), _LONGEST_ALARM)
                self._timer = self.loop.call_later(seconds, self._tick)

    def _tick(self) -> None:
        self._timer = self._timer_due = None
        self.hub.tick(self.now())
        self.flush_soon()

    def watch(self, connection: _Connection) -> None:
        """Look after *connection* until it owes nothing."""
        if not self._watched:
            self.loop.call_later(_WATCH_INTERVAL, self._look)
        self._watched[connection] = None

    def _look(self) -> None:
        now = self.now()
        for connection in list(self._watched):
            if not connection.look(now):
                del self._watched[connection]
        if self._watched:
            self.loop.call_later(_WATCH_INTERVAL, self._look)

    def warn(self, level: int, text: str, *arguments: Any) -> None:
        """Count a connection that is cut; one line per second and reason, so that a loop of them floods nothing."""
        self.hub.cut_count += 1
        count = self._lines.count(text, self.now())
        if count:
            logger.log(level, text + (f" ({count} such connections)" if count > 1 else ""), *arguments)


class _Connection(asyncio.Protocol):
    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._unpacker = codec.Unpacker(_INPUT_LIMIT)
        self._peer: Peer | None = None
        self._transport: asyncio.Transport | None = None
        self._greeting_due = 0.0
        self._frame_end = 0  # of what has been fed: where the last whole frame ended
        self._partial_due = 0.0  # 0: no frame is in the making
        self._reading_due = 0.0  # 0: all that was written has been read, or soon will be
        self._written = self._read_mark = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        driver = self._driver
        if not _is_own(transport.get_extra_info("socket")):
            driver.warn(logging.WARNING, "a process of another user tried to connect and was refused")
            transport.abort()
            return
        limit = driver.settings.layer_max_connections
        if len(driver.connections) >= limit:
            text = "a connection was refused: the channel layer has %d, the most it may (--layer-max-connections)"
            driver.warn(logging.ERROR, text, limit)
            transport.abort()
            return
        # Each write leaves at once if it can, so that they leave in the order in which they were made.
        transport.set_write_buffer_limits(high=0)
        self._peer = driver.hub.connected()
        driver.connections[self._peer] = self
        self._greeting_due = driver.now() + _GREETING_TIMEOUT
        driver.watch(self)

    def data_received(self, data: bytes) -> None:
        peer, driver = self._peer, self._driver
        if peer is None:
            return
        handle, now = driver.hub.handle, driver.now()
        unpacker, tell = self._unpacker, self._unpacker.tell
        try:
            unpacker.feed(data)
            for frame in unpacker.frames():
                self._frame_end = tell()
                handle(peer, frame, now)
            rest = unpacker.fed - self._frame_end
            if rest > (_INPUT_LIMIT if peer.role else _GREETING_LIMIT):
                raise ValueError("a frame is larger than the limit")
            if rest:
                if not self._partial_due:
                    driver.watch(self)
                self._partial_due = now + driver.settings.layer_stall_timeout
            else:
                self._partial_due = 0.0
        except BadFrame as error:
            driver.warn(logging.WARNING, "%s", escape(str(error)))
            self._cut(peer)
        except ValueError as error:
            text = "%s (pid %d) sent no frames: %s"
            driver.warn(logging.WARNING, text, escape(peer.label), peer.pid, escape(str(error)))
            self._cut(peer)
        driver.flush_now_or_soon(now)

    def write(self, data: bytes) -> None:
        """Write to a process that reads; past the bound the connection is given up."""
        transport, peer = self._transport, self._peer
        if transport is None or peer is None or transport.is_closing():
            return
        if self._reading_due and transport.get_write_buffer_size() > self._driver.settings.layer_max_unsent_bytes:
            self._give_up(f"has {transport.get_write_buffer_size()} bytes to read")
            return
        self._written += len(data)
        transport.write(data)

    def pause_writing(self) -> None:
        if not self._reading_due:
            self._reading_due = self._driver.now() + self._driver.settings.layer_stall_timeout
            self._driver.watch(self)

    def resume_writing(self) -> None:
        self._reading_due = 0.0

    def look(self, now: float) -> bool:
        """Give the peer up if it is overdue; whether it owes something that may become overdue."""
        peer, transport = self._peer, self._transport
        if peer is None or transport is None:
            return False
        timeout = self._driver.settings.layer_stall_timeout
        if not peer.role and now >= self._greeting_due:
            self._give_up(f"sent no greeting within {_GREETING_TIMEOUT:g} s")
            return False
        if self._partial_due and now >= self._partial_due:
            self._give_up(f"sent nothing more of a frame for {timeout:g} s")
            return False
        if self._reading_due:
            read = self._written - transport.get_write_buffer_size()
            if read > self._read_mark:
                self._read_mark, self._reading_due = read, now + timeout
            elif now >= self._reading_due:
                self._give_up(f"has read nothing for {timeout:g} s")
                return False
        return not peer.role or bool(self._partial_due or self._reading_due)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def _give_up(self, reason: str) -> None:
        peer = self._peer
        if peer is not None and self._transport is not None:
            text = "%s (pid %d) does not read or write; its connection is cut: it " + reason
            self._driver.warn(logging.ERROR, text, escape(peer.label), peer.pid)
            self._transport.abort()

    def _cut(self, peer: Peer) -> None:
        self._driver.flush()  # a refusal is still to be read
        if self._transport is not None:
            self._transport.close()
        self._forget(peer)

    def connection_lost(self, error: Exception | None) -> None:
        if self._peer is not None:
            self._forget(self._peer)
            self._driver.flush_soon()

    def _forget(self, peer: Peer) -> None:
        self._peer = None
        self._driver.connections.pop(peer, None)
        self._driver.hub.disconnected(peer, self._driver.now())


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
    _allow_descriptors(settings.layer_max_connections)
    path = addresses.parse(address)
    if path.scheme != "ipc":
        raise ConfigurationError(f"the layer process serves ipc:// addresses, not {address!r}")
    listener = socket.socket(fileno=fd) if fd is not None else bind(path.path)
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve(listener, address, settings))
    finally:
        listener.close()
        if fd is None:
            Path(path.path).unlink(missing_ok=True)


def _allow_descriptors(connections: int) -> None:
    """Raise the soft limit on open files to what the connections need, as far as the hard one allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 64
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def bind(path: str) -> socket.socket:
    """A listening socket at *path*, mode 0600; a socket file that nobody answers on is replaced.

    Raises:
        ConfigurationError: a hub answers there, or the socket cannot be made.
    """
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


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop of a hub: uvloop's, where it is installed; None means asyncio's own."""
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
    await serve(listener, address, settings, end, lifetime.announce_ready)


async def serve(
    listener: socket.socket,
    address: str,
    settings: LayerSettings,
    end: asyncio.Event,
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Be the hub at *address* on *listener* until *end* is set."""
    loop = asyncio.get_running_loop()
    now = SystemClock.monotonic
    driver = Driver(Hub(secrets.token_hex(4), now(), settings), loop, now)
    listener.setblocking(False)
    server = await loop.create_unix_server(lambda: _Connection(driver), sock=listener, backlog=_BACKLOG)
    logger.info("layer ready at %s", address)
    on_ready()
    driver.flush()
    try:
        await end.wait()
    finally:
        server.close()
        for connection in list(driver.connections.values()):
            connection.abort()
