"""Bytes of an HTTP/1.1 connection to requests, strictly: what two readers could understand differently is refused.

Pure (sans-IO) over the llhttp parser of ``httptools``, which itself refuses conflicting or repeated lengths, a length
beside chunks, bare CR or LF, folded headers and control characters. Added here: the size of a head, codings nobody
asked for, hosts that are missing or repeated, forms of the request target. Sources: RFC 9110, RFC 9112.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import httptools

from procman.interface.errors import Refusal
from procman.interface.messages import Header

NO_LENGTH = -1  # of a chunked body


class Request:
    """The head of one request; ``body`` collects what has come of its body and was not taken yet."""

    __slots__ = (
        "body",
        "expects_continue",
        "headers",
        "http_version",
        "is_complete",
        "keep_alive",
        "length",
        "method",
        "path",
        "query_string",
        "size",
        "upgrades",
    )

    def __init__(self, method: str, target: Target, headers: list[Header], http_version: str) -> None:
        self.method = method
        self.path, self.query_string = target
        self.headers = headers  # names in lower case
        self.http_version = http_version
        self.length = 0  # bytes that were announced, or NO_LENGTH
        self.body: list[bytes] = []
        self.size = 0  # bytes of the body that have come
        self.is_complete = False
        self.keep_alive = True
        self.expects_continue = False
        self.upgrades = False  # to a WebSocket


class Target(NamedTuple):
    """What a request asks for: the path as it came, with its escapes, and the query string."""

    path: bytes
    query_string: bytes


class Sink(Protocol):
    """What a ``RequestParser`` reports to."""

    def on_request(self, request: Request) -> None:
        """A head is complete. Raises Refusal: nothing more of this connection is read."""

    def on_data(self, request: Request, data: bytes) -> None:
        """A part of its body. Raises Refusal."""

    def on_end(self, request: Request) -> None:
        """The request is complete."""


class RequestParser:
    """One connection's parser. After a ``Refusal`` or an upgrade it must not be fed again."""

    __slots__ = (
        "_headers",
        "_max_head",
        "_parser",
        "_sink",
        "_size",
        "_target",
        "_unfinished",
        "is_in_head",
        "request",
    )

    def __init__(self, sink: Sink, max_header_bytes: int) -> None:
        self._sink = sink
        self._max_head = max_header_bytes
        self._parser = httptools.HttpRequestParser(self)
        self._headers: list[Header] = []
        self.request: Request | None = None  # the last one whose head is complete
        self._target = b""
        self._size = 0  # of the head's headers so far
        self._unfinished = 0  # bytes of reads that began and ended within the head
        self.is_in_head = False

    def feed(self, data: bytes) -> bytes | None:
        """Read *data*; the bytes behind the head of a request that upgrades, else None.

        Raises:
            Refusal: the request cannot be understood, or the sink refused it.
        """
        head = self._headers
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
            assert self.request is not None
            if self.request.upgrades:
                return rest
            return self._read_again(rest)
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, Refusal):
                raise cause from None
            raise
        except httptools.HttpParserError as error:
            raise Refusal(
                400, "This is not a valid HTTP request, or its method is not known.", reason=str(error)
            ) from None
        if self.is_in_head and head is self._headers:
            # The parser hands out a header when it is complete: one without an end is bounded here.
            self._unfinished += len(data)
            if self._unfinished > self._max_head:
                raise Refusal(431, "The request's headers are too large.", limit="max_header_bytes")
        return None

    def _read_again(self, rest: bytes) -> bytes | None:
        """Treat a request that offers an upgrade to something else, such as HTTP/2, as one that does not."""
        version = self._parser.get_http_version()
        lines = [b"%b %b HTTP/%b" % (self._parser.get_method(), self._target, version.encode())]
        lines += [b"%b: %b" % header for header in self._headers if header[0] not in (b"upgrade", b"connection")]
        if not self._parser.should_keep_alive():
            lines.append(b"connection: close")
        self._parser = httptools.HttpRequestParser(self)
        return self.feed(b"\r\n".join([*lines, b"", rest]))

    # -- called by httptools -----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self.is_in_head = True
        self.request = None
        self._headers = []
        self._target = b""
        self._size = self._unfinished = 0

    def on_url(self, url: bytes) -> None:
        """A part of the request target."""
        self._target += url
        if len(self._target) > self._max_head:
            raise Refusal(414, "The request's target is too long.", limit="max_header_bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; behind a chunked body, a trailer, which nobody is told of."""
        if self.request is None:
            self._size += len(name) + len(value)
            if self._size > self._max_head:
                raise Refusal(431, "The request's headers are too large.", limit="max_header_bytes")
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is complete."""
        parser = self._parser
        self.is_in_head = False
        method = parser.get_method().decode("ascii")
        request = Request(method, split_target(self._target, method), self._headers, parser.get_http_version())
        request.keep_alive = parser.should_keep_alive()
        _read_headers(request)
        self.request = request
        if not parser.should_upgrade():
            request.upgrades = False
            self._sink.on_request(request)

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        request = self.request
        assert request is not None
        request.size += len(data)
        self._sink.on_data(request, data)

    def on_message_complete(self) -> None:
        """The request is complete."""
        request = self.request
        assert request is not None
        request.is_complete = True
        if not self._parser.should_upgrade():
            self._sink.on_end(request)


def split_target(target: bytes, method: str) -> Target:
    """Path and query string of a request target.

    Raises:
        Refusal: it has none of the forms that a server is asked in.
    """
    if target.startswith(b"/"):
        path, _, query = target.partition(b"#")[0].partition(b"?")
        return Target(path, query)
    if target == b"*" and method == "OPTIONS":
        return Target(b"*", b"")
    if method == "CONNECT":
        raise Refusal(501, "This server is no proxy.")
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise Refusal(400, "The request's target is not valid.") from None
    if url.schema is None or url.schema.lower() not in (b"http", b"https"):
        raise Refusal(400, "The request's target is not valid.")
    return Target(url.path or b"/", url.query or b"")


def _read_headers(request: Request) -> None:
    """What the headers say of the connection and the body. Raises Refusal."""
    hosts = 0
    for name, value in request.headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            request.length = int(value)
        elif name == b"transfer-encoding":
            if value.strip(b" \t").lower() != b"chunked" or request.length == NO_LENGTH:
                raise Refusal(501, "Only the transfer coding chunked is understood.")
            if request.http_version != "1.1":
                raise Refusal(400, "Chunks need HTTP/1.1.")
            request.length = NO_LENGTH
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise Refusal(417, "Only the expectation 100-continue is understood.")
            request.expects_continue = request.http_version == "1.1"
        elif name == b"upgrade":
            request.upgrades = value.lower() == b"websocket"
    if request.http_version not in ("1.1", "1.0"):
        raise Refusal(505, "This version of HTTP is not understood.")
    if hosts > 1 or (not hosts and request.http_version == "1.1"):
        raise Refusal(400, "A request needs exactly one Host header.")
