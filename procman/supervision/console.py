"""The merged log's way out: a standard output that never blocks the supervisor.

Drives one descriptor. A pipe or terminal is reopened as a private file description, because O_NONBLOCK on descriptor 1
itself would change it for the shell and for siblings. Buffers up to ``HIGH_WATER`` and what one read of each child
adds; past it ``is_full`` asks the owner to stop reading, and the children block on their pipes.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import stat
from collections import deque
from collections.abc import Callable

from procman.clock import SystemClock

HIGH_WATER = 1024 * 1024  # bytes
LOW_WATER = 256 * 1024  # bytes
FLUSH_TIMEOUT = 1.0  # seconds at the end for a reader that does not read

_clock = SystemClock()


class Console:
    """Writes to *fd* as fast as its reader takes it.

    *on_drained* is called when the buffer has fallen below the low water mark after having been full; *on_broken* once
    when nobody reads any more (a closed pipe). What is written after that is dropped.
    """

    def __init__(self, fd: int, on_drained: Callable[[], None], on_broken: Callable[[], None]) -> None:
        self._on_drained, self._on_broken = on_drained, on_broken
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._full = self._waiting = self.broken = False
        self._socket: socket.socket | None = None
        self._own_fd: int | None = None
        # Most bytes per write that cannot block although the descriptor is a blocking one; 0: no limit.
        self._limit = 0
        self._fd = fd
        self._open(fd)

    def _open(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif stat.S_ISFIFO(mode) or os.isatty(fd):
            try:
                self._own_fd = os.open(f"/dev/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
                self._fd = self._own_fd
            except OSError:
                # Somebody else's terminal (after su) or pipe: write only what a writable pipe takes for certain.
                self._limit = select.PIPE_BUF

    @property
    def is_full(self) -> bool:
        """Whether more than the high water mark waits, and not yet less than the low one."""
        return self._full

    def write(self, data: bytes) -> None:
        """Queue *data*, and write at once what can be."""
        if self.broken or not data:
            return
        self._chunks.append(data)
        self._size += len(data)
        if not self._waiting:
            self._drain()
        if self._size > HIGH_WATER:
            self._full = True

    def _write_some(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if self._limit:
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            if not poll.poll(0):
                raise BlockingIOError
            data = data[: self._limit]
        return os.write(self._fd, data)

    def _drain(self) -> None:
        try:
            while self._chunks:
                chunk = self._chunks.popleft()
                try:
                    written = self._write_some(chunk)
                except BlockingIOError:
                    self._chunks.appendleft(chunk)
                    self._wait()
                    return
                self._size -= written
                if written < len(chunk):
                    self._chunks.appendleft(chunk[written:])
        except (BrokenPipeError, ConnectionResetError):
            self._break()
            return
        except OSError:
            # A full disk: a log line is not worth the site. What could not be written is lost.
            self._chunks.clear()
            self._size = 0
        self._stop_waiting()

    def _after_write(self) -> None:
        self._drain()
        if self._full and self._size < LOW_WATER:
            self._full = False
            self._on_drained()

    def _wait(self) -> None:
        if not self._waiting:
            self._waiting = True
            asyncio.get_running_loop().add_writer(self._fd, self._after_write)

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting = False
            asyncio.get_running_loop().remove_writer(self._fd)

    def _break(self) -> None:
        self._stop_waiting()
        self._chunks.clear()
        self._size = 0
        self.broken = True
        if self._full:
            self._full = False
            self._on_drained()
        self._on_broken()

    def close(self) -> None:
        """Write what is left, for at most ``FLUSH_TIMEOUT`` seconds; call inside the loop."""
        self._stop_waiting()
        end = _clock.monotonic() + FLUSH_TIMEOUT
        while self._chunks and not self.broken:
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            left = end - _clock.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                break
            self._drain()
            self._stop_waiting()
        if self._socket is not None:
            self._socket.close()
        if self._own_fd is not None:
            os.close(self._own_fd)
