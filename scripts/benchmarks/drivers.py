"""Runs a driver: a process that measures one work and prints its sample. Starts the redis-server that some need."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.rows import Sample, Server

REDIS = ("{address}", "{pid}")  # in a command line: those of a redis-server
_PATIENCE = 60.0  # seconds beyond the counted ones, for a group of 10,000 to be made


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


def measure(work: str, server: Server, seconds: float) -> Sample:
    """A sample of *work* from *server*'s driver."""
    with contextlib.ExitStack() as stack:
        fields = {"work": work, "seconds": str(seconds)}
        if REDIS[0] in server.command:
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
