"""Reads the output pipes of all processes into the console, line by line, and stops while the console is full.

Drives the descriptors on the running asyncio loop. One pipe per run of a process: it is read until its end, which comes
later than the process's when something that left its process group still writes.
"""

from __future__ import annotations

import asyncio
import os

from procman.supervision.console import Console
from procman.supervision.logring import LogRing
from procman.supervision.output import MAX_LINE, PARTIAL_DELAY, LineStream

_READ_SIZE = MAX_LINE  # 64 KiB: larger reads are slower, because malloc then maps memory each time
_DRAIN_LIMIT = 1024 * 1024  # bytes read at once of a dead process's last words


class _Pipe:
    __slots__ = ("fd", "fed_at", "name", "stream", "timer")

    def __init__(self, fd: int, name: str, prefix: bytes) -> None:
        self.fd, self.name, self.stream = fd, name, LineStream(prefix)
        self.fed_at = 0.0
        self.timer: asyncio.TimerHandle | None = None


class OutputPipes:
    """The read ends, which become this object's. Call inside the loop."""

    def __init__(self, console: Console, ring: LogRing) -> None:
        self._console, self._ring = console, ring
        self._loop = asyncio.get_running_loop()
        self._pipes: dict[int, _Pipe] = {}
        self._paused = False

    def add(self, fd: int, name: str, prefix: bytes) -> None:
        """Read *fd* of process *name* from now on; its lines begin with *prefix*."""
        os.set_blocking(fd, False)
        pipe = self._pipes[fd] = _Pipe(fd, name, prefix)
        if not self._paused:
            self._loop.add_reader(fd, self._read, pipe)

    def resume(self) -> None:
        """The console takes more again."""
        if self._paused:
            self._paused = False
            for pipe in self._pipes.values():
                self._loop.add_reader(pipe.fd, self._read, pipe)

    def drain(self, prefix: bytes) -> None:
        """Read what the pipes with *prefix* hold now, within bounds."""
        for pipe in [pipe for pipe in self._pipes.values() if pipe.stream.prefix == prefix]:
            self._drain(pipe)

    def close(self) -> None:
        """Read what is left, within bounds, and close everything."""
        for pipe in list(self._pipes.values()):
            self._drain(pipe)
            self._close(pipe)

    def _drain(self, pipe: _Pipe) -> None:
        taken = 0
        while not self._paused and taken < _DRAIN_LIMIT and self._read(pipe):
            taken += _READ_SIZE

    def _read(self, pipe: _Pipe) -> bool:
        """Read one block; False if there was nothing (left)."""
        try:
            data = os.read(pipe.fd, _READ_SIZE)
        except BlockingIOError:
            return False
        if not data:
            self._close(pipe)
            return False
        self._write(pipe, pipe.stream.feed(data))
        if pipe.stream.has_partial:
            pipe.fed_at = self._loop.time()
            if pipe.timer is None:
                pipe.timer = self._loop.call_later(PARTIAL_DELAY, self._flush_partial, pipe)
        if self._console.is_full and not self._paused:
            self._paused = True
            for fd in self._pipes:
                self._loop.remove_reader(fd)
        return True

    def _flush_partial(self, pipe: _Pipe) -> None:
        pipe.timer = None
        if not pipe.stream.has_partial:
            return
        left = pipe.fed_at + PARTIAL_DELAY - self._loop.time()
        # Reading pauses while the console is full: the rest of the line may be in the pipe.
        if left > 0.001 or self._paused:
            pipe.timer = self._loop.call_later(max(left, PARTIAL_DELAY / 4), self._flush_partial, pipe)
        else:
            self._write(pipe, pipe.stream.flush())

    def _close(self, pipe: _Pipe) -> None:
        if self._pipes.pop(pipe.fd, None) is None:
            return
        self._loop.remove_reader(pipe.fd)
        if pipe.timer is not None:
            pipe.timer.cancel()
        os.close(pipe.fd)
        self._write(pipe, pipe.stream.flush())

    def _write(self, pipe: _Pipe, lines: bytes) -> None:
        self._ring.add(pipe.name, lines)
        self._console.write(lines)
