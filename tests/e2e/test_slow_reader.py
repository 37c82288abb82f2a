"""A WebSocket client that does not read, at a real site, while its group is sent large messages."""

import asyncio
import itertools
import json
import socket
import threading
import time
from pathlib import Path

import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.sync.client import connect

from procman.layers.ipc.finishes import GRACE
from tests.support.clients import Browser
from tests.support.processes import Site, free_port, memory_kib, running_site
from tests.support.waiting import wait_until

SENDS = 300
FAST = 10
TEXT = "say " + "x" * 60_000
HANDSHAKE = (
    "GET /stuck/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def open_stuck(site: Site) -> socket.socket:
    """A socket that shook hands and reads nothing more."""
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.settimeout(10)
    stuck.connect(("127.0.0.1", site.port))
    stuck.sendall(HANDSHAKE.format(port=site.port).encode())
    assert stuck.recv(12) == b"HTTP/1.1 101"
    return stuck


async def listen(site: Site, count: int, ready: threading.Event, got: list[list[float]]) -> None:
    """*count* clients that read at once; when each of them got each message."""

    async def read() -> None:
        async with connect_async(f"{site.ws_url}/listener/", compression=None, proxy=None) as listener:
            await listener.send("ready")
            assert json.loads(await listener.recv())["echo"] == "ready"  # it is in the group by now
            times: list[float] = []
            got.append(times)
            if len(got) == count:
                ready.set()
            for _ in range(SENDS):
                assert len(await listener.recv()) == len(TEXT)
                times.append(time.monotonic())

    async with asyncio.timeout(60):
        await asyncio.gather(*(read() for _ in range(count)))


def rest_of(stuck: socket.socket) -> bytes:
    """What the client had not read, up to the end."""
    data = bytearray()
    while part := stuck.recv(1024 * 1024):
        data = data[-1000:] + part
    return bytes(data)


@pytest.mark.slow
def test_a_client_that_does_not_read_is_closed_and_costs_the_others_nothing(project: Path) -> None:
    (project / "marks.jsonl").write_text("")
    port = free_port()
    with running_site(project, "--workers", "1", "--metrics-bind", f"127.0.0.1:{port}") as site:
        # In its first second the layer keeps group sends for interfaces that may still come.
        started = time.monotonic()
        wait_until(lambda: time.monotonic() - started > GRACE, 5)
        pids = {name: site.pid_of(name) for name in ("interface.1", "layer")}
        got: list[list[float]] = []
        ready = threading.Event()
        readers = threading.Thread(target=lambda: asyncio.run(listen(site, FAST, ready, got)))
        with open_stuck(site) as stuck:
            readers.start()
            assert ready.wait(20)
            before = {name: memory_kib(pid)["VmRSS"] for name, pid in pids.items()}
            with connect(f"{site.ws_url}/talker/", compression=None) as talker:
                for number in range(SENDS):
                    talker.send(TEXT)
                    assert len(talker.recv(10)) == len(TEXT), number
            readers.join(30)
            site.wait_for_line(r"WARNING.*/stuck/ closed with 1013: its client has not read \d+ bytes")
            # It may read why, at the end of what waited for it.
            assert rest_of(stuck).endswith(b"\x88\x02\x03\xf5")
        assert [len(times) for times in got] == [SENDS] * FAST
        assert max(later - earlier for times in got for earlier, later in itertools.pairwise(times)) < 0.1

        def left() -> list[dict[str, object]]:
            marks = (json.loads(line) for line in (project / "marks.jsonl").read_text().splitlines())
            return [mark for mark in marks if mark["event"] == "disconnect" and mark["path"] == "/stuck/"]

        assert [mark["code"] for mark in wait_until(left, 20)] == [1013]
        assert "procman_slow_readers_closed_total 1" in Browser(f"http://127.0.0.1:{port}").get("/metrics").text
        for name, pid in pids.items():
            # 198 MB were sent to all; the stuck one may hold write_limit (1 MiB) of that.
            assert memory_kib(pid)["VmHWM"] - before[name] < 12 * 1024, name
