"""Ties a process to the supervisor that started it, and tells it when the process is ready.

Foundation for the roles that ``channels-run`` starts (layer, interface, worker). Without a supervisor (a role started
by hand) both functions do nothing.
"""

import os
import threading
from collections.abc import Callable

from procman.settings import ENV_LIFETIME_FD, ENV_READY_FD


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


def announce_ready() -> None:
    """Tell the supervisor that this process does its work from now on."""
    fd = inherited_fd(ENV_READY_FD)
    if fd is not None:
        try:
            os.write(fd, b"1")
        except OSError:  # the supervisor has gone: the lifetime pipe tells what follows
            pass
        os.close(fd)


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
