"""What a consumer or a view may raise to steer the worker, and what reading a request may raise."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from django.http import UnreadablePostError

if TYPE_CHECKING:
    from procman.channels.message import Message


class ConsumeLater(Exception):
    """Raised in a consumer: its message cannot be worked on yet and is to come again later."""


class ResponseLater(Exception):
    """Raised in a view: another consumer will answer on the request's reply channel."""


class BodyError(UnreadablePostError):
    """A request's body cannot be read to its end. To views an ``OSError``, as under WSGI."""

    status: ClassVar[int | None] = None  # and ``text``: what the client is told; None: it has left
    text: ClassVar[str] = ""


class RequestTimeout(BodyError):
    """The rest of a request's body did not arrive in time; the client is answered 408."""

    status = 408
    text = "408 Request Timeout (upload too slow)"


class RequestAborted(BodyError):
    """The client left while it was sending its request's body; nobody is left to answer."""


class RequestLost(BodyError):
    """A part of a request's body was lost together with the layer's process; the client is answered 503."""

    status = 503
    text = "503 Service Unavailable (a part of the upload was lost)"


class DenyConnection(Exception):
    """Raised in a ``websocket.connect`` consumer: refuse the handshake."""


class ChannelSocketException(Exception):
    """Base of exceptions that say themselves what is to be done: the worker calls ``run``."""

    def run(self, message: Message) -> None:
        """Act on *message*, whose consumer raised this."""
        raise NotImplementedError


class WebsocketCloseException(ChannelSocketException):
    """Raised in a consumer: close the WebSocket with *code*.

    Raises:
        ValueError: *code* is neither None (that is 1000), nor 1000, nor from 3000 to 4999, the codes that RFC 6455
            leaves to applications.
    """

    def __init__(self, code: int | None = None) -> None:
        if code is not None and (
            isinstance(code, bool) or not isinstance(code, int) or not (code == 1000 or 3000 <= code <= 4999)
        ):
            raise ValueError(f"close code {code!r} is not allowed: use None, 1000 or a number from 3000 to 4999")
        super().__init__(code)
        self._code = code

    def run(self, message: Message) -> None:
        """Send the close to the message's reply channel."""
        if message.reply_channel is None:
            raise ValueError("the message has no reply channel, so there is no WebSocket to close")
        message.reply_channel.send({"close": self._code or True})


class InvalidFrame(ValueError):
    """A client's frame cannot be read: the worker logs one line and closes the WebSocket with 1007."""


class SendNotAvailableOnDemultiplexer(Exception):
    """``send`` was called where only the multiplexer may send."""

    def __init__(self) -> None:
        super().__init__("send through the multiplexer: a demultiplexed consumer must not use send() itself")
