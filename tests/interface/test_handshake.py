"""The rules for handshakes that protect the application."""

import pytest

from procman.interface.errors import Refusal
from procman.interface.handshake import answer, build_refusal, check, choose_protocol


def test_a_handshake_of_the_sites_own_page_goes_on():
    assert check([(b"origin", b"https://example.com"), (b"cookie", b"a=b")], ["example.com"], False) is None


@pytest.mark.parametrize("headers", [[(b"cookie", b"a\x0bb")], [(b"cookie", b"a\xc2\x85b")]])
def test_bytes_that_no_header_may_hold_are_400(headers):
    with pytest.raises(Refusal) as caught:
        check(headers, ["*"], False)
    assert caught.value.status == 400


def test_a_foreign_origin_is_403_and_the_reason_cannot_forge_a_log_line():
    with pytest.raises(Refusal) as caught:
        check([(b"origin", b"https://evil.org\x9b")], ["example.com"], False)
    assert caught.value.status in (400, 403)
    with pytest.raises(Refusal) as caught:
        check([(b"origin", b"https://evil.org")], ["example.com"], False)
    assert caught.value.status == 403
    assert "https://evil.org" in caught.value.reason and "ALLOWED_HOSTS" in caught.value.reason
    assert "evil" not in caught.value.text


def test_a_refusal_is_a_complete_response():
    head, _, body = build_refusal(503, "Busy.").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"Content-Length: %d" % len(body) in head and body == b"Busy.\n"
    assert b"\r\nRetry-After: 1" in head and b"Retry-After" not in build_refusal(403, "No.")


@pytest.mark.parametrize(
    ("offered", "allowed", "chosen"),
    [
        (["a", "b"], ["b", "a"], "a"),
        (["x", "b"], ["a", "b"], "b"),
        (["x"], ["a"], None),
        ([], ["a"], None),
        (["a"], [], None),
    ],
)
def test_the_first_sub_protocol_of_the_client_that_the_project_knows_is_chosen(offered, allowed, chosen):
    assert choose_protocol(offered, allowed) == chosen


HANDSHAKE = [
    (b"host", b"example.com"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ=="),
    (b"sec-websocket-version", b"13"),
]


def test_a_handshake_is_answered_with_its_key_and_a_protocol():
    status, data, window_bits = answer("/", [*HANDSHAKE, (b"sec-websocket-protocol", b"a, b")], ["b"], True)
    assert (status, window_bits) == (101, 0)
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in data and b"Sec-WebSocket-Protocol: b" in data
    assert b"Extensions" not in data


@pytest.mark.parametrize(
    ("name", "value"), [(b"sec-websocket-version", b"8"), (b"sec-websocket-key", b"short"), (b"upgrade", b"other")]
)
def test_a_broken_handshake_is_answered_with_an_error(name, value):
    headers = [(each, value if each == name else given) for each, given in HANDSHAKE]
    status, data, _ = answer("/", headers, [], False)
    assert status >= 400 and data.startswith(b"HTTP/1.1 %d" % status)
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in data


@pytest.mark.parametrize(
    ("offer", "bits"),
    [
        (b"permessage-deflate; client_max_window_bits", 15),
        (b"permessage-deflate", 15),
        (b"permessage-deflate; server_max_window_bits=10", 10),
        (b"x-webkit-deflate-frame, permessage-deflate", 15),
        (b"permessage-deflate; unknown=1", 0),
        (b"permessage-deflate; server_max_window_bits=99", 0),
    ],
)
def test_compression_is_agreed_to_only_without_context_takeover(offer, bits):
    headers = [*HANDSHAKE, (b"sec-websocket-extensions", offer)]
    status, data, window_bits = answer("/", headers, [], True)
    assert (status, window_bits) == (101, bits)
    assert (b"server_no_context_takeover" in data and b"client_no_context_takeover" in data) is (bits > 0)
    status, data, window_bits = answer("/", headers, [], False)
    assert window_bits == 0 and b"Extensions" not in data
