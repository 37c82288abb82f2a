"""When a program that knows nothing of its supervisor is ready: a line that it prints, or a port that it listens on.

``ReadyLine`` is pure: bytes in, found or not. ``wait_for_port`` tries to connect, quickly and only until it succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket

PORT_INTERVAL = 0.1  # seconds between two tries
PORT_TIMEOUT = 1.0  # seconds for one
_MAX_LINE = 64 * 1024  # bytes of a line that are looked at
_ADDRESSES = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


class ReadyLine:
    """Looks for a line in which *pattern*, a regular expression, is found."""

    def __init__(self, pattern: str) -> None:
        self._pattern = re.compile(pattern.encode())
        self._partial = b""

    def feed(self, data: bytes) -> bool:
        """Whether *data*, with what came before it, has the line; one without its end yet counts, too."""
        lines = (self._partial + data).split(b"\n")
        self._partial = lines[-1][-_MAX_LINE:]
        return any(self._pattern.search(line[:_MAX_LINE]) for line in lines)


async def wait_for_port(port: int) -> None:
    """Return once something on this host accepts connections to *port*."""
    while not await _accepts(port):
        await asyncio.sleep(PORT_INTERVAL)


async def _accepts(port: int) -> bool:
    loop = asyncio.get_running_loop()
    for family, host in _ADDRESSES:
        # Addresses and no names: these would be looked up in a thread, and this process forks.
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_STREAM) as client:
            client.setblocking(False)
            async with asyncio.timeout(PORT_TIMEOUT):
                await loop.sock_connect(client, (host, port))
            return True
    return False
