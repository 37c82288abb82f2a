"""One WebSocket on one transport: bytes to events of ``connection.Connection``, its actions back to bytes.

``http.HTTPProtocol`` hands over a connection whose request asks for it (``begin``). ``frames`` reads what comes in,
``messages`` builds frames that go out once for all. Per socket there is no task, coroutine, timer or closure, and no
compression state: the server's tick looks at deadlines, and what is known of a socket is plain data. Longer than a
module should be, because one object per socket has to be both what the event loop calls and what carries out each
action: a second object would cost every idle socket memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from procman.interface import access, connection, handshake
from procman.interface.backlog import Backlog, Policy
from procman.interface.errors import InvalidReply, Refusal
from procman.interface.frames import PING, PONG, Closed, Failure, FrameDecoder, Ping, build_close, build_control
from procman.interface.messages import (
    SocketReply,
    build_connect,
    build_disconnect,
    build_receive,
    parse_socket_reply,
)
from procman.layers import names, sessions
from procman.layers.base import OpenSocket
from procman.layers.errors import MessageTooLarge
from procman.layers.names import SOCKET_MARK
from procman.log import escape

if TYPE_CHECKING:
    from procman.interface.forwarded import Client
    from procman.interface.request import Request
    from procman.interface.site import Site

logger = logging.getLogger("procman.interface")

TOO_BIG = 1009
# Words for the counter of refused handshakes: by the status of what was found wrong here, and of the application's no.
_CHECKED = {403: "origin", 503: "stopping"}
_ANSWERED = {403: "application", 500: "failed"}


class WebSocketProtocol(asyncio.Protocol):
    """One WebSocket from its handshake to its end."""

    __slots__ = (
        "address",
        "backlog",
        "client",
        "connection",
        "decoder",
        "given_id",
        "offer_id",
        "path",
        "pending",
        "reply_channel",
        "site",
        "tokens",
        "transport",
        "window_bits",
    )

    def __init__(self, site: Site) -> None:
        self.site = site
        self.transport: asyncio.Transport
        self.pending = b""  # the answer to the handshake, once the application accepts
        self.window_bits = 0  # of compressed messages; 0: none were agreed to
        self.decoder: FrameDecoder | None = None
        self.connection: connection.Connection | None = None
        self.reply_channel = ""
        self.path = ""
        self.client = ""
        self.address = ""  # for which this connection counts
        self.given_id = ""  # the request id of a proxy
        self.offer_id = 0
        self.backlog: Backlog | None = None  # only while the client reads slower than it is written to
        self.tokens: list[int] | None = None

    @property
    def request_id(self) -> str:
        """What this socket is called in logs and headers."""
        return self.given_id or names.client_id(self.reply_channel)

    # -- asyncio.Protocol --------------------------------------------------------------------------------------------

    def begin(self, transport: asyncio.Transport, request: Request, peer: Client, address: str) -> None:
        """Take over the connection of *peer* from the HTTP parser, with the *request* for a handshake.

        The connection counts for *address*, "" if it is a proxy's.
        """
        self.address = address
        self.transport = transport
        self.site.connections.add(self)
        # Told early that the client reads slowly; the limit itself is looked at only then.
        transport.set_write_buffer_limits(high=min(65536, self.site.settings.write_limit))
        self.given_id = self.site.given_id(request, peer)
        client = self.site.trusted.resolve(peer, request.headers)
        self._read_handshake(request, client)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has gone."""
        self.site.connections.discard(self)
        self.site.occupancy.total -= 1
        self.site.occupancy.leave(self.address)
        self._answer_tokens(False)
        if self.backlog is not None and self.backlog.dropped:
            self._report_dropped(self.backlog.dropped)
        self.backlog = None
        if self.connection is not None:
            self._do(self.connection.lost())
        self.decoder = None

    def pause_writing(self) -> None:
        """The client reads slower than it is written to."""
        if self.backlog is None:
            self.backlog = Backlog(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client has caught up with what the transport held: what waits may follow."""
        backlog, self.backlog = self.backlog, None
        while backlog is not None and (waiting := backlog.take()) is not None:
            self._write(waiting.frame, waiting.policy is Policy.DISCONNECT)
            if self.backlog is not None:  # it is behind again: the rest waits on
                self.backlog.take_over(backlog)
                return
        if backlog is not None and backlog.dropped:
            self._report_dropped(backlog.dropped)
        self._answer_tokens(True)

    def data_received(self, data: bytes) -> None:
        """Bytes of the client: the handshake first, then frames."""
        self.site.counters.bytes_received += len(data)
        socket = self.connection
        if socket is None:
            return  # its handshake was refused
        socket.alive(self.site.now())
        decoder = self.decoder
        if decoder is not None:
            decoder.feed(data)
            if not socket.is_paused:
                self._read()
        elif socket.state is connection.State.CONNECTING:
            # Before the answer to its handshake a client has nothing to say, and after its close frame nobody listens.
            self._do([connection.Abort(), *socket.lost()])

    # -- client bytes ------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Take out of the decoder what the socket has room for."""
        socket = self.connection
        assert socket is not None
        while not socket.is_paused and self.decoder is not None:
            event = self.decoder.next()
            if event is None:
                return
            if isinstance(event, str | bytes):
                self.site.counters.messages_received += 1
                self._do(socket.receive(event, self.site.now()))
            elif isinstance(event, Ping):
                if socket.state is connection.State.OPEN:
                    self._write(build_control(PONG, event.payload))
            elif isinstance(event, Closed):
                self._closed(event)
            elif isinstance(event, Failure):
                self._failed(event)

    def _closed(self, event: Closed) -> None:
        """The client's close frame: the answer to ours, or answered with the same."""
        socket = self.connection
        assert socket is not None
        self.decoder = None
        if socket.state is connection.State.OPEN:
            self.transport.write(build_close(event.code))
        self.transport.close()
        self._do(socket.lost(event.code, event.reason))

    def _failed(self, event: Failure) -> None:
        """The client broke the protocol. It is told, and may read that although it is still sending."""
        socket = self.connection
        assert socket is not None
        self.decoder = None
        if event.code == TOO_BIG:
            self.site.counters.refused("max_message_size")
        logger.info("WebSocket %s closed with %d: %s", escape(self.path), event.code, event.text)
        self._do(socket.close(event.code, self.site.now(), event.text))
        if self.transport.can_write_eof():
            self.transport.write_eof()

    # -- handshake ---------------------------------------------------------------------------------------------------

    def _read_handshake(self, request: Request, client: Client) -> None:
        self.client = client.host
        self.path = self.site.full_path(request.path)
        self.reply_channel = self.site.replies.new_name(SOCKET_MARK)
        self._log(access.CONNECT)
        try:
            self._check(request, client)
        except Refusal as refusal:
            if refusal.status == 403:
                logger.warning("WebSocket %s refused: %s", escape(self.path), refusal.reason)
            self.site.count_refusal(refusal)
            reason = refusal.limit or _CHECKED.get(refusal.status, "malformed")
            self._refuse(refusal.status, refusal.text, reason)
            return
        site = self.site
        answer = handshake.answer(
            self.path, request.headers, site.project.ws_protocols, site.settings.websocket_compression
        )
        if answer.status != 101:
            self._log(access.REJECT, str(answer.status))
            site.counters.socket_refused("malformed")
            self.transport.write(answer.data)
            self.transport.close()
            return
        self.pending, self.window_bits = answer.data, answer.window_bits
        self._connect(request, client)

    def _check(self, request: Request, client: Client) -> None:
        site = self.site
        if site.replies.is_stopping:
            raise Refusal(503, "The server is stopping.")
        if not self.address and client.host and not site.trusted.includes(client.host):
            self.address = client.host
            site.check_connection(self.address)
        if site.replies.socket_count >= site.settings.max_sockets:
            raise Refusal(503, "Too many WebSockets are open.", limit="max_sockets")
        handshake.check(request.headers, site.project.allowed_hosts, site.project.debug)

    def _connect(self, request: Request, client: Client) -> None:
        replies = self.site.replies
        replies.clients[self.reply_channel] = self
        replies.socket_count += 1
        self.connection = connection.Connection(self.site.limits, self.site.now())
        message = build_connect(
            self.reply_channel,
            self.path,
            request.query_string,
            request.headers,
            root_path=self.site.settings.root_path,
            scheme="wss" if client.scheme == "https" else "ws",
            client=client.address,
            server=client.server,
            request_id=self.given_id,
        )
        self.connection.connect()
        self.offer_id = replies.offer(self, "websocket.connect", message, session=self.connection.session)

    def _refuse(self, status: int, text: str, reason: str) -> None:
        self.site.counters.socket_refused(reason)
        self._log(access.REJECT, str(status))
        self.transport.write(handshake.build_refusal(status, text))
        self.transport.close()

    # -- actions -----------------------------------------------------------------------------------------------------

    def _do(self, actions: list[connection.Action]) -> None:
        for action in actions:
            _DO[type(action)](self, action)

    def _do_offer(self, action: connection.Offer) -> None:
        socket = self.connection
        assert socket is not None and action.data is not None
        message = build_receive(self.reply_channel, self.path, action.data, action.order)
        self._name(message)
        try:
            self.offer_id = self.site.replies.offer(self, "websocket.receive", message, session=socket.session)
        except MessageTooLarge as error:
            logger.error("frame of WebSocket %s dropped: %s", escape(self.path), error)
            self._do(socket.close(1009, self.site.now()))
            self._do(socket.finished(None))

    def _name(self, message: dict[str, Any]) -> None:
        """Put the request id into *message*, unless the reply channel says it."""
        if self.given_id:
            message["request_id"] = self.given_id

    def _do_accept(self, action: connection.Accept) -> None:
        assert self.connection is not None
        pending, self.pending = self.pending, b""
        if self.site.settings.request_id_header:
            pending = b"%bX-Request-ID: %b\r\n\r\n" % (pending.removesuffix(b"\r\n"), self.request_id.encode())
        self.transport.write(pending)
        self.decoder = FrameDecoder(self.site.settings.max_message_size, self.window_bits > 0)
        self.site.counters.sockets_opened += 1
        self._log(access.ACCEPT)
        opened = OpenSocket(self.reply_channel, self.path, self.connection.order - 1, self.connection.session)
        self.site.replies.layer.socket_opened(opened)

    def _do_refuse(self, action: connection.Refuse) -> None:
        if not self.transport.is_closing():
            self._refuse(action.status, action.text, action.limit or _ANSWERED.get(action.status, "unavailable"))

    def _do_write(self, action: connection.Write) -> None:
        frame = self._compressed(action.frame)
        self._count_sent(frame)
        self._write(frame)

    def _do_ping(self, action: connection.Ping) -> None:
        self._write(build_control(PING))

    def _do_close(self, action: connection.Close) -> None:
        if not self.transport.is_closing():
            # Past the limit of unsent bytes too: nothing follows.
            self.transport.write(build_close(action.code, action.reason))
        self._answer_tokens(False)

    def _do_abort(self, action: connection.Abort) -> None:
        self.decoder = None
        self.transport.abort()

    def _do_pause(self, action: connection.PauseReading) -> None:
        self.transport.pause_reading()

    def _do_resume(self, action: connection.ResumeReading) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()
        if self.decoder is not None and self.decoder.unread:
            # Not from within a consumer's reply: parsing may bring the next action of this socket.
            asyncio.get_running_loop().call_soon(self._read)

    def _do_end(self, action: connection.End) -> None:
        assert self.connection is not None
        disconnect = None
        if action.order is not None:
            self.site.counters.socket_closed(action.code)
            self._log(access.DISCONNECT, str(action.code))
            disconnect = build_disconnect(self.reply_channel, self.path, action.code, action.order, action.reason)
            self._name(disconnect)
        elif self.connection.unfinished:
            # Its connect consumer would set up what no disconnect consumer takes down.
            self.site.replies.withdraw(self.offer_id)
        self.site.replies.socket_count -= 1
        self.site.replies.end(self, disconnect, self.connection.session)

    def _do_mirror(self, action: connection.Mirror) -> None:
        opened = OpenSocket(self.reply_channel, self.path, action.order, action.session)
        self.site.replies.layer.socket_opened(opened)

    def _do_report(self, action: connection.Report) -> None:
        logger.log(logging.getLevelNamesMapping()[action.level], "WebSocket %s: %s", escape(self.path), action.text)

    # -- writing -----------------------------------------------------------------------------------------------------

    def _write(self, data: bytes, is_required: bool = True) -> None:
        transport = self.transport
        if transport.is_closing():
            return
        if self.backlog is None:
            transport.write(data)
            if self.backlog is not None and is_required:
                self.backlog.required(self.site.now())
        elif self.backlog.is_empty:
            transport.write(data)
            self.backlog.written(len(data), is_required, self.site.now())
            self._check_backlog()
        else:
            self._wait(data, "", Policy.DISCONNECT)

    def _count_sent(self, frame: bytes) -> None:
        counters = self.site.counters
        counters.messages_sent += 1
        counters.bytes_sent += len(frame)

    def _write_to_group(self, data: bytes, group: str) -> None:
        """Write a message of *group*; what its policy is matters only for a client that is behind."""
        if self.backlog is None:
            if not self.transport.is_closing():
                self.transport.write(data)
            if self.backlog is not None and self.site.policies.of(group) is Policy.DISCONNECT:
                self.backlog.required(self.site.now())
            return
        policy = self.site.policies.of(group)
        if policy is Policy.DISCONNECT:
            self._write(data)
        else:
            self._wait(data, group, policy)

    def _wait(self, data: bytes, group: str, policy: Policy) -> None:
        assert self.backlog is not None
        self.backlog.add(data, group, policy, self.site.settings.write_limit, self.site.now())
        self._check_backlog()

    def _check_backlog(self) -> None:
        """End a socket whose client is too far behind with what must arrive."""
        backlog, settings = self.backlog, self.site.settings
        assert backlog is not None
        buffered = self.transport.get_write_buffer_size()
        unsent, age = backlog.unsent(buffered), backlog.age(buffered, self.site.now())
        if age is not None and (age > settings.write_timeout or unsent > settings.write_limit):
            self._too_slow(unsent, age)

    def _compressed(self, frame: bytes) -> bytes:
        return self.site.deflater.compress(frame, self.window_bits) if self.window_bits else frame

    def _too_slow(self, unsent: int, age: float) -> None:
        socket, settings = self.connection, self.site.settings
        if socket is None or socket.state is not connection.State.OPEN:
            return
        self.site.counters.slow_readers_closed += 1
        self.site.counters.refused("write_limit")
        logger.warning(
            "WebSocket %s closed with 1013: its client has not read %d bytes for %.1f s (limits: %d bytes, %g s)",
            *(escape(self.path), unsent, age, settings.write_limit, settings.write_timeout),
        )
        self._do(socket.close(1013, self.site.now()))

    def _report_dropped(self, number: int) -> None:
        self.site.counters.slow_readers_dropped += number
        text = "WebSocket %s: %d group messages were dropped, as its client was behind"
        logger.warning(text, escape(self.path), number)

    def _answer_tokens(self, delivered: bool) -> None:
        tokens, self.tokens = self.tokens, None
        for token in tokens or ():
            self.site.replies.layer.written(token, delivered)

    def _log(self, step: str, detail: str = "") -> None:
        if self.site.settings.access_log:
            self.site.log_socket(step, self.path, self.client, detail, self.request_id)

    # -- replies.Client ----------------------------------------------------------------------------------------------

    def on_reply(self, message: dict[str, Any], token: int | None) -> None:
        """Send what the application replied, or answer the handshake with it."""
        socket = self.connection
        assert socket is not None
        try:
            reply = parse_socket_reply(message)
        except InvalidReply as error:
            if sessions.REQUEST in message:
                self._session_asked(message[sessions.REQUEST])
                if token is not None:
                    self.site.replies.layer.written(token, True)
                return
            logger.error("reply to WebSocket %s dropped: %s", escape(self.path), error)
        else:
            self._do(socket.reply(reply, self.site.now()))
        if token is not None:
            self._wait_written(token)

    def _wait_written(self, token: int) -> None:
        if self.backlog is not None and not self.transport.is_closing():
            self.tokens = [*(self.tokens or ()), token]
        else:
            self.site.replies.layer.written(token, not self.transport.is_closing())

    def _session_asked(self, value: Any) -> None:
        """A consumer of a forwarded message wants to know the session, or has changed it."""
        socket = self.connection
        assert socket is not None
        try:
            request = sessions.parse_request(value)
        except ValueError as error:
            logger.error("reply to WebSocket %s dropped: %s", escape(self.path), error)
            return
        if isinstance(request, sessions.Read):
            self.site.replies.answer(request.answer, sessions.build_answer(request, socket.session))
        else:
            self._do(socket.merge(request))

    def on_group(self, group: str, message: dict[str, Any], reply: SocketReply | None) -> None:
        """Write the prebuilt frame."""
        socket = self.connection
        if reply is None or socket is None:
            return
        if socket.state is connection.State.OPEN and not reply.close and reply.frame is not None:
            frame = reply.frame if not self.window_bits else self._compressed(reply.frame)
            self._count_sent(frame)
            self._write_to_group(frame, group)
        else:
            self._do(socket.group(reply, self.site.now()))

    def on_finished(self, session: bytes | None) -> None:
        """The frame's consumer has ended: the next one may go."""
        socket = self.connection
        if socket is None or socket.ended:
            return
        self._do(socket.finished(session))

    def on_failed(self, reason: str) -> None:
        """The frame's workers died."""
        socket = self.connection
        if socket is not None and not socket.ended:
            self._do(socket.failed(reason, self.site.now()))
        elif socket is not None and socket.accepted:
            logger.error("the disconnect consumer of WebSocket %s was lost with its workers", escape(self.path))

    def on_begun(self) -> None:
        """Frames may be given twice, and what a layer has to know of it is kept with the offer."""

    def on_declared_dead(self) -> None:
        """Close; the disconnect has already run."""
        socket = self.connection
        if socket is not None:
            if socket.accepted and not socket.ended:
                self.site.counters.socket_closed(1012)
            self.site.replies.socket_count -= 1
            self.site.replies.end(self, None)
            self._do(socket.disown(self.site.now()))
            # Nobody looks at its deadlines any more.
            self.decoder = None
            self.transport.close()

    def on_stop(self) -> None:
        """The close frame was sent long ago, and the layer runs the disconnect: nothing is left to do."""

    def tick(self, now: float) -> None:
        """Deadlines and pings."""
        if self.connection is not None:
            actions = self.connection.tick(now)
            if actions:
                self._do(actions)
            if self.backlog is not None:
                self._check_backlog()

    def close(self, code: int) -> None:
        """End this socket from our side."""
        if self.connection is not None:
            self._do(self.connection.close(code, self.site.now()))

    def shutdown(self) -> None:
        """The server stops."""
        self.close(1012)

    def abort(self) -> None:
        """Drop the connection."""
        self.transport.abort()

    def open_socket(self) -> OpenSocket | None:
        """What the layer mirrors of an accepted socket."""
        socket = self.connection
        if socket is None or not socket.accepted or socket.ended:
            return None
        return OpenSocket(self.reply_channel, self.path, socket.order - 1, socket.session)


_DO: dict[type, Callable[[WebSocketProtocol, Any], None]] = {
    connection.Offer: WebSocketProtocol._do_offer,
    connection.Accept: WebSocketProtocol._do_accept,
    connection.Refuse: WebSocketProtocol._do_refuse,
    connection.Write: WebSocketProtocol._do_write,
    connection.Ping: WebSocketProtocol._do_ping,
    connection.Close: WebSocketProtocol._do_close,
    connection.Abort: WebSocketProtocol._do_abort,
    connection.PauseReading: WebSocketProtocol._do_pause,
    connection.ResumeReading: WebSocketProtocol._do_resume,
    connection.End: WebSocketProtocol._do_end,
    connection.Mirror: WebSocketProtocol._do_mirror,
    connection.Report: WebSocketProtocol._do_report,
}
