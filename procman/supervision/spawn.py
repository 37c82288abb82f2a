"""Start one child process so that no signal is lost and none outlives the supervisor.

Drives fork and exec; decides nothing. Only for a single-threaded parent: Python code runs between fork and exec.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from procman.supervision.signals import HANDLED

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Loaded before any fork: the child must not open libraries.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def become_subreaper() -> None:
    """Make this process the parent of its orphaned grandchildren, so that it can reap and kill them (Linux)."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def spawn(
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
    pass_fds: Sequence[int] = (),
    dies_with_parent: bool = True,
) -> subprocess.Popen[bytes]:
    """A process of its own session and group; stdout and stderr both go to *stdout* (None: inherited).

    Raises:
        OSError: the program does not exist or the system has no process or descriptor left.
    """
    parent = os.getpid()

    def prepare() -> None:
        for signum in HANDLED:
            signal.signal(signum, signal.SIG_DFL)
        if dies_with_parent and _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:  # it died before prctl
                os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    # A SIGTERM between fork and exec would meet the parent's Python handler in the child and be lost: it waits until
    # the child has default handlers again.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        return subprocess.Popen(
            argv, env=env, stdin=stdin, stdout=stdout, stderr=None if stdout is None else subprocess.STDOUT,
            pass_fds=pass_fds, start_new_session=True, preexec_fn=prepare,
        )  # fmt: skip
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
