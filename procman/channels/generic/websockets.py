"""Class-based consumers of WebSockets: text and bytes, JSON, and several streams over one socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from django.core.serializers.json import DjangoJSONEncoder

from procman.channels.auth import (
    channel_and_http_session_user_from_http,
    channel_session_user,
    channel_session_user_from_http,
)
from procman.channels.channel import Channel, Group
from procman.channels.exceptions import InvalidFrame, SendNotAvailableOnDemultiplexer
from procman.channels.generic.base import BaseConsumer, Decorator
from procman.channels.message import Message
from procman.channels.sessions import enforce_ordering


class WebsocketConsumer(BaseConsumer):
    """A consumer of WebSockets: override ``connect``, ``receive`` and ``disconnect``.

    ``groups`` are joined on connect and left on disconnect. With ``http_user`` there is ``message.user``, the one who
    is logged in on the page; with ``http_user_and_session`` also ``message.http_session``. Both imply
    ``channel_session_user``. ``strict_ordering`` is ``enforce_ordering``, and costs nothing: a socket's frames come in
    order anyway. ``path`` is the socket's::

        class Echo(WebsocketConsumer):
            def receive(self, text=None, bytes=None, **kwargs):
                self.send(text=text, bytes=bytes)

        channel_routing = [Echo.as_route(path="^/echo/$")]
    """

    method_mapping: ClassVar[Mapping[str, str]] = {
        "websocket.connect": "raw_connect",
        "websocket.receive": "raw_receive",
        "websocket.disconnect": "raw_disconnect",
    }
    http_user: bool = False
    http_user_and_session: bool = False
    strict_ordering: bool = False
    slight_ordering: bool = False
    groups: Iterable[str] | None = None
    path: str

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if isinstance(cls.groups, str):
            raise TypeError(f"groups of {cls.__qualname__} must be a list of names, not {cls.groups!r}")

    def __init__(self, message: Message, **kwargs: Any) -> None:
        self.path = message["path"]
        super().__init__(message, **kwargs)

    @property
    def _is_demultiplexed(self) -> bool:
        return "multiplexer" in self.kwargs

    def decorators(self, message: Message) -> tuple[Decorator, ...]:
        """What is put around the method that handles *message*. Raises ValueError for ``slight_ordering``."""
        if self.slight_ordering:
            raise ValueError("slight ordering is gone: set strict_ordering, or leave it; frames come in order")
        found = super().decorators(message)
        if self.http_user_and_session:
            found = (channel_session_user, channel_and_http_session_user_from_http)
        elif self.http_user:
            # A message without headers has no cookie: the user is known from the connect.
            has_cookie = "headers" in message
            found = (channel_session_user, channel_session_user_from_http) if has_cookie else (channel_session_user,)
        # Below a demultiplexer the order is that of the socket; a count for each stream would wait for ever.
        if self.strict_ordering and not self._is_demultiplexed:
            found = (*found, enforce_ordering)
        return found

    def connection_groups(self, **kwargs: Any) -> Iterable[str]:
        """Names of the groups that the socket belongs to while it is open."""
        return self.groups or []

    def raw_connect(self, message: Message, **kwargs: Any) -> None:
        """Join the groups, then ``connect``."""
        for name in self.connection_groups(**kwargs):
            Group(name, channel_layer=message.channel_layer).add(self._reply_channel)
        self.connect(message, **kwargs)

    def connect(self, message: Message, *args: Any, **kwargs: Any) -> None:
        """Accept the socket. An override must accept, send or close; ``raise DenyConnection`` refuses."""
        self._reply_channel.send({"accept": True})

    def raw_receive(self, message: Message, **kwargs: Any) -> None:
        """Take the frame out of *message*, then ``receive``."""
        if message.get("text") is not None:
            self.receive(text=message["text"], **kwargs)
        else:
            self.receive(bytes=message["bytes"], **kwargs)

    # The parameters of these three are open, so that type checkers accept overrides that name a route's.

    def receive(self, *args: Any, **kwargs: Any) -> None:
        """Handle a frame, given as ``text`` or as ``bytes``, by keyword. Does nothing."""

    def raw_disconnect(self, message: Message, **kwargs: Any) -> None:
        """Leave the groups, then ``disconnect``."""
        for name in self.connection_groups(**kwargs):
            Group(name, channel_layer=message.channel_layer).discard(self._reply_channel)
        self.disconnect(message, **kwargs)

    def disconnect(self, message: Message, *args: Any, **kwargs: Any) -> None:
        """Handle the end of the socket. Does nothing."""

    def send(self, text: str | None = None, bytes: bytes | None = None, close: bool | int = False) -> None:
        """Send a frame to the socket; then close it, with *close*, a code from 3000 to 4999 or True for 1000.

        Raises:
            ValueError: neither *text* nor *bytes*. SendNotAvailableOnDemultiplexer: a demultiplexer has this socket.
        """
        if self._is_demultiplexed:
            raise SendNotAvailableOnDemultiplexer()
        self._reply_channel.send(_frame(text, bytes, close))

    @classmethod
    def group_send(
        cls,
        name: str,
        text: str | None = None,
        bytes: bytes | None = None,
        close: bool | int = False,
        *,
        on_commit: bool = False,
    ) -> None:
        """Send a frame to every socket of the group *name*; see ``send`` and ``Group.send``."""
        Group(name).send(_frame(text, bytes, close), on_commit=on_commit)

    def close(self, status: bool | int = True) -> None:
        """Close the socket, with a code from 3000 to 4999 or True for 1000."""
        self._reply_channel.send({"close": status})

    @property
    def _reply_channel(self) -> Channel:
        if self.message.reply_channel is None:
            raise ValueError(f"the message on {self.message.channel.name} has no reply_channel: it is of no socket")
        return self.message.reply_channel


def _frame(text: str | None, data: bytes | None, close: bool | int) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if close:
        content["close"] = close
    if text is not None:
        content["text"] = text
    elif data is not None:
        content["bytes"] = data
    else:
        raise ValueError("You must pass text or bytes")
    return content


class JsonWebsocketConsumer(WebsocketConsumer):
    """A consumer whose frames are JSON: ``receive`` gets the decoded content, ``send`` encodes it.

    Override ``encode_json`` and ``decode_json`` for another encoding::

        class Adder(JsonWebsocketConsumer):
            def receive(self, content, **kwargs):
                self.send({"sum": sum(content["numbers"])})
    """

    def raw_receive(self, message: Message, **kwargs: Any) -> None:
        """Decode the frame, then ``receive``.

        Raises:
            InvalidFrame: it is no text, or cannot be decoded. The worker closes the socket with 1007.
        """
        text = message.get("text")
        if text is None:
            raise InvalidFrame("No text section for incoming WebSocket frame!")
        try:
            content = self.decode_json(text)
        except (ValueError, RecursionError) as error:
            raise InvalidFrame(f"the frame is no JSON: {error}") from error
        self.receive(content, **kwargs)

    def receive(self, content: Any, *args: Any, **kwargs: Any) -> None:
        """Handle the decoded *content* of a frame. Does nothing."""

    def send(self, content: Any, close: bool | int = False) -> None:  # type: ignore[override]
        """Send *content* as JSON to the socket; see ``WebsocketConsumer.send``."""
        super().send(text=self.encode_json(content), close=close)

    @classmethod
    def group_send(  # type: ignore[override]
        cls, name: str, content: Any, close: bool | int = False, *, on_commit: bool = False
    ) -> None:
        """Send *content* as JSON, encoded once, to every socket of the group *name*."""
        WebsocketConsumer.group_send(name, cls.encode_json(content), close=close, on_commit=on_commit)

    @classmethod
    def decode_json(cls, text: str) -> Any:
        """*text* decoded. Raises ValueError."""
        return json.loads(text)

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """*content* encoded. Raises TypeError for what JSON does not have."""
        return json.dumps(content)


class WebsocketMultiplexer:
    """Sends on one stream of a socket that carries several; demultiplexed consumers get one as ``multiplexer``."""

    def __init__(self, stream: str, reply_channel: Channel) -> None:
        self.stream = stream
        self.reply_channel = reply_channel

    def send(self, payload: Any) -> None:
        """Send *payload* on the stream."""
        self.reply_channel.send(self.encode(self.stream, payload))

    @classmethod
    def encode_json(cls, content: Any) -> str:
        """*content* as JSON, with dates, decimals and UUIDs as Django writes them."""
        return json.dumps(content, cls=DjangoJSONEncoder)

    @classmethod
    def encode(cls, stream: str, payload: Any) -> dict[str, Any]:
        """The message that sends *payload* on *stream*."""
        return {"text": cls.encode_json({"stream": stream, "payload": payload})}

    @classmethod
    def group_send(
        cls, name: str, stream: str, payload: Any, close: bool | int = False, *, on_commit: bool = False
    ) -> None:
        """Send *payload* on *stream* to every socket of the group *name*."""
        message = cls.encode(stream, payload)
        if close:
            message["close"] = close
        Group(name).send(message, on_commit=on_commit)


class WebsocketDemultiplexer(JsonWebsocketConsumer):
    """Several consumers over one socket: frames are ``{"stream": name, "payload": {...}}``.

    ``consumers`` maps streams to consumers, classes or functions. They are called with ``multiplexer=``, a
    ``WebsocketMultiplexer`` for their stream, and answer through it::

        class Chat(JsonWebsocketConsumer):
            def receive(self, content, multiplexer, **kwargs):
                multiplexer.send({"echo": content})

        class Page(WebsocketDemultiplexer):
            consumers = {"chat": Chat, "tasks": Tasks}

        channel_routing = [Page.as_route(path="^/ws/$")]
    """

    consumers: ClassVar[Mapping[str, Callable[..., Any]]] = {}
    multiplexer_class: ClassVar[type[WebsocketMultiplexer]] = WebsocketMultiplexer

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "mapping" in cls.__dict__:
            raise TypeError(f"{cls.__qualname__}.mapping has no effect: write consumers = {{stream: consumer}}")
        if not isinstance(cls.consumers, Mapping):
            raise TypeError(f"{cls.__qualname__}.consumers must be a dict of streams to consumers")
        for stream, consumer in cls.consumers.items():
            if hasattr(consumer, "trigger_inbound"):
                raise TypeError(f"{cls.__qualname__}.consumers[{stream!r}]: write {consumer.__name__}.consumer")
            if not callable(consumer):
                raise TypeError(f"{cls.__qualname__}.consumers[{stream!r}] is {consumer!r}, which cannot be called")

    def connect(self, message: Message, *args: Any, **kwargs: Any) -> None:
        """Accept the socket, then have every consumer handle the connect."""
        self._reply_channel.send({"accept": True})
        for stream in self.consumers:
            self._consume(stream, message, kwargs)

    def receive(self, content: Any, *args: Any, **kwargs: Any) -> None:
        """Have the consumer of the frame's stream handle the payload.

        Raises:
            InvalidFrame: *content* has no stream, one that nobody consumes, or a payload that is no dict.
        """
        if not isinstance(content, dict) or "stream" not in content or "payload" not in content:
            raise InvalidFrame("Invalid multiplexed frame received (no channel/payload key)")
        stream, payload = content["stream"], content["payload"]
        if not isinstance(payload, dict):
            raise InvalidFrame("Multiplexed frame payload is not a dict")
        if not isinstance(stream, str) or stream not in self.consumers:
            raise InvalidFrame("Invalid multiplexed frame received (stream not mapped)")
        self.message.content["text"] = self.encode_json(payload)
        self._consume(stream, self.message, kwargs)

    def disconnect(self, message: Message, *args: Any, **kwargs: Any) -> None:
        """Have every consumer handle the disconnect, whatever the others raise. Raises the first of their errors."""
        failure: Exception | None = None
        for stream in self.consumers:
            try:
                self._consume(stream, message, kwargs)
            except Exception as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _consume(self, stream: str, message: Message, kwargs: Mapping[str, Any]) -> None:
        multiplexer = self.multiplexer_class(stream, self._reply_channel)
        self.consumers[stream](message, **{**kwargs, "multiplexer": multiplexer})

    def send(self, *args: Any, **kwargs: Any) -> None:
        """Raise SendNotAvailableOnDemultiplexer: what is sent needs a stream."""
        raise SendNotAvailableOnDemultiplexer()

    @classmethod
    def group_send(cls, *args: Any, **kwargs: Any) -> None:
        """Raise SendNotAvailableOnDemultiplexer: use that of the multiplexer, which has a stream."""
        raise SendNotAvailableOnDemultiplexer()
