"""One HTTP/1.1 connection: bytes to requests, one after the other, and their responses back.

A driver: ``request.RequestParser`` understands the bytes, an ``exchange.Exchange`` is the request that is being
answered. Pipelined requests wait here until their turn, and nothing more is read meanwhile. A request that asks for a
WebSocket hands the connection on to ``websocket.WebSocketProtocol``. No task, coroutine or timer per connection: the
server's tick looks at ``deadline``.

Buffers: what the event loop reads at a time (256 KiB) of pipelined requests, and ``body.CHUNK_SIZE`` of a body.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, cast

from procman.interface.errors import Refusal
from procman.interface.exchange import Exchange
from procman.interface.forwarded import Client
from procman.interface.request import Request, RequestParser
from procman.interface.response import CONTINUE, ResponseWriter, refusal_start
from procman.interface.websocket import WebSocketProtocol

if TYPE_CHECKING:
    from procman.interface.site import Site

logger = logging.getLogger("procman.interface")

# Seconds in which a client that was refused may read why; what it sends meanwhile is dropped. nginx: 5.
LINGER_TIMEOUT = 5.0
# Unsent bytes past which a sender is told to wait: asyncio's own number.
WRITE_HIGH = 64 * 1024


class HTTPProtocol(asyncio.Protocol):
    """What the event loop makes for each connection."""

    __slots__ = (
        "_address",
        "_is_head_late",
        "_is_pumping",
        "_is_reading",
        "_refusal",
        "_waiting",
        "client",
        "deadline",
        "exchange",
        "is_behind",
        "parser",
        "site",
        "transport",
    )

    def __init__(self, site: Site) -> None:
        self.site = site
        self.transport: asyncio.Transport
        self.client = Client(None, None, "http")
        self._address = ""  # for which this connection counts
        self.parser: RequestParser | None = RequestParser(self, site.settings.max_header_bytes)
        self.exchange: Exchange | None = None
        self.deadline = 0.0
        self.is_behind = False
        self._waiting: deque[Request] = deque()
        self._refusal: Refusal | None = None  # for a request that nobody understands, behind those in progress
        self._is_reading = True
        self._is_pumping = False
        self._is_head_late = False  # the deadline is that of a head, not of an idle connection

    # -- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected; one that was accepted in the moment of a stop is sent away."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one, but does not inherit from it
        self.transport.set_write_buffer_limits(high=WRITE_HIGH)
        peer, name = (transport.get_extra_info(each) for each in ("peername", "sockname"))
        self.client = Client(
            tuple(peer[:2]) if isinstance(peer, tuple) else None,
            tuple(name[:2]) if isinstance(name, tuple) else None,
            "https" if transport.get_extra_info("sslcontext") else "http",
        )
        self.site.connections.add(self)
        self.site.occupancy.total += 1
        self.deadline = self.site.now() + self.site.settings.header_timeout
        if self.site.replies.is_stopping:
            self.transport.close()
            return
        self._address = self.site.client_address(self.client, self.client)
        try:
            self.site.check_connection(self._address)
        except Refusal as refusal:
            self.parser = None
            self._refuse(refusal)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        self.site.connections.discard(self)
        self.site.occupancy.total -= 1
        self.site.occupancy.leave(self._address)
        self.parser = None
        self._waiting.clear()
        if self.exchange is not None:
            self.exchange.end()

    def pause_writing(self) -> None:
        """The client reads slower than it is written to."""
        self.is_behind = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.is_behind = False
        if self.exchange is not None:
            self.exchange.caught_up()

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        self.site.counters.bytes_received += len(data)
        parser = self.parser
        if parser is None:
            return  # it was refused: what it still sends is dropped
        try:
            rest = parser.feed(data)
        except Refusal as refusal:
            self.parser = None
            self._refuse(refusal)
            return
        if rest is not None and parser.request is not None:
            self._upgrade(parser.request, rest)
        elif parser.is_in_head and self.exchange is None and not self._is_head_late:
            self._is_head_late = True
            self.deadline = self.site.now() + self.site.settings.header_timeout

    # -- request.Sink ------------------------------------------------------------------------------------------------

    def on_request(self, request: Request) -> None:
        """A head is complete. Raises Refusal: its body is announced as too large."""
        if request.length > self.site.settings.max_body_size:
            raise self.site.too_large()
        if self.exchange is None and not self._waiting:
            self._begin(request)
        else:
            self._waiting.append(request)
            self.update_reading()

    def on_data(self, request: Request, data: bytes) -> None:
        """A part of a body. Raises Refusal: it is too large."""
        exchange, settings = self.exchange, self.site.settings
        if request.size > settings.max_body_size:
            raise self.site.too_large()
        if exchange is None or (exchange.request is request and exchange.is_refused):
            return  # nobody wants it: what is left of the body is read and dropped
        if exchange.request is not request:
            request.body.append(data)
        elif exchange.body is not None:
            exchange.body.feed(data)
            self.update_reading()
        else:
            request.body.append(data)
            self.deadline = self.site.now() + settings.body_timeout
            if request.size > settings.inline_body_size:
                self.deadline = 0.0
                exchange.offer(is_streamed=True)

    def on_end(self, request: Request) -> None:
        """A request is complete."""
        exchange = self.exchange
        if exchange is None:
            self._pump()
        elif exchange.request is request:
            self.deadline = 0.0
            if exchange.body is not None:
                exchange.body.end()
            elif not exchange.is_refused:
                exchange.offer(is_streamed=False)

    # -- one request after the other ---------------------------------------------------------------------------------

    def _begin(self, request: Request) -> None:
        site = self.site
        self._is_head_late = False
        self.deadline = 0.0
        if site.replies.is_stopping:
            request.keep_alive = False
        exchange = self.exchange = Exchange(self, request)
        start = site.local_response(request)
        if start is not None:
            exchange.answer(start)
        elif (found := site.static_file(request)) is not None:
            exchange.send_file(found)
        elif site.request_count > site.settings.max_requests:
            text = "Too many requests are in progress; try again in a moment."
            exchange.refuse(Refusal(503, text, retry_after=1, limit="max_requests"))
        elif request.is_complete:
            exchange.offer(is_streamed=False)
        elif request.length > site.settings.inline_body_size or request.size > site.settings.inline_body_size:
            exchange.offer(is_streamed=True)
        elif request.length:
            self.deadline = site.now() + site.settings.body_timeout
            if request.expects_continue:
                self.transport.write(CONTINUE)

    def exchange_over(self, exchange: Exchange) -> None:
        """Its response is complete, or will never be."""
        self.exchange = None
        if not self.transport.is_closing():
            if not exchange.writer.keep_alive:
                self._linger(exchange.request.is_complete)
            else:
                self._pump()

    def _pump(self) -> None:
        """Go on with what waits, unless the last request is still being read."""
        if self._is_pumping:
            return
        self._is_pumping = True
        try:
            while self.exchange is None and self._waiting and not self.transport.is_closing():
                self._begin(self._waiting.popleft())
        finally:
            self._is_pumping = False
        self.update_reading()
        if self.exchange is not None or self.transport.is_closing():
            return
        if self._refusal is not None:
            self._refuse(self._refusal)
        elif self.site.replies.is_stopping:
            self.transport.close()
        elif not self._is_head_late:
            request = self.parser.request if self.parser is not None else None
            is_idle = request is None or request.is_complete
            settings = self.site.settings
            self.deadline = self.site.now() + (settings.keep_alive_timeout if is_idle else settings.body_timeout)

    def update_reading(self) -> None:
        """Read from the client as long as there is room for what it sends."""
        body = self.exchange.body if self.exchange is not None else None
        should_read = not self._waiting and (body is None or not body.is_full)
        if should_read != self._is_reading and not self.transport.is_closing():
            self._is_reading = should_read
            if should_read:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    # -- the end -----------------------------------------------------------------------------------------------------

    def _refuse(self, refusal: Refusal) -> None:
        """Answer bytes that are no request, or the request whose body they are; then the connection ends."""
        exchange = self.exchange
        if exchange is not None and (self._waiting or exchange.request.is_complete):
            self._refusal = refusal  # its turn comes after the requests before it
            return
        if exchange is not None:
            exchange.writer.keep_alive = False
            exchange.refuse(refusal)
            return
        self._refusal = None
        writer = ResponseWriter("", "1.1", keep_alive=False)
        self.transport.write(writer.start(refusal_start(refusal), self.site.date))
        self.site.log_refusal(refusal, self.client)
        self._linger(False)

    def _linger(self, is_read: bool) -> None:
        """Close; a client that is still sending can read its answer first (RFC 9112, 9.6)."""
        self.parser = None
        self._waiting.clear()
        if is_read:
            self.transport.close()
            return
        self.deadline = self.site.now() + LINGER_TIMEOUT
        self.update_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def tick(self, now: float) -> None:
        """Look at the deadline: of a head, of a body, or of an idle connection."""
        if not self.deadline or now < self.deadline:
            return
        self.deadline = 0.0
        if self.exchange is not None:
            self.exchange.writer.keep_alive = False
            self.exchange.refuse(Refusal(408, "The request's body did not arrive in time.", limit="body_timeout"))
        elif self.parser is not None and self.parser.is_in_head:
            self.parser = None
            self._refuse(Refusal(408, "The request's headers did not arrive in time.", limit="header_timeout"))
        elif self.parser is not None:
            self.transport.close()
        else:
            self.transport.abort()

    def abort(self) -> None:
        """Drop the connection."""
        self.transport.abort()

    def shutdown(self) -> None:
        """The server stops: this connection ends with the request that is in progress."""
        if self.exchange is None:
            self.transport.close()
        elif not self.exchange.writer.has_started:
            self.exchange.writer.keep_alive = False

    def _upgrade(self, request: Request, rest: bytes) -> None:
        if self.exchange is not None or request.length or request.method != "GET":
            self.parser = None
            status = 400 if request.method == "GET" else 405
            self._refuse(Refusal(status, "This is not a WebSocket handshake."))
            return
        self.site.connections.discard(self)
        self.parser = None
        protocol = WebSocketProtocol(self.site)
        self.transport.set_protocol(protocol)
        protocol.begin(self.transport, request, self.client, self._address)
        if rest:
            protocol.data_received(rest)
