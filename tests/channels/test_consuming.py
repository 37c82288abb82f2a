"""One message: one finish, whatever its consumer does."""

import logging
import signal
import threading

import pytest

from procman.channels import Channel, Group, route
from procman.channels.asgi import ChannelLayerWrapper, channel_layers
from procman.channels.exceptions import ChannelSocketException, ConsumeLater, DenyConnection, WebsocketCloseException
from procman.channels.pending import pending_message_store
from procman.channels.routing import Router
from procman.channels.signals import consumer_finished, consumer_started
from procman.channels.timeouts import watchdog
from procman.channels.worker import Worker
from procman.layers.base import Send
from procman.layers.errors import LayerUnavailable, LimitReached
from procman.layers.memory import InMemoryChannelLayer
from tests.channels.layer import BareLayer
from tests.support.waiting import wait_until

CHANNELS = ["test", "websocket.connect", "websocket.receive", "http.request"]


def run(wrapper, consumer, channel="test", content=None, steps=1, **facts):
    """One message through a worker whose routing leads to *consumer*."""
    wrapper.router.add_route(route(CHANNELS, consumer))
    content = {"reply_channel": "i!1", "path": "/p/", **(content or {})}
    wrapper.channel_layer.deliver(channel, content, **facts)
    worker = Worker(wrapper)
    for _ in range(steps):
        worker.step(CHANNELS)
    return worker


def test_what_a_consumer_sent_leaves_with_the_one_finish(layer, wrapper):
    def consumer(message):
        message.reply_channel.send({"text": "1"})
        Group("g").send({"text": "2"})
        Channel("other").send({"text": "3"})

    run(wrapper, consumer, id="m7")
    sends = [
        Send("i!1", {"text": "1"}),
        Send("g", {"text": "2"}, is_group=True),
        Send("other", {"text": "3"}),
    ]
    assert layer.finished == [("m7", sends, None)]
    assert layer.log == []
    assert not pending_message_store.active


def test_immediate_sends_do_not_wait_for_the_finish(layer, wrapper):
    run(wrapper, lambda message: message.reply_channel.send({"text": "now"}, immediately=True))
    assert list(layer.queues["i!1"]) == [{"text": "now"}]
    assert layer.sent() == []


def test_sends_on_another_layer_follow_directly(layer, wrapper):
    other = type(layer)()
    other_wrapper = ChannelLayerWrapper(other, "other", [])
    run(wrapper, lambda message: Channel("x", channel_layer=other_wrapper).send({"a": 1}))
    assert list(other.queues["x"]) == [{"a": 1}]
    assert layer.sent() == []


def test_the_message_tells_its_id_and_whether_it_was_redelivered(layer, wrapper):
    seen = []
    run(wrapper, lambda message: seen.append((message.id, message.redelivered)), id="m1", redelivered=True)
    assert seen == [("m1", True)]


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
@pytest.mark.parametrize(
    ("channel", "told"),
    [("websocket.connect", {"close": 1011}), ("websocket.receive", {"close": 1011}), ("test", None)],
)
def test_no_consumer_ends_the_worker_and_the_client_is_told(layer, wrapper, caplog, monkeypatch, error, channel, told):
    monkeypatch.setattr(signal, "getsignal", lambda number: None)  # as with the worker's own handlers

    def consumer(message):
        message.reply_channel.send({"text": "before"})
        raise error

    with caplog.at_level(logging.ERROR, "django.channels"):
        run(wrapper, consumer, channel)
    assert layer.sent() == [{"text": "before"}] + ([told] if told else [])
    assert len(layer.finished) == 1
    (record,) = caplog.records
    assert channel in record.getMessage()
    assert "/p/" in record.getMessage()
    assert "i!1" in record.getMessage()
    assert record.exc_info


def test_a_failed_http_consumer_answers_500(layer, wrapper, caplog):
    run(wrapper, lambda message: 1 / 0, "http.request")
    (answer,) = layer.sent()
    assert answer["status"] == 500
    assert answer["more_content"] is False
    assert "ZeroDivisionError" in caplog.text


def test_a_clients_path_cannot_forge_a_log_line(layer, wrapper, caplog):
    run(wrapper, lambda message: 1 / 0, content={"path": "/a\nERROR forged"})
    assert "\\x0aERROR forged" in caplog.records[0].getMessage()
    assert "\n" not in caplog.records[0].getMessage()


def test_denying_a_connection_refuses_the_handshake(layer, wrapper):
    def consumer(message):
        raise DenyConnection

    run(wrapper, consumer, "websocket.connect")
    assert layer.sent() == [{"close": True}]


def test_denying_outside_connect_is_an_error_that_closes(layer, wrapper, caplog):
    def consumer(message):
        raise DenyConnection

    run(wrapper, consumer, "websocket.receive")
    assert layer.sent() == [{"close": 1011}]
    assert "DenyConnection" in caplog.text


def test_a_close_exception_closes_with_its_code(layer, wrapper):
    def consumer(message):
        message.reply_channel.send({"text": "bye"})
        raise WebsocketCloseException(4001)

    run(wrapper, consumer, "websocket.receive")
    assert layer.sent() == [{"text": "bye"}, {"close": 4001}]


def test_a_close_exception_without_a_socket_is_logged(layer, wrapper, caplog):
    def consumer(message):
        raise WebsocketCloseException

    run(wrapper, consumer, content={"reply_channel": None})
    assert len(layer.finished) == 1
    assert "no reply channel" in caplog.text


def test_an_exception_that_says_itself_what_is_to_be_done_is_run_with_its_message(layer, wrapper, caplog):
    class Teapot(ChannelSocketException):
        def run(self, message):
            message.reply_channel.send({"text": "short and stout"})

    def consumer(message):
        message.reply_channel.send({"text": "before"})
        raise Teapot

    run(wrapper, consumer, "websocket.receive")
    assert layer.sent() == [{"text": "before"}, {"text": "short and stout"}]
    assert not caplog.records


def test_consume_later_gives_the_delivery_back_with_one_more_retry(layer, wrapper):
    def consumer(message):
        raise ConsumeLater

    run(wrapper, consumer, content={"__retries__": 3})
    ((_, content),) = layer.deferred
    assert content["__retries__"] == 4
    assert layer.finished == []


def test_the_last_round_is_doomed_and_dropped_with_a_warning(layer, wrapper, caplog):
    doomed = []

    def consumer(message):
        doomed.append(message.__doomed__)
        raise ConsumeLater

    run(wrapper, consumer, content={"__retries__": 9})
    wrapper.router = Router([])
    run(wrapper, consumer, content={"__retries__": 10})
    assert doomed == [False, True]
    assert len(layer.deferred) == len(layer.finished) == 1
    assert "dropped" in caplog.text


@pytest.mark.parametrize(("channel", "answered"), [("http.request", True), ("websocket.receive", False)])
def test_a_request_that_was_put_off_too_often_is_answered_503(layer, wrapper, channel, answered):
    def consumer(message):
        raise ConsumeLater

    run(wrapper, consumer, channel, {"__retries__": 10})
    assert [message["status"] for message in layer.sent()] == ([503] if answered else [])


def test_a_message_that_nothing_matches_is_finished_with_an_error_in_the_log(layer, wrapper, caplog):
    layer.deliver("unknown", {})
    Worker(wrapper).step(CHANNELS)
    assert len(layer.finished) == 1
    assert "check the routing" in caplog.text


def test_one_send_that_cannot_be_serialised_does_not_keep_back_the_others(layer, wrapper, caplog, monkeypatch):
    def finish(delivery, sends=(), session=None):
        if any(isinstance(value, set) for send in sends for value in send.message.values()):
            raise TypeError("no sets")
        layer.finished.append((delivery.id, list(sends), session))

    monkeypatch.setattr(layer, "finish", finish)

    def consumer(message):
        message.reply_channel.send({"text": "good"})
        message.reply_channel.send({"text": {1}})

    run(wrapper, consumer, "websocket.receive")
    assert layer.sent() == [{"text": "good"}, {"close": 1011}]
    assert "message['text'] is a set" in caplog.text


def test_a_lost_finish_is_logged_and_survived(layer, wrapper, caplog, monkeypatch):
    def finish(*args):
        raise LayerUnavailable("gone")

    monkeypatch.setattr(layer, "finish", finish)
    run(wrapper, lambda message: None)
    assert "gone" in caplog.text
    assert not pending_message_store.active


def test_a_failing_receiver_of_consumer_finished_does_not_end_the_worker(layer, wrapper, caplog):
    def receiver(**kwargs):
        raise ValueError("bad receiver")

    consumer_finished.connect(receiver)
    try:
        run(wrapper, lambda message: None)
    finally:
        consumer_finished.disconnect(receiver)
    assert len(layer.finished) == 1
    assert "bad receiver" in caplog.text


def test_the_callback_sees_each_message_first(layer, wrapper):
    seen = []
    wrapper.router.add_route(route("test", lambda message: seen.append("consumer")))
    layer.deliver("test", {})
    Worker(wrapper, callback=lambda channel, message: seen.append(channel)).step(["test"])
    assert seen == ["test", "consumer"]


def test_on_the_in_memory_layer_consume_later_is_one_send_and_two_calls():
    calls = []
    sends = []

    def consumer(message):
        calls.append(message.content.get("__retries__", 0))
        if len(calls) == 1:
            raise ConsumeLater

    wrapper = ChannelLayerWrapper(InMemoryChannelLayer(), "default", [route("test", consumer)])
    wrapper.send("test", {"a": 1})
    real_send = wrapper.channel_layer.send

    def send(channel, message):
        sends.append(channel)
        real_send(channel, message)

    wrapper.send = send
    worker = Worker(wrapper)
    worker.step(["test"])
    worker.step(["test"])
    assert calls == [0, 1]
    assert sends == ["test"]


def test_sends_that_are_too_many_together_are_dropped_and_the_message_is_finished(layer, wrapper, caplog, monkeypatch):
    record = type(layer).finish

    def refuse_many(self, delivery, sends=(), session=None):
        if len(sends) > 2:
            raise LimitReached("3 messages; its end carries 2 at most")
        record(self, delivery, sends, session)

    monkeypatch.setattr(type(layer), "finish", refuse_many)

    def consumer(message):
        for number in range(3):
            Channel("other").send({"n": number})

    run(wrapper, consumer, channel="http.request", id="m3")
    ((identity, sends, _),) = layer.finished
    assert identity == "m3"
    assert [(send.name, send.message["status"]) for send in sends] == [("i!1", 500)]
    assert "its end carries 2 at most" in caplog.text


def test_a_message_put_off_on_a_channel_that_is_full_is_not_lost():
    calls = []

    def consumer(message):
        calls.append(message["n"])
        if calls == [1]:
            Channel("test").send({"n": 2}, immediately=True)  # there is room for one
            raise ConsumeLater

    wrapper = ChannelLayerWrapper(InMemoryChannelLayer(capacity=1), "default", [route("test", consumer)])
    before = channel_layers.set("default", wrapper)
    try:
        wrapper.send("test", {"n": 1})
        worker = Worker(wrapper)
        wait_until(lambda: worker.step(["test"]) and len(calls) == 3)
    finally:
        channel_layers.set("default", before)
    assert sorted(calls) == [1, 1, 2]


def test_on_a_layer_of_1x_a_full_channel_keeps_back_nothing_else_and_the_worker_lives(caplog, monkeypatch):
    class FullLayer(BareLayer):
        def send(self, channel, message):
            if channel == "full":
                raise self.ChannelFull
            super().send(channel, message)

    def consumer(message):
        for name in ("a", "full", "b"):
            Channel(name, channel_layer=wrapper).send({"n": message["n"]})

    monkeypatch.setattr(pending_message_store, "retry_time", 0.02)
    monkeypatch.setattr(pending_message_store, "retry_interval", 0.01)
    wrapper = ChannelLayerWrapper(FullLayer(), "default", [route("test", consumer)])
    worker = Worker(wrapper)
    for number in (1, 2):
        wrapper.send("test", {"n": number})
        worker.step(["test"])
        assert [wrapper.receive_many([])[0] for _ in range(2)] == ["a", "b"]
        assert not pending_message_store.active
    assert "'full' stayed full" in caplog.text


def recurse():
    return recurse() + 1


class Unspeakable(Exception):
    """An exception that nobody can print."""

    def __str__(self):
        raise ValueError("no text")

    __repr__ = __str__


class Unformattable(Exception):
    """An exception that breaks ``traceback``."""

    @property
    def __notes__(self):
        raise SystemExit("no notes")


class Chameleon(Exception):
    """An exception that lies about its class."""

    @property
    def __class__(self):
        raise RuntimeError("no class")


def forget_message(message):
    message.content = message.channel = message.reply_channel = None
    raise ValueError("after that")


def empty_message(message):
    message.content.clear()
    raise ValueError("after that")


def raises(error):
    def consumer(message):
        raise error

    return consumer


def send_what_cannot_be_sent(message):
    message.reply_channel.send({"text": object})


HARDSHIPS = {
    "an exception without text": raises(Unspeakable()),
    "an exception that cannot be formatted": raises(Unformattable()),
    "an exception that lies about its class": raises(Chameleon()),
    "no memory": raises(MemoryError()),
    "no end": lambda message: recurse(),
    "a group of exceptions": raises(BaseExceptionGroup("several", [SystemExit(1), ValueError()])),
    "a message that has lost its parts": forget_message,
    "a message that has lost its content": empty_message,
    "an abstract exception": raises(ChannelSocketException()),
    "an unserialisable send": send_what_cannot_be_sent,
    "an integer that is too large": lambda message: message.reply_channel.send({"text": 1 << 70}),
    "a held send that is sent too early": lambda message: pending_message_store.send_and_flush() or 1 / 0,
}


@pytest.mark.parametrize("channel", ["websocket.receive", "http.request"])
@pytest.mark.parametrize("consumer", HARDSHIPS.values(), ids=HARDSHIPS)
def test_a_worker_survives_and_the_client_is_told(consumer, channel, caplog, capfd):
    layer = InMemoryChannelLayer()
    wrapper = ChannelLayerWrapper(layer, "default", [route(channel, consumer), route("other", answer_with_its_number)])
    reply = layer.new_channel("answers?")
    before = channel_layers.set("default", wrapper)
    try:
        layer.send(channel, {"reply_channel": reply, "path": "/p/"})
        layer.send("other", {"reply_channel": reply, "n": 5})
        worker = Worker(wrapper)
        for name in (channel, "other"):
            assert worker.step([name])
        told, alive = (layer.receive_many([reply])[1] for _ in range(2))
    finally:
        channel_layers.set("default", before)
    assert told.get("close") == 1011 or told.get("status") == 500
    assert alive == {"n": 5}
    assert caplog.records or "error in consumer" in capfd.readouterr().err
    assert layer.statistics()["messages_pending"] == 0


def test_a_message_that_its_consumer_has_broken_is_still_named_and_given_up_in_time(
    layer, wrapper, caplog, monkeypatch
):
    monkeypatch.setattr(watchdog, "default", 0.05)

    def consumer(message):
        message.reply_channel = message.channel = None
        wait_until(lambda: caplog.records)

    run(wrapper, consumer, "websocket.receive")
    assert "ran for more than 0.05 s on websocket.receive" in caplog.text
    assert layer.sent() == [{"close": 1011}]


def test_a_watchdog_that_could_not_give_up_one_message_gives_up_the_next(layer, wrapper, caplog, monkeypatch):
    monkeypatch.setattr(watchdog, "default", 0.05)
    record = type(layer).finish

    def finish(self, delivery, sends=(), session=None):
        if threading.current_thread().name == "consumer watchdog" and delivery.id == "m0":
            raise SystemExit("no layer")
        record(self, delivery, sends, session)

    monkeypatch.setattr(type(layer), "finish", finish)

    def consumer(message):
        text = "no layer" if message.id == "m0" else "ran for more than 0.05 s on websocket.receive path /second/"
        wait_until(lambda: text in caplog.text)

    run(wrapper, consumer, "websocket.receive", id="m0")
    run(wrapper, consumer, "websocket.receive", {"path": "/second/"}, id="m1")
    assert layer.sent() == [{"close": 1011}]


def answer_with_its_number(message):
    message.reply_channel.send({"n": message["n"]})


@pytest.mark.parametrize("value", [7, "text", [], Exception, object()])
def test_what_a_consumer_returns_does_not_matter(layer, wrapper, caplog, value):
    run(wrapper, lambda message: value)
    assert len(layer.finished) == 1
    assert not caplog.records


def test_a_coroutine_that_a_decorated_consumer_returns_is_an_error(layer, wrapper, caplog):
    async def consumer(message):
        """Never runs."""

    run(wrapper, lambda message: consumer(message), "websocket.receive")
    assert layer.sent() == [{"close": 1011}]
    assert "consumers are synchronous" in caplog.text


@pytest.mark.parametrize("error", [ValueError, SystemExit, RecursionError])
def test_a_log_handler_that_raises_ends_neither_worker_nor_message(layer, wrapper, capfd, error):
    class Broken(logging.Handler):
        def emit(self, record):
            raise error("the log is broken")

    handler = Broken()
    logging.getLogger("django.channels").addHandler(handler)
    try:
        run(wrapper, lambda message: 1 / 0, "websocket.receive")
    finally:
        logging.getLogger("django.channels").removeHandler(handler)
    assert layer.sent() == [{"close": 1011}]


def test_a_receiver_of_consumer_started_that_fails_fails_the_message_only(layer, wrapper, caplog):
    def receiver(**kwargs):
        raise SystemExit("not today")

    consumer_started.connect(receiver)
    try:
        run(wrapper, lambda message: None, "websocket.receive")
    finally:
        consumer_started.disconnect(receiver)
    assert layer.sent() == [{"close": 1011}]
    assert "not today" in caplog.text


def test_a_receiver_of_consumer_finished_that_exits_does_not_end_the_worker(layer, wrapper, caplog):
    def receiver(**kwargs):
        raise SystemExit("not today")

    consumer_finished.connect(receiver)
    try:
        run(wrapper, lambda message: None)
    finally:
        consumer_finished.disconnect(receiver)
    assert len(layer.finished) == 1
    assert "not today" in caplog.text


def test_a_message_is_finished_even_if_what_is_left_of_its_sends_is_refused_too(layer, wrapper, caplog, monkeypatch):
    record = type(layer).finish

    def refuse_sends(self, delivery, sends=(), session=None):
        if any("status" not in send.message for send in sends):
            raise LimitReached("too much")
        record(self, delivery, sends, session)

    monkeypatch.setattr(type(layer), "finish", refuse_sends)

    def consumer(message):
        Channel("other").send({"n": 1})
        Channel("other").send({"n": object})

    run(wrapper, consumer, "http.request")
    assert [message["status"] for message in layer.sent()] == [500]
    assert "too much" in caplog.text


def test_a_finish_that_fails_in_an_unknown_way_is_logged_and_survived(layer, wrapper, caplog, monkeypatch):
    def finish(*args):
        raise SystemExit("from the layer")

    monkeypatch.setattr(layer, "finish", finish)
    run(wrapper, lambda message: None)
    assert "from the layer" in caplog.text
