"""What is measured: each row is one kind of work and the servers that do it, ours first."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import echo_load, http_load

SITE = Path(__file__).parent / "site"
PEERS = Path(__file__).parents[2] / ".bench" / "bin"


@dataclass(frozen=True)
class Server:
    """A server's name and its command line; ``{port}`` is put in. *absent* says why it cannot be measured."""

    name: str
    command: tuple[str, ...]
    absent: str = ""


Sample = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One kind of work; *unit* is that of a sample's ``rate``.

    *most* and *least* are what the first server must reach, *most_share* what it must be of the last. *count* names
    a figure of the samples that should be 0, and what it counts.
    """

    name: str
    title: str
    measure: Callable[[Server, float], Sample]
    servers: tuple[Server, ...]
    unit: str = "per second"
    most: float | None = None
    least: float | None = None
    most_share: float | None = None
    count: tuple[str, str] | None = None


OURS = Server(
    "procman, 2 workers",
    (sys.executable, "-m", "procman", "start", "--port", "{port}", "--workers", "2", "--no-access-log"),
)
UVICORN = (str(PEERS / "uvicorn"), "--port", "{port}", "--log-level", "error", "--no-access-log")


@contextlib.contextmanager
def running(server: Server) -> Iterator[tuple[int, subprocess.Popen[bytes], Path]]:
    """*server* started in a copy of the site: its port, process and directory. It need not answer yet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        project = shutil.copytree(SITE, Path(directory) / "site")
        environ = {name: value for name, value in os.environ.items() if name not in ("PORT", "PYTHONPATH")}
        with (project / "log").open("wb") as log:
            process = subprocess.Popen(
                [part.format(port=port) for part in server.command],
                cwd=project, env=environ | {"DJANGO_SETTINGS_MODULE": "benchsite.settings"}, stdout=log, stderr=log,
            )  # fmt: skip
            try:
                yield port, process, project
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _under_load(load: Callable[[int, float], Sample]) -> Callable[[Server, float], Sample]:
    """A measurement: start the server, wait for its first answer, put *load* on it."""

    def measure(server: Server, seconds: float) -> Sample:
        with running(server) as (port, process, project):
            wait_for_answer(port, process, project)
            return load(port, seconds)

    return measure


def _boot(server: Server, seconds: float) -> Sample:
    """Milliseconds from the start of the command to the first 200."""
    started = time.perf_counter()
    with running(server) as (port, process, project):
        wait_for_answer(port, process, project)
        return _milliseconds(time.perf_counter() - started)


def _respawn(server: Server, seconds: float) -> Sample:
    """Milliseconds from ``kill -9`` of the only worker to an answer, by its successor, to a request made right then."""
    with running(server) as (port, process, project):
        wait_for_answer(port, process, project)
        (worker,) = worker_pids(project).values()
        killed = time.perf_counter()
        os.kill(worker, signal.SIGKILL)
        wait_for_answer(port, process, project)
        return _milliseconds(time.perf_counter() - killed)


def worker_pids(project: Path) -> dict[str, int]:
    """Process ids of the workers of the site in *project*, by name."""
    command = [sys.executable, "-m", "procman", "status", "--json", "--settings", "benchsite.settings"]
    status = json.loads(subprocess.run(command, cwd=project, check=True, capture_output=True).stdout)
    return {each["name"]: each["pid"] for each in status["processes"] if each["type"] == "worker"}


def _milliseconds(seconds: float) -> Sample:
    return {"rate": seconds * 1000, "p50_ms": seconds * 1000, "p99_ms": seconds * 1000}


def wait_for_answer(port: int, process: subprocess.Popen[bytes], project: Path) -> None:
    """Ask until the answer is 200; the wait between tries is 2 ms, which bounds the error."""
    log = project / "log"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"server ended: {log.read_text()}")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                if connection.recv(15).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            pass
        time.sleep(0.002)
    raise SystemExit(f"server did not answer within 30 s: {log.read_text()}")


GUNICORN = (str(PEERS / "gunicorn"), "-b", "127.0.0.1:{port}", "-w", "2", "benchsite.wsgi")
CHANNELS = "Channels 4 {} consumer, uvicorn, {}"

ROWS = {
    row.name: row
    for row in (
        Row(
            "http",
            "HTTP: trivial view, 32 connections (wrk)",
            _under_load(http_load),
            (OURS, Server("gunicorn sync, 2 workers", GUNICORN)),
        ),
        Row(
            "echo",
            "WebSocket echo: synchronous consumer, 64 sockets, one frame each in flight",
            _under_load(echo_load),
            (
                OURS,
                Server(CHANNELS.format("sync", "1 process"), (*UVICORN, "benchsite.asgi:sync")),
                Server(CHANNELS.format("sync", "2 processes"), (*UVICORN, "--workers", "2", "benchsite.asgi:sync")),
                Server(CHANNELS.format("async", "1 process"), (*UVICORN, "benchsite.asgi:asynchronous")),
            ),
        ),
        Row(
            "boot",
            "Start: command to first 200",
            _boot,
            (OURS, Server("gunicorn sync, 2 workers", GUNICORN)),
            unit="ms",
        ),
        Row(
            "respawn",
            "kill -9 of the only worker to its successor's first answer",
            _respawn,
            (Server("procman, 1 worker", (*OURS.command[:-2], "1", "--no-access-log")),),
            unit="ms",
        ),
    )
}
