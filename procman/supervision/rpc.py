"""The control socket: XML-RPC over HTTP, as supervisor's, and logs to follow, on a Unix socket of mode 0600.

Drives the socket; what can be asked is in ``methods.py``. A request holds at most ``MAX_REQUEST`` bytes and takes at
most ``REQUEST_TIMEOUT`` seconds to arrive; who follows a log and is ``MAX_BEHIND`` bytes behind is cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from procman.supervision.methods import INCORRECT_PARAMETERS, Fault, Formation, Methods
from procman.supervision.output import SYSTEM

MAX_REQUEST = 1024 * 1024  # bytes
REQUEST_TIMEOUT = 10.0  # seconds
MAX_CONNECTIONS = 64
MAX_BEHIND = 4 * 1024 * 1024  # bytes
TAIL_BYTES = 16 * 1024  # of what was printed before, unless told otherwise


class ControlServer:
    """Answers at *path* what it asks *formation*."""

    def __init__(self, path: str, formation: Formation) -> None:
        self.path, self._formation = path, formation
        self._server: asyncio.Server | None = None
        self._connections = 0
        self._methods = Methods(path, formation)

    async def start(self, listener: socket.socket) -> None:
        """Accept requests on *listener*, which becomes this object's."""
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=MAX_REQUEST)

    def close(self) -> None:
        """Stop accepting and remove the socket's file."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(OSError):
            Path(self.path).unlink()

    async def answer(self, body: bytes) -> bytes:
        """The XML that answers the XML *body*."""
        # Imported on first use: the client half of these modules is of no use to a supervisor nobody asks.
        import xmlrpc.client
        from xml.parsers.expat import ExpatError

        try:
            parameters, name = xmlrpc.client.loads(body)
        except (ExpatError, ValueError, TypeError, KeyError, IndexError, xmlrpc.client.Error):
            return xmlrpc.client.dumps(xmlrpc.client.Fault(INCORRECT_PARAMETERS, "not an XML-RPC request")).encode()
        try:
            result = await self._methods.call(name or "", parameters)
        except Fault as fault:
            return xmlrpc.client.dumps(xmlrpc.client.Fault(fault.code, fault.text)).encode()
        return xmlrpc.client.dumps((result,), methodresponse=True, allow_none=True).encode()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            while self._connections <= MAX_CONNECTIONS:
                async with asyncio.timeout(REQUEST_TIMEOUT):
                    method, target, body = await self._read(reader)
                if method == "GET":
                    await self._follow(target, reader, writer)
                    break
                content = await self.answer(body)
                head = f"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {len(content)}\r\n\r\n"
                writer.write(head.encode() + content)
                await writer.drain()
        except _Refused as refused:
            writer.write(f"HTTP/1.1 {refused}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass
        except asyncio.CancelledError:
            pass  # the loop ends; asyncio would print a traceback for a client that is still connected
        finally:
            self._connections -= 1
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> tuple[str, str, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        method, _, target = head[0].removesuffix(" HTTP/1.1").removesuffix(" HTTP/1.0").partition(" ")
        if method == "GET":
            return method, target, b""
        if method != "POST":
            raise _Refused("405 Method Not Allowed")
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()) or int(length) > MAX_REQUEST:
            raise _Refused("413 Content Too Large")
        return method, target, await reader.readexactly(int(length))

    async def _follow(self, target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send what was printed last and, unless it is not wanted, all that is printed, until the client leaves.

        ``/logtail/NAME/stdout`` and ``/mainlogtail`` are supervisor's; ``/logs?name=...&bytes=...&follow=1`` is ours.
        """
        names, size, is_followed = self._parse_target(target)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
        ring = self._formation.ring
        recent = ring.content(names[0] if len(names) == 1 else None, only=names or None)
        _write_chunk(writer, recent[-size:] if size else b"")
        too_slow = asyncio.Event()

        def pass_on(name: str, data: bytes) -> None:
            if names and name not in names:
                return
            if writer.transport.get_write_buffer_size() > MAX_BEHIND:
                too_slow.set()  # the log goes on without a reader that does not read
            elif not too_slow.is_set():
                _write_chunk(writer, data)

        if is_followed:
            end = ring.follow(pass_on)
            waiting = [asyncio.ensure_future(reader.read()), asyncio.ensure_future(too_slow.wait())]
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                end()
                for each in waiting:
                    each.cancel()
        if not too_slow.is_set():
            writer.write(b"0\r\n\r\n")
            await writer.drain()

    def _parse_target(self, target: str) -> tuple[list[str], int, bool]:
        """The names (none: all), how many of the last bytes, and whether what follows is wanted. Raises _Refused."""
        parts = urlsplit(target)
        words = parts.path.strip("/").split("/")
        if words == ["mainlogtail"]:
            return [], TAIL_BYTES, True
        if words[0] == "logtail" and len(words) in (2, 3):
            return self._names([unquote(words[1])]), TAIL_BYTES, True
        if words != ["logs"]:
            raise _Refused("404 Not Found")
        query = parse_qs(parts.query)
        size = query.get("bytes", [""])[0]
        names = self._names(query.get("name", []))
        return names, int(size) if size.isdigit() else TAIL_BYTES, query.get("follow") == ["1"]

    def _names(self, wanted: list[str]) -> list[str]:
        found: dict[str, None] = {}
        for word in wanted:
            names = [SYSTEM] if word == SYSTEM else self._formation.names_of(word)
            if not names:
                raise _Refused("404 Not Found")
            found |= dict.fromkeys(names)
        return list(found)


class _Refused(Exception):
    """The status line of a request that is not answered otherwise."""


def _write_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    if data:
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
