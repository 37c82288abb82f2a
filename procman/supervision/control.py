"""Client of the control socket: asks a running supervisor.

Drives one short connection per call; knows nothing of the processes.
"""

from __future__ import annotations

import http.client
import socket
import xmlrpc.client
from typing import Any

from procman.supervision.errors import ControlFault, NotRunning

TIMEOUT = 10.0  # seconds for connect, and for each read


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def call(path: str, method: str, *parameters: Any) -> Any:
    """What the supervisor at the socket *path* answers to *method*.

    Raises:
        NotRunning: nothing answers there.
        ControlFault: it refused the call.
    """
    connection = _UnixConnection(path)
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
