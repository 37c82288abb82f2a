"""What a WebSocket handshake must be beyond its protocol, and the answer to one that is not.

Pure. The protocol itself (key, version, upgrade headers) is checked by the ``websockets`` library; here stand the rules
that protect the application: no bytes that end a header line for somebody, and no foreign pages. The sub-protocol and
the extension are chosen here too.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from procman.interface.errors import Refusal
from procman.interface.messages import Header, has_forbidden_bytes
from procman.interface.origin import is_allowed
from procman.log import escape

# The library logs what clients get wrong; what matters of it is logged by the caller.
_quiet = logging.getLogger("procman.interface.handshake")
_quiet.addHandler(logging.NullHandler())
_quiet.propagate = False
_quiet.setLevel(logging.CRITICAL + 1)
_VERSION = "13"  # RFC 6455
# Neither side may refer to earlier messages: that takes memory per socket, and one frame could not go to many clients.
_DEFLATE = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)


class Answer(NamedTuple):
    """The response to a handshake; *window_bits* is the largest window of compressed messages, 0 for no compression."""

    status: int
    data: bytes
    window_bits: int = 0


def answer(path: str, headers: Sequence[Header], protocols: Sequence[str], compression: bool) -> Answer:
    """What a handshake whose protocol is right is answered (status 101), and what another one is."""

    def choose(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        chosen = choose_protocol(offered, protocols)
        return Subprotocol(chosen) if chosen else None

    extensions = [_DEFLATE] if compression else []
    protocol = ServerProtocol(extensions=extensions, select_subprotocol=choose, logger=_quiet)
    fields = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
    response = protocol.accept(Request(path, fields))
    if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
        response.headers["Sec-WebSocket-Version"] = _VERSION  # RFC 6455, 4.4: what a client may try instead
    bits = [each.local_max_window_bits for each in protocol.extensions if isinstance(each, PerMessageDeflate)]
    protocol.send_response(response)
    return Answer(response.status_code, b"".join(protocol.data_to_send()), bits[0] if bits else 0)


def check(headers: Sequence[Header], allowed_hosts: Sequence[str], debug: bool) -> None:
    """Whether the handshake with *headers* (names in lower case) may go on.

    Raises:
        Refusal: it may not; for an Origin its ``reason`` says what to change if the page is one's own.
    """
    if any(has_forbidden_bytes(value) for _, value in headers):
        raise Refusal(400, "The handshake holds bytes that no header may hold.")
    origins = [value for name, value in headers if name == b"origin"]
    if not is_allowed(origins, allowed_hosts, debug):
        given = escape(", ".join(value.decode("latin-1") for value in origins))
        reason = f"its Origin {given} is not in ALLOWED_HOSTS; add the host there if it is yours"
        raise Refusal(403, "WebSockets from this origin are not allowed.", reason=reason)


def choose_protocol(offered: Sequence[str], allowed: Sequence[str]) -> str | None:
    """The first sub-protocol *offered* by the client that is *allowed*; None goes on without one, as in 1.x."""
    return next((name for name in offered if name in allowed), None)


def build_refusal(status: int, text: str) -> bytes:
    """A complete HTTP response that ends the connection; *text* is one sentence."""
    body = text.encode() + b"\n"
    retry = "Retry-After: 1\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n{retry}Connection: close\r\n\r\n"
    )
    return head.encode() + body
