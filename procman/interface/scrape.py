"""The address at which Prometheus asks: a small HTTP server beside the one for clients.

One request per connection, GET or HEAD of ``/metrics``. The layer is asked first, with a deadline, so that a scrape
gets an answer whatever has become of the layer. Bounded: connections at once, time of each, size of a head; a body is
not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from procman.errors import ConfigurationError
from procman.interface.errors import Refusal
from procman.interface.messages import ResponseStart
from procman.interface.request import Request, RequestParser
from procman.interface.response import ResponseWriter, refusal_start, text_response
from procman.settings import ENV_NAME

if TYPE_CHECKING:
    from procman.interface.site import Site

logger = logging.getLogger("procman.interface")

# Prometheus asks over one connection, a second server beside it over another.
MAX_CONNECTIONS = 16
MAX_HEAD = 16 * 1024
TIMEOUT = 10.0  # seconds for a whole scrape, Prometheus' own default


def parse_bind(text: str, name: str = "") -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` for the process *name*: ``interface.K`` gets the port of the first plus K - 1.

    Raises:
        ConfigurationError: *text* is no such address.
    """
    host, colon, number = text.rpartition(":")
    if not colon or not number.isascii() or not number.isdigit() or not host.strip("[]"):
        raise ConfigurationError(f"--metrics-bind is {text!r}; it must be HOST:PORT, such as 127.0.0.1:9100")
    kind, _, slot = name.rpartition(".")
    port = int(number)
    if port and kind == "interface" and slot.isdigit():
        port += int(slot) - 1
    if port > 65535:
        raise ConfigurationError(f"--metrics-bind is {text!r}; the port of {name or 'it'} would be {port}, over 65535")
    return host.strip("[]"), port


class MetricsServer:
    """Answers scrapes of *site*."""

    def __init__(self, site: Site) -> None:
        from procman.interface.metrics import build_registry, build_text

        self._site = site
        registry = build_registry(site)
        self._build: Callable[[str], tuple[bytes, str]] = lambda accept: build_text(registry, accept)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def start(self, bind: str) -> None:
        """Listen at *bind*, shifted by this process's place among the interfaces.

        Raises:
            ConfigurationError: that is no address, or not one that can be listened on.
        """
        host, port = parse_bind(bind, os.environ.get(ENV_NAME, ""))
        try:
            self._server = await asyncio.start_server(self._accept, host, port, limit=MAX_HEAD)
        except OSError as error:
            raise ConfigurationError(
                f"metrics cannot be served at {host}:{port}: {error.strerror or error}; choose another --metrics-bind"
            ) from None
        self.port = self._server.sockets[0].getsockname()[1]
        logger.info("metrics at http://%s:%d/metrics", host, self.port)

    async def stop(self) -> None:
        """Listen no more, and drop who is being answered."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._exchange(reader, writer)
        except (TimeoutError, OSError):
            writer.transport.abort()
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read_request(reader)
            if request is None:
                return
            response = await self._respond(request)
        except Refusal as refusal:
            request, response = None, refusal_start(refusal)
        writing = ResponseWriter(request.method if request else "", "1.1", keep_alive=False)
        writer.write(writing.start(response, self._site.date))
        await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _respond(self, request: Request) -> ResponseStart:
        if request.path != b"/metrics":
            return text_response(404, "Ask for /metrics.")
        if request.method not in ("GET", "HEAD"):
            return text_response(405, "Ask with GET or HEAD.", (b"Allow", b"GET, HEAD"))
        await self._site.survey.ask()
        accept = ",".join(value.decode("latin-1") for name, value in request.headers if name == b"accept")
        content, content_type = self._build(accept)
        headers = [(b"Content-Type", content_type.encode()), (b"Content-Length", b"%d" % len(content))]
        return ResponseStart(200, headers, content, False)


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    """The request, None if the client left before its end. Raises Refusal."""
    parser = RequestParser(_Sink(), MAX_HEAD)
    while parser.request is None:
        data = await reader.read(MAX_HEAD)
        if not data or parser.feed(data) is not None:
            return None
    return parser.request


class _Sink:
    """A head is all that is wanted of a request."""

    def on_request(self, request: Request) -> None:
        """It is asked for by ``RequestParser.request``."""

    def on_data(self, request: Request, data: bytes) -> None:
        """Dropped."""

    def on_end(self, request: Request) -> None:
        """The head told enough."""
