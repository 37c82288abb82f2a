"""``manage.py runserver``: the test project in one process, with the reloader and without."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.clients import Browser
from tests.support.processes import Site, copy_project, descendants, free_port, is_alive
from tests.support.waiting import wait_until

READY = r"Starting Channels development server at (http://[^\s/]+)"
SLOW = """
def slow(request):
    mark("slow")
    threading.Event().wait(20)
    return HttpResponse("late")

import threading
urlpatterns.append(path("slow/", slow))
"""
SEND = "from procman.channels import Group; Group('everybody').send({'text': 'from outside'})"


@contextmanager
def served(project: Path, *arguments: str) -> Iterator[Site]:
    """The project below ``manage.py runserver``, as from a terminal; killed at the end if it is still there."""
    site = Site(project, environ={"DEBUG": "1", "PYTHONUNBUFFERED": "1"})
    site.command = [sys.executable, "manage.py", "runserver", str(free_port()), *arguments]
    site.is_session = True
    try:
        yield site.start(ready=READY)
    finally:
        assert site.process is not None
        if site.process.poll() is None:
            os.killpg(site.process.pid, signal.SIGKILL)
        site.process.wait(10)


@contextmanager
def layer_process(project: Path) -> Iterator[None]:
    """The hub that processes of the project find by its settings."""
    log_path = project / "layer.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "procman", "layer"], cwd=project, stdout=log, stderr=log)
    try:
        wait_until(lambda: "layer ready" in log_path.read_text(), 30)
        yield
    finally:
        process.terminate()
        process.wait(10)


def open_socket(site: Site) -> ClientConnection:
    return connect(f"{site.ws_url}/room", proxy=None, open_timeout=20)


def interrupt(site: Site) -> tuple[int, float]:
    """Ctrl-C: exit status, and how many seconds the end took."""
    assert site.process is not None
    started = time.monotonic()
    os.killpg(site.process.pid, signal.SIGINT)
    status = site.process.wait(10)
    return status, time.monotonic() - started


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A copy of the project that may be edited, with its database."""
    project = copy_project(tmp_path / "project")
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=project, check=True)
    return project


def test_one_process_serves_pages_static_files_sockets_and_groups_and_reloads(fresh: Path) -> None:
    with served(fresh) as site:
        browser = Browser(site.url)
        assert browser.get("/").status == 200
        assert browser.get("/static/admin/css/base.css").headers["Content-Type"] == "text/css"
        with open_socket(site) as one, open_socket(site) as two:
            one.send("hello")
            assert json.loads(one.recv(10)) == {"echo": "hello", "count": 1}
            one.send("background work")
            assert one.recv(10) == "done: background work"
            two.send("say hi")
            assert one.recv(10) == two.recv(10) == "say hi"
            process_count = len(descendants(site.pid)) + 1
            assert process_count == 2  # the reloader and the server
            with (fresh / "mysite" / "urls.py").open("a") as changed:
                changed.write("\n")
            with pytest.raises(ConnectionClosed):
                one.recv(20)
            assert one.protocol.close_code == 1012
        wait_until(lambda: site.log.count("Starting Channels development server") == 2, 30, what=site.log)
        with open_socket(site) as again:
            again.send("hello")
            assert json.loads(again.recv(10))["count"] == 1
        site.wait_for_line(r"HTTP GET / 200 \[\d+\.\d\d, 127\.0\.0\.1\]")
        for word in ("HANDSHAKING", "CONNECT", "DISCONNECT"):
            site.wait_for_line(rf"WebSocket {word} /room \[127\.0\.0\.1\]")
        below = descendants(site.pid)
        status, seconds = interrupt(site)
        assert (status, seconds < 2.0) == (0, True), site.log
        wait_until(lambda: not any(is_alive(pid) for pid in below))
        assert "Traceback" not in site.log, site.log


def test_without_the_reloader_ctrl_c_closes_the_sockets_and_runs_their_disconnects(project: Path) -> None:
    with served(project, "--noreload", "--nothreading") as site, open_socket(site) as client:
        client.send("hello")
        client.recv(10)
        status, seconds = interrupt(site)
        assert (status, seconds < 2.0) == (0, True), site.log
        with pytest.raises(ConnectionClosed):
            client.recv(10)
        assert client.protocol.close_code == 1012
        assert '"code": 1012' in (project / "marks.jsonl").read_text()
        assert "Traceback" not in site.log, site.log


def test_sigterm_ends_it_although_a_view_runs(fresh: Path) -> None:
    with (fresh / "mysite" / "urls.py").open("a") as urls:
        urls.write(SLOW)
    with served(fresh, "--noreload", "--nothreading") as site, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(Browser(site.url).get, "/slow/")
        marks = fresh / "marks.jsonl"
        wait_until(lambda: marks.exists() and '"slow"' in marks.read_text())
        assert site.process is not None
        started = time.monotonic()
        site.process.send_signal(signal.SIGTERM)
        assert site.process.wait(10) == 0, site.log
        assert time.monotonic() - started < 2.0
        assert answer.exception(10) is not None or answer.result().status == 503


def test_a_layer_process_beside_is_used_so_that_others_reach_the_sockets(project: Path) -> None:
    with layer_process(project), served(project, "--noreload") as site, open_socket(site) as client:
        client.send("hello")
        client.recv(10)
        subprocess.run([sys.executable, "manage.py", "shell", "-c", SEND], cwd=project, check=True)
        assert client.recv(10) == "from outside"
        assert "no layer process" not in site.log
