"""Requests that two readers could take differently, and junk: over a real connection, nothing reaches a worker."""

import contextlib
import logging
import re
import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from procman.settings import InterfaceSettings
from tests.support.interface import Running, running_interface

HEAD = b"POST / HTTP/1.1\r\nHost: example.com\r\n"
INNER = b"GET /smuggled HTTP/1.1\r\nHost: example.com\r\n\r\n"

SMUGGLED = {
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 45\r\n\r\n" + INNER,
    "the same length twice": HEAD + b"Content-Length: 45\r\nContent-Length: 45\r\n\r\n" + INNER,
    "a list of lengths": HEAD + b"Content-Length: 0, 45\r\n\r\n" + INNER,
    "a length with a sign": HEAD + b"Content-Length: +0\r\n\r\n" + INNER,
    "a length in hexadecimal": HEAD + b"Content-Length: 0x0\r\n\r\n" + INNER,
    "a length with a space": HEAD + b"Content-Length: 4 5\r\n\r\n" + INNER,
    "length and chunks": HEAD + b"Content-Length: 45\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunks and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + INNER,
    "chunked twice": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n" + INNER,
    "chunked and then something": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + INNER,
    "an unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + INNER,
    "a coding behind a tab": HEAD + b"Transfer-Encoding:\tgzip\r\n\r\n0\r\n\r\n" + INNER,
    "a vertical tab before the coding": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + INNER,
    "a space before the colon": HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + INNER,
    "a folded header": HEAD + b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "a folded coding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + INNER,
    "a bare line feed": HEAD + b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "a bare carriage return": HEAD + b"X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "a head that ends in line feeds": b"POST / HTTP/1.1\nHost: example.com\nContent-Length: 45\n\n" + INNER,
    "a header without a name": HEAD + b": chunked\r\n\r\n" + INNER,
    "a header without a colon": HEAD + b"Transfer-Encoding\r\n\r\n" + INNER,
    "a NUL": HEAD + b"X: a\x00\r\n\r\n" + INNER,
    "two hosts": HEAD + b"Host: other.example\r\nContent-Length: 0\r\n\r\n" + INNER,
    "no host": b"GET / HTTP/1.1\r\n\r\n" + INNER,
    "chunks in 1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "a chunk size in words": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzero\r\n\r\n" + INNER,
    "a chunk size that overflows": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1000000000000000000\r\n" + INNER,
    "a negative chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + INNER,
    "a chunk size with a bare line feed": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\n\r\n" + INNER,
    "a chunk without its end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\naX0\r\n\r\n" + INNER,
    "an extension with a line feed": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\n" + INNER,
    "0.9": b"GET /\r\n" + INNER,
    "a version that is none": b"GET / HTTP/1.10\r\nHost: a\r\n\r\n" + INNER,
    "2.0 without its preface": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n" + INNER,
    "the preface of 2.0": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + INNER,
    "a target with spaces": b"GET / /smuggled HTTP/1.1\r\nHost: example.com\r\n\r\n" + INNER,
    "a target of bytes": b"GET /\xff HTTP/1.1\r\nHost: example.com\r\n\r\n" + INNER,
    "a proxy's request": b"CONNECT example.com:80 HTTP/1.1\r\nHost: example.com\r\n\r\n" + INNER,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + INNER,
}


@pytest.fixture(scope="module")
def site() -> Iterator[Running]:
    settings = InterfaceSettings(drain_timeout=1.0, header_timeout=1.0, body_timeout=1.0, access_log=False)
    with running_interface(settings) as running:
        yield running


def converse(site: Running, data: bytes, patience: float = 5.0) -> bytes:
    """What the server says to *data* until it ends the connection."""
    answer = b""
    with socket.create_connection(("127.0.0.1", site.port), patience) as client:
        with contextlib.suppress(OSError):  # it may end the connection while we are sending
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while part := client.recv(65536):
                answer += part
    return answer


@pytest.mark.parametrize("name", SMUGGLED)
def test_it_is_refused_the_connection_ends_and_nothing_reaches_a_worker(
    site: Running, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = converse(site, SMUGGLED[name])
    statuses = re.findall(rb"HTTP/1\.1 (\d+)", answer)
    assert len(statuses) == 1 and statuses[0] in (b"400", b"501", b"505"), answer
    assert b"Connection: close" in answer
    # A request whose body breaks off may have been offered before that; it is taken back, and never another one.
    while not site.layer.offers.empty():
        assert site.layer.take()[1]["path"] == "/"
    assert not site.server.replies.offers
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize(
    "forbidden", [b"\x00", b"\x01", b"\x0b", b"\x0c", b"\x1f", b"\x7f", b"\x85", b"\xc2\x85", b"\xe2\x80\xa8"]
)
def test_a_handshake_with_bytes_that_end_a_line_for_somebody_is_400(site: Running, forbidden: bytes) -> None:
    answer = converse(
        site,
        b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: a"
        + forbidden
        + b"X-User: root\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 400") and site.layer.offers.empty()


TOKENS = st.sampled_from(
    [
        b"GET ", b"POST ", b"/ ", b"/chat ", b"HTTP/1.1", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b":",
        b"Host: a\r\n",
        b"Upgrade: websocket\r\n", b"Connection: Upgrade\r\n", b"Connection: close\r\n",
        b"Sec-WebSocket-Version: 13\r\n",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"Sec-WebSocket-Extensions: permessage-deflate; a=\"\r\n",
        b"Sec-WebSocket-Protocol: ,,\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n",
        b"Origin: null\r\n", b"Expect: 100-continue\r\n", b"\x00", b"\xff", b"\x81\x80aaaa",
    ]
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(TOKENS, st.binary(max_size=8)), max_size=20))
def test_no_junk_makes_an_error_of_ours(site: Running, caplog: pytest.LogCaptureFixture, parts: list[bytes]) -> None:
    caplog.clear()
    with socket.create_connection(("127.0.0.1", site.port), 5) as client:
        with contextlib.suppress(OSError):
            client.sendall(b"".join(parts))
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    while not site.layer.offers.empty():
        site.layer.take()
