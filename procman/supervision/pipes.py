"""Reads the output pipes of all processes into the merged log, line by line, and stops while that is full.

Drives the descriptors on the running asyncio loop. One pipe per run of a process: it is read until its end, which comes
later than the process's when something that left its process group still writes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from procman.supervision.logformat import Voice
from procman.supervision.mergedlog import MergedLog
from procman.supervision.output import PARTIAL_DELAY, LineStream

_READ_SIZE = 64 * 1024  # what a pipe holds; for more malloc maps memory each time
_DRAIN_LIMIT = 1024 * 1024  # bytes read at once of a dead process's last words


class _Pipe:
    __slots__ = ("fd", "fed_at", "on_data", "stream", "timer", "voice")

    def __init__(self, fd: int, voice: Voice, max_line: int, on_data: Callable[[bytes], bool] | None) -> None:
        self.fd, self.voice, self.stream, self.on_data = fd, voice, LineStream(max_line), on_data
        self.fed_at = 0.0
        self.timer: asyncio.TimerHandle | None = None


class OutputPipes:
    """The read ends, which become this object's. Call inside the loop."""

    def __init__(self, log: MergedLog) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._pipes: dict[int, _Pipe] = {}
        self._paused = False

    def add(self, fd: int, voice: Voice, on_data: Callable[[bytes], bool] | None = None, output: bytes = b"") -> None:
        """Read *fd* from now on, as what *voice* says, behind *output*, which was read of it already.

        *on_data* sees what is read, until it answers True.
        """
        os.set_blocking(fd, False)
        pipe = self._pipes[fd] = _Pipe(fd, voice, self._log.max_line, on_data)
        self._write(pipe, pipe.stream.feed(output))
        if not self._paused:
            self._loop.add_reader(fd, self._read, pipe)

    def resume(self) -> None:
        """The console takes more again."""
        if self._paused:
            self._paused = False
            for pipe in self._pipes.values():
                self._loop.add_reader(pipe.fd, self._read, pipe)

    def drain(self, voice: Voice) -> None:
        """Read what the pipes of *voice* hold now, within bounds."""
        for pipe in [pipe for pipe in self._pipes.values() if pipe.voice is voice]:
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
        if pipe.on_data is not None and pipe.on_data(data):
            pipe.on_data = None
        if pipe.stream.has_partial:
            pipe.fed_at = self._loop.time()
            if pipe.timer is None:
                pipe.timer = self._loop.call_later(PARTIAL_DELAY, self._flush_partial, pipe)
        if self._log.is_full and not self._paused:
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
        if lines:
            self._log.write(pipe.voice, lines)
