"""Keeps a guardian running: the process that ends everything when this one was killed. ``guardian.py`` is its program.

Drives that process and the pipe on which it is told whom to end. It is one of the supervisor's children, reaped by it.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from procman.supervision.spawn import spawn

_PROGRAM = str(Path(__file__).with_name("guardian.py"))
_END_TIMEOUT = 1.0  # seconds


class Guard:
    """The guardian of the process groups that were added; none runs before ``start``.

    *mark*, ``NAME=VALUE``, is in the environment of each process of this run, whatever its group; "": there is none.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._process: subprocess.Popen[bytes] | None = None
        self._fd: int | None = None

    @property
    def pid(self) -> int | None:
        """Its process id; None if there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def start(self, pids: Iterable[int]) -> None:
        """Start one, in the place of one that may have ended, for the groups *pids*.

        Raises:
            OSError: it cannot be started.
        """
        if self._fd is not None:
            os.close(self._fd)
        read, self._fd = os.pipe()
        os.set_blocking(self._fd, False)
        self._process = None
        try:
            self._process = spawn([sys.executable, "-I", "-S", _PROGRAM], {}, stdin=read, dies_with_parent=False)
        finally:
            os.close(read)
        if self._mark:
            self._write(f"={self._mark}\n".encode())
        for pid in pids:
            self.add(pid)

    def ended(self) -> None:
        """It was reaped."""
        if self._process is not None:
            self._process.returncode = 0

    def add(self, pid: int) -> None:
        """End the group *pid*, if it comes to that."""
        self._tell(b"+", pid)

    def remove(self, pid: int) -> None:
        """That group has ended."""
        self._tell(b"-", pid)

    def close(self) -> None:
        """Have it end what is left, and itself."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_TIMEOUT)

    def _tell(self, sign: bytes, pid: int) -> None:
        self._write(b"%s%d\n" % (sign, pid))

    def _write(self, line: bytes) -> None:
        if self._fd is not None:
            with contextlib.suppress(BrokenPipeError, BlockingIOError):  # a dead one is replaced and told everything
                os.write(self._fd, line)
