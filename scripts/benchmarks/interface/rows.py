"""What is measured of the interface and its peers: server processes on core 0, clients on the others."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import uvloop

from benchmarks import load
from benchmarks.interface import clients
from benchmarks.rows import CHANNELS, GUNICORN, OURS, PEERS, UVICORN, Row, Sample, Server, running, wait_for_answer

MEMBERS, FRAME = 1000, 204  # sockets of the group, bytes of a message of 200 with its head
WARM, IDLE = 2000, 10_000  # sockets between which memory is measured
STORM, STORM_LIMIT = 15_000, 30.0
NAN = float("nan")
_HERE = Path(__file__).parent
_MANY = (
    "--max-sockets", "19000", "--max-connections", "19500", "--max-connections-per-address", "19500"
)  # fmt: skip
_OURS_MANY = Server("procman, 2 workers", (*OURS.command, *_MANY))
_WEBSOCKETS = Server(
    "websockets, one process", (str(PEERS / "python"), str(_HERE / "peers.py"), "websockets", "{port}")
)
_UVICORN = Server("uvicorn, bare ASGI", (*UVICORN, "--ws", "websockets-sansio", "--app-dir", str(_HERE), "peers:app"))
_GUNICORN = Server("gunicorn sync, 2 workers", GUNICORN)
_GRANIAN = Server(
    "granian WSGI, 2 workers",
    (
        str(PEERS / "granian"), "--interface", "wsgi", "--workers", "2", "--host", "127.0.0.1", "--port", "{port}",
        "--log-level", "error", "benchsite.wsgi:application",
    ),
)  # fmt: skip


@contextlib.contextmanager
def _apart(server: Server) -> Iterator[tuple[int, psutil.Process]]:
    """*server* on core 0 and everything else that this process starts or does on the others: its port and process."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        with running(server) as (port, process, project):
            if len(cores) > 1:
                os.sched_setaffinity(0, cores - {min(cores)})
            if "peers" in server.command[-1] or "peers" in server.command[1]:
                _wait_for_port(port, process)
            else:
                wait_for_answer(port, process, project)
            yield port, psutil.Process(process.pid)
    finally:
        os.sched_setaffinity(0, cores)


def _wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    async def ask() -> int:
        return (await clients.open_socket(port, b"/", 0))[0]

    deadline = time.monotonic() + 30
    while uvloop.run(ask()) != 101:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit("the peer did not start")
        time.sleep(0.02)


def _tree(root: psutil.Process) -> list[psutil.Process]:
    return [root, *root.children(recursive=True)]


def _memory(root: psutil.Process) -> int:
    """Bytes that the processes of *root* have for themselves."""
    return sum(each.memory_full_info().uss for each in _tree(root))


def _cpu(root: psutil.Process) -> float:
    return sum(sum(each.cpu_times()[:2]) for each in _tree(root))


def _run(work: Coroutine[Any, Any, Sample]) -> Sample:
    return uvloop.run(work)


def _with_server(work: Callable[[int, psutil.Process, float], Coroutine[Any, Any, Sample]]) -> Any:
    def measure(server: Server, seconds: float) -> Sample:
        with _apart(server) as (port, process):
            return _run(work(port, process, seconds))

    return measure


async def _idle(port: int, process: psutil.Process, seconds: float) -> Sample:
    """KiB of the whole server for each socket more, and how many were opened per second."""
    sockets = await clients.open_sockets(port, b"/idle/", 0, WARM)
    await asyncio.sleep(1.5)
    before, started = _memory(process), time.perf_counter()
    sockets += await clients.open_sockets(port, b"/idle/", WARM, IDLE - WARM)
    pace = (IDLE - WARM) / (time.perf_counter() - started)
    await asyncio.sleep(1.5)
    each = (_memory(process) - before) / (IDLE - WARM) / 1024
    return {"rate": each, "p50_ms": NAN, "p99_ms": NAN, "opened_per_second": pace}


def _deliveries(unit: str) -> Callable[[int, psutil.Process, float], Coroutine[Any, Any, Sample]]:
    async def measure(port: int, process: psutil.Process, seconds: float) -> Sample:
        sockets = await clients.open_sockets(port, b"/group/", 0, MEMBERS)
        await clients.broadcast_rounds(sockets, FRAME, 2)
        before, started, times = _cpu(process), time.perf_counter(), []
        while time.perf_counter() - started < seconds:
            times += await clients.broadcast_rounds(sockets, FRAME, 5)
        cpu = (_cpu(process) - before) / (len(times) * MEMBERS) * 1e6
        times.sort()
        rate = cpu if unit == "cpu" else len(times) * MEMBERS / sum(times)
        return {"rate": rate, "p50_ms": times[len(times) // 2] * 1000, "p99_ms": times[len(times) * 99 // 100] * 1000}

    return measure


def _loaded(work: Callable[[int, float], Sample]) -> Callable[[Server, float], Sample]:
    def measure(server: Server, seconds: float) -> Sample:
        with _apart(server) as (port, _):
            return work(port, seconds)

    return measure


def _half_load(port: int, seconds: float) -> Sample:
    """Latencies at half of the rate that this server reaches; the figure is the 99th percentile."""
    rate = load.http_load(port, 2.0)["rate"] / 2
    times = sorted(uvloop.run(clients.steady_requests(port, rate, seconds)))
    p50, p99 = times[len(times) // 2] * 1000, times[len(times) * 99 // 100] * 1000
    return {"rate": p99, "p50_ms": p50, "p99_ms": p99, "requests_per_second": rate}


def _remember(port: int, process: psutil.Process) -> Callable[[], subprocess.Popen[bytes]]:
    """What waits for the end of *process* and starts it again as it was, on its core."""
    command, directory, environ = process.cmdline(), process.cwd(), process.environ()
    cores = process.cpu_affinity()

    def begin() -> subprocess.Popen[bytes]:
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.005)
        null = subprocess.DEVNULL
        successor = subprocess.Popen(command, cwd=directory, env=environ, stdout=null, stderr=null)
        psutil.Process(successor.pid).cpu_affinity(cores)
        return successor

    return begin


def _storm(server: Server, seconds: float) -> Sample:
    """Seconds until all sockets are back after the whole server was stopped and started again."""
    with _apart(server) as (port, process):

        async def measure() -> Sample:
            sockets = await clients.open_sockets(port, b"/idle/", 0, STORM)
            begin_again = _remember(port, process)
            process.send_signal(signal.SIGTERM)
            await asyncio.gather(*(socket.closed for socket in sockets))
            successor = await asyncio.to_thread(begin_again)
            try:
                taken, refusals, opened = await clients.storm(port, b"/idle/", sockets, STORM_LIMIT * 2)
                latencies = await clients.steady_requests(port, 50, 2.0) if opened == STORM else [NAN]
            finally:
                successor.send_signal(signal.SIGTERM)
                await asyncio.to_thread(successor.wait)
            latencies.sort()
            return {
                "rate": taken, "p50_ms": latencies[len(latencies) // 2] * 1000, "p99_ms": latencies[-1] * 1000,
                "refusals_5xx": float(refusals), "opened": float(opened),
            }  # fmt: skip

        return _run(measure())


def _channels(kind: str, app: str) -> Server:
    return Server(CHANNELS.format(kind, "1 process"), (*UVICORN, f"benchsite.asgi:{app}"))


INTERFACE_ROWS = {
    row.name: row
    for row in (
        Row(
            "idle-sockets",
            "Memory per idle WebSocket, 2,000 to 10,000 of them, headers of a browser",
            _with_server(_idle),
            (_OURS_MANY, _WEBSOCKETS, _UVICORN),
            "KiB",
        ),
        Row(
            "delivery-cpu",
            "CPU of the whole server per delivery of a group send, 200 bytes to 1,000 sockets",
            _with_server(_deliveries("cpu")),
            (_OURS_MANY, _WEBSOCKETS),
            "us",
        ),
        Row(
            "deliveries",
            "Deliveries of group sends, 200 bytes to 1,000 sockets, one send after the other",
            _with_server(_deliveries("rate")),
            (_OURS_MANY, _WEBSOCKETS),
        ),
        Row(
            "echo-apart",
            "WebSocket echo: synchronous consumer, 64 sockets, one frame each in flight",
            _loaded(load.echo_load),
            (OURS, _channels("sync", "sync"), _channels("async", "asynchronous")),
        ),
        Row(
            "http-apart",
            "HTTP: trivial view, 32 connections (wrk)",
            _loaded(load.http_load),
            (OURS, _GUNICORN, _GRANIAN),
        ),
        Row(
            "half-load",
            "HTTP: 99th percentile at half of each server's own highest rate, from when a request was due",
            _loaded(_half_load),
            (OURS, _GUNICORN, _GRANIAN),
            "ms",
        ),
        Row(
            "storm",
            "All of 15,000 WebSockets open again after the whole server was stopped and started",
            _storm,
            (Server("procman, 2 workers", (*OURS.command, *_MANY)),),
            "s",
        ),
    )
}
