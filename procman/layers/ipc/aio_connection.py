"""One asyncio connection to the hub: frames out, once per loop turn, and in, as soon as they arrive.

Decides nothing: ``aio.py`` says what the frames mean and when to connect again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from typing import Any, cast

from procman.layers import codec
from procman.layers.errors import ProtocolMismatch
from procman.layers.ipc import frames


class HubConnection(asyncio.Protocol):
    """A connection to the hub that greets with what the layer writes first.

    *welcomed* is called with this connection, the hub's id and whether the served name had been declared dead; then
    *arrived* with each frame. ``lost`` is done when the connection has ended. *limit* is in bytes of one frame.
    """

    def __init__(
        self,
        address: str,
        limit: int,
        welcomed: Callable[[HubConnection, str, bool], None],
        arrived: Callable[[Any], None],
    ) -> None:
        self._address, self._on_welcome, self._on_frame = address, welcomed, arrived
        self._loop = asyncio.get_running_loop()
        self._unpacker = codec.Unpacker(limit)
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._fd = -1  # the connection's once more: see _read_rest
        self._is_closed = False
        self.welcomed: asyncio.Future[None] = self._loop.create_future()
        self.lost: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=1 << 30)
        self._fd = os.dup(transport.get_extra_info("socket").fileno())

    def write(self, frame: tuple[Any, ...]) -> None:
        """Have the hub get *frame*, in order."""
        if not self._out:
            self._loop.call_soon(self.flush)
        self._out.append(codec.pack(frame))

    def flush(self) -> None:
        """Do not keep what is written for the end of the loop turn."""
        if self._out and self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._out[0] if len(self._out) == 1 else b"".join(self._out))
        self._out.clear()

    def data_received(self, data: bytes) -> None:
        try:
            self._unpacker.feed(data)
            for frame in self._unpacker.frames():
                if self.welcomed.done():
                    self._on_frame(frame)
                else:
                    hub_id, was_dead, _ = frames.check_welcome(frame, self._address)
                    self.welcomed.set_result(None)
                    self._on_welcome(self, hub_id, was_dead)
        except ProtocolMismatch as error:
            if not self.welcomed.done():
                self.welcomed.set_exception(error)
            self.close()
        except ValueError:
            self.close()  # no frames of the hub: connect again

    def connection_lost(self, error: Exception | None) -> None:
        self._read_rest()
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionResetError("the layer closed the connection"))
        if not self.lost.done():
            self.lost.set_result(None)

    def _read_rest(self) -> None:
        """Hear what a hub that has died had said before.

        Event loops give a connection up with the first write that fails, unread bytes included. The end of a frame may
        be among them, and the frame would be run again.
        """
        fd, self._fd = self._fd, -1
        try:
            with contextlib.suppress(OSError):
                while not self._is_closed and (data := os.read(fd, frames.READ_BYTES)):
                    self.data_received(data)
        finally:
            if fd >= 0:
                os.close(fd)

    def close(self) -> None:
        """End the connection; nothing more is heard from it."""
        self._is_closed = True
        if self._transport is not None:
            self._transport.close()
        if not self.welcomed.done():
            self.welcomed.cancel()
