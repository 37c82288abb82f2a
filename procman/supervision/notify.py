"""Tells systemd how the site is: ready, alive, stopping. Source: sd_notify(3), sd_watchdog_enabled(3).

Does nothing where ``NOTIFY_SOCKET`` is not set; a message that cannot be sent is lost.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"
# What systemd sets for the process that it has started, and for no child of it.
VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float:
    """Seconds after which process *pid* says again that it is alive, half of what is allowed; 0: nobody asks."""
    text = environ.get("WATCHDOG_USEC", "")
    is_meant = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
    return int(text) / 2_000_000 if text.isdigit() and is_meant else 0.0


def notify(environ: Mapping[str, str], *lines: str) -> bool:
    """Send *lines*, such as ``READY`` and ``STATUS=...``; whether there is somebody to send them to."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = path if path.startswith("/") else "\0" + path[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.sendto("\n".join([f"MAINPID={os.getpid()}", *lines]).encode(), address)
    return True
