"""One HTTP request between its head and the last byte of its response.

A client of the switchboard (``replies.Client``): offers the request to the workers and writes what comes back, in the
order in which it comes. Costs no task, coroutine or timer: the server's tick looks at its deadlines. Only a body that
is too large for its message has a task (``body.py``).

Buffers: the inline part of the body (``inline_body_size``), and ``RESPONSE_LIMIT`` bytes of a response that its client
has not taken yet. A sender that waits for its part to be written is answered when the connection has room again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, BinaryIO

from procman.interface.body import Body
from procman.interface.errors import InvalidReply, Refusal
from procman.interface.messages import (
    SAFE_METHODS,
    ResponseStart,
    SocketReply,
    build_request,
    parse_chunk,
    parse_response,
)
from procman.interface.request import Request
from procman.interface.response import CONTINUE, ResponseWriter, refusal_start, with_header
from procman.layers import names
from procman.layers.base import OpenSocket
from procman.layers.errors import MessageTooLarge
from procman.log import escape
from procman.settings import MIB

if TYPE_CHECKING:
    from procman.interface.http import HTTPProtocol
    from procman.interface.static import StaticResponse

logger = logging.getLogger("procman.interface")

# Two of the largest messages that a layer takes by default: one being written, one that waits.
RESPONSE_LIMIT = 32 * MIB
# Bytes read of a file at a time, and how many times before other connections have a turn.
FILE_PART, FILE_PARTS = 64 * 1024, 16


class Exchange:
    """One HTTP request and the response that it waits for."""

    __slots__ = (
        "begun",
        "body",
        "client",
        "connection",
        "deadline",
        "file",
        "given_id",
        "is_over",
        "is_redeliverable",
        "is_refused",
        "offer_id",
        "path",
        "reply_channel",
        "request",
        "site",
        "started",
        "status",
        "tokens",
        "unsent",
        "write_deadline",
        "writer",
    )

    def __init__(self, connection: HTTPProtocol, request: Request) -> None:
        site = connection.site
        self.site, self.connection, self.request = site, connection, request
        self.reply_channel = site.replies.new_name()
        self.client = site.trusted.resolve(connection.client, request.headers)
        self.path = site.full_path(request.path)
        self.given_id = site.given_id(request, connection.client)
        self.writer = ResponseWriter(request.method, request.http_version, request.keep_alive)
        self.started = site.now()
        self.deadline = 0.0  # 0: not offered yet, or the response has begun
        self.write_deadline = 0.0  # 0: the client takes what it is sent
        self.unsent = 0
        self.offer_id = 0
        self.is_redeliverable = request.method in SAFE_METHODS
        self.begun = False
        self.is_over = False
        self.is_refused = False
        self.body: Body | None = None
        self.file: BinaryIO | None = None  # what the response is read from
        self.tokens: list[int] | None = None  # of senders that wait until the connection has room
        self.status = 0
        site.request_count += 1
        site.replies.clients[self.reply_channel] = self

    @property
    def request_id(self) -> str:
        """What this request is called in logs and headers."""
        return self.given_id or names.client_id(self.reply_channel)

    # -- the request -------------------------------------------------------------------------------------------------

    def offer(self, is_streamed: bool) -> None:
        """Hand the request to the workers, with its body, or with what has come of it if the rest *is_streamed*."""
        site, request = self.site, self.request
        content = b"".join(request.body) if request.body else b""
        request.body.clear()
        if is_streamed:
            self.is_redeliverable = False
            channel = names.body_channel(self.reply_channel)
            self.body = Body(site.settings, site.replies, channel, self.connection.update_reading)
            if request.is_complete:
                self.body.end()
        message = build_request(
            request,
            self.reply_channel,
            self.path,
            content,
            body_channel=self.body.channel if self.body is not None else None,
            root_path=site.settings.root_path,
            scheme=self.client.scheme,
            client=self.client.address,
            server=self.client.server,
            request_id=self.given_id,
        )
        self.deadline = site.now() + site.settings.request_timeout
        try:
            self.offer_id = site.replies.offer(
                self, "http.request", message, redeliverable=self.is_redeliverable, bounded=True
            )
        except MessageTooLarge:
            self.refuse(Refusal(413, "The request is too large."))
            return
        if self.body is not None:
            self.body.start(self.refuse)

    # -- the response ------------------------------------------------------------------------------------------------

    def refuse(self, refusal: Refusal) -> None:
        """Answer the client from here; a response that has begun can only be cut."""
        self.site.count_refusal(refusal)
        self.answer(refusal_start(refusal))

    def answer(self, start: ResponseStart) -> None:
        """Respond with *start*, which is complete, instead of the workers; what has begun can only be cut."""
        if self.is_over:
            return
        self.is_refused = True
        if self.writer.has_started:
            self.cut()
        else:
            self.respond(start)

    def respond(self, start: ResponseStart) -> None:
        """Begin the response with *start*, which may be all of it."""
        self.deadline = 0.0
        if self.site.settings.request_id_header:
            start = with_header(start, b"X-Request-ID", self.request_id.encode())
        try:
            data = self.writer.start(start, self.site.date)
        except InvalidReply as error:
            self._broken(error)
            return
        self.status = start.status
        self._write(data)

    def send_file(self, response: StaticResponse) -> None:
        """Respond with a file, as fast as the client takes it."""
        self.is_refused, self.file = True, response.file
        self.respond(response.start)
        self._send_part_of_file()

    def _send_part_of_file(self) -> None:
        for _ in range(FILE_PARTS):
            if self.file is None or self.is_over or self.connection.is_behind:
                return
            try:
                data = self.file.read(FILE_PART)
                self._write(self.writer.content(data, bool(data)))
            except (OSError, InvalidReply) as error:
                logger.error("static file %s cannot be sent to its end: %s", escape(self.path), escape(str(error)))
                self.cut()
        asyncio.get_running_loop().call_soon(self._send_part_of_file)  # others have a turn

    def cut(self) -> None:
        """End the connection where it is: that says "incomplete"."""
        if not self.is_over:
            self.connection.transport.abort()
            self.end()

    def end(self) -> None:
        """Nothing more happens with this request; tell whoever worked for it."""
        if self.is_over:
            return
        self.is_over = True
        site = self.site
        site.request_count -= 1
        site.replies.forget(self)
        if self.file is not None:
            self.file.close()
            self.file = None
        self.answer_tokens(self.writer.has_ended)
        # An offer whose response is complete stays until its consumer has ended: the worker still runs it.
        if self.offer_id and (self.is_refused or not self.writer.has_ended):
            site.replies.withdraw(self.offer_id)
        if self.body is not None:
            self.body.stop()
        site.log_request(self)
        self.connection.exchange_over(self)

    def caught_up(self) -> None:
        """The client has taken what it was sent."""
        self.write_deadline = 0.0
        self.answer_tokens(True)
        self._send_part_of_file()

    def answer_tokens(self, delivered: bool) -> None:
        """Tell the senders that wait what became of their parts."""
        tokens, self.tokens = self.tokens, None
        for token in tokens or ():
            self.site.replies.layer.written(token, delivered)

    def _write(self, data: bytes) -> None:
        connection = self.connection
        if data:
            self.site.counters.bytes_sent += len(data)
            connection.transport.write(data)
        if self.writer.has_ended:
            self.end()
        elif connection.is_behind:
            self.unsent = connection.transport.get_write_buffer_size()
            if self.unsent > RESPONSE_LIMIT:
                text = "response of %s cut: over %d bytes of it wait for its client"
                logger.error(text, escape(self.path), RESPONSE_LIMIT)
                self.cut()
            elif not self.write_deadline:
                self.write_deadline = self.site.now() + self.site.settings.request_timeout

    def _broken(self, error: InvalidReply) -> None:
        logger.error("response to %s %s broken: %s", escape(self.request.method), escape(self.path), error)
        self.refuse(Refusal(500, "The application sent a broken response."))

    # -- replies.Client ----------------------------------------------------------------------------------------------

    def on_reply(self, message: dict[str, Any], token: int | None) -> None:
        """A message of the response."""
        if token is not None:
            self.tokens = [*(self.tokens or ()), token]
        try:
            if not self.writer.has_started:
                self.respond(parse_response(message))
                if not self.is_over and self.offer_id:
                    self.is_redeliverable = False
                    self.site.replies.settle(self.offer_id)
            elif message.get("failed"):
                self.cut()  # the worker has logged why
            elif "status" in message:
                raise InvalidReply("a second message with 'status'; the response has already begun")
            else:
                content, more_content = parse_chunk(message)
                self._write(self.writer.content(content, more_content))
        except InvalidReply as error:
            self._broken(error)
        if not self.is_over and not self.connection.is_behind:
            self.answer_tokens(True)

    def on_group(self, group: str, message: dict[str, Any], reply: SocketReply | None) -> None:
        """A response that was sent to a group."""
        self.on_reply(message, None)

    def on_finished(self, session: bytes | None) -> None:
        """The consumer has ended; the response may still be on its way, or come from another consumer."""
        self.offer_id = 0

    def on_failed(self, reason: str) -> None:
        """Nobody works on this request any more."""
        self.offer_id = 0
        if reason == "full":
            self.refuse(Refusal(503, "The server is busy; try again in a moment.", retry_after=1))
        elif reason == "expired":
            self.refuse(Refusal(503, "No worker took this request in time.", retry_after=1))
        else:
            self.refuse(Refusal(502, "The worker that ran this request died."))

    def on_begun(self) -> None:
        """A worker is about to get the request, or has died with it: its body may follow."""
        self.begun = True
        if self.body is not None:
            if self.request.expects_continue and not self.writer.has_started:
                self.request.expects_continue = False
                self.connection.transport.write(CONTINUE)
            self.body.begin()

    def on_declared_dead(self) -> None:
        """The layer has dropped this request."""
        self.on_failed("lost")

    def on_stop(self) -> None:
        """Tell the client that nothing will come."""
        self.refuse(Refusal(503, "The server is stopping; try again in a moment.", retry_after=1))

    def tick(self, now: float) -> None:
        """Give up a response that does not begin, and a client that takes nothing of it."""
        if self.deadline and now >= self.deadline:
            self.deadline = 0.0
            if self.site.replies.is_layer_lost:
                self.refuse(Refusal(503, "The channel layer is away; try again in a moment.", retry_after=1))
            elif not self.is_redeliverable and not self.begun:
                text = "No worker took this request in time."
                self.refuse(Refusal(503, text, retry_after=1, limit="request_timeout"))
            else:
                self.refuse(Refusal(504, "The application did not answer in time.", limit="request_timeout"))
        elif self.write_deadline:
            unsent = self.connection.transport.get_write_buffer_size()
            if unsent < self.unsent:
                self.write_deadline = now + self.site.settings.request_timeout
            elif now >= self.write_deadline:
                logger.warning("connection of %s cut: its client takes nothing of the response", escape(self.path))
                self.cut()
            self.unsent = unsent

    def open_socket(self) -> OpenSocket | None:
        """The layer mirrors nothing of a request."""
        return None
