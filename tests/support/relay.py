"""A TCP relay that takes its time: the round trip of a real network, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator


class _End(asyncio.Protocol):
    """One end of a relayed connection; what comes here is written to the other end after the delay."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.other: _End | None = None
        self.early: list[bytes] = []
        self.transport: asyncio.Transport | None = None
        self.is_gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self.delay, self.pass_on, data)

    def pass_on(self, data: bytes) -> None:
        if self.other is None or self.other.transport is None:
            self.early.append(data)
        elif not self.other.transport.is_closing():
            self.other.transport.write(data)

    def eof_received(self) -> bool:
        asyncio.get_running_loop().call_later(self.delay, self.end)
        return True  # this direction is over, the other may go on

    def connection_lost(self, error: Exception | None) -> None:
        self.is_gone.set()
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().call_later(self.delay, self.end)

    def end(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.write_eof()


@contextlib.contextmanager
def relayed(port: int, delay: float) -> Iterator[int]:
    """A port on loopback whose connections reach *port* with *delay* seconds each way."""
    loop = asyncio.new_event_loop()
    made: list[_End] = []
    ready = threading.Event()
    found: list[int] = []

    async def join(client: _End) -> None:
        _, server = await loop.create_connection(lambda: _End(delay), "127.0.0.1", port)
        client.other, server.other = server, client
        made.extend((client, server))
        for data in client.early:
            client.pass_on(data)

    def accept() -> _End:
        client = _End(delay)
        tasks.add(loop.create_task(join(client)))
        return client

    tasks: set[asyncio.Task[None]] = set()

    async def serve() -> None:
        server = await loop.create_server(accept, "127.0.0.1", 0)
        found.append(server.sockets[0].getsockname()[1])
        ready.set()
        await stopping.wait()
        server.close()
        for end in made:
            if end.transport is not None:
                end.transport.abort()
                await end.is_gone.wait()

    stopping = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait(5)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(5)
        loop.close()
