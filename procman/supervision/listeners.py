"""Listening sockets that outlive the processes that serve them, and the lock that makes a supervisor the only one.

Drives the system's socket and file calls; decides nothing. The sockets are bound here, before anything is started, so
that clients wait in the backlog instead of being refused.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

from procman.clock import SystemClock
from procman.errors import ConfigurationError
from procman.supervision.errors import AlreadyRunning, PortInUse

# What waits while the interface starts or restarts; the system caps it at somaxconn.
BACKLOG = 2048
# Seconds for the processes of a supervisor that was killed a moment ago to go away.
_LEAVING = 1.0
_FIRST_ACTIVATED = 3  # descriptor of the first socket that systemd passes

_clock = SystemClock()


def listen_tcp(host: str, port: int, shared: bool = False) -> socket.socket:
    """A TCP socket that listens on *host* and *port* (0: the system chooses).

    *shared* ones may be several on one port: the system spreads connections evenly over them. They must belong to one
    user.

    Raises:
        PortInUse: another program listens there.
        ConfigurationError: *host* is not an address of this machine, or the port is reserved for root.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"cannot listen on {host!r}: {error}; give an address with --bind") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(host, port) from None
        hint = "choose a port above 1023 with --port" if error.errno == errno.EACCES else "choose another with --bind"
        raise ConfigurationError(f"cannot listen on {host} port {port}: {error.strerror}; {hint}") from None
    return listener


def listen_tcp_shared(host: str, port: int, count: int) -> list[socket.socket]:
    """*count* sockets that listen on the same port and share its connections evenly.

    Raises:
        As ``listen_tcp``: also where another program of this user shares its port in the same way.
    """
    # Alone first: a shared socket would be let in beside another program's shared ones.
    with listen_tcp(host, port) as alone:
        port = alone.getsockname()[1]
    listeners: list[socket.socket] = []
    try:
        for _ in range(count):
            listeners.append(listen_tcp(host, port, shared=True))
    except ConfigurationError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def inherited_listener(fd: int) -> socket.socket:
    """The listening socket at descriptor *fd*, which no child inherits unless it is passed on.

    Raises:
        ConfigurationError: *fd* is closed or no listening socket.
    """
    try:
        listener = socket.socket(fileno=fd)
        is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigurationError(f"--fd {fd} is no socket: {error.strerror}; pass a listening one") from None
    if not is_listening:
        listener.detach()
        raise ConfigurationError(f"--fd {fd} does not listen: call listen() before passing it on")
    listener.set_inheritable(False)
    return listener


def activated_fds(environ: Mapping[str, str], pid: int) -> list[int]:
    """Descriptors of the sockets that systemd (or what does as it does) has opened for this process, *pid*.

    Source: sd_listen_fds(3).

    Raises:
        ConfigurationError: LISTEN_FDS is no number.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return []
    count = environ.get("LISTEN_FDS", "")
    if not count.isdigit():
        raise ConfigurationError(f"LISTEN_FDS is {count!r}; it must be the number of sockets that are passed")
    return [_FIRST_ACTIVATED + number for number in range(int(count))]


def parse_mode(text: str) -> int:
    """The permissions in *text*, such as ``660``.

    Raises:
        ConfigurationError: it is no octal number, or lets the owner not in.
    """
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0o600 <= mode <= 0o777 or mode & 0o600 != 0o600:
        raise ConfigurationError(f"--socket-mode is {text!r}; it must be such as 600, 660 or 666")
    return mode


def listen_unix(path: str, mode: int = 0o600, hint: str = "use --layer ipc:///other/path.sock") -> socket.socket:
    """A Unix socket with permissions *mode* that listens at *path*; what a dead process left there is replaced.

    Call it while holding the lock of that path, where it has one. *hint* is what to do where the path is taken.

    Raises:
        ConfigurationError: another process listens there, the directory is missing or not writable, or a file that is
            no socket is in the way.
    """
    end = _clock.monotonic() + _LEAVING
    while _answers(path):
        if _clock.monotonic() > end:
            raise ConfigurationError(f"another process listens at {path}: stop it first, or {hint}")
        select.select([], [], [], 0.02)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o777 & ~mode)
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(Path(path).lstat().st_mode):
                raise ConfigurationError(f"cannot listen at {path}: a file that is no socket is in the way; {hint}")
            Path(path).unlink()
        listener.bind(path)
        listener.listen(BACKLOG)
    except ConfigurationError:
        listener.close()
        raise
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"cannot listen at {path}: {error.strerror or error}") from None
    finally:
        os.umask(mask)
    return listener


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except OSError as error:
            # A full backlog is a listener, too.
            return isinstance(error, TimeoutError | BlockingIOError)
        return True


class Lock:
    """Held by the supervisor of one address for as long as it lives, however it ends; the file names its pid."""

    def __init__(self, path: str, address: str) -> None:
        """Take the lock.

        Raises:
            AlreadyRunning: another process holds it.
            ConfigurationError: the file cannot be made.
        """
        self._path = path
        while True:
            try:
                self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise ConfigurationError(f"cannot use the lock file {path}: {error.strerror}") from None
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                text = os.read(self._fd, 32).strip()
                os.close(self._fd)
                raise AlreadyRunning(int(text) if text.isdigit() else None, address) from None
            if self._is_current():
                break
            os.close(self._fd)  # its owner removed the file between open and flock
        os.ftruncate(self._fd, 0)
        os.write(self._fd, b"%d\n" % os.getpid())

    def _is_current(self) -> bool:
        try:
            found = Path(self._path).lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._fd))

    def release(self) -> None:
        """Remove the file and let others take its place."""
        with contextlib.suppress(OSError):
            Path(self._path).unlink()
        os.close(self._fd)
