"""``Group.send`` from processes that ``channels-run`` did not start: gunicorn, cron, a shell."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.support.clients import Browser
from tests.support.processes import Site, free_port
from tests.support.waiting import wait_until


@contextmanager
def gunicorn(project: Path, *arguments: str) -> Iterator[str]:
    """The test project's views under gunicorn; yields the URL."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "--bind",
        f"127.0.0.1:{port}",
        "--workers",
        "2",
        *arguments,
        "mysite.wsgi",
    ]
    with (project / "gunicorn.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=project, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            try:
                return Browser(url).get("/").status == 200
            except ConnectionRefusedError:
                return False

        wait_until(answers, 30)
        yield url
    finally:
        process.terminate()
        process.wait(15)


@pytest.mark.parametrize("arguments", [(), ("--preload",)], ids=["plain", "preload"])
def test_a_view_under_gunicorn_reaches_the_sockets(site: Site, arguments: tuple[str, ...]) -> None:
    with connect(f"{site.ws_url}/wsgi/") as socket, gunicorn(site.directory, *arguments) as url:
        for n in range(6):  # both of its workers
            assert Browser(url).get(f"/say/?text={n}").text == "said"
            assert socket.recv(10) == str(n)


def test_a_script_with_an_empty_environment_reaches_the_sockets(site: Site) -> None:
    script = site.directory / "nightly.py"
    script.write_text(
        "import os, django\n"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'mysite.settings'\n"
        "django.setup()\n"
        "from procman.channels import Group\n"
        "Group('everybody').send({'text': 'from cron'})\n"
    )
    with connect(f"{site.ws_url}/cron/") as socket:
        subprocess.run([sys.executable, str(script)], cwd="/", env={}, check=True, timeout=30)
        assert socket.recv(10) == "from cron"


def test_manage_py_shell_reaches_the_sockets(site: Site) -> None:
    code = "from procman.channels import Group; Group('everybody').send({'text': 'from a shell'})"
    with connect(f"{site.ws_url}/shell/") as socket:
        command = [sys.executable, "manage.py", "shell", "-c", code]
        subprocess.run(command, cwd=site.directory, env={**os.environ}, check=True, capture_output=True, timeout=30)
        assert socket.recv(10) == "from a shell"
