"""Load: HTTP by wrk, WebSocket echo by a lean client of our own (raw frames on uvloop)."""

import asyncio
import base64
import os
import re
import struct
import subprocess
import time

import uvloop

UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}
WARM_UP = 1.0  # seconds


def http_load(port: int, seconds: float) -> dict[str, float]:
    """Requests per second of ``GET /`` over 32 connections, with wrk; anything but 200 is an error."""
    command = ["wrk", "-t1", "-c32", "--latency", f"http://127.0.0.1:{port}/"]
    subprocess.run([*command, f"-d{WARM_UP:.0f}s"], check=True, capture_output=True)
    output = subprocess.run([*command, f"-d{seconds:.0f}s"], check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        # gunicorn's sync worker closes each connection; wrk counts no error for that, so these are real.
        raise SystemExit(f"wrk saw errors:\n{output}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if rate is None:
        raise SystemExit(f"wrk printed no rate:\n{output}")
    latency = {f"p{p}_ms": _milliseconds(output, p) for p in (50, 99)}
    return {"rate": float(rate[1]), **latency}


def _milliseconds(output: str, percentile: int) -> float:
    found = re.search(rf"{percentile}%\s+([\d.]+)(us|ms|s|m)", output)
    return float(found[1]) * UNITS[found[2]] if found else float("nan")


class EchoClient(asyncio.Protocol):
    """Sends one frame, waits for its echo, sends the next; notes the round trips of the counted time."""

    def __init__(self, port: int, connected: asyncio.Future[None]) -> None:
        self.connected = connected
        key = base64.b64encode(os.urandom(16)).decode()
        self.request = (
            f"GET /echo/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        ).encode()
        payload = b"x" * 100
        # A mask of zeros is a valid mask, and leaves the payload as it is.
        self.frame = struct.pack("!BB4x", 0x81, 0x80 | len(payload)) + payload
        self.expected = struct.pack("!BB", 0x81, len(payload)) + payload
        self.buffer = b""
        self.upgraded = self.counting = False
        self.round_trips: list[float] = []
        self.error = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.upgraded:
            head, separator, rest = self.buffer.partition(b"\r\n\r\n")
            if not separator:
                return
            if b" 101 " not in head.split(b"\r\n")[0]:
                self.connected.set_exception(SystemExit(f"handshake refused: {head!r}"))
                return
            self.upgraded, self.buffer = True, rest
            self.connected.set_result(None)
            return
        if len(self.buffer) < len(self.expected):
            return
        if self.buffer != self.expected:
            self.error = f"not an echo: {self.buffer!r}"
            self.transport.abort()
            return
        self.buffer = b""
        now = time.perf_counter()
        if self.counting:
            self.round_trips.append(now - self.sent)
        self.send()

    def send(self) -> None:
        """Send the next frame."""
        self.sent = time.perf_counter()
        self.transport.write(self.frame)

    def connection_lost(self, error: Exception | None) -> None:
        self.error = self.error or "the server closed the socket"


def echo_load(port: int, seconds: float, sockets: int = 64) -> dict[str, float]:
    """Echoes per second over *sockets* sockets, one frame of 100 bytes in flight on each."""

    async def run() -> list[EchoClient]:
        loop = asyncio.get_running_loop()
        clients = []
        for _ in range(sockets):
            connected = loop.create_future()
            _, client = await loop.create_connection(lambda c=connected: EchoClient(port, c), "127.0.0.1", port)  # type: ignore[misc]
            await asyncio.wait_for(connected, 30)
            clients.append(client)
        for client in clients:
            client.send()
        await asyncio.sleep(WARM_UP)
        for client in clients:
            client.counting = True
        await asyncio.sleep(seconds)
        for client in clients:
            client.counting = False
        errors = {client.error for client in clients if client.error}
        if errors:
            raise SystemExit(f"echo failed: {errors}")
        for client in clients:
            client.transport.abort()
        return clients

    clients = uvloop.run(run())
    times = sorted(time for client in clients for time in client.round_trips)
    if min(len(client.round_trips) for client in clients) == 0:
        raise SystemExit("a socket got no echo at all")
    return {
        "rate": len(times) / seconds,
        "p50_ms": times[len(times) // 2] * 1000,
        "p99_ms": times[len(times) * 99 // 100] * 1000,
    }
