"""A thread that hears the hub while all other threads of a worker are inside consumers.

Without it a hub that restarts would hand out again what they run, and one that wants a message back that waits behind
a slow consumer could not say so. It decides nothing: ``taking.py`` says what to report and what to answer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from procman.errors import ProcmanError
from procman.layers.ipc.connection import Connection, ConnectionBroken
from procman.layers.wake import WakePipe, Woken


class Watcher:
    """A thread that holds a connection and hands on what it reads; when it breaks, it reports to the next hub."""

    def __init__(
        self,
        open_connection: Callable[[WakePipe], Connection],
        report: Callable[[Connection], None],
        hear: Callable[[Connection, Any], None],
    ) -> None:
        self._open, self._report, self._hear = open_connection, report, hear
        self._is_stopping = False
        self._wake = WakePipe()
        self._thread = threading.Thread(target=self._run, name="layer watcher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._is_stopping = True
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(2.0)

    def _run(self) -> None:
        while not self._is_stopping:
            try:
                connection = self._open(self._wake)
            except Woken:
                continue
            except (ProcmanError, OSError):  # threads that take report it; this one tries again
                self._wake.wait(0.2)
                continue
            try:
                self._report(connection)
                while not self._is_stopping:
                    frame = connection.read(None)
                    if frame is not None:
                        self._hear(connection, frame)
            except ConnectionBroken:
                pass
            finally:
                connection.close()
