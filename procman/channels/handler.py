"""``http.request`` messages to Django requests, and Django responses to messages on the reply channel.

The view runs as under WSGI: same middleware, signals, limits and error pages. A response of one part is held until
the consumer has ended, so that it leaves together with the finish; a longer one leaves part by part (``parts.py``).
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import contextvars
import functools
import logging
from collections.abc import AsyncIterator, Iterator
from io import BufferedReader, BytesIO
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.core import signals
from django.core.handlers import base
from django.http import FileResponse, HttpRequest, HttpResponse, QueryDict, UnreadablePostError, parse_cookie
from django.urls import set_script_prefix
from django.utils.functional import cached_property

from procman.channels.body import BUFFER_SIZE, ChunkReader, spool
from procman.channels.exceptions import BodyError
from procman.channels.exceptions import ResponseLater as ResponseLaterOuter
from procman.channels.log import request_id_of
from procman.channels.parts import Parts
from procman.channels.pending import pending_message_store
from procman.channels.streams import TooManyStreams, streams
from procman.layers.errors import ReplyChannelGone

if TYPE_CHECKING:
    from procman.channels.channel import Channel
    from procman.channels.message import Message

logger = logging.getLogger("django.channels")


@functools.lru_cache(maxsize=1024)
def _meta_key(name: bytes | str) -> str | None:
    """The ``META`` key of a header; None for one that must not be passed on.

    Applications cannot tell ``X_User`` from ``X-User``, so a client could pass off the former as the latter, which a
    proxy sets (CVE-2015-0219).
    """
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    if "_" in text:
        return None
    key = text.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


class AsgiRequest(HttpRequest):
    """The request in an ``http.request`` message.

    A body of announced length that is too large for the message is read from the client as the view reads it; one
    without a length is complete once this is made (``body.py``).

    Raises:
        RequestTimeout: no chunk of the body came for ``body_receive_timeout`` seconds. This and the next two are
            raised here, or by whatever reads the body, ``POST`` or ``FILES``.
        RequestAborted: the client left before its body was complete.
        RequestLost: a part of the body is gone with the layer's process.
        UnicodeDecodeError: path or query string are bytes that are not UTF-8.
    """

    ResponseLater = ResponseLaterOuter
    body_receive_timeout: float = 60  # seconds
    _post_parse_error = False
    _chunks: ChunkReader | None = None

    def __init__(self, message: Message) -> None:  # as Django's own subclasses, without HttpRequest.__init__
        self.message = message
        self.reply_channel = message.reply_channel
        self.resolver_match = None
        self._read_started = False
        content = message.content
        path = content["path"]
        self._set_path(path.decode() if isinstance(path, bytes) else path, content.get("root_path") or "")
        self.method: str = content["method"].upper()
        query_string = content.get("query_string") or ""
        if isinstance(query_string, bytes):
            query_string = query_string.decode()
        self.META: dict[str, Any] = {
            "REQUEST_METHOD": self.method,
            "QUERY_STRING": query_string,
            "SCRIPT_NAME": self.script_name,
            "PATH_INFO": self.path_info,
            "SERVER_PROTOCOL": f"HTTP/{content.get('http_version', '1.1')}",
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
        }
        self._add_addresses(content.get("client"), content.get("server"))
        self._add_headers(content.get("headers") or ())
        request_id = request_id_of(content)
        if request_id:  # no header: those are the client's own words
            self.META["REQUEST_ID"] = request_id
        self._set_content_type_params(self.META)
        self._stream = self._open_body(content)

    def _set_path(self, path: str, root_path: str) -> None:
        """The message's root path is above the project; ``FORCE_SCRIPT_NAME`` stands in its place, as under WSGI."""
        above = root_path.rstrip("/")
        is_below = path == root_path or path.startswith(above + "/")
        self.path_info = (path[len(above) :] if is_below else path) or "/"
        if settings.FORCE_SCRIPT_NAME is None:
            self.script_name, self.path = root_path, path
        else:
            self.script_name = settings.FORCE_SCRIPT_NAME
            self.path = self.script_name.rstrip("/") + "/" + self.path_info.removeprefix("/")

    def _add_addresses(self, client: Any, server: Any) -> None:
        if client:
            self.META["REMOTE_ADDR"] = self.META["REMOTE_HOST"] = client[0]
            self.META["REMOTE_PORT"] = client[1]
        self.META["SERVER_NAME"] = server[0] if server else "unknown"
        self.META["SERVER_PORT"] = str(server[1]) if server else "0"

    def _add_headers(self, headers: Any) -> None:
        meta = self.META
        for name, value in headers.items() if isinstance(headers, dict) else headers:
            key = _meta_key(name)
            if key is None:
                continue
            text = value.decode("latin-1") if isinstance(value, bytes) else value
            if key in meta:
                # HTTP/2 clients may send one header per cookie; a comma would become part of a value.
                text = meta[key] + ("; " if key == "HTTP_COOKIE" else ",") + text
            meta[key] = text

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        super()._set_content_type_params(meta)  # type: ignore[misc]
        charset = self.content_params.get("charset") if self.content_params else None
        if charset:
            try:
                codecs.lookup(charset)
            except LookupError:
                return
            self.encoding = charset

    def _open_body(self, content: dict[str, Any]) -> Any:
        body = content.get("body") or b""
        if not content.get("body_channel"):
            if body and "CONTENT_LENGTH" not in self.META:
                self.META["CONTENT_LENGTH"] = str(len(body))
            return BytesIO(body)
        self._chunks = ChunkReader(self.message.channel_layer, content["body_channel"], body, self.body_receive_timeout)
        if self.META.get("CONTENT_LENGTH", "").isdecimal():
            return BufferedReader(self._chunks, BUFFER_SIZE)
        stream, size = spool(self._chunks)
        self.META["CONTENT_LENGTH"] = str(size)
        return stream

    @property
    def body_failure(self) -> BodyError | None:
        """Why the body cannot be read to its end, None while nothing is known against it."""
        return self._chunks.failure if self._chunks is not None else None

    @property
    def body(self) -> bytes:
        """The whole body, within ``DATA_UPLOAD_MAX_MEMORY_SIZE``."""
        with self._naming_the_failure():
            return super().body

    def read(self, *args: Any, **kwargs: Any) -> bytes:
        """As of a file."""
        with self._naming_the_failure():
            return super().read(*args, **kwargs)

    def readline(self, *args: Any, **kwargs: Any) -> bytes:
        """As of a file."""
        with self._naming_the_failure():
            return super().readline(*args, **kwargs)

    @contextlib.contextmanager
    def _naming_the_failure(self) -> Iterator[None]:
        """Within, ``RequestTimeout`` and its kin come out as they are; Django makes one exception of them all."""
        try:
            yield
        except UnreadablePostError as error:
            raise self.body_failure or error from None

    def _mark_post_parse_error(self) -> None:
        super()._mark_post_parse_error()  # type: ignore[misc]
        self._post_parse_error = True

    def _get_scheme(self) -> str:
        return self.message.content.get("scheme") or "http"

    @cached_property
    def GET(self) -> QueryDict:  # type: ignore[override]
        """Query parameters."""
        return QueryDict(self.META["QUERY_STRING"], encoding=self._encoding)  # type: ignore[attr-defined]

    def _get_post(self) -> QueryDict:
        if not hasattr(self, "_post"):
            self._load_post_and_files()
        return self._post

    def _set_post(self, post: QueryDict) -> None:
        self._post = post

    POST = property(_get_post, _set_post)

    @property
    def FILES(self) -> Any:  # type: ignore[override]
        """Uploaded files."""
        if not hasattr(self, "_files"):
            self._load_post_and_files()
        return self._files  # type: ignore[attr-defined]

    @cached_property
    def COOKIES(self) -> dict[str, str]:  # type: ignore[override]
        """Cookies; bytes beyond ASCII are taken for UTF-8, as under WSGI."""
        raw = self.META.get("HTTP_COOKIE", "")
        if not raw.isascii():
            raw = raw.encode("latin-1", "replace").decode("utf-8", "replace")
        return parse_cookie(raw)

    def close(self) -> None:
        """Close uploaded files and the body."""
        super().close()
        self._stream.close()


class HttpResponseLater(HttpResponse):
    """Stands for "no response from this view": goes through the middleware and is not sent (``ResponseLater``)."""

    status_code = 113


class AsgiHandler(base.BaseHandler):
    """Calling it with a message yields the messages of the response."""

    request_class: ClassVar[type[AsgiRequest]] = AsgiRequest
    chunk_size = 512 * 1024  # bytes; what one message carries

    def __init__(self) -> None:
        super().__init__()
        self.load_middleware()

    def __call__(self, message: Message) -> Iterator[dict[str, Any]]:
        """The response messages for *message*, one after the other; closing the iterator closes the response."""
        forced = settings.FORCE_SCRIPT_NAME
        set_script_prefix((message.content.get("root_path") or "") if forced is None else forced)
        signals.request_started.send(sender=self.__class__, message=message)
        request: AsgiRequest | None = None
        response: Any
        try:
            request = self.request_class(message)
        except UnicodeDecodeError:
            logger.warning("Bad Request (UnicodeDecodeError)", exc_info=True, extra={"status_code": 400})
            response = HttpResponse(status=400)
        except BodyError as failure:
            response = _answer_to(failure)
        else:
            response = self.get_response(request)
        response._handler_class = self.__class__
        # Files leave in parts of the size that a message carries, not in Django's 4 KiB.
        if isinstance(response, FileResponse):
            response.block_size = self.chunk_size
        try:
            yield from self.encode_response(response)
        finally:
            response.close()

    def process_exception_by_middleware(self, exception: Exception, request: HttpRequest) -> Any:
        """As Django's, but ``ResponseLater`` and a body that breaks off are no errors of the application."""
        if isinstance(exception, ResponseLaterOuter):
            return HttpResponseLater()
        response = super().process_exception_by_middleware(exception, request)
        if response is None and isinstance(exception, BodyError):
            return _answer_to(exception)
        return response

    def _get_response(self, request: Any) -> Any:
        response = super()._get_response(request)  # type: ignore[misc]
        # The CSRF middleware takes a form that it cannot read for one without a token.
        if response.status_code == 403 and request.body_failure is not None:
            return _answer_to(request.body_failure)
        return response

    @classmethod
    def encode_response(cls, response: Any) -> Iterator[dict[str, Any]]:
        """The messages of *response*: the first has status and headers, the last ``more_content`` False."""
        if isinstance(response, HttpResponseLater):
            return
        headers = [(_to_bytes(name, "ascii"), _to_bytes(value, "latin-1")) for name, value in response.items()]
        headers += [(b"Set-Cookie", c.output(header="").strip().encode()) for c in response.cookies.values()]
        message: dict[str, Any] = {"status": response.status_code, "headers": headers}
        if not response.streaming:
            for chunk, last in cls.chunk_bytes(response.content):
                message["content"], message["more_content"] = chunk, not last
                yield message
                message = {}
            return
        parts = _iterate_async(response) if getattr(response, "is_async", False) else iter(response)
        for part in parts:
            for chunk, _ in cls.chunk_bytes(part):
                message["content"], message["more_content"] = chunk, True
                yield message
                message = {}
        message["more_content"] = False
        yield message

    @classmethod
    def chunk_bytes(cls, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """*data* in pieces of at most ``chunk_size`` bytes, each with whether it is the last; empty data is one."""
        if len(data) <= cls.chunk_size:
            yield data, True
            return
        for position in range(0, len(data), cls.chunk_size):
            yield data[position : position + cls.chunk_size], position + cls.chunk_size >= len(data)


def _answer_to(failure: BodyError) -> HttpResponse:
    """What the client of a request is told whose body could not be read to its end."""
    return HttpResponseLater() if failure.status is None else HttpResponse(failure.text, status=failure.status)


def _to_bytes(text: Any, encoding: str) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode(encoding)


def _iterate_async(response: Any) -> Iterator[bytes]:
    """The parts of an asynchronous stream, one at a time: the loop runs only while a part is being made."""
    parts: AsyncIterator[bytes] = aiter(response)

    async def next_part() -> bytes:
        return await anext(parts)

    with asyncio.Runner() as runner:
        context = contextvars.copy_context()
        try:
            while True:
                try:
                    part = runner.run(next_part(), context=context)
                except StopAsyncIteration:
                    return
                yield part
        finally:
            close = getattr(parts, "aclose", None)
            if close is not None:
                runner.run(close(), context=context)


_TOO_MANY_STREAMS = {
    "status": 503,
    "headers": [(b"Content-Type", b"text/plain; charset=utf-8"), (b"Retry-After", b"1")],
    "content": b"The server has too many streams open; try again in a moment.\n",
}


class ViewConsumer:
    """The consumer of ``http.request`` that runs Django's views."""

    handler_class: ClassVar[type[AsgiHandler]] = AsgiHandler
    stream_timeout: float = 60.0  # seconds that a client may take for one part of a long response
    retry_interval: float = 0.05  # seconds between tries on a full channel

    def __init__(self) -> None:
        self.handler = self.handler_class()

    def __call__(self, message: Message) -> None:
        """Answer *message*. A client that has left ends the response, without an error."""
        reply_channel = message.reply_channel
        if reply_channel is None:
            raise ValueError("an http.request message needs a reply_channel")
        responses = self.handler(message)
        try:
            first = next(responses, None)
            if first is None:
                return
            if first.get("more_content"):
                Parts(message, self.stream_timeout, self.retry_interval).send_all(first, responses)
            else:
                self._send_whole(reply_channel, first)
        except ReplyChannelGone as error:
            logger.debug("response on %s ends early: %s", reply_channel.name, error)
        except TooManyStreams:
            logger.warning("a response is refused with 503: this worker has --max-streams (%d) open", streams.limit)
            self._send_whole(reply_channel, dict(_TOO_MANY_STREAMS))
        finally:
            close = getattr(responses, "close", None)
            if close is not None:
                close()

    def _send_whole(self, reply_channel: Channel, response: dict[str, Any]) -> None:
        if pending_message_store.active:
            pending_message_store.append(reply_channel, response, is_owned=True)
        else:
            reply_channel.send(response)
