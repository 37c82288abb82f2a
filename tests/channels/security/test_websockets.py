"""Which pages may open a WebSocket."""

from typing import Any

import pytest
from django.test import override_settings

from procman.channels.exceptions import DenyConnection
from procman.channels.message import Message
from procman.channels.security.websockets import (
    AllowedHostsOnlyOriginValidator,
    BaseOriginValidator,
    allowed_hosts_only,
)


def connect(*origins: bytes | str, headers: Any = None) -> Message:
    pairs = [[b"host", b"x"], *([b"origin", origin] for origin in origins)] if headers is None else headers
    return Message({"reply_channel": "a!b", "path": "/", "headers": pairs}, "websocket.connect", None)


@allowed_hosts_only
def consumer(message: Message, **kwargs: Any) -> Any:
    """Its documentation."""
    return "consumed", kwargs


@pytest.mark.parametrize(
    "origin",
    [
        b"http://allowed.test", b"https://allowed.test:8443", b"http://ALLOWED.test", b"https://allowed.test.",
        b"https://a.sub.test", b"http://[::1]:8000", "http://allowed.test",
    ],
)  # fmt: skip
@override_settings(ALLOWED_HOSTS=["allowed.test", ".sub.test", "[::1]"], DEBUG=False)
def test_a_page_of_an_allowed_host_gets_what_the_consumer_returns(origin: bytes | str) -> None:
    assert consumer(connect(origin), room="x") == ("consumed", {"room": "x"})


@pytest.mark.parametrize(
    "origin",
    [
        b"http://other.test", b"http://allowed.test.other.test", b"http://xallowed.test", b"allowed.test", b"null",
        b"file://", b"", b"http://", b"http://[allowed.test", "http://allowed.test\xe9".encode("latin-1"),
    ],
)  # fmt: skip
@override_settings(ALLOWED_HOSTS=["allowed.test"], DEBUG=False)
def test_any_other_origin_is_refused(origin: bytes) -> None:
    with pytest.raises(DenyConnection):
        consumer(connect(origin))


@override_settings(ALLOWED_HOSTS=["*"], DEBUG=False)
def test_a_handshake_without_an_origin_or_with_two_is_refused() -> None:
    for message in (connect(), connect(b"http://a.test", b"http://a.test"), connect(headers=[]), connect(headers={})):
        with pytest.raises(DenyConnection):
            consumer(message)


@override_settings(ALLOWED_HOSTS=[], DEBUG=True)
def test_with_debug_on_and_no_hosts_this_machine_is_allowed() -> None:
    for host in (b"localhost", b"127.0.0.1", b"[::1]", b"shop.localhost"):
        assert consumer(connect(b"http://" + host + b":8000"))
    with pytest.raises(DenyConnection):
        consumer(connect(b"http://other.test"))


@override_settings(ALLOWED_HOSTS=[], DEBUG=False)
def test_with_debug_off_no_hosts_means_nobody() -> None:
    with pytest.raises(DenyConnection):
        consumer(connect(b"http://localhost"))


@override_settings(ALLOWED_HOSTS=["allowed.test"])
def test_headers_may_be_a_dict_as_in_tests_of_1x() -> None:
    assert consumer(connect(headers={"origin": b"http://allowed.test"}))


def test_the_decorated_consumer_keeps_its_name() -> None:
    assert (consumer.__name__, consumer.__doc__) == ("consumer", "Its documentation.")
    assert isinstance(consumer, AllowedHostsOnlyOriginValidator)


def test_a_rule_of_ones_own_decides() -> None:
    class PartnersOnly(BaseOriginValidator):
        def validate_origin(self, message: Message, origin: str) -> bool:
            return origin == "https://partner.test"

    decorated = PartnersOnly(lambda message: "in")
    assert decorated(connect(b"https://partner.test")) == "in"
    with pytest.raises(DenyConnection):
        decorated(connect(b"http://partner.test"))


def test_a_validator_without_a_rule_says_so() -> None:
    with pytest.raises(NotImplementedError, match="validate_origin"):
        BaseOriginValidator(lambda message: None)(connect(b"https://partner.test"))
