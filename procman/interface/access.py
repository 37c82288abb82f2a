"""One log line per finished request and per step of a WebSocket's life.

Pure: builds the text, for people or as JSON. Everything that a client chose is escaped, so no request can forge a line.
Records carry the facts too, as ``action`` (one of the words below) and ``details``, for handlers that write lines of
their own; there nothing is escaped.
"""

from collections.abc import Mapping
from typing import Any

from procman.log import escape, stamp, to_json

REQUEST = "REQUEST"
CONNECT, ACCEPT, REJECT, DISCONNECT = "CONNECT", "ACCEPT", "REJECT", "DISCONNECT"
TEXT, JSON = "text", "json"


def request_line(
    method: str, path: str, status: int, size_bytes: int, duration: float, client: str, request_id: str = ""
) -> str:
    """``GET /path 200 1234 B 12 ms 127.0.0.1 3fa21b7``. *status* 0: its client left before the response."""
    outcome = str(status) if status else "left"
    facts = f"{outcome} {size_bytes} B {duration * 1000:.0f} ms {client or '-'} {request_id or '-'}"
    return f"{escape(method)} {escape(path)} {facts}"


def socket_line(step: str, path: str, client: str, detail: str = "", request_id: str = "") -> str:
    """``WebSocket ACCEPT /path 127.0.0.1 3fa21b7``, with the status or the close code where there is one."""
    return f"WebSocket {step} {escape(path)}{' ' if detail else ''}{detail} {client or '-'} {request_id or '-'}"


def json_line(action: str, details: Mapping[str, Any], at: float) -> str:
    """The facts as one JSON object with ``time`` (of *at*, seconds since 1970; UTC) and ``action``; empty ones null.

    Only ASCII without control characters is in it.
    """
    facts = {name: None if value == "" else value for name, value in details.items()}
    return to_json({"time": stamp(at), "action": action, **facts})
