"""One WebSocket on one transport: bytes to events of ``connection.Connection``, its actions back to bytes.

``http.HTTPProtocol`` hands over a connection whose request asks for it (``begin``). ``frames`` reads what comes in,
``messages`` builds frames that go out once for all. Per socket there is no task, coroutine, timer or closure, and no
compression state: the server's tick looks at deadlines, and what is known of a socket is plain data.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from procman.interface import access, actions, connection, handshake
from procman.interface.errors import InvalidReply, Refusal
from procman.interface.frames import PING, PONG, Closed, Failure, FrameDecoder, Ping, build_close, build_control
from procman.interface.messages import (
    SocketReply,
    build_connect,
    build_disconnect,
    build_receive,
    parse_socket_reply,
)
from procman.interface.writing import WritingProtocol
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


class WebSocketProtocol(WritingProtocol):
    """One WebSocket from its handshake to its end."""

    __slots__ = (
        "address",
        "client",
        "connection",
        "decoder",
        "given_id",
        "offer_id",
        "pending",
        "reply_channel",
    )

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.pending = b""  # the answer to the handshake, once the application accepts
        self.decoder: FrameDecoder | None = None
        self.connection: connection.Connection | None = None
        self.reply_channel = ""
        self.client = ""
        self.address = ""  # for which this connection counts
        self.given_id = ""  # the request id of a proxy
        self.offer_id = 0

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
        self.drop_backlog()
        if self.connection is not None:
            self._do(self.connection.lost())
        self.decoder = None

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
            self._do([actions.Abort(), *socket.lost()])

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
                    self.write(build_control(PONG, event.payload))
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

    def _do(self, todo: list[actions.Action]) -> None:
        for action in todo:
            _DO[type(action)](self, action)

    def _do_offer(self, action: actions.Offer) -> None:
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

    def _do_accept(self, action: actions.Accept) -> None:
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

    def _do_refuse(self, action: actions.Refuse) -> None:
        if not self.transport.is_closing():
            self._refuse(action.status, action.text, action.limit or _ANSWERED.get(action.status, "unavailable"))

    def _do_write(self, action: actions.Write) -> None:
        frame = self.compressed(action.frame)
        self.count_sent(frame)
        self.write(frame)

    def _do_ping(self, action: actions.Ping) -> None:
        self.write(build_control(PING))

    def _do_close(self, action: actions.Close) -> None:
        if not self.transport.is_closing():
            # Past the limit of unsent bytes too: nothing follows.
            self.transport.write(build_close(action.code, action.reason))
        self.answer_tokens(False)

    def _do_abort(self, action: actions.Abort) -> None:
        self.decoder = None
        self.transport.abort()

    def _do_pause(self, action: actions.PauseReading) -> None:
        self.transport.pause_reading()

    def _do_resume(self, action: actions.ResumeReading) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()
        if self.decoder is not None and self.decoder.unread:
            # Not from within a consumer's reply: parsing may bring the next action of this socket.
            asyncio.get_running_loop().call_soon(self._read)

    def _do_end(self, action: actions.End) -> None:
        assert self.connection is not None
        disconnect = None
        if action.order is not None:
            self.site.counters.socket_closed(action.code)
            self._log(access.DISCONNECT, str(action.code))
            disconnect = build_disconnect(self.reply_channel, self.path, action.code, action.order, action.reason)
            self._name(disconnect)
        self.site.replies.socket_count -= 1
        self.site.replies.end(self, disconnect, self.connection.session)

    def _do_mirror(self, action: actions.Mirror) -> None:
        opened = OpenSocket(self.reply_channel, self.path, action.order, action.session)
        self.site.replies.layer.socket_opened(opened)

    def _do_withdraw(self, action: actions.Withdraw) -> None:
        self.site.replies.retract(self.offer_id)

    def _do_accept_late(self, action: actions.AcceptLate) -> None:
        self.site.counters.sockets_opened += 1
        opened = OpenSocket(self.reply_channel, self.path, action.order, action.session)
        self.site.replies.layer.socket_opened(opened)

    def _do_count(self, action: actions.Count) -> None:
        self.site.counters.refused(action.limit)

    def _do_report(self, action: actions.Report) -> None:
        logger.log(logging.getLevelNamesMapping()[action.level], "WebSocket %s: %s", escape(self.path), action.text)

    def too_slow(self, unsent: int, age: float) -> None:
        """Say goodbye; the limit is not looked at for that."""
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
            self.wait_written(token)

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
            frame = reply.frame if not self.window_bits else self.compressed(reply.frame)
            self.count_sent(frame)
            self.write_to_group(frame, group)
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
            self._do(self.connection.tick(now))
            if self.backlog is not None:
                self.check_backlog()

    # -- as plain data -----------------------------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """All that is known of a socket that has been asked for, as plain data; its memberships are in ``Replies``.

        Not in it: what the transport holds unsent, messages that wait behind that, and senders that wait for both. Who
        hands a socket over lets its client catch up before.
        """
        assert self.connection is not None
        data = {name: getattr(self, name) for name in _PLAIN}
        data["decoder"] = self.decoder.dump() if self.decoder is not None else None
        data["connection"] = self.connection.dump()
        return data

    @classmethod
    def load(cls, site: Site, transport: asyncio.Transport, data: Mapping[str, Any]) -> WebSocketProtocol:
        """The socket whose ``dump`` is *data*, on *transport*. The offer that is with the workers keeps its number."""
        made = cls(site)
        made.transport = transport
        for name in _PLAIN:
            setattr(made, name, data[name])
        made.decoder = FrameDecoder.load(data["decoder"]) if data["decoder"] is not None else None
        made.connection = connection.Connection.load(data["connection"], site.limits)
        return made

    # -- the server --------------------------------------------------------------------------------------------------

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


_PLAIN = ("address", "client", "given_id", "offer_id", "path", "pending", "reply_channel", "window_bits")
_DO: dict[type, Callable[[WebSocketProtocol, Any], None]] = {
    actions.Offer: WebSocketProtocol._do_offer,
    actions.Accept: WebSocketProtocol._do_accept,
    actions.Refuse: WebSocketProtocol._do_refuse,
    actions.Write: WebSocketProtocol._do_write,
    actions.Ping: WebSocketProtocol._do_ping,
    actions.Close: WebSocketProtocol._do_close,
    actions.Abort: WebSocketProtocol._do_abort,
    actions.PauseReading: WebSocketProtocol._do_pause,
    actions.ResumeReading: WebSocketProtocol._do_resume,
    actions.End: WebSocketProtocol._do_end,
    actions.Mirror: WebSocketProtocol._do_mirror,
    actions.Withdraw: WebSocketProtocol._do_withdraw,
    actions.AcceptLate: WebSocketProtocol._do_accept_late,
    actions.Count: WebSocketProtocol._do_count,
    actions.Report: WebSocketProtocol._do_report,
}
