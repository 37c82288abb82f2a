"""Start ``channels-run`` for a project as a user would, watch its log, and end it."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until

PROJECT = Path(__file__).parents[1] / "e2e" / "project"


def free_port(*beside: int) -> int:
    """A port that was free a moment ago, for programs that cannot be asked which one they chose.

    Those that are *beside* it, such as 1 for the next one, were free, too. That is no matter of course: thousands of
    connections of earlier tests may still be waiting for their end (TIME_WAIT), each with a port.
    """
    for _ in range(1000):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError, OverflowError):
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            for distance in beside:
                other = stack.enter_context(socket.socket())
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                other.bind(("127.0.0.1", port + distance))
            return port
    raise AssertionError("no ports are free")


def copy_project(target: Path) -> Path:
    """A copy of the test project, so that every site has an address of its own."""
    shutil.copytree(PROJECT, target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def is_alive(pid: int) -> bool:
    """Whether *pid* runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def descendants(pid: int) -> set[int]:
    """Every process below *pid*."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    queue = [pid]
    while queue:
        for child in children.get(queue.pop(), []):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


class Site:
    """A running ``channels-run``: its URL, log, processes and end."""

    def __init__(
        self, directory: Path, arguments: Sequence[str] = (), environ: Mapping[str, str] | None = None
    ) -> None:
        self.directory = directory
        self.log_path = directory / "channels-run.log"
        self.command = [sys.executable, "-m", "procman", *arguments]
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if name not in ("PORT", "WEB_CONCURRENCY", "DJANGO_SETTINGS_MODULE", "PROCMAN_LAYER")
        } | dict(environ or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.is_session = False  # whether it is to have a session of its own, as below a terminal

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def log(self) -> str:
        """Everything printed so far."""
        return self.log_path.read_text(errors="replace")

    def start(self, ready: str = r"ready: (http://[^\s/]+)", timeout: float = 60.0) -> "Site":
        """Start and wait for the line that says that the site answers; ``url`` is what it names."""
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=self.environ,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=self.is_session,
            )
        found = self.wait_for_line(ready, timeout)
        self.url = found[1].replace("0.0.0.0", "127.0.0.1")
        self.ws_url = self.url.replace("http", "ws", 1)
        self.port = int(self.url.rpartition(":")[2])
        return self

    def wait_for_line(self, pattern: str, timeout: float = 30.0) -> re.Match[str]:
        """The first match of *pattern* in the log; fails at once when the command has ended without one."""

        def look() -> re.Match[str] | None:
            ended = self.process is not None and self.process.poll() is not None
            found = re.search(pattern, self.log)
            assert found or not ended, f"channels-run ended before {pattern!r}:\n{self.log}"
            return found

        try:
            found = wait_until(look, timeout, what=pattern)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None
        assert found is not None
        return found

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A control command of this site, to its end; with *check* it must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "procman", *words], cwd=self.directory, env=self.environ, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done

    def status(self) -> dict[str, dict[str, Any]]:
        """Process name -> what ``status --json`` says of it."""
        done = self.run("status", "--json")
        return {process["name"]: process for process in json.loads(done.stdout)["processes"]}

    def pid_of(self, name: str) -> int:
        """Process id of the member *name* of the formation, once it is running."""

        def running() -> int:
            process = self.status().get(name, {})
            return process["pid"] if process.get("state") == "RUNNING" else 0

        return wait_until(running, 30, what=f"{name} is running")

    def kill(self, name: str, how: int = signal.SIGKILL) -> int:
        """Send a signal to a member; returns the pid it had."""
        pid = self.pid_of(name)
        os.kill(pid, how)
        return pid

    def stop(self, timeout: float = 20.0) -> int:
        """Ask it to stop; its exit status. Kills it after *timeout* seconds, and fails."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"channels-run did not stop within {timeout} s:\n{self.log}") from None


@contextlib.contextmanager
def running_site(
    directory: Path, *arguments: str, environ: Mapping[str, str] | None = None, **options: Any
) -> Iterator[Site]:
    """A started site that is stopped at the end."""
    site = Site(directory, ("start", "--port", "0", *arguments), environ)
    try:
        yield site.start(**options)
    finally:
        if site.process is not None:
            site.stop()


def memory_kib(pid: int) -> dict[str, int]:
    """What the process *pid* has in memory (``VmRSS``) and the most that it ever had (``VmHWM``)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "kB" in value}
