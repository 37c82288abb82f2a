"""A supervisor over test children, in a process of its own; the program and the class that runs it."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until

CHILDREN = str(Path(__file__).with_name("children.py"))


def kind(name: str, *mode: str, **options: Any) -> dict[str, Any]:
    """A process type of test children."""
    return {"name": name, "argv": [sys.executable, "-S", CHILDREN, *mode], **options}


def supervisor_command(directory: Path, *types: Mapping[str, Any], **settings: float) -> list[str]:
    """The words that start a supervisor over *types*; to be run in the project's root directory."""
    order = {"types": types, "settings": settings, "control": str(directory / "control")}
    return [sys.executable, "-m", "tests.support.supervised", json.dumps(order)]


class Supervised:
    """A running supervisor: its log (a file, or whatever *stdout* is) and its end."""

    def __init__(
        self,
        directory: Path,
        *types: Mapping[str, Any],
        stdout: Any = None,
        environ: Mapping[str, str] | None = None,
        **settings: float,
    ) -> None:
        self.log_path = directory / "log"
        self.control = str(directory / "control")
        clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                supervisor_command(directory, *types, **settings),
                stdout=stdout or log, stderr=log, stdin=subprocess.DEVNULL,
                env=clean | {"TERM": "xterm"} | dict(environ or {}), cwd=Path(__file__).parents[2],
            )  # fmt: skip

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def find(self, pattern: str, count: int = 1, timeout: float = 20.0) -> list[str]:
        """The first group of *count* matches, or more, once the log has them."""

        def look() -> list[str]:
            found = re.findall(pattern, self.log)
            return found if len(found) >= count else []

        try:
            return wait_until(look, timeout, interval=0.002, what=f"{count} x {pattern}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def pids(self, name: str, count: int = 1) -> list[int]:
        """Process ids that *name* has had, once there are *count*."""
        return [int(pid) for pid in self.find(rf"{re.escape(name)} +\| ready (\d+)", count)]

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def wait(self, timeout: float = 20.0) -> int:
        """Its exit status."""
        return self.process.wait(timeout)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.send(signal.SIGTERM)
        return self.wait()


@contextlib.contextmanager
def supervised(directory: Path, *types: Mapping[str, Any], **options: Any) -> Iterator[Supervised]:
    """A supervisor that is gone at the end of the block, and its children with it."""
    running = Supervised(directory, *types, **options)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()  # its guardian ends the rest
        running.process.wait()


def main() -> None:
    """Run the formation that the first argument describes."""
    from procman.settings import SupervisorSettings
    from procman.supervision.engine import Supervisor
    from procman.supervision.formation import ProcessType, build_formation

    if os.environ.pop("TEST_WITHOUT_PIDFD", ""):
        del os.pidfd_open  # as on macOS
    order = json.loads(sys.argv[1])
    specs = build_formation(ProcessType(**fields) for fields in order["types"])
    settings = SupervisorSettings.load({}, **order["settings"])
    sys.exit(Supervisor(specs, settings, control_path=order["control"], ready_line="all ready").run())


if __name__ == "__main__":
    main()
