"""Channel sessions beside the socket and in an engine, HTTP sessions, ordering."""

import json

import pytest
from django.conf import settings
from django.contrib.sessions.backends.base import CreateError
from django.contrib.sessions.models import Session
from django.test import override_settings

from procman.channels import route
from procman.channels.exceptions import ConsumeLater
from procman.channels.message import Message, SessionSlot
from procman.channels.routing import Router
from procman.channels.sessions import (
    channel_and_http_session,
    channel_session,
    enforce_ordering,
    http_session,
    session_for_reply_channel,
    wait_channel_name,
)
from procman.channels.worker import Worker
from procman.layers import sessions
from procman.layers.errors import ChannelFull

pytestmark = pytest.mark.usefixtures("database")


def message(wrapper=None, channel="websocket.receive", slot=None, **content):
    made = Message({"reply_channel": "i!1", **content}, channel, wrapper)
    made.session_slot = slot
    return made


def cookie(session):
    return [[b"cookie", f"{settings.SESSION_COOKIE_NAME}={session.session_key}".encode()]]


def saved_http_session(**values):
    from django.contrib.sessions.backends.db import SessionStore

    session = SessionStore()
    session.update(values)
    session.save()
    return session


# -- beside the socket -----------------------------------------------------------------------------------------------


def packed(**values):
    return sessions.pack({key: json.dumps(value).encode() for key, value in values.items()})


N_1 = packed(n=1)


def consume(wrapper, consumer, session, channel="websocket.receive"):
    """The session that goes back with the finish."""
    wrapper.router = Router([route(channel, channel_session(consumer))])
    wrapper.channel_layer.deliver(channel, {"reply_channel": "i!1"}, session=session)
    Worker(wrapper).step([channel])
    return wrapper.channel_layer.finished[-1][2]


def test_the_session_comes_with_the_message_and_goes_back_with_the_finish(wrapper):
    assert consume(wrapper, lambda m: m.channel_session.update({"n": 1}), b"", "websocket.connect") == N_1
    seen = []

    def count(m):
        seen.append(m.channel_session["n"])
        m.channel_session["n"] += 1

    assert consume(wrapper, count, N_1) == packed(n=2)
    assert seen == [1]


def test_a_session_that_was_only_read_does_not_go_back(wrapper):
    assert consume(wrapper, lambda m: m.channel_session.get("n"), N_1) is None
    assert consume(wrapper, lambda m: None, N_1) is None


def test_a_flushed_session_goes_back_empty(wrapper):
    assert consume(wrapper, lambda m: m.channel_session.flush(), N_1) == b""


def test_the_session_is_kept_though_the_consumer_failed(wrapper, caplog):
    def consumer(m):
        m.channel_session["n"] = 1
        raise ValueError

    assert consume(wrapper, consumer, b"") == N_1


def test_a_value_that_cannot_be_kept_closes_the_socket(wrapper, caplog):
    assert consume(wrapper, lambda m: m.channel_session.update({"n": object()}), b"") is None
    assert wrapper.channel_layer.sent() == [{"close": 1011}]
    assert "not JSON serializable" in caplog.text


def test_a_deferred_message_leaves_the_session_as_it_was(wrapper):
    def consumer(m):
        m.channel_session["n"] = 1
        raise ConsumeLater

    wrapper.channel_layer.finished.append(("none", [], b"untouched"))
    assert consume(wrapper, consumer, b"") == b"untouched"
    assert len(wrapper.channel_layer.deferred) == 1


def test_copies_of_a_message_share_the_session():
    original = message(slot=SessionSlot(b""))
    channel_session(lambda m: m.channel_session.update({"a": 1}))(original)
    seen = []
    channel_session(lambda m: seen.append(m.channel_session["a"]))(original.copy())
    assert seen == [1]


# -- in an engine ----------------------------------------------------------------------------------------------------


def test_two_calls_with_one_name_see_the_same_data():
    first = session_for_reply_channel("r!1")
    first["a"] = 1
    first.save(must_create=True)
    assert session_for_reply_channel("r!1")["a"] == 1
    assert first.session_key.startswith("chn")
    assert len(first.session_key) == 32


def test_cookies_cannot_hold_channel_sessions():
    with (
        override_settings(CHANNEL_SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies"),
        pytest.raises(ValueError, match="signed_cookies"),
    ):
        session_for_reply_channel("r!1")


def test_a_handmade_message_has_its_session_in_the_engine():
    channel_session(lambda m: m.channel_session.update({"num_ponies": -1}))(message())
    assert session_for_reply_channel("i!1")["num_ponies"] == -1


def test_the_setting_puts_a_sockets_session_into_the_engine():
    with override_settings(CHANNEL_SESSION_ENGINE="django.contrib.sessions.backends.db"):
        channel_session(lambda m: m.channel_session.update({"a": 2}))(message(slot=SessionSlot(b"")))
    assert session_for_reply_channel("i!1")["a"] == 2


def end_of_socket(wrapper, consumer):
    """The disconnect of a socket that is no interface's."""
    wrapper.router = Router([route("websocket.disconnect", consumer)])
    wrapper.channel_layer.deliver("websocket.disconnect", {"reply_channel": "i!1"})
    Worker(wrapper).step(["websocket.disconnect"])


def test_a_session_in_an_engine_is_read_by_the_disconnect_consumer_and_deleted_after_it(wrapper):
    channel_session(lambda m: m.channel_session.update({"a": 2}))(message())
    kept = saved_http_session()
    seen = []
    end_of_socket(wrapper, channel_session(lambda m: seen.append(m.channel_session["a"])))
    assert seen == [2]
    assert [each.session_key for each in Session.objects.all()] == [kept.session_key]


@pytest.mark.parametrize(("engine", "left"), [("django.contrib.sessions.backends.db", 0), (None, 1)])
def test_a_disconnect_consumer_without_a_session_has_it_deleted_where_the_setting_asks_for_an_engine(
    wrapper, engine, left
):
    with override_settings(CHANNEL_SESSION_ENGINE=engine):
        channel_session(lambda m: m.channel_session.update({"a": 2}))(message())
        end_of_socket(wrapper, lambda m: None)
    assert Session.objects.count() == left


def test_a_session_that_cannot_be_deleted_is_logged_and_its_worker_goes_on(wrapper, monkeypatch, caplog):
    def delete(self, session_key=None):
        raise OSError("gone")

    monkeypatch.setattr("django.contrib.sessions.backends.db.SessionStore.delete", delete)
    end_of_socket(wrapper, channel_session(lambda m: None))
    assert "could not be deleted" in caplog.text and "i!1" in caplog.text
    assert len(wrapper.channel_layer.finished) == 1


def test_a_session_emptied_in_the_consumer_is_not_saved_again():
    channel_session(lambda m: m.channel_session.update({"a": 2}))(message())
    channel_session(lambda m: m.channel_session.flush())(message())
    assert "a" not in session_for_reply_channel("i!1")


def test_a_session_that_is_written_to_after_it_was_flushed_is_found_again():
    def consumer(m):
        m.channel_session.flush()
        m.channel_session["b"] = 3

    channel_session(lambda m: m.channel_session.update({"a": 2}))(message())
    channel_session(consumer)(message())
    assert dict(session_for_reply_channel("i!1").items()) == {"b": 3}
    assert Session.objects.count() == 1


def test_a_session_deleted_while_a_consumer_ran_is_not_brought_back():
    def consumer(m):
        session_for_reply_channel("i!1").delete()
        m.channel_session["b"] = 3
        return "done"

    assert channel_session(consumer)(message()) == "done"
    assert Session.objects.count() == 0


def test_a_creation_race_puts_the_message_off(monkeypatch):
    def save(self, must_create=False):
        raise CreateError

    monkeypatch.setattr("django.contrib.sessions.backends.db.SessionStore.save", save)
    with pytest.raises(ConsumeLater):
        channel_session(lambda m: None)(message())


class Methods:
    @channel_session
    def once(self, message):
        return message.channel_session

    @channel_session
    @channel_session
    def twice(self, message):
        return message.channel_session

    @http_session
    @http_session
    def http_twice(self, message):
        return message.http_session


def test_methods_are_decorated_like_functions_and_twice_is_harmless():
    made = message(path="/")
    assert Methods().once(made) is Methods().twice(made) is made.channel_session
    assert channel_session(channel_session(lambda m: m.channel_session))(message()) is not None
    assert Methods().http_twice(made) is None


def test_a_message_must_be_among_the_first_two_arguments():
    consumer = channel_session(lambda *args: None)
    with pytest.raises(ValueError, match="channel_session called without Message instance"):
        consumer(1, 2, message())
    with pytest.raises(ValueError, match="called without Message instance"):
        http_session(lambda *args: None)()


def test_a_session_needs_a_reply_channel():
    with pytest.raises(ValueError, match="reply_channel"):
        channel_session(lambda m: None)(Message({}, "x", None))


# -- HTTP sessions ---------------------------------------------------------------------------------------------------


def test_the_http_session_is_the_cookies():
    session = saved_http_session(species="horse")
    seen = []

    @http_session
    def consumer(m):
        seen.append(m.http_session["species"])
        m.http_session["species"] = "zebra"

    consumer(message(path="/", headers=cookie(session)))
    assert seen == ["horse"]
    assert type(session)(session.session_key)["species"] == "zebra"


def test_an_http_session_is_not_saved_after_an_error():
    session = saved_http_session(species="horse")

    @http_session
    def consumer(m):
        m.http_session["species"] = "zebra"
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        consumer(message(path="/", headers=cookie(session)))
    assert type(session)(session.session_key)["species"] == "horse"


def test_a_key_in_the_url_counts_only_where_it_is_allowed():
    session = saved_http_session(a=1)
    made = {"path": "/", "query_string": f"session_key={session.session_key}".encode()}
    keys = []
    consumer = http_session(lambda m: keys.append(m.http_session and m.http_session.session_key))
    consumer(message(**made))
    with override_settings(CHANNEL_SESSION_KEY_IN_URL=True):
        consumer(message(**made))
        consumer(message(**made, headers=cookie(saved_http_session())))  # the cookie comes second
    assert keys == [None, session.session_key, session.session_key]


def test_a_message_that_is_no_request_is_refused():
    with pytest.raises(ValueError, match="Cannot parse HTTP message"):
        http_session(lambda m: None)(message())


@pytest.mark.parametrize("beside_socket", [False, True])
def test_the_http_session_is_found_again_without_a_cookie(beside_socket):
    session = saved_http_session(a=1)
    slot = SessionSlot(b"") if beside_socket else None
    channel_and_http_session(lambda m: None)(message(path="/", headers=cookie(session), slot=slot))
    seen = []

    @channel_and_http_session
    def later(m):
        seen.append((m.channel_session[settings.SESSION_COOKIE_NAME], m.http_session["a"]))
        m.http_session["a"] = 2

    later(message(path="/", slot=slot))
    assert seen == [(session.session_key, 1)]
    assert type(session)(session.session_key)["a"] == 2


# -- ordering --------------------------------------------------------------------------------------------------------


def ordered(wrapper, order, consumer, slot=None):
    enforce_ordering(consumer)(message(wrapper, order=order, slot=slot))


def test_messages_in_order_leave_nothing_waiting(layer, wrapper):
    seen = []
    for order in range(3):
        ordered(wrapper, order, lambda m: seen.append(m["order"]))
    assert seen == [0, 1, 2]
    assert not layer.queues.get(wait_channel_name("i!1"))


def test_an_early_message_waits_and_goes_back_when_it_is_due(layer, wrapper):
    seen = []
    ordered(wrapper, 0, lambda m: seen.append(0))
    ordered(wrapper, 2, lambda m: seen.append(2))
    assert layer.queues["__wait__.i?1"][0]["original_channel"] == "websocket.receive"
    ordered(wrapper, 1, lambda m: seen.append(1))
    assert seen == [0, 1]
    assert list(layer.queues["websocket.receive"]) == [{"reply_channel": "i!1", "order": 2}]
    assert not layer.queues["__wait__.i?1"]


def test_what_was_parked_while_the_order_moved_goes_back_at_once(layer, wrapper, monkeypatch):
    ordered(wrapper, 0, lambda m: None)
    monkeypatch.setattr(
        "django.contrib.sessions.backends.db.SessionStore.load", lambda self: {"__channels_next_order": 2}
    )
    early = message(wrapper, order=5)
    early.channel_session = session_for_reply_channel("i!1")
    early.channel_session._session_cache = {"__channels_next_order": 1}
    enforce_ordering(lambda m: None)(early)
    assert not layer.queues["__wait__.i?1"]
    assert layer.queues["websocket.receive"][0]["order"] == 5


def test_a_full_wait_channel_is_explained(layer, wrapper):
    layer.full = {"__wait__.i?1"}
    with pytest.raises(ChannelFull, match="early message waits"):
        ordered(wrapper, 3, lambda m: None)


def test_a_full_channel_to_which_a_waiting_message_goes_back_is_explained(layer, wrapper):
    ordered(wrapper, 1, lambda m: None)
    layer.full = {"websocket.receive"}
    with pytest.raises(ChannelFull, match="giving a waiting message back"):
        ordered(wrapper, 0, lambda m: None)


def test_messages_of_a_socket_need_no_ordering(layer, wrapper):
    slot = SessionSlot(b"")
    seen = []
    ordered(wrapper, 7, lambda m: seen.append(m.channel_session.get("x")), slot)
    assert seen == [None]
    assert slot.session.changed_data() is None


def test_ordering_refuses_what_it_cannot_do(layer, wrapper):
    with pytest.raises(ValueError, match="slight"):
        enforce_ordering(slight=True)
    with pytest.raises(ValueError, match="order"):
        enforce_ordering()(lambda m: None)(message(wrapper))


def test_the_wait_channel_is_single_reader():
    assert wait_channel_name("daphne.response.abc!def") == "__wait__.daphne.response.abc?def"
