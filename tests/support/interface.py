"""A real interface server in a thread, on a free port, over a ``FakeLayer``."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvloop
from websockets.sync.client import ClientConnection, connect

from procman.interface.server import InterfaceServer
from procman.settings import InterfaceSettings, ProjectConfiguration
from tests.support.layer import FakeLayer

TIMEOUT = 5.0


class Running:
    """What a test needs of a running server."""

    def __init__(self, layer: FakeLayer, server: InterfaceServer, port: int, thread: threading.Thread) -> None:
        self.layer, self.server, self.port, self.thread = layer, server, port, thread
        self.scheme = "ws"

    def connect(self, path: str = "/", **options: Any) -> ClientConnection:
        """Open a WebSocket; blocks until the handshake is answered."""
        options.setdefault("proxy", None)
        client = connect(
            f"{self.scheme}://127.0.0.1:{self.port}{path}", open_timeout=TIMEOUT, close_timeout=1, **options
        )
        client.pending_legacy_warning = False  # websockets 17.1 wants a context manager; tests close explicitly
        return client

    def accepted(self, path: str = "/", **options: Any) -> tuple[ClientConnection, str]:
        """An open WebSocket and its reply channel."""
        found: list[ClientConnection] = []
        thread = threading.Thread(target=lambda: found.append(self.connect(path, **options)))
        thread.start()
        offer, message = self.layer.take("websocket.connect")
        self.layer.finish(offer, {"accept": True})
        thread.join(TIMEOUT)
        return found[0], message["reply_channel"]

    def raw(self, data: bytes = b"") -> socket.socket:
        """A TCP connection on which *data* was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), TIMEOUT)
        connection.sendall(data)
        return connection

    def stop(self, hurry: bool = False) -> None:
        """Begin the end of the server."""
        self.layer.loop.call_soon_threadsafe(self.server.stop, hurry)


def read_response(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (lower case) and content of one HTTP response; content up to its length or the end."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            break
        data += part
    head, _, content = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    length = headers.get("content-length")
    while length is None or len(content) < int(length):
        part = connection.recv(65536)
        if not part:
            break
        content += part
        if length is None and content.endswith(b"0\r\n\r\n"):
            break
    return int(lines[0].split()[1]), headers, content


@contextlib.contextmanager
def running_interface(
    settings: InterfaceSettings | None = None,
    project: ProjectConfiguration | None = None,
    layer: FakeLayer | None = None,
) -> Iterator[Running]:
    """A server that accepts connections, stopped at the end."""
    layer = layer or FakeLayer()
    project = project or ProjectConfiguration("tests.settings", "fake://", allowed_hosts=["example.com"])
    server = InterfaceServer(settings or InterfaceSettings(drain_timeout=1.0), project, layer)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    ready = threading.Event()
    errors: list[BaseException] = []

    def serve() -> None:
        loop = uvloop.new_event_loop()
        try:
            loop.run_until_complete(server.run([listening], ready.set))
        except BaseException as error:
            errors.append(error)
            ready.set()
            raise
        finally:
            loop.close()
            listening.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(TIMEOUT) and not errors, errors
    running = Running(layer, server, port, thread)
    try:
        yield running
    finally:
        if thread.is_alive():
            running.stop()
        thread.join(TIMEOUT)
        assert not thread.is_alive(), "the interface did not stop"
