"""Classes as consumers."""

from typing import Any

import pytest

from procman.channels.generic import BaseConsumer
from procman.channels.message import Message, SessionSlot
from procman.channels.routing import Router, include
from procman.layers import sessions


class Two(BaseConsumer):
    method_mapping = {"test.receive": "receive", "test.connect": "connect"}

    def receive(self, message: Message, **kwargs: Any) -> None:
        self.got = ("receive", message["text"])

    def connect(self, message: Message, **kwargs: Any) -> None:
        self.got = ("connect", kwargs)


def message(channel: str, **content: Any) -> Message:
    made = Message({"reply_channel": "interface.x!1", **content}, channel, None)
    made.session_slot = SessionSlot(sessions.pack({"n": b"1"}))
    return made


def consume(routing: list[Any], made: Message) -> Any:
    found = Router(routing).match(made)
    assert found is not None
    consumer, kwargs = found
    return consumer(made, **kwargs)


def test_making_an_instance_handles_the_message_and_keeps_the_route_parameters() -> None:
    made = consume([Two.as_route(path=r"^/path/(?P<id>\d+)$")], message("test.connect", path="/path/789"))
    assert isinstance(made, Two)
    assert made.got == ("connect", {"id": "789"})
    assert made.kwargs["id"] == "789"
    assert made.message.channel.name == "test.connect"


def test_each_channel_has_its_method() -> None:
    assert consume([Two.as_route()], message("test.receive", text="hi")).got == ("receive", "hi")
    assert Two.channel_names() == {"test.receive", "test.connect"}


@pytest.mark.parametrize("channel", ["test", "test.", "test.receive.more", "other"])
def test_channels_that_are_not_mapped_do_not_match_nor_do_prefixes(channel: str) -> None:
    assert Router([Two.as_route()]).match(message(channel)) is None


def test_a_route_with_attributes_leads_to_a_subclass_that_has_them() -> None:
    class Configured(Two):
        color = "none"

    plain = Configured.as_route()
    colored = Configured.as_route({"color": "red"}, path="^/$")
    assert plain.consumer is Configured
    assert colored.consumer is not Configured
    assert issubclass(colored.consumer, Configured)
    assert (colored.consumer.color, Configured.color) == ("red", "none")
    assert colored.consumer.__module__ == __name__
    assert set(colored.filters) == {"path"}


def test_attributes_must_be_a_dict() -> None:
    with pytest.raises(TypeError, match="dict of attributes"):
        Two.as_route(["color"])  # type: ignore[arg-type]


def test_classes_are_found_behind_an_include() -> None:
    routing = [include([Two.as_route(path="^/b$")], path="^/a")]
    assert consume(routing, message("test.receive", path="/a/b", text="x")).got == ("receive", "x")


def test_a_channel_without_a_method_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        Two(message("elsewhere"))


@pytest.mark.parametrize("attribute", ["channel_session", "channel_session_user"])
def test_methods_get_the_session_that_the_class_asks_for(attribute: str) -> None:
    class WithSession(Two):
        def connect(self, message: Message, **kwargs: Any) -> None:
            self.n = message.channel_session["n"]
            self.user = getattr(message, "user", None)

    made = consume([WithSession.as_route({attribute: True})], message("test.connect"))
    assert made.n == 1
    assert (made.user is None) == (attribute == "channel_session")


def test_without_the_attribute_there_is_no_session() -> None:
    made = consume([Two.as_route()], message("test.connect"))
    assert not hasattr(made.message, "channel_session")


def test_an_override_of_the_handler_may_wrap_it() -> None:
    calls: list[str] = []

    class Wrapped(Two):
        channel_session = True

        def get_handler(self, message: Message, **kwargs: Any) -> Any:
            handler = super().get_handler(message, **kwargs)

            def wrapped(message: Message, **kwargs: Any) -> None:
                calls.append("before")
                handler(message, **kwargs)

            return wrapped

    assert consume([Wrapped.as_route()], message("test.receive", text="x")).got == ("receive", "x")
    assert calls == ["before"]


def test_a_static_method_is_decorated_too() -> None:
    seen: list[int] = []

    class Static(BaseConsumer):
        method_mapping = {"a": "handle"}
        channel_session = True

        @staticmethod
        def handle(message: Message, **kwargs: Any) -> None:
            seen.append(message.channel_session["n"])

    Static(message("a"))
    assert seen == [1]


def test_a_method_is_decorated_once_for_all_messages() -> None:
    class WithSession(Two):
        channel_session = True

    first, second = (WithSession(message("test.connect")) for _ in range(2))
    handlers = [made.get_handler(made.message).__func__ for made in (first, second)]  # type: ignore[attr-defined]
    assert handlers[0] is handlers[1]


def test_an_asynchronous_method_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"Asynchronous\.handle is a coroutine.*consumers are synchronous"):

        class Asynchronous(BaseConsumer):
            method_mapping = {"a": "handle"}

            async def handle(self, message: Message, **kwargs: Any) -> None:
                """Never runs."""

    with pytest.raises(TypeError, match=r"Generating\.receive"):

        class Generating(Two):
            def receive(self, message: Message, **kwargs: Any) -> Any:
                yield message
