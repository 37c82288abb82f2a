"""The rows of ``scripts/bench layers``: what each driver is asked, and the redis-server that some of them need."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.layers.common import GROUP_SIZES
from benchmarks.rows import PEERS, Row, Sample, Server

_PATIENCE = 60.0  # seconds beyond the counted ones, for a group of 10,000 to be made
_OURS = (sys.executable, "-m", "benchmarks.layers.ours")
_PEERS = (str(PEERS / "python"), "-m", "benchmarks.layers.peers")
_REDIS = ("{address}", "{pid}")
_NO_REDIS_LAYER = "" if importlib.util.find_spec("procman.layers.redis") else "there is no such layer yet"

IPC = Server("procman ipc, interface", (*_OURS, "interface", "{work}", "{seconds}"))
SENDER = Server("procman ipc, blocking sender", (*_OURS, "sender", "{work}", "{seconds}"))
REDIS = Server("procman redis, interface", (*_OURS, "interface", "{work}", "{seconds}", *_REDIS), _NO_REDIS_LAYER)
MEMORY = Server("procman memory", (*_OURS, "memory", "{work}", "{seconds}"))
RAW = Server("raw socket pair", (sys.executable, "-m", "benchmarks.layers.raw", "raw", "{work}", "{seconds}"))
INMEMORY = Server("Channels 4 InMemory", (*_PEERS, "inmemory", "{work}", "{seconds}"))
CORE = Server("channels_redis core", (*_PEERS, "core", "{work}", "{seconds}", *_REDIS))
PUBSUB = Server("channels_redis pubsub", (*_PEERS, "pubsub", "{work}", "{seconds}", *_REDIS))
_LAYERS = (REDIS, MEMORY, INMEMORY, CORE, PUBSUB)


@contextlib.contextmanager
def _redis(directory: str) -> Iterator[tuple[str, int]]:
    """A redis-server of our own on a private socket, nothing written to disk: its address and process id."""
    path = Path(directory) / "redis.sock"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not path.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("redis-server did not start")
            time.sleep(0.005)
        yield f"unix://{path}", server.pid
    finally:
        server.terminate()
        server.wait()


def _measure(work: str, server: Server, seconds: float) -> Sample:
    """A sample of *work* from *server*'s driver."""
    with contextlib.ExitStack() as stack:
        fields = {"work": work, "seconds": str(seconds)}
        if _REDIS[0] in server.command:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench"))
            address, pid = stack.enter_context(_redis(directory))
            fields |= {"address": address, "pid": str(pid)}
        driver = subprocess.Popen(
            [part.format(**fields) for part in server.command],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            output, errors = driver.communicate(timeout=2 * seconds + _PATIENCE)
        finally:
            # Its workers and its hub, if it could not end them itself.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()
    if driver.returncode:
        raise SystemExit(f"{server.name}, {work}: the driver failed:\n{errors}")
    sample: Sample = json.loads(output)
    return sample


def _row(work: str, title: str, servers: tuple[Server, ...], unit: str) -> Row:
    return Row(work, title, lambda server, seconds: _measure(work, server, seconds), servers, unit)


LAYER_ROWS = {
    row.name: row
    for row in (
        _row(
            "idle",
            "Layer round trip, one at a time, 1 worker: 800 bytes there, 300 back",
            (IPC, SENDER, RAW, *_LAYERS),
            "median us",
        ),
        _row(
            "flight",
            "Layer round trips, 64 in flight, 2 workers: 800 bytes there, 300 back",
            (IPC, SENDER, RAW, *_LAYERS),
            "per second",
        ),
        _row(
            "oneway",
            "Layer one-way, 800 bytes, 1 sender, 1 worker",
            (Server("procman ipc, asyncio sender", IPC.command), SENDER, RAW, *_LAYERS),
            "per second",
        ),
        *(
            _row(
                f"group-{size}",
                f"Group send to {size:,} members of one process: CPU of what holds the group",
                (IPC, *_LAYERS),
                "us per send",
            )
            for size in GROUP_SIZES
        ),
    )
}
