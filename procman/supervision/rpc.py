"""The control socket: supervisor's XML-RPC interface (version 3.0) on a Unix socket of mode 0600.

Drives the socket; what it tells comes from the engine. Method names are looked up in one table, never resolved on an
object. A request holds at most ``MAX_REQUEST`` bytes and takes at most ``REQUEST_TIMEOUT`` seconds to arrive.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import procman
from procman.clock import SystemClock
from procman.supervision.states import ProcessInfo, State

API_VERSION = "3.0"
IDENTIFICATION = "procman"
MAX_REQUEST = 1024 * 1024  # bytes
REQUEST_TIMEOUT = 10.0  # seconds
MAX_CONNECTIONS = 64
# Numbers of supervisor.xmlrpc.Faults.
UNKNOWN_METHOD, INCORRECT_PARAMETERS, BAD_NAME = 1, 2, 10
_LAST_SECOND = 2**31 - 1  # XML-RPC integers have 32 bits

_clock = SystemClock()


class Formation(Protocol):
    """What the control socket asks of the supervisor."""

    def processes(self) -> list[ProcessInfo]:
        """Every process of the formation, in its order."""

    def is_stopping(self) -> bool:
        """Whether a stop has begun."""


class Fault(Exception):
    """An answer that is an error: supervisor's fault number and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


def _seconds(value: float) -> int:
    return min(int(value), _LAST_SECOND)


def process_struct(info: ProcessInfo, now: float) -> dict[str, Any]:
    """*info* as supervisor's ``getProcessInfo`` gives it; *now* is wall-clock seconds."""
    if info.state is State.RUNNING:
        hours, rest = divmod(int(info.uptime), 3600)
        description = f"pid {info.pid}, uptime {hours}:{rest // 60:02d}:{rest % 60:02d}"
    elif info.exit_status is not None and info.pid is None:
        description = f"exit status {info.exit_status}"
    else:
        description = ""
    return {
        "name": info.name,
        "group": info.type,
        "start": _seconds(info.started),
        "stop": _seconds(info.ended),
        "now": _seconds(now),
        "state": info.state.value,
        "statename": info.state.name,
        "spawnerr": "",
        "exitstatus": info.exit_status or 0,
        "logfile": "",
        "stdout_logfile": "",
        "stderr_logfile": "",
        "pid": info.pid or 0,
        "description": description,
    }


class ControlServer:
    """Answers at *path* what it asks *formation*."""

    def __init__(self, path: str, formation: Formation) -> None:
        self.path, self._formation = path, formation
        self._server: asyncio.Server | None = None
        self._connections = 0
        self._methods: dict[str, Callable[..., Any]] = {
            "supervisor.getAPIVersion": lambda: API_VERSION,
            "supervisor.getVersion": lambda: API_VERSION,
            "supervisor.getSupervisorVersion": lambda: procman.__version__,
            "supervisor.getIdentification": lambda: IDENTIFICATION,
            "supervisor.getState": self._state,
            "supervisor.getPID": os.getpid,
            "supervisor.getAllProcessInfo": self._all_process_info,
            "supervisor.getProcessInfo": self._process_info,
            "procman.status": self.status,
            "system.listMethods": lambda: sorted(self._methods),
        }

    async def start(self, listener: socket.socket) -> None:
        """Accept requests on *listener*, which becomes this object's."""
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=MAX_REQUEST)

    def close(self) -> None:
        """Stop accepting and remove the socket's file."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(OSError):
            Path(self.path).unlink()

    def status(self) -> dict[str, Any]:
        """The structure that ``status --json`` prints."""
        return {"control": self.path, "processes": [info.to_dict() for info in self._formation.processes()]}

    def _state(self) -> dict[str, Any]:
        if self._formation.is_stopping():
            return {"statecode": -1, "statename": "SHUTDOWN"}
        return {"statecode": 1, "statename": "RUNNING"}

    def _all_process_info(self) -> list[dict[str, Any]]:
        return [process_struct(info, _clock.wall()) for info in self._formation.processes()]

    def _process_info(self, name: str) -> dict[str, Any]:
        for info in self._formation.processes():
            if name in (info.name, f"{info.type}:{info.name}"):
                return process_struct(info, _clock.wall())
        raise Fault(BAD_NAME, f"BAD_NAME: {name}")

    def answer(self, body: bytes) -> bytes:
        """The XML that answers the XML *body*."""
        # Imported on first use: the client half of these modules is of no use to a supervisor nobody asks.
        import xmlrpc.client
        from xml.parsers.expat import ExpatError

        try:
            parameters, name = xmlrpc.client.loads(body)
        except (ExpatError, ValueError, TypeError, KeyError, IndexError, xmlrpc.client.Error):
            return xmlrpc.client.dumps(xmlrpc.client.Fault(INCORRECT_PARAMETERS, "not an XML-RPC request")).encode()
        try:
            method = self._methods.get(name or "")
            if method is None:
                raise Fault(UNKNOWN_METHOD, f"UNKNOWN_METHOD: {name}")
            try:
                result = method(*parameters)
            except TypeError:
                raise Fault(INCORRECT_PARAMETERS, f"INCORRECT_PARAMETERS: {name}") from None
        except Fault as fault:
            return xmlrpc.client.dumps(xmlrpc.client.Fault(fault.code, fault.text)).encode()
        return xmlrpc.client.dumps((result,), methodresponse=True, allow_none=True).encode()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            while self._connections <= MAX_CONNECTIONS:
                async with asyncio.timeout(REQUEST_TIMEOUT):
                    status, body = await self._read(reader)
                content = self.answer(body) if status == "200 OK" else b""
                head = f"HTTP/1.1 {status}\r\nContent-Type: text/xml\r\nContent-Length: {len(content)}\r\n\r\n"
                writer.write(head.encode() + content)
                await writer.drain()
                if not content:
                    break
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass
        finally:
            self._connections -= 1
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> tuple[str, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        if not head[0].startswith("POST "):
            return "405 Method Not Allowed", b""
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > MAX_REQUEST:
            return "413 Content Too Large", b""
        return "200 OK", await reader.readexactly(int(length))
