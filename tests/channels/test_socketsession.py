"""Channel sessions beside their sockets, for frames and for messages that were forwarded, over every kind of layer."""

import contextlib
import json
import threading
from collections import deque

import pytest
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.test import override_settings

from procman.channels import Channel, Group, route
from procman.channels.auth import channel_session_user
from procman.channels.message import Message, SessionSlot
from procman.channels.sessions import channel_session, enforce_ordering, session_for_reply_channel
from procman.channels.socketsession import FetchedSession, SocketSession, fetch
from procman.layers import sessions
from procman.layers.errors import LayerUnavailable, ReplyChannelGone
from tests.support.inprocess import site_over
from tests.support.waiting import wait_until

# -- without a site --------------------------------------------------------------------------------------------------


def packed(**values):
    return sessions.pack({key: json.dumps(value).encode() for key, value in values.items()})


def test_a_socket_session_has_the_api_of_djangos():
    session = SocketSession("some-key", packed(a=1))
    assert session["a"] == 1
    assert session.session_key == "some-key"
    assert session.exists("some-key")
    session.cycle_key()
    session.save()
    assert session.changed_data() == packed(a=1)
    session.flush()
    assert session.changed_data() == b""
    assert session.session_key == "some-key"
    deleted = SocketSession("some-key", packed(a=1))
    deleted.delete()
    assert "a" not in deleted
    assert deleted.changed_data() is None
    assert deleted.take_merge() is None


class Backwards:
    """A serializer of the project's own."""

    def dumps(self, value):
        return json.dumps(value).encode()[::-1]

    def loads(self, data):
        return json.loads(data[::-1])


@pytest.mark.parametrize("serializer", ["django.core.signing.JSONSerializer", f"{__name__}.Backwards"])
def test_values_are_what_they_were_whatever_the_serializer(serializer):
    with override_settings(SESSION_SERIALIZER=serializer):
        first = SocketSession("some-key", b"")
        first.update({"text": '\u65e5\u672c " ] ,', "list": [1, {"a": None}], "empty": "", "5": 1.5})
        second = SocketSession("some-key", first.changed_data())
        assert dict(second.items()) == {"text": '\u65e5\u672c " ] ,', "list": [1, {"a": None}], "empty": "", "5": 1.5}
        assert SocketSession("some-key", b"").load() == {}


class Interface:
    """A layer whose other end answers at once, as an interface does."""

    def __init__(self, session=b""):
        self.session = session
        self.answers = deque()
        self.is_silent = False

    def new_channel(self, pattern):
        return pattern + "1"

    def send_and_wait(self, channel, message, timeout):
        if self.session is None:
            raise ReplyChannelGone(channel)
        self.send(channel, message)

    def send(self, channel, message):
        request = sessions.parse_request(message[sessions.REQUEST])
        if isinstance(request, sessions.Read):
            self.answers.append((request.answer, sessions.build_answer(request, self.session)))
        else:
            self.session = sessions.apply_changes(self.session, request)

    def receive_many(self, channels, block, timeout):
        assert block
        if self.is_silent:
            return None, None
        channel, message = self.answers.popleft()
        assert channels == [channel]
        return channel, message


def fetched(interface):
    return FetchedSession("some-key", Channel("i.00000000!ws-1", channel_layer=interface))


def finish(session):
    merge = session.take_merge()
    if merge is not None:
        session._reply_channel.send(merge, immediately=True)
    return merge is not None


def test_a_session_is_fetched_when_it_is_first_used():
    interface = Interface(packed(a=1))
    session = fetched(interface)
    interface.session = packed(a=2)
    assert session["a"] == 2
    interface.session = packed(a=3)
    assert session["a"] == 2 and session.load() == {"a": 3}
    assert session.changed_data() is None and not finish(session)


def test_only_what_was_changed_is_merged():
    interface = Interface(packed(a=1, b=1, c=1))
    session = fetched(interface)
    session["a"] = 2
    del session["b"]
    session["d"] = 4
    interface.session = packed(a=1, b=5, c=3, e=1)
    assert finish(session)
    assert sessions.unpack(interface.session) == sessions.unpack(packed(a=2, c=3, e=1, d=4))
    assert not finish(session)


def test_what_is_saved_is_merged_at_once_and_once():
    interface = Interface()
    session = fetched(interface)
    session["a"] = 1
    session.save()
    assert interface.session == packed(a=1)
    interface.session = packed(a=2)
    session["b"] = 1
    assert finish(session)
    assert interface.session == packed(a=2, b=1)


@pytest.mark.parametrize("empty", ["flush", "clear", "delete"])
def test_an_emptied_session_is_empty_whatever_was_written_meanwhile(empty):
    interface = Interface(packed(a=1))
    session = fetched(interface)
    getattr(session, empty)()
    session["b"] = 2
    interface.session = packed(a=1, c=3)
    assert finish(session)
    assert interface.session == packed(b=2)


def test_a_session_saved_without_a_change_merges_nothing():
    session = fetched(Interface(packed(a=1)))
    assert session["a"] == 1
    session.modified = True
    assert session.take_merge() is None


def test_the_session_of_a_socket_that_has_closed_is_empty():
    session = fetched(Interface(None))
    assert dict(session.items()) == {}


def test_an_interface_that_does_not_answer_is_an_error_that_names_the_socket(monkeypatch):
    monkeypatch.setattr("procman.channels.socketsession.FETCH_TIMEOUT", 0.01)
    interface = Interface(packed(a=1))
    interface.is_silent = True
    channel = Channel("i.00000000!ws-1", channel_layer=interface)
    with pytest.raises(LayerUnavailable, match=r"i\.00000000!ws-1"):
        fetch(channel)
    # An answer that comes after all is not taken for that to the next question.
    interface.is_silent, interface.session = False, packed(a=2)
    monkeypatch.undo()
    assert fetch(channel) == packed(a=2)


def test_each_thread_has_one_channel_of_its_own_for_answers():
    interface, names = Interface(), []

    def ask_twice():
        for _ in range(2):
            fetch(Channel("i.00000000!ws-1", channel_layer=interface))
        names.append(list(interface.made))

    interface.made = []
    interface.new_channel = lambda pattern: interface.made.append(pattern) or f"{pattern}{len(interface.made)}"
    ask_twice()
    thread = threading.Thread(target=ask_twice)
    thread.start()
    thread.join(10)
    assert names == [["session?"], ["session?"] * 2]


def test_a_forwarded_message_has_the_session_of_its_socket():
    interface = Interface(packed(a=1))
    message = Message({"reply_channel": "i.00000000!ws-1"}, "chat.receive", interface)
    message.session_slot = SessionSlot(None)
    seen = []
    channel_session(lambda m: seen.append(m.channel_session["a"]))(message)
    channel_session(lambda m: seen.append(m.channel_session["a"]))(message.copy())
    assert seen == [1, 1]
    assert message.session_slot.session is message.channel_session


# -- with a site -----------------------------------------------------------------------------------------------------

IN_FLIGHT, MAY_END = threading.Event(), threading.Event()
heard = []


@channel_session
def ws_connect(message):
    message.channel_session["path"] = message["path"]
    message.reply_channel.send({"accept": True})


def change(session, command):
    session.update(command.get("set", {}))
    for key in command.get("delete", ()):
        session.pop(key, None)


@channel_session
def ws_receive(message):
    command = json.loads(message["text"])
    if command.get("forward"):
        content = {"reply_channel": message.reply_channel.name, "text": message["text"]}
        Channel("chat.receive").send(content, immediately=command.get("now", False))
        if "now" not in command:
            return
    change(message.channel_session, command.get("own", command))
    if command.get("hold"):
        IN_FLIGHT.set()
        assert MAY_END.wait(20)
    message.reply_channel.send({"text": json.dumps(dict(message.channel_session.items()))})


@channel_session_user
def chat_receive(message):
    command = json.loads(message["text"])
    change(message.channel_session, command)
    heard.append((message.user.is_authenticated, dict(message.channel_session.items())))
    message.reply_channel.send({"text": "forwarded"})


@channel_session
def ws_disconnect(message):
    heard.append(("disconnect", dict(message.channel_session.items())))


@enforce_ordering
def ordered_receive(message):
    message.reply_channel.send({"text": f"{message['order']} {message['text']}"})


def echo_receive(message):
    key = "text" if "text" in message else "bytes"
    message.reply_channel.send({key: message[key]})


def room_receive(message):
    """Sends to a group around joining or leaving it: both act at once, the send at the end."""
    room = Group("room")
    room.send({"text": message["text"]})
    if message["text"] == "join":
        room.add(message.reply_channel)
    else:
        room.discard(message.reply_channel)
    message.reply_channel.send({"text": "end"})


ROUTING = [
    # Only this one is decorated, as in the documentation of 1.x: its order begins with 1.
    route("websocket.receive", ordered_receive, path="^/ordered/"),
    route("websocket.receive", room_receive, path="^/room/"),
    route("websocket.receive", echo_receive, path="^/echo/"),
    route("websocket.connect", ws_connect),
    route("websocket.receive", ws_receive),
    route("websocket.disconnect", ws_disconnect),
    route("chat.receive", chat_receive),
]


@pytest.fixture(scope="module", params=["memory", "ipc", "redis"])
def shared_site(request):
    with site_over(request.param, ROUTING) as site:
        yield site


@pytest.fixture
def site(shared_site):
    heard.clear()
    IN_FLIGHT.clear()
    MAY_END.clear()
    yield shared_site
    MAY_END.set()
    wait_until(lambda: shared_site.held() == (0, 0, 0))  # the last disconnect has been heard


def say(client, **command):
    client.send(json.dumps(command))


def ask(client, **command):
    say(client, **command)
    return json.loads(client.recv(10))


def forward(client, **command):
    say(client, forward=True, **command)
    assert client.recv(10) == "forwarded"


def test_frames_of_a_socket_share_a_session(site):
    with site.connect("/a/") as client, site.connect("/b/") as other:
        assert ask(client, set={"n": 1}) == {"path": "/a/", "n": 1}
        assert ask(client, set={"m": 2}, delete=["n"]) == {"path": "/a/", "m": 2}
        assert ask(other) == {"path": "/b/"}


def test_a_forwarded_message_reads_and_changes_its_sockets_session(site):
    with site.connect("/a/") as client:
        ask(client, set={"n": 1, "gone": 1})
        forward(client, set={"rooms": [1, 2]}, delete=["gone"])
        assert heard == [(False, {"path": "/a/", "n": 1, "rooms": [1, 2]})]
        assert ask(client) == {"path": "/a/", "n": 1, "rooms": [1, 2]}
        forward(client, set={"n": 2})
        assert heard[1][1] == {"path": "/a/", "n": 2, "rooms": [1, 2]}
    wait_until(lambda: len(heard) == 3)
    assert heard[2] == ("disconnect", {"path": "/a/", "n": 2, "rooms": [1, 2]})


def test_a_merge_and_the_frame_in_flight_lose_nothing_of_each_other(site):
    with site.connect("/a/") as client:
        ask(client, set={"both": 0, "frame_deletes": 0, "merge_deletes": 0})
        own = {"set": {"both": "frame", "frame": 1}, "delete": ["frame_deletes"]}
        merged = {"set": {"both": "merge", "merged": 1}, "delete": ["merge_deletes"]}
        say(client, forward=True, now=True, hold=True, own=own, **merged)
        assert IN_FLIGHT.wait(10)
        assert client.recv(10) == "forwarded"
        MAY_END.set()
        client.recv(10)
        expected = {"path": "/a/", "both": "frame", "frame": 1, "merged": 1}
        assert ask(client) == expected
    wait_until(lambda: ("disconnect", expected) in heard)


def test_a_forwarded_message_whose_socket_has_closed_finds_an_empty_session(site):
    with site.connect("/a/") as client:
        say(client, forward=True, now=True, hold=True, set={"n": 1})
        client.recv(10)
        reply_channel = next(iter(site.server.replies.clients))
        MAY_END.set()
        client.recv(10)
    wait_until(lambda: len(heard) == 2)
    content = {"reply_channel": reply_channel, "text": json.dumps({"set": {"late": 1}})}
    site.layer.send("chat.receive", content)
    wait_until(lambda: len(heard) == 3)
    assert heard[2] == (False, {"late": 1})


def test_ordering_of_frames_alone_parks_nothing(site):
    with site.connect("/ordered/") as client:
        for text in "abc":
            client.send(text)
        assert [client.recv(10) for _ in range(3)] == ["1 a", "2 b", "3 c"]
    wait_until(lambda: len(heard) == 1)


def test_who_joins_after_the_send_gets_it_and_who_leaves_after_it_does_not(site):
    with site.connect("/room/") as client:
        client.send("join")
        assert [client.recv(10) for _ in range(2)] == ["join", "end"]
        client.send("leave")
        assert client.recv(10) == "end"
    wait_until(lambda: len(heard) == 1)


@pytest.mark.parametrize("empty", ["", b""])
def test_an_empty_frame_is_a_frame_in_both_directions(site, empty):
    with site.connect("/echo/") as client:
        client.send(empty)
        assert client.recv(10) == empty
    wait_until(lambda: len(heard) == 1)


def held_by(site):
    """What stands for sockets and messages in the layer: counts and bytes of the hub, or keys of Redis."""
    if site.redis is None:
        statistics = site.layer.statistics()
        return {(key, statistics[key]) for key in ("bytes_held", "messages_pending", "in_flight", "sockets")}
    keys = set(site.redis.client.scan_iter())
    counters = {key for key in keys if ":c:session?" in key}
    assert len(counters) <= len(site.workers)  # of the channels for answers, one per thread
    # These are there once, or not, whatever the sockets do.
    return {key for key in keys - counters if not key.endswith((":queues", ":clock", ":later"))}


def test_sessions_of_closed_sockets_leave_nothing_behind(site, database):
    with site.connect() as client:  # so that everything which is made once is there
        forward(client, set={"n": 1})
    wait_until(lambda: len(heard) == 2 and site.held() == (0, 0, 0))
    before = held_by(site)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(site.connect()) for _ in range(10)]
        for client in clients:
            ask(client, set={"big": "x" * 10_000})
            forward(client, set={"more": "y" * 10_000})
        assert held_by(site) - before
    wait_until(lambda: site.held() == (0, 0, 0))
    wait_until(lambda: not held_by(site) - before, what=f"{before} again")
    assert Session.objects.count() == 0


@pytest.fixture
def cached_sessions():
    """Sockets' sessions in an engine that all threads of this process share."""
    with override_settings(CHANNEL_SESSION_ENGINE="django.contrib.sessions.backends.cache"):
        caches["default"].clear()
        yield caches["default"]._cache
        caches["default"].clear()


def test_sessions_in_an_engine_are_those_of_forwarded_messages_too_and_end_with_the_socket(site, cached_sessions):
    with site.connect("/a/") as client:
        ask(client, set={"n": 1})
        forward(client, set={"m": 1})
        assert heard == [(False, {"path": "/a/", "n": 1, "m": 1})]
        reply_channel = next(iter(site.server.replies.clients))
        assert session_for_reply_channel(reply_channel)["m"] == 1
        assert len(cached_sessions) == 1
    wait_until(lambda: len(heard) == 2)
    assert heard[1] == ("disconnect", {"path": "/a/", "n": 1, "m": 1})
    wait_until(lambda: not cached_sessions)
