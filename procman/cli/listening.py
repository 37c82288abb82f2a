"""Which sockets a command listens on: descriptors that it was given, a Unix socket, or a port.

Opens them, and says what to call them. What the sockets are for is the caller's business.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from procman.errors import ConfigurationError
from procman.settings import SupervisorSettings
from procman.supervision.listeners import (
    activated_fds,
    inherited_listener,
    listen_tcp,
    listen_tcp_shared,
    listen_unix,
    parse_mode,
)


@dataclass
class Listening:
    """Sockets by the interface process that serves them; several may serve the same one. ``path`` is removed."""

    each: list[list[socket.socket]]
    path: str = ""

    @property
    def sockets(self) -> list[socket.socket]:
        """Every socket once."""
        return list({listener.fileno(): listener for listeners in self.each for listener in listeners}.values())

    def close(self) -> None:
        """Close the sockets and remove the file of a Unix socket that was made here."""
        for listener in self.sockets:
            listener.close()
        if self.path:
            with contextlib.suppress(OSError):
                Path(self.path).unlink()

    def url(self, scheme: str = "http") -> str:
        """Where a browser finds the first one; ``unix:/path`` where none does."""
        name = self.sockets[0].getsockname()
        if not isinstance(name, tuple):
            return f"unix:{os.fsdecode(name)}"
        host, port = name[:2]
        return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"


def open_listeners(settings: SupervisorSettings, fds: Sequence[int], environ: Mapping[str, str]) -> Listening:
    """What *settings* say, unless descriptors are given: *fds*, or by systemd in *environ*.

    Raises:
        PortInUse, ConfigurationError: they cannot be had.
    """
    given = [inherited_listener(fd) for fd in fds or activated_fds(environ, os.getpid())]
    if given:
        return Listening([given] * settings.interfaces)
    if settings.bind.startswith("unix:"):
        path = settings.bind.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise ConfigurationError(f"--bind {settings.bind} needs an absolute path, such as unix:/run/site/http.sock")
        listener = listen_unix(path, parse_mode(settings.socket_mode), hint="choose another path with --bind unix:...")
        return Listening([[listener]] * settings.interfaces, path)
    if settings.interfaces == 1:
        return Listening([[listen_tcp(settings.bind, settings.port)]])
    shared = listen_tcp_shared(settings.bind, settings.port, settings.interfaces)
    return Listening([[listener] for listener in shared])
