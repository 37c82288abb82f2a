"""Tells systemd how the site is: ready, reloading its code, stopping. Source: sd_notify(3).

Does nothing where ``NOTIFY_SOCKET`` is not set; a message that cannot be sent is lost.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping

READY, STOPPING = "READY=1", "STOPPING=1"


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
