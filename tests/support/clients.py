"""Clients as browsers and programs are: HTTP over http.client, many WebSockets on one event loop."""

import asyncio
import http.client
import http.cookies
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.waiting import wait_until


@dataclass
class Response:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Browser:
    """HTTP with cookies, one connection per request."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self.host, self.port = host, int(port)
        self.cookies: dict[str, str] = {}

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout: float = 30
    ) -> Response:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            connection.request(method, path, body, {**({"Cookie": cookie} if cookie else {}), **(headers or {})})
            answer = connection.getresponse()
            response = Response(answer.status, answer.headers, answer.read())
        finally:
            connection.close()
        for line in response.headers.get_all("Set-Cookie") or ():
            for name, morsel in http.cookies.SimpleCookie(line).items():
                self.cookies[name] = morsel.value
        return response

    def get(self, path: str, **options: Any) -> Response:
        return self.request("GET", path, **options)

    def post_form(self, path: str, fields: Mapping[str, str], files: Mapping[str, bytes] | None = None) -> Response:
        """A multipart form, as a browser sends it."""
        boundary = "----end-to-end-boundary"
        parts = b"".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
        )
        for name, data in (files or {}).items():
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.bin"\r\n\r\n'
            parts += head.encode() + data + b"\r\n"
        parts += f"--{boundary}--\r\n".encode()
        return self.request("POST", path, parts, {"Content-Type": f"multipart/form-data; boundary={boundary}"})


@dataclass
class Talker:
    """One WebSocket that sends numbered frames, one after the other's echo, until told to stop."""

    number: int
    socket: ClientConnection
    sent: int = 0
    echoes: list[dict[str, Any]] = field(default_factory=list)
    closed: str = ""


class Talkers:
    """Many WebSockets that talk at once, on an event loop in a thread of its own."""

    def __init__(self, url: str, count: int) -> None:
        self.url, self.count = url, count
        self.talkers: list[Talker] = []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Connect all; then they talk on their own."""
        self.thread.start()
        self.call(self._connect(), 60)

    def call(self, coroutine: Any, timeout: float = 30) -> Any:
        """Run *coroutine* on the loop and wait for its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    async def _connect(self) -> None:
        self.running = True
        for number in range(self.count):
            socket = await connect(f"{self.url}/talk/{number}/", open_timeout=30, compression=None)
            self.talkers.append(Talker(number, socket))
        self.tasks = [asyncio.create_task(self._talk(talker)) for talker in self.talkers]

    async def _talk(self, talker: Talker) -> None:
        try:
            while self.running:
                # Two frames at once, so that order within a socket is put to the test.
                await talker.socket.send(f"{talker.number}:{talker.sent}")
                await talker.socket.send(f"{talker.number}:{talker.sent + 1}")
                talker.sent += 2
                while len(talker.echoes) < talker.sent:
                    talker.echoes.append(json.loads(await talker.socket.recv()))
        except ConnectionClosed as error:
            talker.closed = str(error)

    def echoes(self) -> int:
        """Echoes that all of them have got."""
        return sum(len(talker.echoes) for talker in self.talkers)

    def talk_on(self, echoes: int = 200, timeout: float = 30) -> None:
        """Wait until all sockets together got that many echoes more, and each of them at least one."""
        before = self.echoes()
        counts = [len(talker.echoes) for talker in self.talkers]

        def talked() -> bool:
            each = zip(self.talkers, counts, strict=True)
            return self.echoes() >= before + echoes and all(len(talker.echoes) > count for talker, count in each)

        wait_until(talked, timeout, what="the sockets go on talking")

    def assert_answered(self) -> None:
        """Every frame of every socket was answered once, in order, and no socket closed; call it after ``finish``."""
        for talker in self.talkers:
            assert not talker.closed, f"socket {talker.number}: {talker.closed}"
            assert [e["echo"] for e in talker.echoes] == [f"{talker.number}:{n}" for n in range(talker.sent)]
            # The session moves with the frames: a count that jumps or repeats is a frame run twice or lost state.
            assert [e["count"] for e in talker.echoes] == list(range(1, talker.sent + 1))

    def finish(self, timeout: float = 30) -> None:
        """Stop talking once every frame sent has been answered."""
        self.running = False
        self.call(asyncio.wait_for(asyncio.gather(*self.tasks), timeout), timeout + 5)

    def close(self) -> None:
        """Close the sockets and the loop."""

        async def close() -> None:
            self.running = False
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            await asyncio.gather(*(talker.socket.close() for talker in self.talkers), return_exceptions=True)

        try:
            self.call(close())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join(10)
            self.loop.close()


@contextmanager
def talking(url: str, count: int) -> Iterator[Talkers]:
    """*count* WebSockets that talk for the length of the block."""
    talkers = Talkers(url, count)
    try:
        talkers.start()
        yield talkers
    finally:
        talkers.close()
