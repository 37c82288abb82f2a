"""Between what the servers parse and the messages of the channel layer, field by field, and back.

Pure. The formats are those of the Channels 1.x specification (``http.request``, ``websocket.connect`` ...). Refuses
replies that break them: ``InvalidReply`` says what is wrong, the drivers log it.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from procman.interface.errors import InvalidReply

if TYPE_CHECKING:
    from procman.interface.request import Request

Header = tuple[bytes, bytes]
Address = tuple[str, int | None] | None

SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
# Headers of one hop: they describe a connection that the application does not have.
HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)
REPLY_KEYS = frozenset(("accept", "text", "bytes", "close", "reason"))
# Beside 3000 to 4999: what may stand in a close frame (RFC 6455, 7.4, and the registry it began).
SENDABLE_CLOSE_CODES = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))
MAX_REASON = 123  # bytes of a close frame's text: a control frame's 125 without the code
_TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
# What would end a header line early, or be read as its end by a lenient client.
_FORBIDDEN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_FORBIDDEN_TEXT = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


# -- requests --------------------------------------------------------------------------------------------------------


def decode_path(target: bytes) -> str:
    """The path of a request target without escapes; what is no UTF-8 keeps them, as in Django under WSGI."""
    return unquote_to_bytes(target).decode("utf-8", "procman.escape")


def _escape_broken(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "".join(f"%{byte:02X}" for byte in error.object[error.start : error.end]), error.end


codecs.register_error("procman.escape", _escape_broken)


def full_path(path: str, root_path: str) -> str:
    """*path* below *root_path*, whether or not the proxy in front has stripped it."""
    if not root_path or path == root_path or path.startswith(root_path + "/"):
        return path
    return root_path + path


def message_headers(headers: Iterable[Header]) -> list[list[bytes]]:
    """Header pairs as a message carries them: order and duplicates kept, names with ``_`` and outer spaces left out.

    Applications see ``-`` and ``_`` as the same character (``HTTP_X_AUTH_USER``), so a client could pass off
    ``x_auth_user`` as the ``x-auth-user`` that a proxy sets (CVE-2015-0219).
    """
    return [[name, value.strip(b" \t")] for name, value in headers if b"_" not in name]


def build_request(
    request: Request,
    reply_channel: str,
    path: str,
    body: bytes,
    body_channel: str | None = None,
    root_path: str = "",
    scheme: str = "http",
    client: Address = None,
    server: Address = None,
    request_id: str = "",
) -> dict[str, Any]:
    """The ``http.request`` message of *request*; *path* is without escapes, *request_id* the one that a proxy gave."""
    message: dict[str, Any] = {
        "reply_channel": reply_channel,
        "http_version": request.http_version,
        "method": request.method,
        "scheme": scheme,
        "path": path,
        "query_string": request.query_string,
        "root_path": root_path,
        "headers": message_headers(request.headers),
        "body": body,
    }
    if body_channel is not None:
        message["body_channel"] = body_channel
    if request_id:
        message["request_id"] = request_id
    _add_addresses(message, client, server)
    return message


def build_connect(
    reply_channel: str,
    path: str,
    query_string: bytes,
    headers: Iterable[Header],
    root_path: str = "",
    scheme: str = "ws",
    client: Address = None,
    server: Address = None,
    request_id: str = "",
) -> dict[str, Any]:
    """The ``websocket.connect`` message of a handshake."""
    message: dict[str, Any] = {
        "reply_channel": reply_channel,
        "scheme": scheme,
        "path": path,
        "query_string": query_string,
        "root_path": root_path,
        "headers": message_headers(headers),
        "order": 0,
    }
    if request_id:
        message["request_id"] = request_id
    _add_addresses(message, client, server)
    return message


def build_receive(reply_channel: str, path: str, data: str | bytes, order: int) -> dict[str, Any]:
    """The ``websocket.receive`` message of one text or binary message; the other key is absent, as in 1.x."""
    kind = "text" if isinstance(data, str) else "bytes"
    return {"reply_channel": reply_channel, "path": path, kind: data, "order": order}


def build_disconnect(reply_channel: str, path: str, code: int, order: int, reason: str = "") -> dict[str, Any]:
    """The ``websocket.disconnect`` message; *reply_channel* only identifies the socket by now.

    ``reason`` is what the client gave for it, and only there if it gave one.
    """
    message = {"reply_channel": reply_channel, "code": code, "path": path, "order": order}
    return message | {"reason": reason} if reason else message


def _add_addresses(message: dict[str, Any], client: Address, server: Address) -> None:
    # A Unix socket has no port: such an address is left out, as the format has no word for it.
    if client and client[1] is not None:
        message["client"] = list(client)
    if server and server[1] is not None:
        message["server"] = list(server)


def has_forbidden_bytes(value: bytes) -> bool:
    """Whether a header value holds what some reader takes for the end of a line.

    Besides the controls these are U+0085 and its relatives: as a lone byte 0x85, or in UTF-8. A UTF-8 value whose
    bytes merely happen to include 0x85, such as one with an "A with ring", is fine.
    """
    if value.isascii():
        return _FORBIDDEN_VALUE.search(value) is not None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return _FORBIDDEN_TEXT.search(text) is not None


# -- HTTP replies ----------------------------------------------------------------------------------------------------


class ResponseStart(NamedTuple):
    """First message of a response: what goes out before the content."""

    status: int
    headers: list[Header]
    content: bytes
    more_content: bool


def parse_response(message: Mapping[str, Any]) -> ResponseStart:
    """The response that *message* begins. Headers of one hop are left out; unknown keys are ignored, as in 1.x.

    Raises:
        InvalidReply: no final status, or headers or content that cannot be sent.
    """
    status = message.get("status")
    if not isinstance(status, int) or isinstance(status, bool) or not 200 <= status <= 599:
        raise InvalidReply(f"'status' is {status!r}; the first message of a response needs one from 200 to 599")
    headers: list[Header] = []
    has_length = False
    try:
        for name, value in message.get("headers") or ():
            lower = _lower_name(name)
            if not lower or _FORBIDDEN_VALUE.search(value):
                raise InvalidReply(f"header {name!r} holds bytes that no header may hold")
            if lower not in HOP_BY_HOP:
                headers.append((name, value))
                has_length = has_length or lower == b"content-length"
    except (TypeError, ValueError) as error:
        raise InvalidReply(f"'headers' is not a list of [bytes, bytes]: {error}") from None
    content, more_content = parse_chunk(message)
    if not more_content and not has_length and status not in (204, 304):
        headers.append((b"Content-Length", b"%d" % len(content)))
    return ResponseStart(status, headers, content, more_content)


@lru_cache(1024)
def _lower_name(name: bytes) -> bytes:
    """*name* in lower case, empty if it is no header name; applications use few names, over and over."""
    return name.lower() if _TOKEN.fullmatch(name) else b""


def parse_chunk(message: Mapping[str, Any]) -> tuple[bytes, bool]:
    """``content`` and ``more_content`` of a response message.

    Raises:
        InvalidReply: ``content`` is not bytes.
    """
    content = message.get("content", b"")
    if content is None:
        content = b""
    if not isinstance(content, bytes):
        raise InvalidReply(f"'content' is {type(content).__name__}; it must be bytes")
    return content, bool(message.get("more_content", False))


# -- WebSocket replies -----------------------------------------------------------------------------------------------


class SocketReply(NamedTuple):
    """A reply to a WebSocket, ready to be written: *frame* is complete, *close* a code or 0, *reason* its text."""

    accept: bool | None = None
    frame: bytes | None = None
    has_content: bool = False
    close: int = 0
    reason: str = ""


def parse_socket_reply(message: Mapping[str, Any]) -> SocketReply:
    """The reply in *message*; text and bytes together count as one if either is empty.

    Raises:
        InvalidReply: an unknown key, text together with bytes, a wrong type or a close code that cannot be sent.
    """
    unknown = message.keys() - REPLY_KEYS
    if unknown:
        raise InvalidReply(f"unknown keys {', '.join(sorted(map(repr, unknown)))}; a WebSocket takes {_KEYS}")
    text, data, accept, close = message.get("text"), message.get("bytes"), message.get("accept"), message.get("close")
    if text and data:
        raise InvalidReply("it holds text and bytes; send two messages")
    if text is not None and not isinstance(text, str):
        raise InvalidReply(f"'text' is {type(text).__name__}; it must be str")
    if data is not None and not isinstance(data, bytes):
        raise InvalidReply(f"'bytes' is {type(data).__name__}; it must be bytes")
    if accept is not None and not isinstance(accept, bool):
        raise InvalidReply(f"'accept' is {accept!r}; it must be True or False")
    frame = None
    if text or (text is not None and data is None):
        try:
            frame = build_frame(text.encode(), is_text=True)
        except UnicodeEncodeError as error:
            raise InvalidReply(f"'text' cannot be sent as UTF-8: {error.reason}") from None
    elif data is not None:
        frame = build_frame(data, is_text=False)
    code = _close_code(close)
    return SocketReply(accept, frame, bool(text or data), code, _close_reason(message.get("reason"), code))


_KEYS = "accept, text, bytes, close and reason"


def _close_code(close: Any) -> int:
    if close is None or (isinstance(close, int) and not close):  # False, or 0 as some applications write it
        return 0
    if close is True:
        return 1000
    if isinstance(close, int) and (3000 <= close <= 4999 or close in SENDABLE_CLOSE_CODES):
        return close
    raise InvalidReply(f"'close' is {close!r}; it must be True, 1000, or a code from 3000 to 4999")


def _close_reason(reason: Any, code: int) -> str:
    if reason is None:
        return ""
    try:
        if code and isinstance(reason, str) and len(reason.encode()) <= MAX_REASON:
            return reason
    except UnicodeEncodeError:
        pass
    raise InvalidReply(f"'reason' is {reason!r}; it goes with 'close' and is a str of at most {MAX_REASON} bytes")


def build_frame(payload: bytes, is_text: bool) -> bytes:
    """A complete server frame (FIN set, not masked, no extension): the same bytes serve every receiver.

    Source: RFC 6455, section 5.2.
    """
    first = 0x81 if is_text else 0x82
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", first, 126, size) + payload
    return struct.pack("!BBQ", first, 127, size) + payload
