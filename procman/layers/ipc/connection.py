"""One blocking connection to the hub: connect with patience, write frames, read frames with a deadline.

One thread reads; several may write. Errors of the operating system come out as ``ConnectionBroken``; what to do about
one (connect again, send again, give up) is decided in ``sync.py`` and ``taking.py``.
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from procman.clock import SystemClock
from procman.layers import codec
from procman.layers.errors import LayerUnavailable
from procman.layers.ipc import frames
from procman.layers.wake import WakePipe, Woken

_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.3
# At most frames.READ_BYTES. From 128 KiB on, malloc maps each buffer and unmaps it again: three system calls per read.
_READ_BYTES = 64 * 1024
_random = random.Random()


class ConnectionBroken(Exception):
    """The hub has gone, or does not answer."""


class Connection:
    """A socket, and the frames that have arrived on it.

    ``number`` is the hub's for this connection. ``delivered`` numbers the deliveries that were read from it, ``begun``
    is the last one that its thread began with, and those up to ``given_back`` are begun or go back: see ``taking.py``.
    """

    __slots__ = (
        "__weakref__",
        "_frames",
        "_poll",
        "_reading",
        "_rest",
        "_socket",
        "_unpacker",
        "_wake",
        "_writing",
        "address",
        "begun",
        "delivered",
        "given_back",
        "hub_id",
        "number",
        "take_channels",
        "was_woken",
    )

    def __init__(self, path: str, address: str, input_limit: int, send_timeout: float) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._unpacker = codec.Unpacker(input_limit)
        self._frames: Iterator[Any] = iter(self._unpacker.frames())
        self._poll = select.poll()
        self._wake: WakePipe | None = None
        self.was_woken = False
        self.take_channels: tuple[str, ...] | None = None
        self.hub_id = ""
        self.number = self.delivered = self.begun = self.given_back = 0
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._rest: deque[Any] = deque()
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
            with self._writing:
                self._socket.sendall(data)
        except OSError as error:
            raise ConnectionBroken(str(error)) from error

    def read(self, timeout: float | None) -> Any:
        """The next frame; None after *timeout* seconds or a wake-up. Raises ConnectionBroken."""
        frame = self.read_fetched()
        if frame is not None:
            return frame
        deadline = None if timeout is None else SystemClock.monotonic() + timeout
        while True:
            left = None if deadline is None else max(0.0, deadline - SystemClock.monotonic())
            ready = self._poll.poll(None if left is None else left * 1000)
            if not ready:
                return None
            if self._wake is not None and len(ready) == 1 and ready[0][0] == self._wake.fileno():
                self._wake.clear()
                self.was_woken = True
                return None
            try:
                with self._reading:
                    data = self._socket.recv(_READ_BYTES)
                    if not data:
                        raise ConnectionBroken("the layer closed the connection")
                    self._unpacker.feed(data)
                    for frame in self._frames:
                        return frame
            except (OSError, ValueError) as error:
                raise ConnectionBroken(str(error)) from error

    def read_fetched(self) -> Any:
        """The next frame that has arrived already, else None. Raises ConnectionBroken."""
        try:
            with self._reading:
                if self._rest:
                    return self._rest.popleft()
                for frame in self._frames:
                    return frame
        except ValueError as error:
            raise ConnectionBroken(str(error)) from error
        return None

    def read_rest(self) -> list[Any]:
        """All frames that a hub which has gone had sent and that are unread; they stay to be read.

        For any thread: the one that reads may be inside a consumer.
        """
        with self._reading:
            with contextlib.suppress(OSError, ValueError):
                while data := self._socket.recv(_READ_BYTES, socket.MSG_DONTWAIT):
                    self._unpacker.feed(data)
            with contextlib.suppress(ValueError):
                self._rest.extend(self._frames)
            return list(self._rest)

    def answer(self, rid: int, timeout: float | None) -> Any:
        """What the hub answers to the request *rid*.

        Raises:
            LayerUnavailable: nothing for *timeout* seconds. ConnectionBroken. What the hub refused with.
        """
        while True:
            frame = self.read(timeout)
            if frame is None:
                raise LayerUnavailable(f"the channel layer at {self.address} did not answer for {timeout} s")
            if frame[1] == rid:
                if frame[0] == frames.ERROR:
                    raise frames.build_error(frame[2], frame[3])
                return frame[2]

    def watch(self, wake: WakePipe) -> None:
        """Let *wake* end ``read``."""
        self._wake = wake
        self._poll.register(wake.fileno(), select.POLLIN)

    def close(self) -> None:
        """Close; twice is fine."""
        self._socket.close()

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
    wake: WakePipe | None,
    is_patient: bool = True,
) -> Connection:
    """A connection that the hub has welcomed, tried again and again for *timeout* seconds.

    With *wake*, a wake-up ends the attempts. Without *is_patient* a socket that nobody listens on ends them at once.

    Raises:
        LayerUnavailable: nobody answered. ProtocolMismatch: somebody of another version did. Woken.
    """
    deadline = SystemClock.monotonic() + timeout
    delay = _FIRST_PAUSE
    while True:
        problem = "it did not answer"
        connection = None
        is_absent = False
        try:
            connection = Connection(path, address, frames.limit_bytes(4 * max_message_size), max(timeout, 1.0))
            if wake is not None:
                connection.watch(wake)
            connection.write(codec.pack(hello))
            answer = connection.read(max(0.05, deadline - SystemClock.monotonic()))
            if answer is not None:
                connection.hub_id, _, connection.number = frames.check_welcome(answer, address)
                return connection
            connection.close()
            if connection.was_woken:
                raise Woken
        except (ConnectionBroken, OSError) as error:
            problem = str(error)
            is_absent = isinstance(error, FileNotFoundError | ConnectionRefusedError)
            if connection is not None:
                connection.close()
        if (is_absent and not is_patient) or SystemClock.monotonic() + delay >= deadline:
            raise LayerUnavailable(
                f"no channel layer answers at {address} ({problem}): is `channels-run` (or `channels-run layer`) "
                "running for this project, with the same settings and as the same user?"
            )
        # A restarted hub meets every process at once; jitter spreads them.
        seconds = delay * (0.5 + _random.random() / 2)
        if wake is None:
            time.sleep(seconds)
        elif wake.wait(seconds):
            raise Woken
        delay = min(_LONGEST_PAUSE, delay * 2)
