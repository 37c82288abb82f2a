"""Workers that are forked from a process which has imported the project: safe, quick, and without it where need be."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.clients import Browser
from tests.support.processes import Site, copy_project, descendants, is_alive, running_site
from tests.support.waiting import wait_until

VIEW = """
import os, random, threading
from django.http import JsonResponse

LOADED_IN = os.getpid()

def who(request):
    return JsonResponse({"pid": os.getpid(), "loaded": LOADED_IN, "random": random.random(),
                         "threads": [thread.name for thread in threading.enumerate()]})

urlpatterns.insert(0, path("who/", who))
"""
SLOW = "\nimport time\ntime.sleep(2)\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    found = copy_project(tmp_path / "project")
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=found, check=True)
    add(found, VIEW)
    return found


def add(directory: Path, code: str) -> None:
    """Have the project run *code* at the end of its URLs."""
    urls = directory / "mysite" / "urls.py"
    urls.write_text(urls.read_text() + code)


def who(site: Site) -> dict[str, object]:
    answer = json.loads(Browser(site.url).get("/who/", timeout=20).text)
    assert isinstance(answer, dict)
    return answer


def workers(site: Site) -> dict[str, int]:
    return {name: site.pid_of(name) for name in ("worker.1", "worker.2")}


def is_forked(site: Site) -> bool:
    """Whether the worker that answers has not imported the project itself."""
    answer = who(site)
    return answer["pid"] != answer["loaded"]


def test_workers_are_forked_belong_to_the_supervisor_and_are_each_their_own(directory: Path) -> None:
    with running_site(directory, "--workers", "2") as site:
        pids = workers(site)
        answers = [who(site) for _ in range(4)]
        assert {answer["loaded"] for answer in answers} == {site.pid_of("preloader")}
        assert {answer["pid"] for answer in answers} <= set(pids.values())
        for name, pid in pids.items():
            assert psutil.Process(pid).ppid() == site.pid
            assert os.getpgid(pid) == os.getsid(pid) == pid
            assert psutil.Process(pid).environ()  # it may be looked at: the same user's
            assert f"{name}    | worker ready" in site.log
        site.run("stop", "worker.1")
        one = who(site)["random"]
        site.run("start", "worker.1")
        site.run("stop", "worker.2")
        assert who(site)["random"] != one  # seeded anew in each


@pytest.mark.slow
def test_a_killed_worker_has_its_successor_long_before_the_project_could_be_imported(directory: Path) -> None:
    add(directory, SLOW)
    with running_site(directory, "--workers", "2") as site:
        for name in ("worker.1", "worker.2"):
            killed = site.kill(name)
            began = time.monotonic()
            wait_until(lambda killed=killed, name=name: site.pid_of(name) != killed, 20)  # type: ignore[misc]
            assert time.monotonic() - began < 1.8
        assert is_forked(site)


def test_a_killed_preloader_comes_back_and_takes_no_worker_with_it(directory: Path) -> None:
    with running_site(directory, "--workers", "2") as site:
        before = workers(site)
        killed = site.kill("preloader")
        wait_until(lambda: site.pid_of("preloader") != killed, 20)
        assert workers(site) == before
        site.kill("worker.1")
        site.kill("worker.2")
        wait_until(lambda: not set(workers(site).values()) & set(before.values()), 20)
        assert who(site)["loaded"] == site.pid_of("preloader")


@pytest.mark.slow
def test_a_worker_that_dies_while_there_is_no_preloader_imports_the_project_itself(directory: Path) -> None:
    add(directory, SLOW)
    with running_site(directory, "--workers", "1") as site:
        killed = site.pid_of("worker.1")
        os.kill(site.pid_of("preloader"), signal.SIGKILL)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: site.pid_of("worker.1") != killed, 20)
        assert not is_forked(site)


@pytest.mark.slow
def test_a_preloader_that_does_not_answer_is_replaced_and_nobody_waits_for_it(directory: Path) -> None:
    with running_site(directory, "--workers", "1") as site:
        stopped = site.kill("preloader", signal.SIGSTOP)
        killed = site.kill("worker.1")
        wait_until(lambda: site.pid_of("worker.1") != killed, 20)
        site.wait_for_line(rf"preloader \(pid {stopped}\) forks nothing: .*; killing it")
        wait_until(lambda: site.pid_of("preloader") != stopped, 20)
        assert Browser(site.url).get("/").status == 200


@pytest.mark.parametrize(
    ("code", "named"),
    [
        (
            "import time\nthreading.Thread(target=lambda: time.sleep(1000), name='busy', daemon=True).start()\n",
            r"starts threads while it is imported: busy \(mysite\.urls\.<lambda>\)",
        ),
        (
            "import socket\nopen_one, other = socket.socketpair()\nserver = socket.create_server(('127.0.0.1', 0))\n"
            "client = socket.create_connection(server.getsockname())\n",
            r"opens connections while it is imported: .*a socket to \('127\.0\.0\.1', \d+\)",
        ),
    ],
)
def test_a_project_that_must_not_be_shared_is_found_out_and_its_workers_import_it(
    directory: Path, code: str, named: str
) -> None:
    add(directory, code)
    with running_site(directory, "--workers", "2") as site:
        site.wait_for_line("WARNING workers are not forked from the preloader.*" + named)
        assert not is_forked(site)
        wait_until(lambda: site.status()["preloader"]["state"] == "STOPPED", 20)
        assert set(workers(site)) == {"worker.1", "worker.2"}


def test_a_database_connection_of_the_import_is_closed_before_workers_are_forked(directory: Path) -> None:
    add(directory, "from django.db import connection\nconnection.ensure_connection()\n")
    with running_site(directory, "--workers", "2") as site:
        assert is_forked(site)
        assert Browser(site.url).get("/users/").status == 200
        assert not [each.path for each in psutil.Process(site.pid_of("preloader")).open_files()
                    if each.path.endswith("sqlite3")]  # fmt: skip


def test_a_restart_loads_the_code_anew_and_code_that_does_not_load_leaves_everything(directory: Path) -> None:
    with running_site(directory, "--workers", "2") as site:
        before = workers(site)
        add(directory, "\nurlpatterns.insert(0, path('new/', who))\n")
        assert Browser(site.url).get("/new/").status == 404
        site.run("restart")
        assert Browser(site.url).get("/new/").status == 200
        after = workers(site)
        assert not set(after.values()) & set(before.values())
        add(directory, "\nthis is no Python\n")
        done = site.run("restart", check=False)
        assert done.returncode == 1 and "SyntaxError" in done.stderr
        site.wait_for_line(r"ERROR preloader .* without having been ready; the old one stays, and the others too")
        assert workers(site) == after
        killed = site.kill("worker.1")  # its successor has the code of the others
        wait_until(lambda: site.pid_of("worker.1") != killed, 20)
        assert Browser(site.url).get("/new/").status == 200 and is_forked(site)
        urls = directory / "mysite" / "urls.py"
        urls.write_text(
            urls.read_text().replace("\nthis is no Python\n", "\nurlpatterns.insert(0, path('newer/', who))\n")
        )
        assert site.run("restart").stdout == "preloader: running\nworker.1: running\nworker.2: running\n"
        assert Browser(site.url).get("/newer/").status == 200
        assert set(workers(site)) == {"worker.1", "worker.2"}


def test_without_a_preloader_each_worker_imports_the_project(directory: Path) -> None:
    with running_site(directory, "--no-preload") as site:
        assert "preloader" not in site.status()
        assert not is_forked(site)


def test_forked_workers_end_with_a_supervisor_that_is_killed(directory: Path) -> None:
    with running_site(directory, "--workers", "2") as site:
        pids = {*workers(site).values(), site.pid_of("preloader"), *descendants(site.pid)}
        assert site.process is not None
        site.process.kill()
        site.process.wait(5)
        wait_until(lambda: not any(is_alive(pid) for pid in pids), 5)


@pytest.mark.slow
def test_one_worker_more_takes_less_than_two_fifths_of_the_memory_of_one_that_imports(directory: Path) -> None:
    def private(pid: int) -> int:
        return int(psutil.Process(pid).memory_full_info().uss)

    with running_site(directory, "--workers", "2", "--no-preload") as site:
        alone = private(site.pid_of("worker.2"))
    with running_site(directory, "--workers", "2") as site:
        assert private(site.pid_of("worker.2")) < 0.4 * alone
