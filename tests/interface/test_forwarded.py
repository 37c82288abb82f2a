"""Who asks, when a proxy asks for somebody."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman.errors import ConfigurationError
from procman.interface.forwarded import Client, Trusted, parse_address, request_id

SERVER = ("10.0.0.2", 80)
PROXY = Client(("10.0.0.1", 5000), SERVER, "http")


def resolve(trusted: str, *headers: tuple[str, str], client: Client = PROXY) -> Client:
    return Trusted(trusted).resolve(client, [(name.encode(), value.encode("latin-1")) for name, value in headers])


FOR, PROTO = "x-forwarded-for", "x-forwarded-proto"


def test_a_trusted_proxy_is_believed() -> None:
    assert resolve("10.0.0.1", (FOR, "1.2.3.4"), (PROTO, "https")) == Client(("1.2.3.4", 0), SERVER, "https")


def test_anybody_else_is_not() -> None:
    assert resolve("10.0.0.9", (FOR, "1.2.3.4"), (PROTO, "https")) == PROXY
    assert resolve("", (FOR, "1.2.3.4"), (PROTO, "https")) == PROXY
    assert resolve("", (FOR, "1.2.3.4"), client=Client(None, None, "http")) == Client(None, None, "http")


@pytest.mark.parametrize(
    ("trusted", "value", "expected"),
    [
        ("10.0.0.0/8", "6.6.6.6, 1.2.3.4, 10.0.0.7", "1.2.3.4"),  # what a client wrote itself stands further left
        ("10.0.0.0/8", "10.0.0.7, 10.0.0.8", "10.0.0.7"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("*", "6.6.6.6, 1.2.3.4", "1.2.3.4"),  # as platforms append it
        ("*,10.0.0.0/8", "6.6.6.6, 1.2.3.4, 10.0.0.8", "1.2.3.4"),
        ("10.0.0.1", "1.2.3.4:567", "1.2.3.4"),
        ("10.0.0.1", "[2001:db8::1]:567", "2001:db8::1"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
        ("10.0.0.1", "::ffff:1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.0/8", "1.2.3.4, _hidden, 10.0.0.7", "10.0.0.7"),
    ],
)
def test_the_address_is_the_first_from_the_right_that_no_trusted_one_has(
    trusted: str, value: str, expected: str
) -> None:
    assert resolve(trusted, (FOR, value)).host == expected


def test_several_headers_are_one_list() -> None:
    assert resolve("10.0.0.0/8", (FOR, "1.2.3.4"), ("cookie", "a"), (FOR, "10.0.0.7")).host == "1.2.3.4"


@pytest.mark.parametrize(
    ("value", "scheme"),
    [("https", "https"), ("wss", "https"), ("http, HTTPS", "https"), ("https, http", "http"), ("gopher", "http")],
)
def test_the_scheme_is_what_the_nearest_proxy_says(value: str, scheme: str) -> None:
    assert resolve("10.0.0.1", (PROTO, value)).scheme == scheme


def test_a_peer_on_a_unix_socket_is_a_proxy() -> None:
    client = resolve("127.0.0.1", (FOR, "1.2.3.4"), (PROTO, "https"), client=Client(None, None, "http"))
    assert client == Client(("1.2.3.4", 0), None, "https")


@given(st.lists(st.tuples(st.sampled_from([FOR, PROTO]), st.text(st.characters(max_codepoint=255), max_size=60))))
def test_nothing_that_a_client_sends_raises(headers: list[tuple[str, str]]) -> None:
    client = resolve("10.0.0.0/8,*", *headers)
    assert client.scheme in ("http", "https") and client.host


def test_a_list_without_end_is_looked_at_from_the_right_only() -> None:
    assert resolve("10.0.0.0/8", (FOR, ", ".join(["1.2.3.4"] + ["10.0.0.7"] * 1000))).host == "10.0.0.7"


@pytest.mark.parametrize("text", ["example.com", "10.0.0.1/8", "1.2.3"])
def test_what_is_no_address_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--forwarded-allow-ips has") as caught:
        Trusted(text)
    assert "\n" not in str(caught.value)


def test_an_address_is_read_with_or_without_its_port() -> None:
    assert str(parse_address(b" 1.2.3.4:80 ")) == "1.2.3.4"
    assert parse_address(b"[::1") is not None
    assert parse_address(b"\xff") is None and parse_address(b"fe80::1%eth0\x00") is None


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
