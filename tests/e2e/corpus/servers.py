"""The two servers side by side, and what of their answers is compared."""

import contextlib
import gzip
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes import free_port, running_site
from tests.support.waiting import wait_until

SITE = Path(__file__).parent / "site"
HOST = "mirror.test:8123"
TIMEOUT = 20.0  # seconds for one answer
# What belongs to the server and not to the response: each server frames, dates and names its answers itself.
OWN = frozenset({"date", "server", "connection", "keep-alive", "transfer-encoding"})
# What is random, tells the time or names the server's own port.
MASKS = (
    (re.compile(r"((?:csrftoken|sessionid|messages)=)[^;]+"), r"\1*"),
    (re.compile(r"expires=[^;]+"), "expires=*"),
)
PORT = re.compile(rb"127\.0\.0\.1:\d+")
# Django pads what it compresses with a random file name, against BREACH.
GZIP = ("content-encoding", "gzip")


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of one answer; ``is_cut``: the connection ended before it was complete."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    is_cut: bool = False

    @property
    def seen(self) -> Any:
        """What the view saw, where the body says so."""
        return json.loads(self.body)


def ask(port: int, request: bytes) -> Answer:
    """The answer to the bytes of one *request*, which asks for the connection to be closed."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before it was read
            connection.sendall(request)
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                received += data
    return parse(bytes(received), is_head=request.startswith(b"HEAD "))


def parse(raw: bytes, is_head: bool) -> Answer:
    """The answer in *raw*."""
    head, mark, rest = raw.partition(b"\r\n\r\n")
    if not mark:
        return Answer(0, (), raw, is_cut=True)
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0].split(" ")[1])
    if status == 100:
        return parse(rest, is_head)
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
    found = dict(headers)
    body, is_cut = rest, False
    if is_head or status in (204, 304):
        is_cut = bool(rest)  # a body that must not be there
    elif found.get("transfer-encoding") == "chunked":
        body, is_cut = _unchunked(rest)
    elif "content-length" in found:
        is_cut = len(rest) != int(found["content-length"])
    kept = sorted((name, _masked(value)) for name, value in headers if name not in OWN)
    if GZIP in kept:
        body, kept = gzip.decompress(body), [each for each in kept if each[0] != "content-length"]
    if PORT.search(body):
        body, kept = PORT.sub(b"127.0.0.1:*", body), [each for each in kept if each[0] != "etag"]
    return Answer(status, tuple(kept), body, is_cut)


def differences(theirs: Answer, ours: Answer) -> list[str]:
    """What tells one answer from the other; empty if they are the same.

    A Content-Length counts where both have one: a server may frame a complete body with it, or in chunks.
    """
    found = []
    for what in ("status", "is_cut"):
        if getattr(theirs, what) != getattr(ours, what):
            found.append(f"{what}: {getattr(theirs, what)} and {getattr(ours, what)}")
    lengths = [any(name == "content-length" for name, _ in each.headers) for each in (theirs, ours)]
    for name, value in sorted(set(theirs.headers) ^ set(ours.headers)):
        if name != "content-length" or all(lengths):
            found.append(f"header of {'theirs' if (name, value) in theirs.headers else 'ours'}: {name}: {value}")
    if theirs.body != ours.body:
        try:
            seen = [(name, value, ours.seen[name]) for name, value in theirs.seen.items()]
        except (ValueError, AttributeError, TypeError, KeyError):
            found.append(f"body: {theirs.body[:300]!r} and {ours.body[:300]!r}")
        else:
            found += [f"{name}: {value!r} and {other!r}" for name, value, other in seen if value != other]
    return found


def _masked(value: str) -> str:
    for pattern, replacement in MASKS:
        value = pattern.sub(replacement, value)
    return value


def _unchunked(data: bytes) -> tuple[bytes, bool]:
    body = bytearray()
    while True:
        size, mark, data = data.partition(b"\r\n")
        if not mark:
            return bytes(body), True
        length = int(size, 16)
        if length == 0:
            return bytes(body), False
        if len(data) < length + 2:
            return bytes(body), True
        body += data[:length]
        data = data[length + 2 :]


@dataclass(frozen=True)
class Pair:
    """gunicorn's port and ours."""

    theirs: int
    ours: int

    def ask(self, request: bytes) -> tuple[Answer, Answer]:
        """Both answers to *request*, theirs first."""
        return ask(self.theirs, request), ask(self.ours, request)


@contextlib.contextmanager
def running_pair(directory: Path, variant: str) -> Iterator[Pair]:
    """Both servers, one worker each, with a project of their own below *directory*."""
    with contextlib.ExitStack() as stack:
        theirs = stack.enter_context(_gunicorn(_copy(directory / "theirs"), variant))
        environ = {"MIRROR_VARIANT": variant}
        site = stack.enter_context(running_site(_copy(directory / "ours"), "--workers", "1", environ=environ))
        yield Pair(theirs, site.port)


def _copy(target: Path) -> Path:
    shutil.copytree(SITE, target, ignore=shutil.ignore_patterns("__pycache__"))
    manage = "import os, sys\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'mirror.settings')\n"
    (target / "manage.py").write_text(f"{manage}from django.core.management import execute_from_command_line as run\n"
                                      "run(sys.argv)\n")  # fmt: skip
    return target


@contextlib.contextmanager
def _gunicorn(directory: Path, variant: str) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-w", "1", "mirror.wsgi"]
    environ = os.environ | {"MIRROR_VARIANT": variant, "DJANGO_SETTINGS_MODULE": "mirror.settings"}
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, env=environ, stdout=log, stderr=log)
        try:

            def answers() -> bool:
                assert process.poll() is None, (directory / "log").read_text()
                with contextlib.suppress(OSError):
                    return (
                        ask(port, b"GET /json/ HTTP/1.1\r\nHost: mirror.test\r\nConnection: close\r\n\r\n").status > 0
                    )
                return False

            wait_until(answers, 30, what="gunicorn answers")
            yield port
        finally:
            process.terminate()
            process.wait(20)
