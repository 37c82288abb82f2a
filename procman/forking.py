"""Forks processes of a program that is loaded already, for a parent that is not this process: both ends of the talk.

Foundation: the server's end is called by a process that has loaded a project, the client's end by a supervisor that
must not. Linux only: the child goes to its new parent as an orphan goes to the nearest subreaper. One message each way
per child on a socket of whole messages; descriptors travel with the request.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

IS_SUPPORTED = sys.platform == "linux"
# A fork of a large project takes milliseconds. Who does not answer within this time is stopped, or gone.
FORK_TIMEOUT = 2.0
_MAX_MESSAGE, _MAX_FDS = 256 * 1024, 16
_PR_SET_PDEATHSIG = 1
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_libc = ctypes.CDLL(None) if IS_SUPPORTED else None


class Report(NamedTuple):
    """What a server says of what it has loaded: why it must not be forked ("" if it may be), and news for others."""

    unsafe: str
    news: Mapping[str, Any]


class ForkServer:
    """The client's end. ``theirs`` is the descriptor that the server is started with."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(FORK_TIMEOUT)

    @property
    def theirs(self) -> int:
        """To be passed to the server, then ``started`` called."""
        return self._theirs.fileno()

    def started(self) -> None:
        """The server has its end."""
        self._theirs.close()

    def close(self) -> None:
        """The server ends."""
        self._ours.close()
        self._theirs.close()

    def report(self) -> Report:
        """What the server says, once it is ready or has ended."""
        try:
            said = json.loads(self._ours.recv(_MAX_MESSAGE))
            return Report(str(said["unsafe"]), said["news"] or {})
        except (OSError, ValueError, KeyError) as error:
            return Report(f"does not answer ({error})", {})

    def fork(self, env: Mapping[str, str], stdout: int, fds: Mapping[str, int]) -> int:
        """The pid of a child whose environment has *env* too, and the numbers of *fds* under their names.

        Raises:
            OSError: the server does not answer, or could not fork.
        """
        request = json.dumps({"env": dict(env), "fds": list(fds)}).encode()
        socket.send_fds(self._ours, [request], [stdout, *fds.values()])
        answer = self._ours.recv(64)
        if not answer.isdigit():
            raise OSError("the preloader could not fork")
        return int(answer)


def report(control: socket.socket, unsafe: str, news: Mapping[str, Any]) -> None:
    """Tell the client's end that this process is loaded, why it must not be forked, if so, and the *news*.

    From here on it ends with its socket, when nobody needs another child: platforms signal every process at once.
    """
    for signum in _ENDING:
        signal.signal(signum, signal.SIG_IGN)
    send_report(control, Report(unsafe, news))


def send_report(control: socket.socket, said: Report) -> None:
    """Tell the client's end what is to be known; it may have gone."""
    with contextlib.suppress(OSError):
        control.send(json.dumps(said._asdict()).encode())


def serve(control: socket.socket) -> bool:
    """Fork for each request on *control*, until its end. True in each child, which goes on; False in the server.

    The child is a session of its own, prints to the descriptor of its request, and dies with its parent.
    """
    parent = os.getppid()
    while True:
        try:
            data, fds, _, _ = socket.recv_fds(control, _MAX_MESSAGE, _MAX_FDS)
        except OSError:
            return False
        if not data:
            return False
        request = json.loads(data)
        pid = _fork_for(parent)
        if pid == 0:
            control.close()
            _become(request["env"], request["fds"], fds)
            return True
        for fd in fds:
            os.close(fd)
        try:
            control.send(b"%d" % pid if pid > 0 else b"failed")
        except OSError:
            return False


def _fork_for(parent: int) -> int:
    """Fork a child of *parent*: 0 in it, its pid here, -1 if the system has no room for it."""
    read, write = os.pipe()
    # The handlers of this process must not meet a signal that was meant for the child.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        between = os.fork()
        if between == 0:
            os.close(read)
            _fork_again(write)
            _await_parent(parent)
            return 0
    except OSError:
        os.close(write)
        os.close(read)
        return -1
    else:
        os.close(write)
        answer = os.read(read, 64)
        os.waitpid(between, 0)
        os.close(read)
        return int(answer) if answer else -1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _fork_again(write: int) -> None:
    """Return in a child of this process, which ends once it has told its pid."""
    began, begin = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os._exit(1)
    if pid:
        os.read(began, 1)  # its group is its own: who learns of the pid may signal it
        os.write(write, b"%d" % pid)
        os._exit(0)
    os.close(write)
    os.close(began)
    os.setsid()
    os.write(begin, b"1")
    os.close(begin)


def _await_parent(parent: int) -> None:
    """Wait until this process belongs to *parent*, and die with it from here on."""
    end = time.monotonic() + FORK_TIMEOUT
    while os.getppid() != parent:
        if time.monotonic() > end:
            os._exit(1)
        time.sleep(0.0002)
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _become(env: Mapping[str, str], names: Sequence[str], fds: Sequence[int]) -> None:
    for signum in _ENDING:
        signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    stdout, *others = fds
    os.dup2(stdout, 1)
    os.dup2(stdout, 2)
    os.close(stdout)
    os.environ.update(env)
    os.environ.update({name: str(fd) for name, fd in zip(names, others, strict=True)})
