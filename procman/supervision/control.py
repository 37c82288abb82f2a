"""Client of the control socket: asks a running supervisor.

Drives one short connection per call; knows nothing of the processes.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import xmlrpc.client
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from procman.errors import ConfigurationError
from procman.supervision.errors import ControlFault, NotRunning

TIMEOUT = 10.0  # seconds for connect, and for each read


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None = TIMEOUT) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(path: str, method: str, *parameters: Any, timeout: float | None = TIMEOUT) -> Any:
    """What the supervisor at the socket *path* answers to *method*, within *timeout* seconds (None: whenever it does).

    Raises:
        NotRunning: nothing answers there.
        ControlFault: it refused the call.
    """
    connection = _UnixConnection(path, timeout)
    body = xmlrpc.client.dumps(parameters, method, allow_none=True)
    try:
        connection.request("POST", "/RPC2", body, {"Content-Type": "text/xml"})
        answer = connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        raise NotRunning(path) from None
    finally:
        connection.close()
    try:
        (result,), _ = xmlrpc.client.loads(answer)
    except xmlrpc.client.Fault as fault:
        raise ControlFault(fault.faultCode, fault.faultString) from None
    return result


def status(path: str) -> dict[str, Any]:
    """The structure of ``status --json``. Raises NotRunning."""
    result = call(path, "procman.status")
    assert isinstance(result, dict)
    return result


def shut_down(path: str) -> None:
    """Stop the site behind the socket *path*, and wait until it is gone. Raises NotRunning."""
    connection = _UnixConnection(path, None)
    try:
        # This one is answered by the end of the connection: the supervisor has nothing more to say.
        connection.request("GET", "/logs?bytes=0&follow=1")
        response = connection.getresponse()
        call(path, "supervisor.shutdown")
    except (OSError, http.client.HTTPException):
        connection.close()
        raise NotRunning(path) from None
    try:
        with contextlib.suppress(OSError, http.client.HTTPException):
            while response.read1(65536):
                pass
    finally:
        connection.close()


def logs(path: str, names: Sequence[str], follow: bool) -> tuple[list[bytes], Iterator[bytes]]:
    """The lines that the site behind the socket *path* keeps of *names* (none: all), and those that follow.

    Raises:
        NotRunning: nothing answers there.
        ConfigurationError: one of *names* is unknown.
    """
    query = urlencode([("name", name) for name in names] + [("bytes", str(2**31)), ("follow", "0")])
    recent = b"".join(_stream(path, query))
    later = _stream(path, query.replace("follow=0", "follow=1").replace(f"bytes={2**31}", "bytes=0")) if follow else ()
    return recent.splitlines(keepends=True), _lines(later)


def _stream(path: str, query: str) -> Iterator[bytes]:
    connection = _UnixConnection(path, None)
    try:
        connection.request("GET", f"/logs?{query}")
        response = connection.getresponse()
        if response.status == 404:
            raise ConfigurationError("there is no process or type of that name; `channels-run status` lists them")
        while data := response.read1(65536):
            yield data
    except (OSError, http.client.HTTPException):
        raise NotRunning(path) from None
    finally:
        connection.close()


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line + b"\n"
