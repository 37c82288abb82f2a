"""A preloader that is started before its supervisor: it tells what the project is, and goes on to be forked from.

So the project is imported once. Drives one process until an engine adopts it (``Prestarted.adopt``), or ends it. What
the process prints meanwhile is kept, up to a bound, and passed on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence

from procman.clock import SystemClock
from procman.errors import ConfigurationError
from procman.forking import ForkServer
from procman.settings import ENV_LIFETIME_FD, ENV_READY_FD
from procman.supervision.spawn import spawn

_MOST_OUTPUT = 1024 * 1024  # bytes; what is printed before that is dropped

_clock = SystemClock()


class Prestarted:
    """The process and the descriptors that belong to it; *argv* is told where to answer by ``--describe-fd``.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str]) -> None:
        self.output = b""
        self.fork_server = ForkServer()
        self._is_adopted = False
        pairs = [os.pipe() for _ in range(4)]
        (self.out_read, out_write), (self.ready_read, ready_write), (lifetime_read, self.lifetime_write) = pairs[:3]
        self._answer_read, answer_write = pairs[3]
        passed = [ready_write, lifetime_read, answer_write, self.fork_server.theirs]
        words = [*argv, "--control-fd", str(self.fork_server.theirs), "--describe-fd", str(answer_write)]
        own = {ENV_READY_FD: str(ready_write), ENV_LIFETIME_FD: str(lifetime_read)}
        try:
            self.process: subprocess.Popen[bytes] = spawn(words, {**environ, **own}, stdout=out_write, pass_fds=passed)
        finally:
            for fd in (out_write, *passed[:3]):
                os.close(fd)
        self.fork_server.started()

    def answer(self, timeout: float) -> bytes:
        """The line in which it describes the project; b"" if it has ended without one.

        Raises:
            ConfigurationError: there is none after *timeout* seconds.
        """
        line, deadline = b"", _clock.monotonic() + timeout
        open_fds = [self._answer_read, self.out_read]
        while not line.endswith(b"\n"):
            ready, _, _ = select.select(open_fds, [], [], max(0.0, deadline - _clock.monotonic()))
            if not ready:
                raise ConfigurationError(f"the project was not imported within {timeout:g} s (--startup-timeout)")
            if self.out_read in ready:
                data = os.read(self.out_read, 65536)
                self.output = (self.output + data)[-_MOST_OUTPUT:]
                if not data:
                    open_fds.remove(self.out_read)
            if self._answer_read in ready:
                data = os.read(self._answer_read, 65536)
                line += data
                if not data:
                    break
        return line

    def adopt(self) -> None:
        """Somebody else sees to the process and its descriptors from here on."""
        self._is_adopted = True
        os.close(self._answer_read)

    def end(self) -> int:
        """End it, unless it was adopted; its exit status, 0 if it was."""
        if self._is_adopted:
            return 0
        self.adopt()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        status = self.process.wait()
        for fd in (self.out_read, self.ready_read, self.lifetime_write):
            os.close(fd)
        self.fork_server.close()
        return status


@contextlib.contextmanager
def prestarted(argv: Sequence[str], environ: Mapping[str, str]) -> Iterator[Prestarted]:
    """A process that has ended at the end of the block, unless somebody has adopted it."""
    process = Prestarted(argv, environ)
    try:
        yield process
    finally:
        process.end()
