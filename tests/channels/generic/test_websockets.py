"""WebSocket consumers as classes: text, bytes, JSON, streams."""

import datetime
import json
import logging
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from procman.channels import Channel
from procman.channels.asgi import ChannelLayerWrapper, channel_layers
from procman.channels.binding.websockets import WebsocketBinding
from procman.channels.exceptions import DenyConnection, InvalidFrame, SendNotAvailableOnDemultiplexer
from procman.channels.generic.websockets import (
    JsonWebsocketConsumer,
    WebsocketConsumer,
    WebsocketDemultiplexer,
    WebsocketMultiplexer,
)
from procman.channels.message import Message
from procman.channels.sessions import http_session_store
from procman.channels.worker import Worker
from procman.layers.base import Delivery
from tests.channels.layer import RecordingLayer

REPLY = "interface.x!1"


class Socket:
    """One WebSocket in front of a worker; keeps the session beside it, as an interface does."""

    def __init__(self, consumer: Any, **filters: Any) -> None:
        self.layer = RecordingLayer()
        wrapper = ChannelLayerWrapper(self.layer, "default", [consumer.as_route(**filters)])
        self.before = channel_layers.set("default", wrapper)
        self.worker = Worker(wrapper, signal_handlers=False)
        self.session: bytes = b""
        self.order = 0

    def give(self, kind: str, path: str = "/", **content: Any) -> list[dict[str, Any]]:
        """What the worker sends to the socket when it is given a message."""
        message = {"reply_channel": REPLY, "path": path, "order": self.order, **content}
        self.order += 1
        count = len(self.layer.finished)
        self.worker.handle(Delivery(f"websocket.{kind}", message, f"m{self.order}", session=self.session))
        ((_, sends, session),) = self.layer.finished[count:]
        self.session = self.session if session is None else session
        return [send.message for send in sends if send.name == REPLY]


@pytest.fixture
def socket() -> Iterator[Any]:
    made: list[Socket] = []

    def make(consumer: Any, **filters: Any) -> Socket:
        made.append(Socket(consumer, **filters))
        return made[-1]

    yield make
    for each in reversed(made):
        channel_layers.set("default", each.before)


# -- text and bytes --------------------------------------------------------------------------------------------------


class Echo(WebsocketConsumer):
    groups = ["all", "more"]

    def receive(self, text: str | None = None, bytes: bytes | None = None, **kwargs: Any) -> None:
        self.send(text=text, bytes=bytes)


def test_a_socket_is_accepted_and_joins_its_groups_until_it_ends(socket: Any) -> None:
    chat = socket(Echo)
    assert chat.give("connect", headers=[]) == [{"accept": True}]
    assert chat.layer.groups == {"all": [REPLY], "more": [REPLY]}
    chat.give("disconnect", code=1000)
    assert chat.layer.groups == {"all": [], "more": []}


def test_frames_are_text_or_bytes(socket: Any) -> None:
    chat = socket(Echo)
    assert chat.give("receive", text="hi") == [{"text": "hi"}]
    assert chat.give("receive", text="") == [{"text": ""}]
    assert chat.give("receive", bytes=b"\x00") == [{"bytes": b"\x00"}]
    assert chat.give("receive", text=None, bytes=b"\x00") == [{"bytes": b"\x00"}]


def test_groups_may_depend_on_the_route(socket: Any) -> None:
    class Room(WebsocketConsumer):
        def connection_groups(self, room: str, **kwargs: Any) -> list[str]:
            return [f"room-{room}"]

        def connect(self, message: Message, room: str, **kwargs: Any) -> None:
            message.reply_channel.send({"accept": True})  # type: ignore[union-attr]
            self.send(text=f"{self.path} {room} {self.kwargs}")

    chat = socket(Room, path="^/(?P<room>[a-z]+)/$")
    assert chat.give("connect", path="/lobby/") == [{"accept": True}, {"text": "/lobby/ lobby {'room': 'lobby'}"}]
    assert chat.layer.groups == {"room-lobby": [REPLY]}


def test_groups_that_are_one_name_are_refused() -> None:
    with pytest.raises(TypeError, match="list of names"):

        class Wrong(WebsocketConsumer):
            groups = "all"


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({"mapping": {"one": Echo}}, "write consumers"),
        ({"consumers": ["one"]}, "must be a dict"),
        ({"consumers": {"one": 5}}, "cannot be called"),
        ({"consumers": {"one": WebsocketBinding}}, r"write WebsocketBinding\.consumer"),
    ],
)
def test_a_demultiplexer_says_what_is_wrong_when_it_is_made(body: dict[str, Any], problem: str) -> None:
    with pytest.raises(TypeError, match=problem):
        type("Wrong", (WebsocketDemultiplexer,), body)


def test_an_asynchronous_method_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(TypeError, match=r"Wrong\.receive is a coroutine"):

        class Wrong(JsonWebsocketConsumer):
            async def receive(self, content: Any, *args: Any, **kwargs: Any) -> None: ...  # type: ignore[override]


def test_a_consumer_closes_with_a_code_or_with_a_last_frame(socket: Any) -> None:
    class Closing(WebsocketConsumer):
        def receive(self, text: str = "", **kwargs: Any) -> None:
            if text == "last":
                self.send(text="bye", close=4001)
            else:
                self.close(int(text)) if text else self.close()

    chat = socket(Closing)
    assert chat.give("receive", text="last") == [{"text": "bye", "close": 4001}]
    assert chat.give("receive", text="3000") == [{"close": 3000}]
    assert chat.give("receive", text="") == [{"close": True}]


def test_sending_nothing_is_a_value_error() -> None:
    class Nothing(WebsocketConsumer):
        def receive(self, **kwargs: Any) -> None:
            self.send()

    with pytest.raises(ValueError, match="text or bytes"):
        Nothing(Message({"reply_channel": REPLY, "path": "/", "text": "x"}, "websocket.receive", None))


def test_a_class_sends_to_a_group(socket: Any) -> None:
    chat = socket(Echo)
    chat.give("connect")
    Echo.group_send("all", text="hello", close=True)
    assert list(chat.layer.queues[REPLY]) == [{"text": "hello", "close": True}]


def test_a_refused_connect_is_closed(socket: Any) -> None:
    class Refusing(WebsocketConsumer):
        def connect(self, message: Message, **kwargs: Any) -> None:
            raise DenyConnection

    assert socket(Refusing).give("connect") == [{"close": True}]


def test_slight_ordering_is_refused() -> None:
    class Slight(WebsocketConsumer):
        slight_ordering = True

    with pytest.raises(ValueError, match="strict_ordering"):
        Slight(Message({"reply_channel": REPLY, "path": "/"}, "websocket.connect", None))


def test_strict_ordering_runs_an_early_message_after_the_one_before(database: None) -> None:
    layer = RecordingLayer()
    orders: list[int] = []

    class Ordered(WebsocketConsumer):
        strict_ordering = True

        def connect(self, message: Message, **kwargs: Any) -> None:
            orders.append(message["order"])

        def receive(self, text: str = "", **kwargs: Any) -> None:
            orders.append(self.message["order"])

    wrapper = ChannelLayerWrapper(layer, "default", [])
    Ordered(Message({"reply_channel": "e!1", "path": "/", "order": 1, "text": "x"}, "websocket.receive", wrapper))
    assert orders == []
    Ordered(Message({"reply_channel": "e!1", "path": "/", "order": 0}, "websocket.connect", wrapper))
    assert orders == [0]
    channel, again = layer.receive_many(["websocket.receive"])
    Ordered(Message(again, channel, wrapper))
    assert orders == [0, 1]


# -- users -----------------------------------------------------------------------------------------------------------


def login(name: str = "ada") -> tuple[Any, list[list[bytes]]]:
    """A user, and the headers of a browser in which they are logged in."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.auth.models import User

    user = User.objects.create_user(name, password="secret")
    session: Any = http_session_store("")
    session.create()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return session.session_key, [[b"cookie", b"sessionid=" + session.session_key.encode()]]


@pytest.mark.parametrize("attribute", ["http_user", "http_user_and_session"])
def test_the_user_of_the_page_is_known_in_every_message(socket: Any, database: None, attribute: str) -> None:
    seen: list[tuple[str, str | None]] = []

    class Who(WebsocketConsumer):
        def note(self, message: Message, **kwargs: Any) -> None:
            session = message.http_session if attribute == "http_user_and_session" else None
            seen.append((message.user.username, session and session.session_key))

        raw_connect = raw_receive = raw_disconnect = note

    key, headers = login()
    chat = socket(type("Who", (Who,), {attribute: True}))
    chat.give("connect", headers=headers)
    chat.give("receive", text="x")
    chat.give("disconnect", code=1000)
    assert seen == [("ada", key if attribute == "http_user_and_session" else None)] * 3


# -- JSON ------------------------------------------------------------------------------------------------------------


class Adder(JsonWebsocketConsumer):
    def receive(self, content: Any, **kwargs: Any) -> None:
        self.send({"sum": sum(content)}, close=content == [])


def test_json_goes_both_ways(socket: Any) -> None:
    chat = socket(Adder)
    assert chat.give("receive", text="[1, 2]") == [{"text": '{"sum": 3}'}]
    assert chat.give("receive", text="[]") == [{"text": '{"sum": 0}', "close": True}]


def test_json_goes_to_groups(socket: Any) -> None:
    chat = socket(Adder)
    chat.layer.group_add("all", REPLY)
    Adder.group_send("all", {"a": 1})
    assert list(chat.layer.queues[REPLY]) == [{"text": '{"a": 1}'}]


def test_an_encoding_of_ones_own_is_used_everywhere(socket: Any) -> None:
    class Backwards(JsonWebsocketConsumer):
        @classmethod
        def decode_json(cls, text: str) -> Any:
            return json.loads(text[::-1])

        @classmethod
        def encode_json(cls, content: Any) -> str:
            return json.dumps(content)[::-1]

        def receive(self, content: Any, **kwargs: Any) -> None:
            self.send({"got": content})

    chat = socket(Backwards)
    assert chat.give("receive", text="]32 ,1[") == [{"text": '{"got": [1, 23]}'[::-1]}]
    chat.layer.group_add("all", REPLY)
    Backwards.group_send("all", [1])
    assert list(chat.layer.queues[REPLY]) == [{"text": "]1["}]


BAD_FRAMES = [{"text": "no json"}, {"text": ""}, {"text": "[" * 100_000}, {"text": "1" * 5000}, {"bytes": b"{}"}]


@pytest.mark.parametrize("frame", BAD_FRAMES, ids=["words", "empty", "deep", "long number", "bytes"])
def test_a_frame_that_is_no_json_closes_the_socket_with_one_line(socket: Any, caplog: Any, frame: Any) -> None:
    assert socket(Adder).give("receive", **frame) == [{"close": 1007}]
    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)


def test_a_frame_that_is_no_json_is_a_value_error_for_tests_of_1x() -> None:
    with pytest.raises(ValueError, match="No text section"):
        Adder(Message({"reply_channel": REPLY, "path": "/", "bytes": b"1"}, "websocket.receive", None))


# -- streams ---------------------------------------------------------------------------------------------------------


class Stream(JsonWebsocketConsumer):
    seen: ClassVar[list[Any]] = []
    strict_ordering = True
    channel_session = True

    def connect(self, message: Message, multiplexer: WebsocketMultiplexer, **kwargs: Any) -> None:
        self.seen.append(("connect", multiplexer.stream, kwargs))

    def receive(self, content: Any, multiplexer: WebsocketMultiplexer, **kwargs: Any) -> None:
        if content.get("directly"):
            self.send(content)
        multiplexer.send({"back": content, "day": datetime.date(2020, 1, 2)})

    def disconnect(self, message: Message, multiplexer: WebsocketMultiplexer, **kwargs: Any) -> None:
        self.seen.append(("disconnect", multiplexer.stream, kwargs))


def plain(message: Message, multiplexer: WebsocketMultiplexer, **kwargs: Any) -> None:
    if message.channel.name == "websocket.receive":
        multiplexer.send({"plain": json.loads(message["text"])})


class Page(WebsocketDemultiplexer):
    consumers = {"one": Stream, "two": plain}


@pytest.fixture
def page(socket: Any) -> Any:
    Stream.seen.clear()
    return socket(Page, path="^/(?P<id>[0-9]+)$")


def frame(stream: Any, payload: Any) -> str:
    return json.dumps({"stream": stream, "payload": payload})


def test_a_demultiplexer_accepts_first_and_forwards_to_all(page: Any) -> None:
    assert page.give("connect", path="/7") == [{"accept": True}]
    assert page.give("disconnect", path="/7", code=1000) == []
    assert Stream.seen == [("connect", "one", {"id": "7"}), ("disconnect", "one", {"id": "7"})]


def test_a_frame_goes_to_the_consumer_of_its_stream(page: Any) -> None:
    page.give("connect", path="/7")
    (answer,) = page.give("receive", path="/7", text=frame("one", {"a": 1}))
    assert json.loads(answer["text"]) == {"stream": "one", "payload": {"back": {"a": 1}, "day": "2020-01-02"}}
    (answer,) = page.give("receive", path="/7", text=frame("two", {"b": 1}))
    assert json.loads(answer["text"]) == {"stream": "two", "payload": {"plain": {"b": 1}}}


@pytest.mark.parametrize(
    "text", [frame("three", {}), frame(["one"], {}), frame("one", [1]), '{"stream": "one"}', "[]", '{"payload": {}}']
)
def test_a_frame_of_no_stream_closes_the_socket(page: Any, text: str) -> None:
    assert page.give("receive", path="/7", text=text) == [{"close": 1007}]


def test_sub_consumers_cannot_send_past_the_multiplexer(page: Any, caplog: Any) -> None:
    assert page.give("receive", path="/7", text=frame("one", {"directly": True})) == [{"close": 1011}]
    assert "SendNotAvailableOnDemultiplexer" in caplog.text


def test_a_sub_consumer_sends_freely_where_it_has_a_socket_of_its_own(page: Any, socket: Any) -> None:
    page.give("receive", path="/7", text=frame("one", {"a": 1}))

    class Alone(Stream):
        def receive(self, content: Any, *args: Any, **kwargs: Any) -> None:
            self.send(content)

    assert socket(Alone).give("receive", text="[1]") == [{"text": "[1]"}]


def test_the_demultiplexer_itself_cannot_send() -> None:
    class Sending(WebsocketDemultiplexer):
        def connect(self, message: Message, *args: Any, **kwargs: Any) -> None:
            self.send({"a": 1})

    with pytest.raises(SendNotAvailableOnDemultiplexer):
        Sending(Message({"reply_channel": REPLY, "path": "/"}, "websocket.connect", None))
    with pytest.raises(SendNotAvailableOnDemultiplexer):
        Page.group_send("all", {"a": 1})


def test_one_failing_consumer_does_not_keep_a_disconnect_from_the_others(socket: Any, caplog: Any) -> None:
    Stream.seen.clear()

    def failing(message: Message, **kwargs: Any) -> None:
        raise LookupError("first")

    class Both(WebsocketDemultiplexer):
        consumers = {"bad": failing, "one": Stream}

    socket(Both).give("disconnect", code=1000)
    assert Stream.seen == [("disconnect", "one", {})]
    assert "LookupError: first" in caplog.text


def test_a_multiplexer_of_ones_own_encodes(socket: Any) -> None:
    class Shouting(WebsocketMultiplexer):
        @classmethod
        def encode_json(cls, content: Any) -> str:
            return json.dumps(content).upper()

    class Loud(WebsocketDemultiplexer):
        consumers = {"two": plain}
        multiplexer_class = Shouting

    chat = socket(Loud)
    assert chat.give("receive", text=frame("two", {"x": 1})) == [
        {"text": '{"STREAM": "TWO", "PAYLOAD": {"PLAIN": {"X": 1}}}'}
    ]
    chat.layer.group_add("all", REPLY)
    Shouting.group_send("all", "two", {"a": 1}, close=True)
    assert list(chat.layer.queues[REPLY]) == [{"text": '{"STREAM": "TWO", "PAYLOAD": {"A": 1}}', "close": True}]


def test_a_multiplexer_writes_to_the_reply_channel_that_it_was_given(socket: Any) -> None:
    chat = socket(Echo)
    WebsocketMultiplexer("s", Channel(REPLY)).send({"a": 1})
    assert [json.loads(sent["text"]) for sent in chat.layer.queues[REPLY]] == [{"stream": "s", "payload": {"a": 1}}]


def test_an_unreadable_frame_outside_of_a_receive_is_an_error_like_any_other(socket: Any, caplog: Any) -> None:
    class Odd(WebsocketConsumer):
        def connect(self, message: Message, *args: Any, **kwargs: Any) -> None:
            raise InvalidFrame("odd")

    assert socket(Odd).give("connect") == [{"close": 1011}]
    assert "Traceback" in caplog.text
