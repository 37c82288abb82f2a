"""Clients in bulk: sockets that idle, are sent to, or come back after a restart, and requests at a steady pace.

Raw frames on uvloop, and addresses from 127.0.0.1 on, as one address has ports for 28,000 connections only.
"""

from __future__ import annotations

import asyncio
import socket as socketlib
import time
from typing import Any

HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: http://127.0.0.1\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    b"Accept: */*\r\nAccept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br\r\n"
    b"Cookie: sessionid=abcdefghijklmnopqrstuvwxyz012345; csrftoken=abcdefghijklmnopqrstuvwxyz012345\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TRIGGER = b"\x81\x84\x00\x00\x00\x00send"
IP_BIND_ADDRESS_NO_PORT = 24  # Linux; the socket module has no name for it
AT_ONCE = 200  # handshakes in progress
PER_ADDRESS = 10_000


class Socket(asyncio.Protocol):
    """One WebSocket; counts the bytes that come after the handshake."""

    def __init__(self, path: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[int] = loop.create_future()  # the status
        self.closed: asyncio.Future[None] = loop.create_future()
        self.path = path
        self.head = b""
        self.received = 0
        self.wanted = 0
        self.has_all: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(HANDSHAKE % self.path)

    def data_received(self, data: bytes) -> None:
        if self.opened.done():
            self.received += len(data)
            if self.has_all is not None and self.received >= self.wanted and not self.has_all.done():
                self.has_all.set_result(None)
            return
        self.head += data
        head, separator, rest = self.head.partition(b"\r\n\r\n")
        if separator:
            self.received = len(rest)
            self.opened.set_result(int(head.split()[1]))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_result(0)
        if not self.closed.done():
            self.closed.set_result(None)

    def expect(self, size: int) -> asyncio.Future[None]:
        """Done once *size* more bytes have come."""
        self.wanted = self.received + size
        self.has_all = asyncio.get_running_loop().create_future()
        return self.has_all


async def open_socket(port: int, path: bytes, number: int) -> tuple[int, Socket | None]:
    """The status of a handshake (0: no connection, or it was cut) and the socket, if it is open."""
    loop = asyncio.get_running_loop()
    connection = socketlib.socket()
    connection.setblocking(False)
    # The port is chosen at the connect, so that ports of connections that have ended elsewhere can be used again.
    connection.setsockopt(socketlib.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    connection.bind((f"127.0.0.{1 + number // PER_ADDRESS}", 0))
    try:
        await loop.sock_connect(connection, ("127.0.0.1", port))
        _, socket = await loop.create_connection(lambda: Socket(path), sock=connection)
    except OSError:
        connection.close()
        return 0, None
    status = await socket.opened
    if status != 101:
        socket.transport.close()
    return status, socket if status == 101 else None


async def open_sockets(port: int, path: bytes, first: int, count: int) -> list[Socket]:
    """*count* open sockets. Raises SystemExit: one was refused."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> Socket:
        async with gate:
            status, socket = await open_socket(port, path, number)
        if socket is None:
            raise SystemExit(f"socket {number} was refused with {status}")
        return socket

    return list(await asyncio.gather(*(one(number) for number in range(first, first + count))))


async def close_sockets(sockets: list[Socket]) -> None:
    """Cut *sockets*, as a network does."""
    for socket in sockets:
        socket.transport.abort()
    await asyncio.gather(*(socket.closed for socket in sockets))


async def broadcast_rounds(sockets: list[Socket], frame_size: int, rounds: int) -> list[float]:
    """Seconds from a trigger until every socket has its message, for each round."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        waiting = [socket.expect(frame_size) for socket in sockets]
        sockets[0].transport.write(TRIGGER)
        await asyncio.wait_for(asyncio.gather(*waiting), 60)
        times.append(time.perf_counter() - started)
    return times


class Requests(asyncio.Protocol):
    """One connection for requests, one after the other."""

    def __init__(self) -> None:
        self.done: asyncio.Future[int] | None = None
        self.data = b""

    def ask(self) -> asyncio.Future[int]:
        """The status of one request, 0 if the connection ends without one."""
        self.data, self.done = b"", asyncio.get_running_loop().create_future()
        self.transport.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        return self.done

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, separator, content = self.data.partition(b"\r\n\r\n")
        if separator and content and self.done is not None and not self.done.done():
            if b"connection: close" in head.lower():
                self.transport.close()
            self.done.set_result(int(head.split()[1]))

    def connection_lost(self, error: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_result(0)


async def steady_requests(port: int, rate: float, seconds: float, connections: int = 64) -> list[float]:
    """Latencies in seconds of requests that are due at *rate* per second, each from the moment when it was due."""
    latencies: list[float] = []
    idle: list[Requests] = []
    waiting: list[asyncio.Task[None]] = []
    free = asyncio.Semaphore(connections)

    async def one(due: float) -> None:
        async with free:
            status = 0
            while not status and idle:
                # A server may end an idle connection in the moment of the next request: every client asks again then.
                client = idle.pop()
                status = await asyncio.wait_for(client.ask(), 30)
            if not status:
                _, client = await asyncio.get_running_loop().create_connection(Requests, "127.0.0.1", port)
                status = await asyncio.wait_for(client.ask(), 30)
            if status != 200:
                raise SystemExit(f"a request was answered {status}")
            latencies.append(time.perf_counter() - due)
            if not client.transport.is_closing():
                idle.append(client)

    started = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = started + number / rate
        if (ahead := due - time.perf_counter()) > 0.0005:
            await asyncio.sleep(ahead)
        waiting.append(asyncio.ensure_future(one(due)))
    await asyncio.gather(*waiting)
    for client in idle:
        client.transport.abort()
    await asyncio.sleep(0)
    return latencies


async def storm(port: int, path: bytes, sockets: list[Socket], limit: float) -> tuple[float, int, int]:
    """Every one of *sockets* has been cut: each comes back as browsers do, at once and then after a second.

    Seconds until the last is open again (infinite if not within *limit*), refusals on the way, and how many are open.
    """
    started = time.perf_counter()
    refusals = 0
    gate = asyncio.Semaphore(2000)  # of the client's own: what one machine can have in its backlog

    async def back(number: int) -> Socket | None:
        nonlocal refusals
        while time.perf_counter() - started < limit:
            async with gate:
                status, socket = await open_socket(port, path, number)
            if socket is not None:
                return socket
            refusals += status >= 500
            await asyncio.sleep(1.0)
        return None

    found = await asyncio.gather(*(back(number) for number in range(len(sockets))))
    opened = [socket for socket in found if socket is not None]
    taken = time.perf_counter() - started if len(opened) == len(sockets) else float("inf")
    sockets[:] = opened
    return taken, refusals, len(opened)
