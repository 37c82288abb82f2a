"""What goes with a browser's messages, what comes back to it, and who is logged in."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.http import parse_cookie
from django.test import Client as DjangoClient
from django.test import override_settings

from procman.channels import channel_layers, route
from procman.channels.asgi import ChannelLayerWrapper
from procman.channels.auth import channel_session_user, channel_session_user_from_http, http_session_user
from procman.channels.sessions import channel_and_http_session, channel_session, enforce_ordering, http_session
from procman.channels.test import WSClient, apply_routes
from procman.layers.memory import InMemoryChannelLayer


@pytest.fixture(autouse=True)
def memory() -> Iterator[ChannelLayerWrapper]:
    wrapper = ChannelLayerWrapper(InMemoryChannelLayer(capacity=10), "default", [])
    before = channel_layers.set("default", wrapper)
    yield wrapper
    channel_layers.set("default", before)


def sent(client: WSClient, channel: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The content that arrives for a ``send`` with these arguments."""
    client.send(channel, *args, **kwargs)
    message = client.get_next_message(channel)
    assert message is not None
    return message.content


def cookies_of(content: dict[str, Any]) -> dict[str, str]:
    for name, value in content["headers"]:
        if name == b"cookie":
            return parse_cookie(value.decode("ascii"))
    return {}


# -- what goes with a message ------------------------------------------------------------------------------------------


def test_headers_are_pairs_of_bytes_and_the_last_value_wins() -> None:
    client = WSClient()
    client.set_header("Host", "one.example")
    client.set_header("host", "two.example")
    client.set_header("x-name", "Zoë")
    pairs = [pair for pair in sent(client, "websocket.connect")["headers"] if pair[0] != b"cookie"]
    assert pairs == [[b"host", b"two.example"], [b"x-name", "Zoë".encode("latin-1")]]
    for name in ("cookie", "Cookie"):
        with pytest.raises(ValueError, match="Use set_cookie"):
            client.set_header(name, "a=b")


def test_cookies_survive_as_django_reads_them() -> None:
    client = WSClient()
    client.set_cookie("foo", "not-bar")
    client.set_cookie("foo", "bar")
    client.set_cookie("qux", "qu;x")
    (cookie,) = (value for name, value in client.headers if name == b"cookie")
    found = parse_cookie(cookie.decode("ascii"))
    assert found == {"foo": "bar", "qux": "qu;x", "sessionid": client.session.session_key} == client.get_cookies()


def test_session_cookie_goes_with_the_first_message_only() -> None:
    client = WSClient()
    client.set_cookie("foo", "bar")
    assert set(cookies_of(sent(client, "websocket.connect"))) == {"foo", "sessionid"}
    assert client.get_cookies() == {"foo": "bar"}
    assert set(cookies_of(sent(client, "websocket.connect"))) == {"foo"}


@pytest.mark.usefixtures("database")
def test_session_cookie_of_djangos_client_can_be_handed_on() -> None:
    browser = DjangoClient()
    browser.force_login(get_user_model().objects.create_user("ada"))

    @http_session_user
    def consumer(message: Any) -> str:
        return str(message.user)

    client = WSClient()
    client.set_cookie("sessionid", browser.cookies["sessionid"].value)
    with apply_routes(route("websocket.connect", consumer)):
        for _ in range(2):
            assert client.send_and_consume("websocket.connect", check_accept=False) == "ada"


def test_path_defaults_to_the_root_and_the_content_goes_first() -> None:
    client = WSClient()
    assert sent(client, "websocket.receive")["path"] == "/"
    assert sent(client, "websocket.receive", path="/a/")["path"] == "/a/"
    assert sent(client, "websocket.receive", {"path": "/b/"}, path="/a/")["path"] == "/b/"


def test_query_string_is_passed_on_with_connect_and_cut_off_elsewhere() -> None:
    client = WSClient()
    connect = sent(client, "websocket.connect", path="/a/?b=1&c=?")
    assert (connect["path"], connect["query_string"]) == ("/a/", "b=1&c=?")
    receive = sent(client, "websocket.receive", path="/a/?b=1")
    assert receive["path"] == "/a/" and "query_string" not in receive


def test_text_that_is_no_str_goes_as_json() -> None:
    client = WSClient()
    assert sent(client, "websocket.receive", text="plain")["text"] == "plain"
    assert json.loads(sent(client, "websocket.receive", text={"a": 1})["text"]) == {"a": 1}
    assert json.loads(sent(client, "websocket.receive", {"text": {"a": 2}})["text"]) == {"a": 2}
    assert "text" not in sent(client, "websocket.receive")


def test_ordered_client_numbers_its_messages_whatever_the_channel() -> None:
    client = WSClient(ordered=True)
    channels = ("websocket.connect", "websocket.receive", "websocket.receive", "elsewhere")
    assert [sent(client, channel)["order"] for channel in channels] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="order"):
        client.send("websocket.receive", {"order": 4})
    assert "order" not in sent(WSClient(), "websocket.connect")


def test_ordered_client_meets_enforced_order() -> None:
    @enforce_ordering
    def consumer(message: Any) -> None:
        message.reply_channel.send({"text": str(message["order"])})

    client = WSClient(ordered=True)
    with apply_routes(route("websocket.receive", consumer)):
        for _ in range(3):
            client.send_and_consume("websocket.receive")
    assert [client.receive() for _ in range(4)] == [0, 1, 2, None]


# -- what comes back ---------------------------------------------------------------------------------------------------


def test_text_is_decoded_unless_told_otherwise() -> None:
    client = WSClient()

    def answer(content: dict[str, Any]) -> None:
        channel_layers["default"].send(client.reply_channel, content)

    for content in ({"text": "1"}, {"text": "1"}, {"text": "no JSON"}, {"bytes": b"\x00"}, {"text": "no JSON"}):
        answer(content)
    assert client.receive() == 1
    assert client.receive(json=False) == "1"
    with pytest.raises(ValueError):
        client.receive()
    assert client.receive() == {"bytes": b"\x00"}
    assert client.receive(json=False) == "no JSON"
    assert client.receive() is client.receive(json=False) is None


@pytest.mark.parametrize(
    "answers", [[], [{"accept": False}], [{"close": True}], [{"accept": True, "text": "hi"}], [{"text": "hi"}]]
)
def test_connection_counts_as_accepted_by_exactly_one_answer(answers: list[dict[str, Any]]) -> None:
    def consumer(message: Any) -> str:
        for answer in answers:
            message.reply_channel.send(answer)
        return "result"

    client = WSClient()
    with apply_routes(route("websocket.connect", consumer)):
        with pytest.raises(AssertionError, match="Connection rejected"):
            client.send_and_consume("websocket.connect")
        assert client.send_and_consume("websocket.connect", check_accept=False) == "result"
        client.receive(json=False)
        answers[:] = [{"accept": True}]
        assert client.send_and_consume("websocket.connect") == "result"
    assert client.receive() is None


def test_missing_consumer_fails_unless_told_otherwise() -> None:
    client = WSClient()
    with pytest.raises(AssertionError, match="Can't find consumer"):
        client.send_and_consume("websocket.receive")
    assert client.send_and_consume("websocket.receive", fail_on_none=False) is None


# -- session and login -------------------------------------------------------------------------------------------------


@channel_session
def remembering(message: Any) -> None:
    message.channel_session["seen"] = [*message.channel_session.get("seen", []), message["path"]]


def test_session_is_the_channel_session_as_the_last_consumer_left_it() -> None:
    client = WSClient()
    with apply_routes(route("websocket.receive", remembering)):
        for path in ("/a", "/b"):
            client.send_and_consume("websocket.receive", path=path)
            assert client.session["seen"][-1] == path
    assert client.session["seen"] == ["/a", "/b"]
    assert (client.session.session_key or "").startswith("chn")
    assert client.session.session_key != WSClient().session.session_key


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("engine", ["db", "cache", "cached_db", "file", "signed_cookies"])
def test_what_a_test_saves_is_in_both_sessions(engine: str) -> None:
    @channel_and_http_session
    def consumer(message: Any) -> Any:
        return message.channel_session.get("name"), message.http_session.get("name")

    with override_settings(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}"):
        client = WSClient()
        for name in ("Ada", "Grace"):
            client.session["name"] = name
            client.session.save()
        with apply_routes(route("websocket.connect", consumer)):
            assert client.send_and_consume("websocket.connect", check_accept=False) == ("Grace", "Grace")
        client.session.flush()
        assert dict(client.session.items()) == {}


@pytest.mark.usefixtures("database")
def test_flushed_session_takes_what_comes_after() -> None:
    client = WSClient()
    client.session["old"] = 1
    client.session.save()
    client.session.clear()
    client.session["new"] = 1
    client.session.save()
    assert dict(client.session.items()) == {"new": 1}


def test_without_the_sessions_app_there_is_neither_session_nor_cookie() -> None:
    with override_settings(INSTALLED_APPS=["procman.channels"]):
        client = WSClient()
        assert client.headers == []
        with pytest.raises(OSError, match="INSTALLED_APPS"):
            _ = client.session
        assert client.login(username="ada") is False


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize("channel_engine", [None, "django.contrib.sessions.backends.db"])
def test_logged_in_user_is_the_same_in_every_consumer(channel_engine: str | None) -> None:
    ada = get_user_model().objects.create_user("ada", password="lovelace")

    @channel_session_user_from_http
    def connect(message: Any) -> Any:
        message.reply_channel.send({"accept": True})
        return message.user.get_username()

    @channel_session_user
    def receive(message: Any) -> Any:
        return message.user.get_username()

    @http_session_user
    def of_cookie(message: Any) -> Any:
        return message.user.get_username()

    routes = [
        route("websocket.connect", connect),
        route("websocket.receive", receive),
        route("cookie", of_cookie),
    ]
    with apply_routes(routes), override_settings(CHANNEL_SESSION_ENGINE=channel_engine):
        for how in ("login", "force_login", "nobody"):
            client, expected = WSClient(), "" if how == "nobody" else "ada"
            if how == "login":
                assert client.login(username="ada", password="wrong") is False
                assert client.login(username="ada", password="lovelace") is True
            elif how == "force_login":
                client.force_login(ada)
            assert client.send_and_consume("websocket.connect") == expected
            assert client.send_and_consume("websocket.receive") == expected
        client = WSClient()
        client.force_login(ada, backend="django.contrib.auth.backends.ModelBackend")
        assert client.send_and_consume("cookie") == "ada"


@pytest.mark.usefixtures("database")
def test_inactive_user_cannot_log_in() -> None:
    get_user_model().objects.create_user("ada", password="lovelace", is_active=False)
    assert WSClient().login(username="ada", password="lovelace") is False


@pytest.mark.usefixtures("database")
def test_http_session_has_one_key_from_connect_to_disconnect() -> None:
    client = WSClient()
    client.force_login(get_user_model().objects.create_user("ada"))

    @channel_and_http_session
    def consumer(message: Any) -> Any:
        message.reply_channel.send({"accept": True})
        return message.http_session.session_key, dict(message.http_session.items())

    channels = ("websocket.connect", "websocket.receive", "websocket.disconnect")
    with apply_routes(route(channels, consumer)):
        seen = [client.send_and_consume(channel) for channel in channels]
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0] == client.session.session_key and seen[0][1]["_auth_user_id"]


@pytest.mark.usefixtures("database")
def test_client_without_a_saved_session_is_a_visitor_with_an_unknown_cookie() -> None:
    @http_session
    def consumer(message: Any) -> Any:
        return dict(message.http_session.items())

    with apply_routes(route("websocket.connect", consumer)):
        assert WSClient().send_and_consume("websocket.connect", check_accept=False) == {}
