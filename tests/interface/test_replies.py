"""The switchboard between the layer and the clients, without a server."""

import asyncio

import pytest

from procman.interface.replies import Replies
from procman.layers.base import OpenSocket
from procman.layers.errors import ChannelFull, MessageTooLarge
from tests.support.layer import FakeLayer


class Recorder:
    """A client that writes down what it hears."""

    path = "/"

    def __init__(self, replies, is_open=False):
        self.reply_channel = replies.new_name()
        self.heard = []
        self.is_open = is_open
        replies.clients[self.reply_channel] = self

    def __getattr__(self, name):
        if not name.startswith("on_") and name != "tick":
            raise AttributeError(name)
        return lambda *arguments: self.heard.append((name, *arguments))

    def open_socket(self):
        return OpenSocket(self.reply_channel, self.path, 3, b"s") if self.is_open else None


@pytest.fixture
def layer():
    return FakeLayer()


@pytest.fixture
def replies(layer):
    return Replies(layer)


def test_names_are_below_the_interfaces_name_and_never_repeat(replies):
    names = {replies.new_name() for _ in range(100)}
    assert len(names) == 100 and all(name.startswith("fake!") for name in names)
    assert not names & {Replies(FakeLayer()).new_name() for _ in range(100)}


def test_a_reply_reaches_the_client_of_its_channel_only(replies):
    one, two = Recorder(replies), Recorder(replies)
    replies.on_reply(one.reply_channel, {"text": "a"}, None)
    assert (one.heard, two.heard) == ([("on_reply", {"text": "a"}, None)], [])


def test_a_mark_tells_the_kind_of_a_client(replies):
    assert replies.new_name("ws-").startswith("fake!ws-")


def test_an_answer_that_cannot_be_sent_is_logged(replies, layer, caplog):
    async def refuse(channel, message):
        raise ChannelFull(channel, 1)

    async def answer():
        replies.answer("worker?1", {})
        (task,) = replies.farewells
        await task

    layer.send = refuse
    asyncio.run(answer())
    assert not replies.farewells
    assert "an answer to worker?1 was not sent" in caplog.text


def test_a_sender_that_waits_for_a_client_that_left_is_told(replies, layer):
    replies.on_reply("fake!gone", {}, None)
    assert layer.answers.empty()
    replies.on_reply("fake!gone", {}, 5)
    assert layer.answers.get(timeout=1) == (5, False)


def test_an_offer_is_unfinished_until_its_first_end(replies, layer):
    client = Recorder(replies)
    number = replies.offer(client, "websocket.receive", {"a": 1}, session=b"s")
    offer, message = layer.take("websocket.receive")
    assert (offer.id, message, offer.session, offer.bounded) == (number, {"a": 1}, b"s", False)
    assert replies.is_unfinished(number)
    replies.on_finished(number, b"t")
    replies.on_finished(number, b"u")
    replies.on_failed(number, "lost")
    assert client.heard == [("on_finished", b"t")]
    assert not replies.is_unfinished(number)


def test_a_withdrawn_offer_has_no_end(replies, layer):
    client = Recorder(replies)
    number = replies.offer(client, "http.request", {}, bounded=True, redeliverable=False)
    replies.withdraw(number)
    replies.withdraw(number)
    assert layer.withdrawn.get(timeout=1) == number and layer.withdrawn.empty()
    replies.on_failed(number, "lost")
    assert client.heard == []


def test_an_offer_that_cannot_travel_is_not_held(layer):
    replies = Replies(layer)
    layer.max_size = 10
    with pytest.raises(MessageTooLarge):
        replies.offer(Recorder(replies), "http.request", {"body": b"x" * 100})
    assert replies.offers == {} and layer.offers.empty()


def test_begun_is_remembered_for_a_layer_that_restarts(replies):
    client = Recorder(replies, is_open=True)
    number = replies.offer(client, "http.request", {}, redeliverable=False)
    replies.on_begun(number)
    replies.on_group_add("news", client.reply_channel)
    replies.on_layer_lost()
    assert replies.is_layer_lost
    snapshot = replies.on_layer_found()
    assert not replies.is_layer_lost
    assert [(offer.id, offer.begun) for offer in snapshot.offers] == [(number, True)]
    assert snapshot.sockets == [OpenSocket(client.reply_channel, "/", 3, b"s")]
    assert snapshot.memberships == [("news", client.reply_channel)]
    assert client.heard == [("on_begun",)]


def test_a_group_send_builds_its_frame_once_for_all(replies):
    clients = [Recorder(replies) for _ in range(3)]
    for client in clients:
        replies.on_group_add("news", client.reply_channel)
    replies.on_group_send("news", {"text": "a"})
    frames = {id(client.heard[0][3].frame) for client in clients}
    assert len(frames) == 1


def test_a_message_for_http_clients_in_a_group_is_no_error(replies, caplog):
    client = Recorder(replies)
    replies.on_group_add("waiters", client.reply_channel)
    replies.on_group_send("waiters", {"status": 200})
    assert client.heard == [("on_group", "waiters", {"status": 200}, None)]
    assert not caplog.records


def test_the_end_of_a_socket_takes_it_out_of_everything_and_tracks_its_disconnect(replies, layer):
    client = Recorder(replies)
    replies.on_group_add("news", client.reply_channel)
    replies.end(client, {"code": 1000}, b"s")
    offer, message = layer.take("websocket.disconnect")
    assert (message, offer.session, layer.ended) == ({"code": 1000}, b"s", [client.reply_channel])
    assert replies.clients == {} and list(replies.groups.memberships()) == []
    assert replies.is_unfinished(offer.id)


def test_being_declared_dead_drops_what_is_held(replies):
    client = Recorder(replies)
    number = replies.offer(client, "websocket.receive", {})
    replies.on_group_add("news", client.reply_channel)
    replies.on_declared_dead()
    assert not replies.is_unfinished(number)
    assert list(replies.groups.memberships()) == []
    assert client.heard == [("on_declared_dead",)]
