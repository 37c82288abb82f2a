"""One blocking connection to the hub: connect with patience, write frames, read frames with a deadline.

Belongs to one thread at a time. Errors of the operating system come out as ``ConnectionBroken``; what to do about one
(connect again, send again, give up) is decided in ``sync.py``.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

from procman.clock import SystemClock
from procman.layers import codec
from procman.layers.errors import LayerUnavailable
from procman.layers.ipc import frames

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.3


class ConnectionBroken(Exception):
    """The hub has gone, or does not answer."""


class Connection:
    """A socket, and the frames that have arrived on it."""

    __slots__ = (
        "__weakref__",
        "_frames",
        "_poll",
        "_socket",
        "_unpacker",
        "address",
        "epoch",
        "hub_id",
        "take_channels",
        "wake_fds",
    )

    def __init__(self, path: str, address: str, input_limit: int, send_timeout: float) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._unpacker = codec.Unpacker(input_limit)
        self._frames: Iterator[Any] = iter(self._unpacker.frames())
        self._poll = select.poll()
        self.wake_fds: tuple[int, int] | None = None
        self.take_channels: tuple[str, ...] | None = None
        self.hub_id = ""
        self.epoch = 0
        try:
            # A timeout of the kernel, not settimeout(): that would poll before each call.
            seconds = int(send_timeout)
            limit = struct.pack("ll", seconds, int((send_timeout - seconds) * 1_000_000))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            self._socket.connect(path)
        except BaseException:
            self._socket.close()
            raise
        self._poll.register(self._socket, select.POLLIN)

    def write(self, data: bytes) -> None:
        """Write all of *data*. Raises ConnectionBroken."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise ConnectionBroken(str(error)) from error

    def read(self, timeout: float | None) -> Any:
        """The next frame; None after *timeout* seconds or a wake-up. Raises ConnectionBroken."""
        for frame in self._frames:
            return frame
        deadline = None if timeout is None else SystemClock.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - SystemClock.monotonic())
            ready = self._poll.poll(None if left is None else left * 1000)
            if not ready:
                return None
            if self.wake_fds is not None and len(ready) == 1 and ready[0][0] == self.wake_fds[0]:
                with contextlib.suppress(BlockingIOError):
                    os.read(self.wake_fds[0], 512)
                return None
            try:
                data = self._socket.recv(frames.READ_BYTES)
                if not data:
                    raise ConnectionBroken("the layer closed the connection")
                self._unpacker.feed(data)
                for frame in self._frames:
                    return frame
            except (OSError, ValueError) as error:
                raise ConnectionBroken(str(error)) from error

    def watch_wake(self) -> None:
        """Let ``wake`` end ``read``."""
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        os.set_blocking(writer, False)
        self.adopt_wake((reader, writer))

    def adopt_wake(self, fds: tuple[int, int]) -> None:
        """Take over the wake-up pipe of a predecessor: a wake-up between two connections is not lost."""
        self.wake_fds = fds
        self._poll.register(fds[0], select.POLLIN)

    def give_wake(self) -> tuple[int, int] | None:
        """Let go of the wake-up pipe, for a successor."""
        fds, self.wake_fds = self.wake_fds, None
        return fds

    def wake(self) -> None:
        """End the ``read`` that runs, or else the next. Callable from a signal handler."""
        if self.wake_fds is not None:
            with contextlib.suppress(OSError):  # full: it is awake
                os.write(self.wake_fds[1], b"w")

    def close(self) -> None:
        """Close; twice is fine."""
        self._socket.close()
        fds = self.give_wake()
        if fds is not None:
            for fd in fds:
                os.close(fd)

    def __del__(self) -> None:
        # A thread that ends takes its connection with it.
        with contextlib.suppress(Exception):
            self.close()


def connect(
    path: str,
    address: str,
    hello: tuple[Any, ...],
    max_message_size: int,
    timeout: float,
    pause: Callable[[float], Any],
) -> Connection:
    """A connection that the hub has welcomed, tried again and again for *timeout* seconds.

    Raises:
        LayerUnavailable: nobody answered. ProtocolMismatch: somebody of another version did.
    """
    deadline = SystemClock.monotonic() + timeout
    delay = _FIRST_PAUSE
    while True:
        problem = "it did not answer"
        connection = None
        try:
            connection = Connection(path, address, frames.limit_bytes(4 * max_message_size), max(timeout, 1.0))
            connection.write(codec.pack(hello))
            answer = connection.read(max(0.05, deadline - SystemClock.monotonic()))
            if answer is not None:
                connection.hub_id, _ = frames.check_welcome(answer, address)
                return connection
            connection.close()
        except (ConnectionBroken, OSError) as error:
            problem = str(error)
            if connection is not None:
                connection.close()
        if SystemClock.monotonic() + delay >= deadline:
            raise LayerUnavailable(
                f"no channel layer answers at {address} ({problem}): is `channels-run` (or `channels-run layer`) "
                "running for this project, with the same settings and as the same user?"
            )
        # A restarted hub meets every process at once; jitter spreads them.
        pause(delay * (0.5 + random.random() / 2))
        delay = min(_LONGEST_PAUSE, delay * 2)
