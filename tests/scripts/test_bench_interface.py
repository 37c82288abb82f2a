"""The clients of the interface's benchmark see what a server does, and the barest peer does it."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.interface import running_interface
from tests.support.waiting import wait_until

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmarks.interface import clients  # noqa: E402


@pytest.fixture
def peer() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    command = [sys.executable, str(SCRIPTS / "benchmarks" / "interface" / "peers.py"), "websockets", str(port)]
    process = subprocess.Popen(command, env=os.environ)

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens, 20)
        yield port
    finally:
        process.kill()
        process.wait()


def test_a_broadcast_is_over_when_every_socket_has_it(peer: int) -> None:
    async def run() -> tuple[list[float], list[int]]:
        sockets = await clients.open_sockets(peer, b"/", 0, 20)
        times = await clients.broadcast_rounds(sockets, 204, 3)
        await clients.close_sockets(sockets)
        return times, [each.received for each in sockets]

    times, received = asyncio.run(run())
    assert len(times) == 3 and all(time > 0 for time in times)
    assert received == [3 * 204] * 20


def test_sockets_that_were_cut_come_back_and_refusals_are_counted(peer: int) -> None:
    async def run() -> tuple[float, int, int]:
        sockets = await clients.open_sockets(peer, b"/", 0, 20)
        await clients.close_sockets(sockets)
        outcome = await clients.storm(peer, b"/", sockets, 20)
        await clients.close_sockets(sockets)
        return outcome

    taken, refusals, opened = asyncio.run(run())
    assert taken < 20 and (refusals, opened) == (0, 20)


def test_requests_come_at_their_pace_and_are_timed_from_when_they_were_due() -> None:
    with running_interface() as site:

        async def answer() -> None:
            while True:
                offer, _ = await asyncio.to_thread(site.layer.take)
                await asyncio.to_thread(site.layer.finish, offer, {"status": 200, "content": b"fine"})

        async def run() -> list[float]:
            answering = asyncio.ensure_future(answer())
            try:
                return await clients.steady_requests(site.port, 50, 0.4, connections=2)
            finally:
                answering.cancel()

        latencies = asyncio.run(run())
    assert len(latencies) == 20 and all(0 < latency < 5 for latency in latencies)


def test_a_socket_that_is_refused_ends_the_run() -> None:
    with running_interface() as site, pytest.raises(SystemExit, match="403"):  # their page is not the site's
        asyncio.run(clients.open_sockets(site.port, b"/", 0, 1))
