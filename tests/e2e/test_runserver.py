"""``manage.py runserver``: the test project with the reloader, which keeps the sockets, and in one process without."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
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
def served(
    project: Path, *arguments: str, ready: str = READY, address: str = "", log: str = "runserver.log"
) -> Iterator[Site]:
    """The project below ``manage.py runserver``, as from a terminal; killed at the end if it is still there."""
    site = Site(project, environ={"DEBUG": "1", "PYTHONUNBUFFERED": "1"})
    site.command = [sys.executable, "manage.py", "runserver", f"{address}{free_port()}", *arguments]
    site.log_path = project / log
    site.is_session = True
    try:
        yield site.start(ready=ready)
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


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with its database that no test touches."""
    project = copy_project(tmp_path_factory.mktemp("runserver") / "project")
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=project, check=True)
    return project


@pytest.fixture
def fresh(migrated: Path, tmp_path: Path) -> Path:
    """A copy of the project that may be edited."""
    return Path(shutil.copytree(migrated, tmp_path / "project"))


def append(path: Path, text: str) -> None:
    with path.open("a") as changed:
        changed.write(text)


def edit(site: Site, path: Path, code: str) -> None:
    """Write *code* until the reloader has noticed: a change before its first look at a file goes unseen."""
    count = site.log.count("changed, reloading")

    def is_noticed() -> bool:
        path.write_text(code)
        return site.log.count("changed, reloading") > count

    path.write_text(code)
    wait_until(is_noticed, 30, interval=0.3, what=site.log)


def wait_for_reload(site: Site, lives: int) -> None:
    """Until the code has been started *lives* times."""
    wait_until(lambda: site.log.count("Starting Channels development server") >= lives, 60, what=site.log)


def test_pages_static_files_sockets_and_groups_are_served_and_a_reload_keeps_the_sockets(fresh: Path) -> None:
    with served(fresh) as site:
        browser = Browser(site.url)
        assert browser.get("/").status == 200
        assert browser.get("/static/admin/css/base.css").headers["Content-Type"].startswith("text/css")
        with open_socket(site) as one, open_socket(site) as two:
            one.send("hello")
            assert json.loads(one.recv(10)) == {"echo": "hello", "count": 1}
            one.send("background work")
            assert one.recv(10) == "done: background work"
            two.send("say hi")
            assert one.recv(10) == two.recv(10) == "say hi"
            assert len(descendants(site.pid)) + 1 == 2  # the keeper and the code
            consumers = fresh / "mysite" / "consumers.py"
            edit(site, consumers, consumers.read_text().replace('"echo": text', '"again": text'))
            wait_for_reload(site, 2)
            one.send("hello")
            assert json.loads(one.recv(10)) == {"again": "hello", "count": 2}  # new code, old session
            two.send("say still here")
            assert one.recv(10) == "say still here"
            subprocess.run([sys.executable, "manage.py", "shell", "-c", SEND], cwd=fresh, check=True)
            assert one.recv(10) == "from outside"
            below = descendants(site.pid)
            status, seconds = interrupt(site)
            assert (status, seconds < 2.5) == (0, True), site.log
            with pytest.raises(ConnectionClosed):
                one.recv(10)
            assert one.protocol.close_code == 1012
        assert (fresh / "marks.jsonl").read_text().count('"code": 1012') == 2  # their disconnects ran
        site.wait_for_line(r"HTTP GET / 200 \[\d+\.\d\d, 127\.0\.0\.1\]")
        for word in ("HANDSHAKING", "CONNECT", "DISCONNECT"):
            site.wait_for_line(rf"WebSocket {word} /room \[127\.0\.0\.1\]")
        wait_until(lambda: not any(is_alive(pid) for pid in below))
        assert "Traceback" not in site.log, site.log
        with socket.create_server(("127.0.0.1", site.port)):
            pass  # the port is free again


def test_code_that_does_not_import_is_told_in_the_browser_and_its_repair_finds_the_sockets_open(fresh: Path) -> None:
    with served(fresh) as site, open_socket(site) as client:
        client.send("hello")
        client.recv(10)
        consumers = fresh / "mysite" / "consumers.py"
        code = consumers.read_text()
        edit(site, consumers, code + "def broken(:\n")
        site.wait_for_line("SyntaxError")
        page = wait_until(lambda: found if (found := get_page(site)).status == 503 else None, 20)
        assert "SyntaxError" in page.text and "consumers.py" in page.text
        assert page.headers["Content-Type"].startswith("text/html")
        client.send("into the pause")
        edit(site, consumers, code)
        wait_for_reload(site, 2)
        assert json.loads(client.recv(20)) == {"echo": "into the pause", "count": 2}
        assert get_page(site).status == 200


def get_page(site: Site) -> Any:
    return Browser(site.url).get("/", headers={"Accept": "text/html"})


def test_a_reload_has_a_request_run_again_by_the_next_process_but_not_a_form(fresh: Path) -> None:
    urls = fresh / "mysite" / "urls.py"
    code = urls.read_text() + "from django.views.decorators.csrf import csrf_exempt\n" + SLOW
    urls.write_text(code.replace("def slow(", "@csrf_exempt\ndef slow("))
    with served(fresh) as site, ThreadPoolExecutor(2) as pool:
        asked = pool.submit(Browser(site.url).get, "/slow/")
        sent = pool.submit(Browser(site.url).request, "POST", "/slow/")
        marks = fresh / "marks.jsonl"
        wait_until(lambda: marks.exists() and marks.read_text().count('"slow"') == 2)
        edit(site, urls, urls.read_text().replace("wait(20)", "wait(0)"))
        assert sent.result(20).status == 502
        found = asked.result(20)
        assert (found.status, found.text) == (200, "late")
        assert marks.read_text().count('"slow"') == 3  # the form was not run a second time


def test_it_ends_cleanly_while_the_code_is_broken(fresh: Path) -> None:
    with served(fresh) as site:
        assert site.process is not None
        models = fresh / "mysite" / "consumers.py"
        edit(site, models, "def broken(:\n")
        site.wait_for_line("SyntaxError")
        below = descendants(site.pid)
        site.process.terminate()  # the one process only, as `kill` does
        assert site.process.wait(10) == 0
        wait_until(lambda: not any(is_alive(pid) for pid in below))
        assert site.log.count("Traceback") == 1, site.log


def test_a_change_of_settings_reaches_the_process_that_keeps_the_sockets(fresh: Path) -> None:
    with served(fresh) as site, open_socket(site) as client:
        origin = "http://elsewhere.example"
        with pytest.raises(InvalidStatus):
            connect(f"{site.ws_url}/room", proxy=None, origin=origin)
        settings = fresh / "mysite" / "settings.py"
        edit(site, settings, settings.read_text() + "ALLOWED_HOSTS += ['elsewhere.example'\n")
        site.wait_for_line("'\\[' was never closed")
        site.wait_for_line(r"Waiting for a change in .*/mysite: open connections are kept")
        append(settings, "]\n")
        wait_for_reload(site, 2)
        with connect(f"{site.ws_url}/room", proxy=None, origin=origin, open_timeout=20):
            pass
        client.send("hello")
        assert json.loads(client.recv(10))["count"] == 1


def test_a_layer_in_memory_is_kept_too_and_one_that_changes_closes_the_sockets(fresh: Path) -> None:
    settings = fresh / "mysite" / "settings.py"
    ipc, memory = "procman.layers.ipc.IPCChannelLayer", "procman.layers.memory.InMemoryChannelLayer"
    code = settings.read_text()
    settings.write_text(code.replace(ipc, memory))
    with served(fresh) as site, open_socket(site) as client:
        assert "W001" not in site.log
        urls = fresh / "mysite" / "urls.py"
        edit(site, urls, urls.read_text())
        wait_for_reload(site, 2)
        client.send("hello")
        assert json.loads(client.recv(10))["count"] == 1
        edit(site, settings, code)
        site.wait_for_line("CHANNEL_LAYERS or FORCE_SCRIPT_NAME has changed")
        with pytest.raises(ConnectionClosed):
            client.recv(20)
        wait_for_reload(site, 3)
        with open_socket(site) as again:
            again.send("hello")
            assert json.loads(again.recv(10))["count"] == 1


def test_a_killed_keeper_leaves_nothing_behind(fresh: Path) -> None:
    with served(fresh) as site:
        below = descendants(site.pid)
        assert site.process is not None
        site.process.kill()
        site.process.wait(10)
        wait_until(lambda: not any(is_alive(pid) for pid in below))


def test_code_that_kills_its_process_is_started_again_and_the_sockets_stay(fresh: Path) -> None:
    with served(fresh) as site, open_socket(site) as client:
        client.send("die once")
        site.wait_for_line(r"ended by signal 9 \(SIGKILL\); starting it again")
        client.send("hello")
        wait_for_reload(site, 2)
        texts = [json.loads(client.recv(20))["echo"] for _ in range(2)]
        assert texts == ["die once", "hello"]


def test_a_port_that_is_taken_is_told_in_one_line(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "manage.py", "runserver", str(port)],
            cwd=project,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"CommandError: 127.0.0.1:{port} cannot be listened on: Address already in use\n"


def test_workers_of_another_process_serve_what_runserver_without_workers_takes(fresh: Path) -> None:
    settings = "\nCHANNELS_WS_PROTOCOLS = ['v1', 'v2']\nFORCE_SCRIPT_NAME = '/below'\n"
    append(fresh / "mysite" / "settings.py", settings)
    with served(fresh, "--noworker", address="[::1]:") as site:
        assert site.url.startswith("http://[::1]:")
        worker = subprocess.Popen([sys.executable, "manage.py", "runworker", "-v0"], cwd=fresh)
        try:
            uri = f"{site.ws_url}/room"
            with connect(uri, proxy=None, open_timeout=20, subprotocols=["x", "v2"]) as client:  # type: ignore[list-item]
                assert client.subprotocol == "v2"
                client.send("hello")
                assert json.loads(client.recv(10))["count"] == 1
        finally:
            worker.terminate()
            worker.wait(10)
        wait_until(lambda: '"path": "/below/room"' in (fresh / "marks.jsonl").read_text())


def test_a_second_runserver_takes_the_layer_over_when_the_first_one_ends(fresh: Path) -> None:
    with served(fresh, "--noworker") as first, served(fresh, log="second.log") as second:
        assert Browser(first.url).get("/").status == 200  # by the workers of the second
        interrupt(first)
        wait_until(lambda: can_be_asked(second), 30)


def can_be_asked(site: Site) -> bool:
    return Browser(site.url).get("/").status == 200


def test_models_that_do_not_import_at_the_start_are_waited_for(fresh: Path) -> None:
    models = fresh / "later" / "models.py"
    models.parent.mkdir()
    (fresh / "later" / "__init__.py").touch()
    models.write_text("def broken(:\n")
    append(fresh / "mysite" / "settings.py", "INSTALLED_APPS += ['later']\n")
    with served(fresh, ready=r"line (\d+)\n.*\n.*\nSyntaxError") as site:
        edit(site, models, "")
        found = site.wait_for_line(READY)
        below = descendants(site.pid)
        with connect(f"{found[1].replace('http', 'ws')}/room", proxy=None, open_timeout=20) as client:
            client.send("hello")
            urls = fresh / "mysite" / "urls.py"
            edit(site, urls, urls.read_text())
            wait_for_reload(site, 2)
            client.send("hello")
            assert [json.loads(client.recv(10))["count"] for _ in range(2)] == [1, 2]
        interrupt(site)
        wait_until(lambda: not any(is_alive(pid) for pid in below))


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
