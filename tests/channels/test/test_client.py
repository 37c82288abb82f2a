"""What a client's consumers see and what leaves them, held against a real worker over the same layer."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.test import override_settings

from procman.channels import Channel, Group, channel_layers, route, route_class
from procman.channels.asgi import ChannelLayerWrapper
from procman.channels.exceptions import ConsumeLater, DenyConnection, WebsocketCloseException
from procman.channels.handler import ViewConsumer
from procman.channels.sessions import channel_session, enforce_ordering
from procman.channels.signals import consumer_finished, consumer_started
from procman.channels.test import ChannelTestCase, Client, TransactionChannelTestCase, apply_routes
from procman.channels.worker import Worker
from procman.layers.memory import InMemoryChannelLayer
from tests.channels.layer import BareLayer
from tests.support.waiting import wait_until


@pytest.fixture
def memory() -> Iterator[ChannelLayerWrapper]:
    """The default layer of the test: in memory, without routing."""
    wrapper = ChannelLayerWrapper(InMemoryChannelLayer(capacity=10), "default", [])
    before = channel_layers.set("default", wrapper)
    yield wrapper
    channel_layers.set("default", before)


def returning(message: Any, **kwargs: Any) -> Any:
    return message, kwargs


# -- sending and receiving ---------------------------------------------------------------------------------------------


def test_message_carries_the_reply_channel_unless_it_has_one(memory: ChannelLayerWrapper) -> None:
    client = Client()
    content = {"a": ["b"]}
    client.send("chat", content)
    client.send("chat", {"reply_channel": "another"})
    content["a"].append("changed later")
    first, second = client.get_next_message("chat"), client.get_next_message("chat")
    assert first is not None and first.content == {"a": ["b"], "reply_channel": client.reply_channel}
    assert second is not None and second.content == {"reply_channel": "another"}
    assert client.get_next_message("chat") is None
    assert "reply_channel" not in content


def test_answers_are_received_in_order_and_then_nothing(memory: ChannelLayerWrapper) -> None:
    client, other = Client(), Client()
    for number in (1, 2):
        Channel(client.reply_channel).send({"n": number})
    assert other.receive() is None
    assert [client.receive(), client.receive(), client.receive()] == [{"n": 1}, {"n": 2}, None]


def test_group_reaches_its_members(memory: ChannelLayerWrapper) -> None:
    member, other = Client(), Client()
    member.join_group("chat")
    Group("chat").send({"text": "hi"})
    assert (member.receive(), other.receive()) == ({"text": "hi"}, None)


def test_reply_channel_begins_as_asked(memory: ChannelLayerWrapper) -> None:
    assert Client().reply_channel.startswith("default")
    assert Client(reply_channel="websocket.send?").reply_channel.startswith("websocket.send?")
    assert Client().reply_channel != Client().reply_channel


def test_clients_whose_names_share_a_mark_receive_their_own(memory: ChannelLayerWrapper) -> None:
    one, two = (Client(reply_channel="websocket.send!") for _ in range(2))
    for client in (two, one, two):
        Channel(client.reply_channel).send({"to": client.reply_channel})
    assert one.receive() == {"to": one.reply_channel}
    assert one.receive() is None
    assert [two.receive(), two.receive(), two.receive()] == [{"to": two.reply_channel}] * 2 + [None]


def test_client_uses_the_layer_of_its_alias(memory: ChannelLayerWrapper) -> None:
    second = ChannelLayerWrapper(InMemoryChannelLayer(), "second", [route("chat", returning)])
    channel_layers.set("second", second)
    try:
        client = Client(alias="second")
        assert client.channel_layer is second and client.alias == "second"
        client.join_group("everybody")
        message, _ = client.send_and_consume("chat")
        message.reply_channel.send({"n": 1})
        Group("everybody", alias="second").send({"n": 2})
        assert (client.receive(), client.receive()) == ({"n": 1}, {"n": 2})
    finally:
        channel_layers.set("second", None)


# -- finding consumers -------------------------------------------------------------------------------------------------


def test_result_is_what_the_consumer_returned(memory: ChannelLayerWrapper) -> None:
    class Consumer:
        def __init__(self, message: Any, **kwargs: Any) -> None:
            self.message, self.kwargs = message, kwargs

        @classmethod
        def channel_names(cls) -> set[str]:
            return {"classy"}

    with apply_routes([route("chat", returning, path="^/(?P<room>[a-z]+)$"), route_class(Consumer)]):
        message, kwargs = Client().send_and_consume("chat", {"path": "/lobby"})
        assert (message["path"], kwargs) == ("/lobby", {"room": "lobby"})
        instance = Client().send_and_consume("classy", {"n": 1})
        assert isinstance(instance, Consumer) and instance.message["n"] == 1


def test_consumer_can_be_found_without_a_message(memory: ChannelLayerWrapper) -> None:
    with apply_routes(route("chat", returning)):
        assert Client().get_consumer_by_channel("chat") is returning
        assert Client().get_consumer_by_channel("elsewhere") is None


def test_missing_message_and_missing_consumer_fail_unless_told_otherwise(memory: ChannelLayerWrapper) -> None:
    client = Client()
    with pytest.raises(AssertionError, match="No message for channel chat"):
        client.consume("chat")
    assert client.consume("chat", fail_on_none=False) is None
    with pytest.raises(AssertionError, match="Can't find consumer for message <Message on 'chat'>"):
        client.send_and_consume("chat", {"n": 1})
    assert client.send_and_consume("chat", {"n": 2}, fail_on_none=False) is None
    assert client.get_next_message("chat") is None


# -- as in a worker ----------------------------------------------------------------------------------------------------


def run_in_worker(layer: ChannelLayerWrapper, channel: str) -> None:
    """One message, by a real worker, in a thread of its own as in a process of its own."""
    thread = threading.Thread(target=lambda: Worker(layer, signal_handlers=False).step([channel]))
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def sending(message: Any) -> None:
    Group("chat").send({"n": "held"})
    Group("chat").add(message.reply_channel)
    message.reply_channel.send({"n": "now"}, immediately=True)
    content = {"n": "as it was"}
    message.reply_channel.send(content)
    content["n"] = "changed"


def closing(message: Any) -> None:
    message.reply_channel.send({"n": "before"})
    raise WebsocketCloseException(4001)


def spending(message: Any) -> None:
    message.reply_channel.send({"n": message.redelivered})
    message.reply_channel.send({"n": 2}, on_commit=True)


@pytest.mark.parametrize("consumer", [sending, closing, spending])
def test_same_answers_leave_as_from_a_worker(memory: ChannelLayerWrapper, consumer: Callable[..., Any]) -> None:
    answers: list[list[Any]] = []
    runs: list[Callable[[Client], Any]] = [
        lambda client: client.consume("chat"),
        lambda client: run_in_worker(memory, "chat"),
    ]
    with apply_routes(route("chat", consumer)):
        for run in runs:
            client = Client()
            client.send("chat")
            run(client)
            answers.append(list(iter(client.receive, None)))
            Group("chat").discard(client.reply_channel)
    assert answers[0] == answers[1]
    assert len(answers[0]) >= 2


@pytest.mark.parametrize("error", [RuntimeError("mine"), DenyConnection(), ConsumeLater(), SystemExit(3)])
def test_what_is_raised_comes_out_after_what_was_sent_has_left(
    memory: ChannelLayerWrapper, error: BaseException
) -> None:
    def consumer(message: Any) -> None:
        message.reply_channel.send({"n": 1})
        raise error

    client = Client()
    with apply_routes(route("chat", consumer)), pytest.raises(type(error)) as raised:
        client.send_and_consume("chat")
    assert raised.value is error
    assert client.receive() == {"n": 1}
    Channel(client.reply_channel).send({"n": "is sent at once again"})
    assert client.receive() is not None


def test_message_is_used_up_whatever_its_consumer_does(memory: ChannelLayerWrapper) -> None:
    def consumer(message: Any) -> None:
        raise RuntimeError

    client = Client()
    with apply_routes(route("chat", consumer)), pytest.raises(RuntimeError):
        client.send_and_consume("chat")
    assert memory.take(["chat"], 0) is None
    assert memory.statistics().get("messages_pending", 0) == 0


def test_redelivery_can_be_played_and_is_seen_when_it_happens(memory: ChannelLayerWrapper) -> None:
    client = Client()
    with apply_routes(route("chat", returning)):
        message, _ = client.send_and_consume("chat")
        assert message.redelivered is False and isinstance(message.id, str)
        client.send("chat")
        message, _ = client.consume("chat", redelivered=True)
        assert message.redelivered is True
        client.send("chat")
        dying = threading.Thread(target=lambda: memory.take(["chat"], 5))
        dying.start()
        dying.join(10)
        wait_until(lambda: memory.channel_statistics("chat")["messages_pending"] == 1)
        message, _ = client.consume("chat")
        assert message.redelivered is True


def test_signals_surround_the_consumer(memory: ChannelLayerWrapper) -> None:
    events: list[Any] = []

    def started(sender: Any, environ: Any, **kwargs: Any) -> None:
        events.append(("started", sender, environ))

    def finished(sender: Any, **kwargs: Any) -> None:
        events.append(("finished", sender))

    consumer_started.connect(started)
    consumer_finished.connect(finished)
    try:
        with apply_routes(route("chat", lambda message: events.append("consumer"))):
            Client().send_and_consume("chat")
    finally:
        consumer_started.disconnect(started)
        consumer_finished.disconnect(finished)
    assert events == [("started", Client, {}), "consumer", ("finished", Client)]


def test_layer_of_1x_will_do(memory: ChannelLayerWrapper) -> None:
    bare = ChannelLayerWrapper(BareLayer(), "default", [route("chat", returning)])
    channel_layers.set("default", bare)
    message, _ = Client().send_and_consume("chat", {"n": 1})
    assert (message["n"], message.id, message.redelivered) == (1, None, False)


def test_requests_are_answered_as_a_worker_does(memory: ChannelLayerWrapper) -> None:
    client = Client()
    request = {"method": "GET", "path": "/missing/", "http_version": "1.1", "headers": []}
    with apply_routes(route("http.request", ViewConsumer())):
        client.send_and_consume("http.request", request)
    answer = client.receive()
    assert (answer["status"], answer["more_content"]) == (404, False)


def test_long_response_comes_in_parts(memory: ChannelLayerWrapper) -> None:
    class Handler(ViewConsumer.handler_class):
        def get_response(self, request: Any) -> Any:
            return StreamingHttpResponse([b"a", b"b"]) if request.path == "/stream/" else HttpResponse()

    class Consumer(ViewConsumer):
        handler_class = Handler

    client = Client()
    with apply_routes(route("http.request", Consumer())):
        client.send_and_consume("http.request", {"method": "GET", "path": "/stream/"})
    assert [part.get("content") for part in iter(client.receive, None)] == [b"a", b"b", None]


# -- the session -------------------------------------------------------------------------------------------------------


@channel_session
def counting(message: Any) -> int:
    message.channel_session["n"] = message.channel_session.get("n", 0) + 1
    return int(message.channel_session["n"])


def test_channel_session_stays_with_its_client_and_needs_no_database(memory: ChannelLayerWrapper) -> None:
    one, two = Client(), Client()
    with apply_routes([route("chat", counting), route("more", counting)]):
        assert [one.send_and_consume("chat") for _ in range(3)] == [1, 2, 3]
        assert two.send_and_consume("chat") == 1
        # Forwarded to another channel, and consumed by somebody else.
        one.send("more")
        assert two.consume("more") == 4


def test_change_of_a_consumer_that_failed_is_kept_as_in_a_worker(memory: ChannelLayerWrapper) -> None:
    @channel_session
    def failing(message: Any) -> None:
        message.channel_session["n"] = 10
        raise RuntimeError

    client = Client()
    with apply_routes([route("chat", counting), route("fail", failing)]):
        with pytest.raises(RuntimeError):
            client.send_and_consume("fail")
        assert client.send_and_consume("chat") == 11


def test_value_that_cannot_be_stored_is_told_and_what_was_sent_leaves(memory: ChannelLayerWrapper) -> None:
    @channel_session
    def consumer(message: Any) -> None:
        message.channel_session["n"] = object()
        message.reply_channel.send({"n": 1})

    client = Client()
    with apply_routes(route("chat", consumer)), pytest.raises(TypeError, match="not JSON serializable"):
        client.send_and_consume("chat")
    assert client.receive() == {"n": 1}


def test_session_that_was_emptied_is_empty(memory: ChannelLayerWrapper) -> None:
    @channel_session
    def leaving(message: Any) -> None:
        message.channel_session.flush()

    client = Client()
    with apply_routes([route("chat", counting), route("leave", leaving)]):
        client.send_and_consume("chat")
        client.send_and_consume("leave")
        assert client.send_and_consume("chat") == 1


@pytest.mark.usefixtures("database")
@override_settings(CHANNEL_SESSION_ENGINE="django.contrib.sessions.backends.db")
def test_session_of_an_engine_is_used_where_it_is_set(memory: ChannelLayerWrapper) -> None:
    from django.contrib.sessions.models import Session

    client = Client()
    with apply_routes(route("chat", counting)):
        assert [client.send_and_consume("chat") for _ in range(2)] == [1, 2]
    assert Session.objects.count() == 1
    assert client.session_data == b""


# -- order -------------------------------------------------------------------------------------------------------------


@enforce_ordering
def ordered(message: Any) -> Any:
    message.reply_channel.send({"order": message["order"]})


def orders(client: Client) -> list[int]:
    return [answer["order"] for answer in iter(client.receive, None)]


def test_early_message_waits_for_those_that_were_sent_before_it(memory: ChannelLayerWrapper) -> None:
    client = Client()
    with apply_routes(route("chat", ordered)):
        for order in (2, 1, 0, 3):
            client.send("chat", {"order": order})
        for _ in range(9):
            client.consume("chat", fail_on_none=False)
    assert orders(client) == [0, 1, 2, 3]


def test_messages_in_turn_need_no_decorated_connect(memory: ChannelLayerWrapper) -> None:
    client = Client()
    with apply_routes([route("connect", returning), route("receive", ordered)]):
        client.send_and_consume("connect", {"order": 0})
        for order in (1, 2):
            client.send_and_consume("receive", {"order": order})
    assert orders(client) == [1, 2]
    assert client.session_data == b""


# -- the database ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_migrated")
class DatabaseTests(ChannelTestCase):
    def test_consumer_runs_within_the_transaction_of_the_test(self) -> None:
        seen = []

        def consumer(message: Any) -> None:
            connection.ensure_connection()
            seen.append((connection.connection, connection.in_atomic_block))

        with apply_routes(route("chat", consumer)), self.assertNumQueries(1):
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
            Client().send_and_consume("chat")
        self.assertEqual(seen, [(connection.connection, True)])

    def test_send_on_commit_leaves_with_the_commit_that_django_plays(self) -> None:
        client = Client()
        with apply_routes(route("chat", spending)):
            with self.captureOnCommitCallbacks(execute=True) as callbacks:
                client.send_and_consume("chat")
                self.assertEqual(client.receive(), {"n": False})
                self.assertIsNone(client.receive())
        self.assertEqual(len(callbacks), 1)
        self.assertEqual(client.receive(), {"n": 2})


@pytest.mark.usefixtures("_migrated")
class TransactionTests(TransactionChannelTestCase):
    def test_connection_survives_the_consumer(self) -> None:
        connection.ensure_connection()
        before = connection.connection
        with apply_routes(route("chat", returning)):
            Client().send_and_consume("chat")
        self.assertIs(connection.connection, before)
        self.assertIsNotNone(before)

    def test_send_on_commit_is_lost_with_a_rollback_and_leaves_with_a_commit(self) -> None:
        def consumer(message: Any) -> None:
            with transaction.atomic():
                message.reply_channel.send({"n": 1}, on_commit=True)
                transaction.set_rollback(message["fails"])

        client = Client()
        with apply_routes(route("chat", consumer)):
            client.send_and_consume("chat", {"fails": True})
            self.assertIsNone(client.receive())
            client.send_and_consume("chat", {"fails": False})
            self.assertEqual(client.receive(), {"n": 1})
