"""Bytes to requests, without a connection."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman.interface.errors import Refusal
from procman.interface.request import NO_LENGTH, Request, RequestParser, Target, split_target

LIMIT = 4096


class Recorder:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.ended: list[Request] = []

    def on_request(self, request: Request) -> None:
        self.requests.append(request)

    def on_data(self, request: Request, data: bytes) -> None:
        request.body.append(data)

    def on_end(self, request: Request) -> None:
        self.ended.append(request)


def read(*parts: bytes) -> tuple[Recorder, bytes | None]:
    recorder = Recorder()
    parser = RequestParser(recorder, LIMIT)
    rest = None
    for part in parts:
        rest = parser.feed(part)
    return recorder, rest


def refused(*parts: bytes) -> int:
    with pytest.raises(Refusal) as caught:
        read(*parts)
    return caught.value.status


HEAD = b"POST /a?b HTTP/1.1\r\nHost: example.com\r\n"


def facts(request: Request) -> tuple[object, ...]:
    return (
        request.method, request.path, request.query_string, request.headers, request.http_version, request.length,
        b"".join(request.body), request.size, request.is_complete, request.keep_alive, request.expects_continue,
    )  # fmt: skip


STREAM = (
    HEAD + b"X-A: 1\r\nx-a: 2\r\nContent-Length: 3\r\n\r\nabc"
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    + HEAD
    + b"Transfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n\r\n"
    b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n"
    b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
)


def test_requests_come_out_in_their_order_with_all_that_was_in_them():
    recorder, _ = read(STREAM)
    assert recorder.ended == recorder.requests
    host = (b"host", b"example.com")
    headers = [host, (b"x-a", b"1"), (b"x-a", b"2"), (b"content-length", b"3")]
    chunked = [host, (b"transfer-encoding", b"Chunked"), (b"expect", b"100-Continue")]
    assert [facts(request) for request in recorder.requests] == [
        ("POST", b"/a", b"b", headers, "1.1", 3, b"abc", 3, True, True, False),
        ("GET", b"/", b"", [(b"connection", b"keep-alive")], "1.0", 0, b"", 0, True, True, False),
        ("POST", b"/a", b"b", chunked, "1.1", NO_LENGTH, b"abcde", 5, True, True, True),
        ("GET", b"/last", b"", [(b"host", b"a"), (b"connection", b"close")], "1.1", 0, b"", 0, True, False, False),
    ]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_where_the_bytes_are_split_makes_no_difference(cuts: list[int]):
    edges = [0, *sorted(cuts), len(STREAM)]
    recorder, _ = read(*(STREAM[start:end] for start, end in itertools.pairwise(edges)))
    expected, _ = read(STREAM)
    assert [facts(request) for request in recorder.requests] == [facts(request) for request in expected.requests]


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nContent-Length: 4\r\n",
        b"Content-Length: 3\r\nContent-Length: 3\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Content-Length: +3\r\n",
        b"Content-Length: 0x3\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999999999\r\n",
        b"Content-Length:\r\n",
        b"X: a\nY: b\r\n",
        b"X: a\rY: b\r\n",
        b"X: a\r\n b\r\n",
        b"X : a\r\n",
        b" X: a\r\n",
        b": a\r\n",
        b"X: a\x00b\r\n",
        b"X: a\x0bb\r\n",
        b"Host: other.example\r\n",
    ],
)
def test_a_head_that_two_readers_could_take_differently_is_400(head: bytes):
    assert refused(HEAD + head + b"\r\n") == 400


@pytest.mark.parametrize(
    "coding", [b"gzip, chunked", b"identity", b"chunked\r\nTransfer-Encoding: chunked", b"xchunked"]
)
def test_codings_other_than_chunked_are_refused(coding: bytes):
    assert refused(HEAD + b"Transfer-Encoding: " + coding + b"\r\n\r\n") in (400, 501)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET ftp://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
    ],
)
def test_what_is_no_request_is_400(data: bytes):
    assert refused(data) == 400


@pytest.mark.parametrize(
    "chunk", [b" 3\r\nabc", b"3\nabc", b"3\r\nabcX", b"g\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"3;\x00\r\nabc"]
)
def test_a_broken_chunk_is_400(chunk: bytes):
    assert refused(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"\r\n0\r\n\r\n") == 400


def test_a_version_of_http_that_is_not_1_is_505():
    assert refused(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n") == 505
    assert refused(b"GET /\r\n\r\n") == 505  # HTTP/0.9


def test_nothing_may_follow_a_request_that_ends_the_connection():
    assert refused(b"GET / HTTP/1.0\r\n\r\nGET /next HTTP/1.0\r\n\r\n") == 400


def test_an_expectation_that_nobody_can_meet_is_417():
    assert refused(HEAD + b"Expect: 200-maybe\r\n\r\n") == 417


def test_a_head_over_the_limit_is_431_or_414_also_one_without_an_end():
    assert refused(HEAD + b"X: " + b"a" * LIMIT + b"\r\n\r\n") == 431
    assert refused(HEAD, *[b"X-%d: 1\r\n" % number for number in range(LIMIT)]) == 431
    assert refused(HEAD + b"X: ", *[b"a" * 100] * (LIMIT // 50)) == 431
    assert refused(b"GET /" + b"a" * LIMIT + b" HTTP/1.1\r\n\r\n") == 414
    assert refused(b"GET /", *[b"a" * 100] * (LIMIT // 50)) in (414, 431)


def test_a_refusal_of_the_sink_comes_out_as_it_is():
    class Refusing(Recorder):
        def on_request(self, request: Request) -> None:
            raise Refusal(413, "no")

    with pytest.raises(Refusal) as caught:
        RequestParser(Refusing(), LIMIT).feed(HEAD + b"Content-Length: 3\r\n\r\nabc")
    assert caught.value.status == 413


def test_a_handshake_ends_with_what_follows_it_and_reaches_no_sink():
    recorder = Recorder()
    parser = RequestParser(recorder, LIMIT)
    data = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\r\n"
    assert parser.feed(data[:20]) is None
    assert parser.feed(data[20:] + b"rest") == b"rest"
    assert parser.request is not None and parser.request.upgrades and not recorder.requests


def test_an_offer_of_http_2_is_not_taken_up_and_its_body_is_read():
    head = HEAD + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 3\r\n\r\n"
    recorder, rest = read(head, b"abc", b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n")
    assert rest is None
    assert [(request.path, b"".join(request.body)) for request in recorder.ended] == [(b"/a", b"abc"), (b"/next", b"")]


@pytest.mark.parametrize(
    ("target", "method", "expected"),
    [
        (b"/a/b?c=d?e", "GET", Target(b"/a/b", b"c=d?e")),
        (b"/a#b?c", "GET", Target(b"/a", b"")),
        (b"//a/b", "GET", Target(b"//a/b", b"")),
        (b"http://example.com/a?b", "GET", Target(b"/a", b"b")),
        (b"HTTPS://example.com", "GET", Target(b"/", b"")),
        (b"*", "OPTIONS", Target(b"*", b"")),
    ],
)
def test_each_form_of_the_target_has_a_path(target: bytes, method: str, expected: Target):
    assert split_target(target, method) == expected


def test_a_proxys_method_is_501():
    assert refused(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n") == 501
