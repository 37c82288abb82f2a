"""What is measured: each row is one kind of work and the servers that do it, ours first."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import echo_load, http_load

SITE = Path(__file__).parent / "site"
PEERS = Path(__file__).parents[2] / ".bench" / "bin"


@dataclass(frozen=True)
class Server:
    """A server's name and its command line; ``{port}`` is put in."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One kind of work."""

    name: str
    title: str
    load: Callable[[int, float], dict[str, float]]
    servers: tuple[Server, ...]


OURS = Server(
    "procman, 2 workers",
    (sys.executable, "-m", "procman", "start", "--port", "{port}", "--workers", "2", "--no-access-log"),
)
UVICORN = (str(PEERS / "uvicorn"), "--port", "{port}", "--log-level", "error", "--no-access-log")

ROWS = {
    row.name: row
    for row in (
        Row(
            "http",
            "HTTP: trivial view, 32 connections (wrk)",
            http_load,
            (
                OURS,
                Server(
                    "gunicorn sync, 2 workers",
                    (str(PEERS / "gunicorn"), "-b", "127.0.0.1:{port}", "-w", "2", "benchsite.wsgi"),
                ),
            ),
        ),
        Row(
            "echo",
            "WebSocket echo: synchronous consumer, 64 sockets, one frame each in flight",
            echo_load,
            (
                OURS,
                Server("Channels 4 sync consumer, uvicorn, 1 process", (*UVICORN, "benchsite.asgi:sync")),
                Server(
                    "Channels 4 sync consumer, uvicorn, 2 processes",
                    (*UVICORN, "--workers", "2", "benchsite.asgi:sync"),
                ),
                Server("Channels 4 async consumer, uvicorn, 1 process", (*UVICORN, "benchsite.asgi:asynchronous")),
            ),
        ),
    )
}


def measure(row: Row, server: Server, seconds: float) -> dict[str, float]:
    """Start *server* in a copy of the site, load it, stop it: ``rate`` per second, ``p50_ms``, ``p99_ms``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        project = shutil.copytree(SITE, Path(directory) / "site")
        environ = {name: value for name, value in os.environ.items() if name not in ("PORT", "PYTHONPATH")}
        log = (project / "log").open("wb")
        process = subprocess.Popen(
            [part.format(port=port) for part in server.command],
            cwd=project, env=environ | {"DJANGO_SETTINGS_MODULE": "benchsite.settings"}, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            _wait_for_answer(port, process, project / "log")
            return row.load(port, seconds)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            log.close()


def _wait_for_answer(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
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
        time.sleep(0.05)
    raise SystemExit(f"server did not answer within 30 s: {log.read_text()}")
