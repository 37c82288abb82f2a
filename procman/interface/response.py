"""A response's bytes: head, framing of its content, and the check that the content fits what the head announced.

Pure. One ``ResponseWriter`` writes one response; it returns bytes and never touches a connection. Source: RFC 9112.
"""

from __future__ import annotations

from functools import lru_cache
from http import HTTPStatus

from procman.interface.errors import InvalidReply, Refusal
from procman.interface.messages import Header, ResponseStart

LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@lru_cache(600)
def status_line(status: int) -> bytes:
    """``HTTP/1.1 200 OK`` with its end; a status without a name has an empty phrase."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


class ResponseWriter:
    """Bytes of the response to one request.

    ``keep_alive`` is whether another request may follow on the connection; writing may only make it False.
    """

    __slots__ = ("_is_chunked", "_is_head", "_left", "has_ended", "has_started", "http_version", "keep_alive", "size")

    def __init__(self, method: str, http_version: str, keep_alive: bool) -> None:
        self._is_head = method == "HEAD"
        self.http_version = http_version
        self.keep_alive = keep_alive
        self._is_chunked = False
        self._left: int | None = None  # bytes of content that were announced and are still to come
        self.has_started = False
        self.has_ended = False
        self.size = 0  # bytes of content that were written

    def start(self, start: ResponseStart, date: bytes) -> bytes:
        """Head and first content of the response; *date* is the value of its Date header.

        Raises:
            InvalidReply: the content does not fit the announced length.
        """
        lines = [status_line(start.status)]
        has_date = False
        length: int | None = None
        has_body = start.status not in (204, 304)
        for name, value in start.headers:
            lower = name.lower()
            if lower == b"content-length":
                if not has_body:
                    continue
                length = _parse_length(value, length)
                if length == self._left:
                    continue
                self._left = length
            elif lower == b"date":
                has_date = True
            lines += (name, b": ", value, b"\r\n")
        if not has_date:
            lines += (b"Date: ", date, b"\r\n")
        if not has_body:
            self._is_head = True
        elif length is None:
            if self.http_version == "1.1":
                self._is_chunked = True
                lines.append(b"Transfer-Encoding: chunked\r\n")
            else:
                self.keep_alive = False  # the end of the connection ends the content
        if not self.keep_alive:
            lines.append(b"Connection: close\r\n")
        elif self.http_version == "1.0":
            lines.append(b"Connection: keep-alive\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        self.has_started = True
        return head + self.content(start.content, start.more_content)

    def content(self, data: bytes, more: bool) -> bytes:
        """*data* as it goes out; without *more* the response is complete.

        Raises:
            InvalidReply: it does not fit the announced length.
        """
        if self._is_head:
            self.has_ended = not more
            return b""
        size = len(data)
        self.size += size
        if self._is_chunked:
            self.has_ended = not more
            if not more:
                return b"%x\r\n%b\r\n0\r\n\r\n" % (size, data) if data else LAST_CHUNK
            return b"%x\r\n%b\r\n" % (size, data) if data else b""
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                raise InvalidReply("the content is longer than its Content-Length")
            if not more and self._left:
                raise InvalidReply(f"the content is {self._left} bytes shorter than its Content-Length")
        self.has_ended = not more
        return data


def _parse_length(value: bytes, before: int | None) -> int:
    if not value.isdigit() or (before is not None and before != int(value)):
        raise InvalidReply(f"Content-Length is {value!r}; it must be one number of bytes")
    return int(value)


def text_response(status: int, text: str, *headers: Header) -> ResponseStart:
    """A whole response of one line of plain text."""
    content = text.encode() + b"\n"
    length = b"%d" % len(content)
    first = [(b"Content-Type", b"text/plain; charset=utf-8"), (b"Content-Length", length)]
    return ResponseStart(status, [*first, *headers], content, False)


def with_header(start: ResponseStart, name: bytes, value: bytes) -> ResponseStart:
    """*start* with one header more, unless it has it already."""
    if any(each.lower() == name.lower() for each, _ in start.headers):
        return start
    return start._replace(headers=[*start.headers, (name, value)])


def refusal_start(refusal: Refusal) -> ResponseStart:
    """The response that tells a client of *refusal*."""
    headers = [(b"Retry-After", b"%d" % refusal.retry_after)] if refusal.retry_after else []
    return text_response(refusal.status, refusal.text, *headers)
