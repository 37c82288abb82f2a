"""A thread that notices the death of the hub while all other threads of a worker are inside consumers.

Without it a hub that restarts would hand out again what they run. It decides nothing: ``sync.py`` says what to report.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from procman.errors import ProcmanError
from procman.layers.ipc.connection import Connection, ConnectionBroken, WakePipe, Woken


class Watcher:
    """A thread that holds a connection and does nothing until it breaks; then it reports to the next hub."""

    def __init__(self, open_connection: Callable[[WakePipe], Connection], report: Callable[[Connection], None]) -> None:
        self._open, self._report = open_connection, report
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
                    connection.read(None)
            except ConnectionBroken:
                pass
            finally:
                connection.close()
