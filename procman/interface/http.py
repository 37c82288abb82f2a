"""HTTP requests: ASGI scope and body to an ``http.request`` message, the replies to it back to a response.

``Application`` is the ASGI application that uvicorn runs. An ``Exchange`` is one request that waits for its response;
its deadlines are looked at by the server's tick, so a request costs no timer and no task of its own. Only a body that
is too large to travel inside its message has a task: it sends chunks once a worker has begun with the request.

Sends no ``http.disconnect``: no default route of Channels 1.x listens to it, so each would be an error in the log; the
worker of a stream learns from its next part that the client has left.

Buffers: the inline part of a body (``inline_body_size``), what uvicorn reads ahead (64 KiB) and ``RESPONSE_LIMIT``
bytes of a response that its client has not taken yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from procman.clock import Clock, SystemClock
from procman.interface import access, connection
from procman.interface.body import Body
from procman.interface.errors import ClientGone, InvalidReply, Refusal
from procman.interface.messages import SAFE_METHODS, SocketReply, build_request, parse_chunk, parse_response
from procman.interface.replies import Replies
from procman.layers import names
from procman.layers.base import OpenSocket
from procman.layers.errors import MessageTooLarge
from procman.log import escape
from procman.settings import MIB, InterfaceSettings, ProjectConfiguration

logger = logging.getLogger("procman.interface")
access_logger = logging.getLogger("procman.interface.access")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Two of the largest messages that a layer takes by default: one being written, one that waits.
RESPONSE_LIMIT = 32 * MIB


class Exchange:
    """One HTTP request and the response that it waits for."""

    __slots__ = (
        "abort",
        "begun",
        "body",
        "deadline",
        "failure",
        "has_started",
        "is_answered",
        "is_redeliverable",
        "offer_id",
        "parts",
        "path",
        "replies",
        "reply_channel",
        "size",
        "status",
        "token",
        "waiter",
        "waiting_bytes",
        "write_deadline",
    )

    def __init__(self, replies: Replies, path: str) -> None:
        self.replies = replies
        self.reply_channel = replies.new_name()
        self.path = path
        self.parts: deque[tuple[dict[str, Any], int | None]] = deque()
        self.waiting_bytes = 0
        self.waiter: asyncio.Future[None] | None = None
        self.failure: Exception | None = None
        self.deadline = 0.0  # 0: not offered yet, or the response has begun
        self.write_deadline = 0.0
        self.offer_id = 0
        self.is_redeliverable = True
        self.begun = False
        self.has_started = False
        self.is_answered = False
        self.body: Body | None = None
        self.abort: Callable[[], None] | None = None
        self.token: int | None = None  # the sender of the part that is being written
        self.status = 0
        self.size = 0

    async def next(self) -> dict[str, Any]:
        """The next message of the response; its sender is answered by ``written``.

        Raises:
            Refusal, ClientGone: there will be none.
        """
        while not self.parts:
            if self.failure is not None:
                raise self.failure
            self.waiter = asyncio.get_running_loop().create_future()
            try:
                await self.waiter
            finally:
                self.waiter = None
        message, self.token = self.parts.popleft()
        self.waiting_bytes -= _content_size(message)
        return message

    def written(self, delivered: bool) -> None:
        """Tell the sender of the current part what became of it."""
        token, self.token = self.token, None
        if token is not None:
            self.replies.layer.written(token, delivered)

    def fail(self, failure: Exception) -> None:
        """End the wait; what has already arrived is still sent, unless the client has left."""
        if self.failure is None:
            self.failure = failure
        self._wake()

    def client_left(self) -> None:
        """The connection has gone."""
        self.failure = ClientGone()
        self.drop_parts()
        if self.body is not None:
            self.body.abandon()
        self._wake()

    def drop_parts(self) -> None:
        """Throw away what waits to be sent and tell its senders."""
        self.written(False)
        while self.parts:
            _, token = self.parts.popleft()
            if token is not None:
                self.replies.layer.written(token, False)

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    # -- replies.Client ----------------------------------------------------------------------------------------------

    def on_reply(self, message: dict[str, Any], token: int | None) -> None:
        """A message of the response."""
        if isinstance(self.failure, ClientGone):
            if token is not None:
                self.replies.layer.written(token, False)
            return
        self.deadline = 0.0
        self.parts.append((message, token))
        self.waiting_bytes += _content_size(message)
        if self.waiting_bytes > RESPONSE_LIMIT and len(self.parts) > 1:
            logger.error(
                "response of %s cut: over %d bytes of it wait for its client", escape(self.path), RESPONSE_LIMIT
            )
            self.client_left()
            if self.abort is not None:
                self.abort()
        self._wake()

    def on_group(self, message: dict[str, Any], reply: SocketReply | None) -> None:
        """A response that was sent to a group."""
        self.on_reply(message, None)

    def on_finished(self, session: bytes | None) -> None:
        """The consumer has ended; the response may still be on its way, or come from another consumer."""
        self.offer_id = 0

    def on_failed(self, reason: str) -> None:
        """Nobody works on this request any more."""
        self.offer_id = 0
        if reason == "full":
            self.fail(Refusal(503, "The server is busy; try again in a moment.", retry_after=1))
        elif reason == "expired":
            self.fail(Refusal(503, "No worker took this request in time.", retry_after=1))
        else:
            self.fail(Refusal(502, "The worker that ran this request died."))

    def on_begun(self) -> None:
        """A worker is about to get the request, or has died with it: its body may follow."""
        self.begun = True
        if self.body is not None:
            self.body.begin()

    def on_declared_dead(self) -> None:
        """The layer has dropped this request."""
        self.on_failed("lost")

    def on_stop(self) -> None:
        """Tell the client that nothing will come."""
        self.fail(Refusal(503, "The server is stopping; try again in a moment.", retry_after=1))

    def tick(self, now: float) -> None:
        """Give up a response that does not begin, and a client that takes nothing of it."""
        if self.deadline and now >= self.deadline:
            self.deadline = 0.0
            if self.replies.is_layer_lost:
                self.fail(Refusal(503, "The channel layer is away; try again in a moment.", retry_after=1))
            elif not self.is_redeliverable and not self.begun:
                self.fail(Refusal(503, "No worker took this request in time.", retry_after=1))
            else:
                self.fail(Refusal(504, "The application did not answer in time."))
        elif self.write_deadline and now >= self.write_deadline and self.abort is not None:
            self.write_deadline = 0.0
            logger.warning("connection of %s cut: its client takes nothing of the response", escape(self.path))
            self.abort()

    def open_socket(self) -> OpenSocket | None:
        """The layer mirrors nothing of a request."""
        return None


class Application:
    """The ASGI application; also what the sockets of the same server share."""

    def __init__(
        self,
        settings: InterfaceSettings,
        project: ProjectConfiguration,
        replies: Replies,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self.project = project
        self.replies = replies
        self.now = (clock or SystemClock()).monotonic
        self.limits = connection.Limits(
            settings.max_waiting_frames,
            settings.max_message_size * 2,
            settings.handshake_timeout,
            settings.ping_interval,
            settings.ping_timeout,
        )
        self.request_count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        started = self.now()
        exchange = Exchange(self.replies, scope["path"])
        link = scope.get("procman.connection")  # server.HTTPProtocol: tells when the client leaves
        if link is not None:
            link.exchanges.add(exchange)
            exchange.abort = link.abort
        self.request_count += 1
        self.replies.clients[exchange.reply_channel] = exchange
        try:
            await self._run(exchange, scope, receive, send)
        except Exception:
            logger.exception(
                "request %s %s failed inside the interface", escape(scope["method"]), escape(scope["path"])
            )
            raise
        finally:
            self.request_count -= 1
            if link is not None:
                link.exchanges.discard(exchange)
            await self._clean_up(exchange)
            if self.settings.access_log:
                client = scope["client"][0] if scope["client"] else ""
                duration = self.now() - started
                line = access.request_line(
                    scope["method"], scope["path"], exchange.status, exchange.size, duration, client
                )
                details = {
                    "method": scope["method"],
                    "path": scope["path"],
                    "status": exchange.status,
                    "size": exchange.size,
                    "time_taken": duration,
                    "client": client,
                }
                access_logger.info("%s", line, extra={"action": access.REQUEST, "details": details})

    async def _run(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            try:
                if self.request_count > self.settings.max_requests:
                    raise Refusal(503, "Too many requests are in progress; try again in a moment.", retry_after=1)
                await self._offer(exchange, scope, receive)
                await self._respond(exchange, scope["method"], send)
            except InvalidReply as error:
                logger.error("response to %s %s broken: %s", escape(scope["method"]), escape(exchange.path), error)
                raise Refusal(500, "The application sent a broken response.") from None
        except Refusal as refusal:
            # Once a response has begun its status is out: returning cuts the connection, which says "incomplete".
            if not exchange.has_started:
                await self._refuse(exchange, scope["method"], refusal, send)
        except ClientGone:
            pass

    async def _offer(self, exchange: Exchange, scope: Scope, receive: Receive) -> None:
        """Read the inline part of the body and offer the request.

        Raises:
            Refusal, ClientGone.
        """
        body = Body.of(scope["headers"], receive, self.settings, self.replies)
        content = b""
        if body is not None:
            content = await body.read_inline()
            if body.has_more:
                exchange.body = body
                body.channel = names.body_channel(exchange.reply_channel)
        message = build_request(
            scope,
            exchange.reply_channel,
            self.settings.root_path,
            content,
            exchange.body.channel if exchange.body is not None else None,
        )
        exchange.is_redeliverable = message["method"] in SAFE_METHODS and exchange.body is None
        exchange.deadline = self.now() + self.settings.request_timeout
        if exchange.body is not None:
            exchange.body.start(exchange.fail)
        try:
            exchange.offer_id = self.replies.offer(
                exchange, "http.request", message, redeliverable=exchange.is_redeliverable, bounded=True
            )
        except MessageTooLarge as error:
            raise Refusal(413, "The request is too large.") from error

    async def _respond(self, exchange: Exchange, method: str, send: Send) -> None:
        message = await exchange.next()
        start = parse_response(message)
        has_body = start.status not in (204, 304)
        content, more_content, headers = start.content, start.more_content, start.headers
        if not has_body:
            # RFC 9110: such a response ends with its headers, and uvicorn would wait for the length that they name.
            content, headers = b"", [header for header in headers if header[0].lower() != b"content-length"]
        exchange.has_started = True
        exchange.status = start.status
        await self._send(exchange, send, {"type": "http.response.start", "status": start.status, "headers": headers})
        while True:
            part = {"type": "http.response.body", "body": content, "more_body": more_content}
            await self._send(exchange, send, part)
            if method != "HEAD":
                exchange.size += len(content)
            if exchange.token is not None:
                if more_content:
                    # uvicorn waits for the client at the start of a send: an empty one returns when there is room.
                    await self._send(exchange, send, {"type": "http.response.body", "body": b"", "more_body": True})
                exchange.written(True)
            if not more_content:
                exchange.is_answered = True
                return
            message = await exchange.next()
            if "status" in message:
                raise InvalidReply("a second message with 'status'; the response has already begun")
            content, more_content = parse_chunk(message)
            if not has_body:
                content = b""

    async def _send(self, exchange: Exchange, send: Send, message: dict[str, Any]) -> None:
        exchange.write_deadline = self.now() + self.settings.request_timeout
        try:
            await send(message)
        except RuntimeError as error:
            raise InvalidReply(str(error)) from None  # uvicorn: the content does not fit Content-Length
        finally:
            exchange.write_deadline = 0.0
        if isinstance(exchange.failure, ClientGone):
            raise exchange.failure

    async def _refuse(self, exchange: Exchange, method: str, refusal: Refusal, send: Send) -> None:
        content = refusal.text.encode() + b"\n"
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", b"%d" % len(content))]
        if refusal.retry_after:
            headers.append((b"retry-after", b"%d" % refusal.retry_after))
        exchange.status, exchange.has_started = refusal.status, True
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        if method != "HEAD":
            exchange.size = len(content)

    async def _clean_up(self, exchange: Exchange) -> None:
        self.replies.forget(exchange)
        exchange.drop_parts()
        exchange.failure = exchange.failure or ClientGone()
        # An offer whose response is complete stays until its consumer has ended: the worker still runs it.
        if exchange.offer_id and not exchange.is_answered:
            self.replies.withdraw(exchange.offer_id)
        if exchange.body is not None:
            await exchange.body.stop()


def _content_size(message: dict[str, Any]) -> int:
    content = message.get("content")
    return len(content) if isinstance(content, bytes) else 0  # what is no bytes is refused when its turn comes
