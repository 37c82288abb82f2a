"""Ends the wait of a thread: from another thread, or from a signal handler."""

from __future__ import annotations

import contextlib
import os
import select


class Woken(Exception):
    """``wake`` was called while a thread waited for its layer."""


class WakePipe:
    """Ends one wait of the thread that owns it: the present one, or else the next. A wake-up is never lost."""

    __slots__ = ("__weakref__", "_reader", "_writer")

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def fileno(self) -> int:
        """What is readable after ``set``."""
        return self._reader

    def set(self) -> None:
        """Wake the owner. Callable from a signal handler."""
        with contextlib.suppress(OSError):  # full: it is awake
            os.write(self._writer, b"w")

    def clear(self) -> None:
        """The owner is awake."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 512)

    def wait(self, timeout: float) -> bool:
        """Sleep *timeout* seconds; True, and cleared, if the owner was woken."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        if not poll.poll(timeout * 1000):
            return False
        self.clear()
        return True

    def __del__(self) -> None:
        # A thread that ends takes its pipe with it.
        os.close(self._reader)
        os.close(self._writer)
