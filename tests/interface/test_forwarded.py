"""Whom to believe what a proxy says."""

import pytest

from procman.errors import ConfigurationError
from procman.interface.forwarded import Trusted, request_id

LOOPBACK = Trusted("127.0.0.1,::1")


@pytest.mark.parametrize(
    ("text", "host", "is_trusted"),
    [
        ("127.0.0.1,::1", "127.0.0.1", True),
        ("127.0.0.1, ::1", "::1", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("127.0.0.1", "10.0.0.1", False),
        ("10.0.0.0/8", "10.200.3.4", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("fd00::/8", "fd12::1%eth0", True),
        ("*", "203.0.113.9", True),
        ("", "127.0.0.1", False),
        ("127.0.0.1", "", True),  # a Unix socket
        ("127.0.0.1", "localhost", False),
    ],
)
def test_proxies_are_known_by_address_and_network(text, host, is_trusted):
    assert Trusted(text).includes(host) is is_trusted


@pytest.mark.parametrize("text", ["localhost", "10.0.0.1/8", "127.0.0.1;::1"])
def test_what_is_no_address_is_refused_with_the_flags_name(text):
    with pytest.raises(ConfigurationError, match="--forwarded-allow-ips"):
        Trusted(text)


def test_a_proxys_id_is_taken_over():
    assert request_id([(b"host", b"a"), (b"x-request-id", b"f1-A._9")], "127.0.0.1", LOOPBACK) == "f1-A._9"


def test_the_id_of_anybody_else_is_not():
    assert request_id([(b"x-request-id", b"f1")], "10.0.0.1", LOOPBACK) == ""


@pytest.mark.parametrize(
    "values",
    [[], [b""], [b"a b"], [b"a\x1b[2J"], [b"a" * 101], ["ä".encode()], [b"-"], [b"a", b"b"], [b'a"'], [b"a%s"]],
)
def test_what_no_log_should_hold_is_no_id(values):
    assert request_id([(b"x-request-id", value) for value in values], "127.0.0.1", LOOPBACK) == ""
