"""One log line per finished request and per step of a WebSocket's life.

Pure: builds the text. Everything that a client chose is escaped, so no request can forge a line. Records carry the
facts too, as ``action`` (one of the words below) and ``details``, for handlers that write lines of their own; there
nothing is escaped.
"""

from procman.log import escape

REQUEST = "REQUEST"
CONNECT, ACCEPT, REJECT, DISCONNECT = "CONNECT", "ACCEPT", "REJECT", "DISCONNECT"


def request_line(method: str, path: str, status: int, size_bytes: int, duration: float, client: str) -> str:
    """``GET /path 200 1234 B 12 ms 127.0.0.1``. *status* 0 stands for a client that left before its response."""
    outcome = str(status) if status else "left"
    return f"{escape(method)} {escape(path)} {outcome} {size_bytes} B {duration * 1000:.0f} ms {client or '-'}"


def socket_line(step: str, path: str, client: str, detail: str = "") -> str:
    """``WebSocket ACCEPT /path 127.0.0.1``, with the status or the close code where there is one."""
    return f"WebSocket {step} {escape(path)}{' ' if detail else ''}{detail} {client or '-'}"
