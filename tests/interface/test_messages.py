"""Message formats, field by field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman.interface.errors import InvalidReply
from procman.interface.messages import (
    build_connect,
    build_disconnect,
    build_frame,
    build_receive,
    build_request,
    decode_path,
    full_path,
    has_forbidden_bytes,
    parse_chunk,
    parse_response,
    parse_socket_reply,
)
from procman.interface.request import Request, Target


def request(headers=((b"x-a", b"1"), (b"x_auth_user", b"root"), (b"x-a", b"2"))):
    return Request("POST", Target(b"/caf%C3%A9", b"a=%20"), headers, "1.1")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/a%2Fb", "/a/b"),
        (b"/caf%C3%A9", "/caf\xe9"),
        (b"/caf%e9/%41", "/caf%E9/A"),
        (b"/%E2%82/x", "/%E2%82/x"),
        (b"/%FF%fe", "/%FF%FE"),
        (b"/%zz%", "/%zz%"),
        (b"/\xe9", "/%E9"),
    ],
)
def test_a_path_is_decoded_as_far_as_it_is_utf8(target: bytes, path: str):
    assert decode_path(target) == path


def test_spaces_around_a_value_are_not_part_of_it():
    made = build_request(request(headers=[(b"x-a", b" \t a  b \t")]), "i!1", "/", b"")
    assert made["headers"] == [[b"x-a", b"a  b"]]


def test_a_request_has_the_keys_and_types_of_the_specification():
    client, server = ("10.0.0.1", 5), ("10.0.0.2", 80)
    made = build_request(request(), "i!1", "/site/caf\xe9", b"body", None, "/site", "https", client, server)
    assert made == {
        "reply_channel": "i!1",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "https",
        "path": "/site/caf\xe9",
        "query_string": b"a=%20",
        "root_path": "/site",
        "headers": [[b"x-a", b"1"], [b"x-a", b"2"]],
        "body": b"body",
        "client": ["10.0.0.1", 5],
        "server": ["10.0.0.2", 80],
    }


def test_a_body_channel_is_named_only_if_there_is_one():
    assert build_request(request(), "i!1", "/", b"", "i.body?1")["body_channel"] == "i.body?1"


def test_addresses_of_a_unix_socket_are_left_out():
    message = build_request(request(), "i!1", "/", b"", client=None, server=("/run/x.sock", None))
    assert "client" not in message and "server" not in message


@pytest.mark.parametrize(
    ("path", "root_path", "expected"),
    [
        ("/a", "", "/a"),
        ("/a", "/site", "/site/a"),
        ("/site/a", "/site", "/site/a"),
        ("/site", "/site", "/site"),
        ("/sites", "/site", "/site/sites"),
    ],
)
def test_the_path_is_below_the_root_path_whether_the_proxy_strips_it_or_not(path, root_path, expected):
    assert full_path(path, root_path) == expected


def test_the_websocket_messages_have_the_keys_of_the_specification():
    connect = build_connect("i!1", "/c", b"q", [(b"a", b"b"), (b"a_b", b"c")], client=("1.2.3.4", 5), server=None)
    assert connect == {
        "reply_channel": "i!1",
        "scheme": "ws",
        "path": "/c",
        "query_string": b"q",
        "root_path": "",
        "headers": [[b"a", b"b"]],
        "order": 0,
        "client": ["1.2.3.4", 5],
    }
    assert build_receive("i!1", "/c", "hi", 1) == {"reply_channel": "i!1", "path": "/c", "text": "hi", "order": 1}
    assert build_receive("i!1", "/c", b"", 2) == {"reply_channel": "i!1", "path": "/c", "bytes": b"", "order": 2}
    assert build_disconnect("i!1", "/c", 1006, 3) == {"reply_channel": "i!1", "code": 1006, "path": "/c", "order": 3}


@pytest.mark.parametrize("value", [b"a\x00", b"a\x0bb", b"a\x1f", b"a\x7f", b"\x85", "a\x85b".encode(), b"a\xc2\x85"])
def test_what_could_end_a_header_line_is_forbidden(value):
    assert has_forbidden_bytes(value)


@pytest.mark.parametrize("value", [b"a\tb c", "\u00c5ngstr\u00f6m".encode(), b"caf\xe9", "\u65e5\u672c".encode()])
def test_text_in_headers_is_fine(value):
    assert not has_forbidden_bytes(value)


def test_hop_by_hop_headers_of_the_application_are_dropped():
    headers = [[b"Connection", b"close"], [b"Transfer-Encoding", b"chunked"], [b"X-A", b"1"], [b"Content-Length", b"0"]]
    assert parse_response({"status": 200, "headers": headers}).headers == [(b"X-A", b"1"), (b"Content-Length", b"0")]


def test_a_response_in_one_message_gets_its_length():
    assert parse_response({"status": 200, "content": b"abc"}).headers == [(b"Content-Length", b"3")]
    assert parse_response({"status": 304}).headers == []
    assert parse_response({"status": 200, "content": b"abc", "more_content": True}).headers == []


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"status": "200"},
        {"status": True},
        {"status": 101},
        {"status": 600},
        {"status": 200, "headers": [["a", "b"]]},
        {"status": 200, "headers": [[b"a", b"b", b"c"]]},
        {"status": 200, "headers": 5},
        {"status": 200, "headers": [[b"a b", b"c"]]},
        {"status": 200, "headers": [[b"", b"c"]]},
        {"status": 200, "headers": [[b"a", b"b\r\nSet-Cookie: x"]]},
        {"status": 200, "content": "text"},
    ],
)
def test_a_broken_response_is_refused_with_the_reason(message):
    with pytest.raises(InvalidReply, match=r"'status'|'headers'|header|'content'"):
        parse_response(message)


def test_a_chunk_without_content_is_empty():
    assert parse_chunk({"more_content": True}) == (b"", True)
    assert parse_chunk({"content": None}) == (b"", False)


@pytest.mark.parametrize(
    "message",
    [
        {"text": "a", "bytes": b"b"},
        {"text": b"a"},
        {"bytes": "a"},
        {"accept": 1},
        {"close": 999},
        {"close": 1005},
        {"close": 1006},
        {"close": 1015},
        {"close": 2999},
        {"close": 5000},
        {"close": "yes"},
        {"status": 200},
        {"text": "\ud800"},
    ],
)
def test_a_broken_socket_reply_is_refused(message):
    with pytest.raises(InvalidReply):
        parse_socket_reply(message)


@pytest.mark.parametrize(
    ("message", "frame", "has_content"),
    [
        ({"text": "a", "bytes": b""}, b"\x81\x01a", True),
        ({"text": "", "bytes": b"a"}, b"\x82\x01a", True),
        ({"text": ""}, b"\x81\x00", False),
        ({"bytes": b""}, b"\x82\x00", False),
        ({"text": None, "bytes": None}, None, False),
    ],
)
def test_empty_content_is_sent_but_is_not_content(message, frame, has_content):
    reply = parse_socket_reply(message)
    assert (reply.frame, reply.has_content) == (frame, has_content)


@given(st.integers(0, 70_000), st.booleans())
def test_a_frame_is_what_the_library_would_build(size, is_text):
    from websockets.frames import Frame, Opcode

    payload = b"x" * size
    expected = Frame(Opcode.TEXT if is_text else Opcode.BINARY, payload).serialize(mask=False)
    assert build_frame(payload, is_text) == expected
