"""Run the Autobahn WebSocket test suite against ``channels-run`` with an echo, and print what came out, group by group.

The suite is a program for Python 2.7, so it lives in an environment of its own below ``.autobahn``. The server is a
whole one: supervisor, layer, interface, worker. Cases are named as the suite does, with globs: ``1.*``, ``7.1.*``.
"""

from __future__ import annotations

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
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from matrix import find_python
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".autobahn"
# virtualenv: the last release that makes environments for Python 2.7.
VIRTUALENV, SUITE = "virtualenv==20.15.1", "autobahntestsuite==25.10.1"
# Without 9 (large messages) and 12, 13 (compression), which take minutes.
CASES = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*")
ALL_CASES = (*CASES, "9.*", "12.*", "13.*")
GOOD = ("OK", "NON-STRICT", "INFORMATIONAL")
TIMEOUT = 1800  # seconds for a whole run

SETTINGS = """
SECRET_KEY = "autobahn"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = ["procman.channels"]
DATABASES = {}
CHANNEL_LAYERS = {"default": {
    "BACKEND": "procman.layers.ipc.IPCChannelLayer",
    "ROUTING": "echo.channel_routing",
    "CONFIG": {"max_message_size": 64 * 1024 * 1024},
}}
"""
ECHO = '''
from procman.channels import route


def receive(message):
    """Send back what came, of its kind."""
    kind = "text" if message.content.get("text") is not None else "bytes"
    message.reply_channel.send({kind: message.content[kind]})


channel_routing = [route("websocket.receive", receive)]
'''


class Report:
    """What came out, as ``index.json`` of the suite has it."""

    def __init__(self, cases: dict[str, dict[str, Any]]) -> None:
        self.cases = cases

    @property
    def bad(self) -> list[str]:
        """Cases whose messages or whose end were wrong, in the suite's order."""
        found = [
            name
            for name, case in self.cases.items()
            if case["behavior"] not in GOOD or case["behaviorClose"] not in GOOD
        ]
        return sorted(found, key=lambda name: [int(part) for part in name.split(".")])

    def groups(self) -> dict[str, Counter[str]]:
        """How many cases of each group behaved how."""
        groups: dict[str, Counter[str]] = {}
        for name, case in self.cases.items():
            groups.setdefault(name.split(".")[0], Counter())[case["behavior"]] += 1
        return dict(sorted(groups.items(), key=lambda item: int(item[0])))


def install() -> Path:
    """The suite's program, installed if it is not there yet.

    Raises:
        SystemExit: there is no Python 2.7, or it cannot be installed.
    """
    program, stamp = ENVIRONMENT / "bin" / "wstest", ENVIRONMENT / "installed"
    wanted = f"{VIRTUALENV} {SUITE}"
    if program.exists() and stamp.exists() and stamp.read_text() == wanted:
        return program
    python = find_python("2.7", "import sys, pip; sys.exit(sys.version_info[:2] != (2, 7))")
    if python is None:
        raise SystemExit("scripts/autobahn: the suite needs Python 2.7 with pip; install one, such as with pyenv")
    click.echo("Installing the Autobahn test suite into .autobahn ...", err=True)
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    quiet = ["--quiet", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as directory:
        environ = os.environ | {"PYTHONPATH": directory, "PIP_NO_PYTHON_VERSION_WARNING": "1"}
        for command in (
            [python, "-m", "pip", "install", *quiet, "--target", directory, VIRTUALENV],
            [python, "-m", "virtualenv", "--quiet", str(ENVIRONMENT)],
        ):
            subprocess.run(command, check=True, env=environ, stdout=sys.stderr)
    subprocess.run([str(ENVIRONMENT / "bin" / "pip"), "install", *quiet, SUITE], check=True, stdout=sys.stderr)
    stamp.write_text(wanted)
    return program


@contextlib.contextmanager
def serving(flags: tuple[str, ...] = ()) -> Iterator[int]:
    """The port of an echo server that runs with *flags*; what it logs is shown if it fails."""
    with tempfile.TemporaryDirectory(prefix="autobahn") as directory, tempfile.TemporaryFile() as log:
        (Path(directory) / "echo_settings.py").write_text(SETTINGS)
        (Path(directory) / "echo.py").write_text(ECHO)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        environ = {name: value for name, value in os.environ.items() if name not in ("PORT", "PROCMAN_LAYER")}
        size = str(32 * 1024 * 1024)
        command = [
            sys.executable, "-m", "procman", "start", "--port", str(port), "--workers", "1", "--no-access-log",
            "--settings", "echo_settings", "--max-message-size", size, "--write-limit", size, *flags,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=directory, stdout=log, stderr=log, env=environ | {"PYTHONPATH": directory}
        )
        try:
            _wait_until_it_serves(port, process, log)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def _wait_until_it_serves(port: int, process: subprocess.Popen[bytes], log: Any) -> None:
    deadline = time.monotonic() + 30
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    while process.poll() is None and time.monotonic() < deadline:
        # Answered once a worker is there, with 404 or 500: there are no views.
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 30) as client:
            client.sendall(request)
            if client.recv(100).startswith(b"HTTP/1.1"):
                return
    log.seek(0)
    raise SystemExit(f"the server did not start: {log.read().decode(errors='replace')}")


def run_suite(cases: tuple[str, ...], flags: tuple[str, ...] = (), keep: Path | None = None) -> Report:
    """Run *cases* against a server with *flags*; the suite's pages stay in *keep*."""
    program = install()
    with serving(flags) as port, tempfile.TemporaryDirectory() as directory:
        out = keep or Path(directory) / "reports"
        specification = {
            "options": {"failByDrop": False},
            "outdir": str(out.absolute()),
            "servers": [{"agent": "procman", "url": f"ws://127.0.0.1:{port}"}],
            "cases": list(cases),
            "exclude-cases": [],
            "exclude-agent-cases": {},
        }
        (Path(directory) / "spec.json").write_text(json.dumps(specification))
        done = subprocess.run(
            [str(program), "-m", "fuzzingclient", "-s", "spec.json"], cwd=directory, check=False, timeout=TIMEOUT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        index = out / "index.json"
        if done.returncode or not index.exists():
            raise SystemExit(f"the suite failed: {done.stdout[-2000:]}")
        return Report(json.loads(index.read_text())["procman"])


def print_table(report: Report) -> None:
    """The groups, then each bad case."""
    kinds = sorted({kind for counts in report.groups().values() for kind in counts})
    table = Table("group", *kinds, title="Autobahn: cases by behaviour")
    for group, counts in report.groups().items():
        table.add_row(group, *(str(counts[kind] or "") for kind in kinds))
    console = Console()
    console.print(table)
    for name in report.bad:
        case = report.cases[name]
        console.print(f"{name}: {case['behavior']}, close {case['behaviorClose']}")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("cases", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Also 9 (large messages), 12 and 13 (compression).")
@click.option("--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write each case's outcome here.")
@click.option("--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep the suite's own pages here.")
def main(cases: tuple[str, ...], everything: bool, path: Path | None, keep: Path | None) -> None:
    """Run CASES, such as 1.* or 7.1.1, by default groups 1 to 7 and 10; status 1 if one of them fails."""
    chosen = cases or (ALL_CASES if everything else CASES)
    needs_compression = any(case.startswith(("12", "13")) for case in chosen)
    report = run_suite(chosen, ("--websocket-compression",) if needs_compression else (), keep)
    if path is not None:
        path.write_text(json.dumps(report.cases, indent=1, sort_keys=True))
    print_table(report)
    sys.exit(1 if report.bad or not report.cases else 0)


if __name__ == "__main__":
    main()
