"""A running site from another terminal: restart, stop, start, scale, logs, and supervisorctl."""

import concurrent.futures
import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.test_kill import assert_answered_in_order, talk_on
from tests.support.clients import Browser, talking
from tests.support.processes import Site, copy_project, running_site
from tests.support.redis import running_redis
from tests.support.waiting import wait_until

SOCKETS = 20


@pytest.fixture(scope="module")
def site(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    layer = f"ipc://{tmp_path_factory.mktemp('layer')}/l.sock"
    with running_site(project, "--workers", "2", environ={"PROCMAN_LAYER": layer}) as site:
        yield site


@contextmanager
def asking(site: Site) -> Iterator[None]:
    """Requests all the while, from four clients; each must be answered 200."""
    is_over = threading.Event()

    def ask() -> int:
        count = 0
        while not is_over.is_set():
            assert Browser(site.url).get("/users/", timeout=20).status == 200
            count += 1
        return count

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
        try:
            yield
        finally:
            is_over.set()
        assert all(each.result(30) > 1 for each in asked)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ipc", "redis"])
def test_a_restart_under_load_fails_no_request_and_closes_no_socket(
    project: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    if kind == "ipc":
        restart_under_load(request.getfixturevalue("site"))
        return
    with running_redis() as redis, running_site(project, environ={"PROCMAN_LAYER": redis.url}) as site:
        restart_under_load(site)


def restart_under_load(site: Site) -> None:
    """Restart all workers twice while sockets talk and requests are made."""
    before = {name: site.pid_of(name) for name in ("worker.1", "worker.2", "interface.1")}
    log = len(site.log)
    with talking(site.ws_url, SOCKETS) as talkers, asking(site):
        talk_on(talkers)
        for _ in range(2):
            assert site.run("restart").stdout == "preloader: running\nworker.1: running\nworker.2: running\n"
            talk_on(talkers)
        talkers.finish()
        assert_answered_in_order(talkers)
    after = {name: site.pid_of(name) for name in before}
    assert after["interface.1"] == before["interface.1"]
    assert not {after["worker.1"], after["worker.2"]} & set(before.values())
    said = site.log[log:]
    assert "redelivered" not in said and "ERROR" not in said and "WARNING" not in said


def test_processes_are_stopped_and_stay_down_until_they_are_started(site: Site) -> None:
    assert site.run("stop", "worker.2").stdout == "worker.2: stopped\n"
    assert site.status()["worker.2"]["state"] == "STOPPED"
    assert Browser(site.url).get("/").status == 200
    assert site.run("start", "worker.2").stdout == "worker.2: running\n"
    site.run("stop", "worker")
    assert site.run("restart", "worker.1", "worker.2").stdout.endswith("worker.1: running\nworker.2: running\n")


def test_workers_are_scaled_while_the_others_go_on(site: Site) -> None:
    pids = {name: site.pid_of(name) for name in ("worker.1", "worker.2")}
    assert site.run("scale", "worker=4").stdout == "worker.3: running\nworker.4: running\n"
    assert "worker.4    | " in site.log
    assert site.run("scale", "worker=2").stdout == "worker.3: stopped\nworker.4: stopped\n"
    assert set(site.status()) - {"layer"} == {"interface.1", "preloader", "worker.1", "worker.2"}
    assert {name: site.pid_of(name) for name in pids} == pids


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["restart", "nobody"], "there is no process or type 'nobody'; there are "),
        (["scale", "worker"], "'worker' is not like worker=4"),
        (["scale", "interface=2"], "its number is fixed; this can be scaled: worker"),
        (["scale", "worker=9999"], "choose 0 to 512"),
        (["logs", "nobody"], "`channels-run status` lists them"),
        (["logs", "--grep", "("], "--grep is no regular expression"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(site: Site, words: list[str], text: str) -> None:
    done = site.run(*words, check=False)
    assert done.returncode == 2 and text in done.stderr.replace("\n", " ")


def test_the_log_is_read_and_followed(site: Site) -> None:
    assert re.search(r"worker\.1 +\| worker ready", site.run("logs", "worker").stdout)
    assert "interface.1" not in site.run("logs", "worker").stdout
    assert len(site.run("logs", "-n", "2").stdout.splitlines()) == 2
    assert site.run("logs", "--grep", "interface ready").stdout.count("\n") == 1
    command = [sys.executable, "-m", "procman", "logs", "-f", "-n", "0", "interface", "--grep", "GET /nowhere"]
    with subprocess.Popen(command, cwd=site.directory, env=site.environ, stdout=subprocess.PIPE) as follower:
        assert follower.stdout is not None
        found: list[bytes] = []
        reader = threading.Thread(target=lambda: found.append(follower.stdout.readline()))  # type: ignore[union-attr]
        reader.start()

        def is_seen() -> bool:
            Browser(site.url).get("/nowhere/")
            return bool(found)

        wait_until(is_seen, 20)
        follower.kill()
    assert b"GET /nowhere/ 404" in found[0]


def test_top_shows_the_site_once_where_there_is_no_terminal(site: Site) -> None:
    shown = site.run("top", "--interval", "0.2").stdout
    assert re.search(r"^0 sockets +\d+ messages/s +0 wait +0 in flight", shown)
    assert re.search(r"worker\.1 +\d+ +RUNNING +\S+( s)? +\d+ +\d+ +\d+\n", shown)


def test_top_is_looked_at_and_used_in_a_terminal(site: Site) -> None:
    before = site.pid_of("worker.2")
    main, side = pty.openpty()
    fcntl.ioctl(main, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    command = [sys.executable, "-m", "procman", "top", "--interval", "0.2"]
    environ = site.environ | {"TERM": "xterm"}
    with subprocess.Popen(command, cwd=site.directory, env=environ, stdin=side, stdout=side, stderr=side) as process:
        os.close(side)
        seen = b""

        def read_until(text: bytes) -> None:
            nonlocal seen
            end = time.monotonic() + 20
            while text not in seen:
                assert time.monotonic() < end and select.select([main], [], [], 20)[0], seen[-3000:]
                seen += os.read(main, 65536)

        read_until(b"worker.2")
        for _ in range(10):
            os.write(main, b"j")  # down to the last line
        os.write(main, b"r")
        read_until(b"restart worker.2: done")
        assert site.pid_of("worker.2") != before
        os.write(main, b"q")
        assert process.wait(10) == 0
    os.close(main)


def test_supervisorctl_controls_it_and_so_does_our_own(site: Site) -> None:
    stock = [shutil.which("supervisorctl", path=str(Path(sys.executable).parent)) or ""]
    assert stock[0]
    status = subprocess.run(
        [sys.executable, "-m", "procman", "status", "--json"], cwd=site.directory, env=site.environ, text=True,
        capture_output=True, check=True,
    ).stdout  # fmt: skip
    path = re.findall(r'"control": "([^"]+)"', status)[0]
    for command in ([*stock, "-s", f"unix://{path}"], [sys.executable, "-m", "procman", "ctl"]):

        def ask(*words: str, command: list[str] = command) -> str:
            done = subprocess.run(
                [*command, *words], cwd=site.directory, env=site.environ, capture_output=True, text=True, timeout=60
            )
            return f"{done.stdout}{done.returncode}"

        assert re.search(r"worker:worker\.1 +RUNNING +pid \d+", ask("status"))
        assert ask("stop", "worker:worker.2") == "worker:worker.2: stopped\n0"
        assert re.search(r"worker:worker\.2 +STOPPED[\s\S]*3$", ask("status"))
        assert ask("start", "worker:worker.2") == "worker:worker.2: started\n0"
        assert ask("restart", "worker:*").count("started") == 2
        assert ask("signal", "WINCH", "worker:worker.1") == "worker:worker.1: signalled\n0"
        assert ask("pid", "worker:worker.1") == f"{site.pid_of('worker.1')}\n0"
        assert "worker ready" in ask("tail", "worker:worker.1")
        assert "worker ready" in ask("maintail")
        assert "in use" in ask("avail")
        assert "nobody: ERROR (no such process)" in ask("start", "nobody")


def test_workers_whose_code_does_not_start_leave_the_old_ones(tmp_path: Path) -> None:
    directory = copy_project(tmp_path / "project")
    layer = f"ipc://{tmp_path}/l.sock"
    with running_site(directory, "--workers", "2", environ={"PROCMAN_LAYER": layer}) as site:
        before = {name: site.pid_of(name) for name in ("worker.1", "worker.2")}
        views = directory / "mysite" / "urls.py"
        views.write_text(views.read_text() + "\nthis is no Python\n")
        done = site.run("restart", check=False)
        assert {name: site.pid_of(name) for name in before} == before
        site.wait_for_line(r"ERROR preloader .* without having been ready; the old one stays, and the others too")
        assert (done.returncode, done.stdout) == (1, "preloader: kept\nworker.1: kept\nworker.2: kept\n")
        assert "SyntaxError" in done.stderr and "does not start; the old processes stay" in done.stderr


def test_the_whole_site_is_stopped_from_another_terminal(tmp_path: Path) -> None:
    directory = copy_project(tmp_path / "project")
    with running_site(directory, environ={"PROCMAN_LAYER": f"ipc://{tmp_path}/l.sock"}) as site:
        assert site.run("stop").stdout == "stopped\n"
        assert site.process is not None and site.process.wait(10) == 0
        assert site.run("stop", check=False).returncode == 3
        assert "not running" in site.run("restart", check=False).stderr
