"""Ties a process to the supervisor that started it, and tells it that the process is ready, lives, or wants to go.

Foundation for the roles that ``channels-run`` starts (layer, interface, worker). Without a supervisor (a role started
by hand) all of this does nothing.
"""

import os
import threading
from collections.abc import Callable

from procman.settings import ENV_BEAT, ENV_LIFETIME_FD, ENV_READY_FD


def inherited_fd(variable: str) -> int | None:
    """The descriptor that the supervisor passed in *variable*, made private to this process; None without one."""
    text = os.environ.pop(variable, "")
    if not text.isdigit():
        return None
    fd = int(text)
    try:
        os.set_inheritable(fd, False)
    except OSError:
        return None
    return fd


# What a process says of itself, a byte each.
READY, BEAT, SUCCESSOR = b"1", b"b", b"s"
LONGEST_BEAT = 10.0  # seconds between two

_status_fd: int | None = None


def announce_ready() -> None:
    """Tell the supervisor that this process does its work from now on."""
    global _status_fd
    if _status_fd is not None:  # of the process that this one was forked from
        os.close(_status_fd)
    _status_fd = inherited_fd(ENV_READY_FD)
    if _status_fd is not None:
        os.set_blocking(_status_fd, False)
    _say(READY)


def ask_for_successor() -> bool:
    """Have the supervisor start a successor and then end this process; False where there is none."""
    return _say(SUCCESSOR)


def keep_beating() -> None:
    """Tell the supervisor again and again, from a thread of its own, that code runs in this process."""
    interval = float(os.environ.get(ENV_BEAT, "0"))
    if _status_fd is None or not interval:
        return

    def beat() -> None:
        while _say(BEAT):
            threading.Event().wait(interval)

    threading.Thread(target=beat, name="heartbeat", daemon=True).start()


def _say(what: bytes) -> bool:
    try:
        return _status_fd is not None and os.write(_status_fd, what) == 1
    except BlockingIOError:  # a supervisor that is stopped has not read for days
        return True
    except OSError:  # the supervisor has gone: the lifetime pipe tells what follows
        return False


def watch_lifetime(on_end: Callable[[], None]) -> None:
    """Call *on_end* in a thread of its own when the supervisor has closed its end of the lifetime pipe, or died."""
    fd = inherited_fd(ENV_LIFETIME_FD)
    if fd is None:
        return

    def wait() -> None:
        while os.read(fd, 1):
            pass
        on_end()

    threading.Thread(target=wait, name="lifetime", daemon=True).start()
