"""Signal handlers that only note the signal and write a wake-up byte; whoever owns the loop reads them.

Drives the process-wide handlers, hence one inbox per process, from its main thread.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from types import FrameType

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class SignalInbox:
    """Signals that have arrived. ``fd`` is readable when there are some."""

    def __init__(self) -> None:
        self.fd, self._write_fd = os.pipe()
        os.set_blocking(self.fd, False)
        os.set_blocking(self._write_fd, False)
        self._arrived: deque[int] = deque()
        # After nohup a terminal that goes is nobody's business. (SIGINT is ignored in every background job of a script,
        # and there it still has to work when it is sent on purpose.)
        is_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        wanted = [signum for signum in HANDLED if not (is_nohup and signum == signal.SIGHUP)]
        self._before = {signum: signal.signal(signum, self._note) for signum in wanted}

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._arrived.append(signum)
        try:
            os.write(self._write_fd, b"\0")
        except BlockingIOError:  # the pipe is full of wake-ups that nobody has read yet
            pass

    def take(self) -> list[int]:
        """The signals since the last call, in order; empties the pipe."""
        try:
            while os.read(self.fd, 4096):
                pass
        except BlockingIOError:
            pass
        found = []
        while self._arrived:
            found.append(self._arrived.popleft())
        return found

    def close(self) -> None:
        """Put the earlier handlers back."""
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        os.close(self.fd)
        os.close(self._write_fd)


def has_terminal() -> bool:
    """Whether this process has a controlling terminal that is still there."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError:
        return False
    return True
