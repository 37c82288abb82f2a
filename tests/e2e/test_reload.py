"""``channels-run --reload``: new code without losing a socket, and broken code shown where the developer looks."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.clients import Browser
from tests.support.processes import Site, copy_project, running_site
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

VIEW = """
from django.http import HttpResponse

def version(request):
    return HttpResponse("version 1")

urlpatterns.insert(0, path("version/", version))
"""

# Compiled code is kept, as it is where nobody turns that off.
COMPILING = {"PYTHONDONTWRITEBYTECODE": ""}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    found = copy_project(tmp_path / "project")
    subprocess.run([sys.executable, "manage.py", "migrate", "-v0"], cwd=found, check=True)
    urls = found / "mysite" / "urls.py"
    urls.write_text(urls.read_text() + VIEW)
    return found


def can_connect(site: Site, origin: str) -> bool:
    try:
        with connect(f"{site.ws_url}/x/", origin=origin):  # type: ignore[arg-type]
            return True
    except InvalidStatus as refused:
        assert refused.response.status_code == 403
        return False


def edit(directory: Path, before: str, after: str) -> None:
    path = directory / "mysite" / "urls.py"
    text = path.read_text()
    assert before in text
    saved = path.stat()
    path.write_text(text.replace(before, after))
    # As two saves within a second: Python knows what it has compiled by this time and the size.
    os.utime(path, ns=(saved.st_atime_ns, saved.st_mtime_ns))


def page(site: Site) -> tuple[int, str]:
    answer = Browser(site.url).get("/version/", timeout=20, headers={"Accept": "text/html"})
    return answer.status, answer.text


def reloads(site: Site) -> int:
    return site.log.count("changed; reloading")


def test_new_code_answers_and_sockets_stay_while_broken_code_is_shown(directory: Path) -> None:
    with running_site(directory, "--reload", "--workers", "2", environ=COMPILING | {"DEBUG": "1"}) as site:
        site.pid_of("reloader")
        assert page(site) == (200, "version 1")
        with connect(site.ws_url + "/x/") as socket:
            edit(directory, "version 1", "version 2")
            wait_until(lambda: reloads(site) == 1, 20)
            wait_until(lambda: page(site) == (200, "version 2"), 20)
            assert "mysite/urls.py changed; reloading" in site.log
            edit(directory, "def version(request):", "def version(request:")
            wait_until(lambda: page(site)[0] == 503, 20)
            text = page(site)[1]
            assert "SyntaxError" in text and "mysite/urls.py" in text and "def version(request:" in text
            site.wait_for_line(r"preloader +\| SyntaxError")
            site.wait_for_line(r"ERROR preloader .*; waiting for a change of the code")
            assert "procman/cli" not in site.log
            socket.send("sent while nothing runs")
            edit(directory, "def version(request:", "def version(request):")
            wait_until(lambda: page(site)[0] == 200, 20)
            assert json.loads(socket.recv(20))["echo"] == "sent while nothing runs"
            edit(directory, "version 2", "version 3")
            wait_until(lambda: page(site)[1] == "version 3", 20)


def test_code_that_does_not_start_at_first_is_waited_for(directory: Path) -> None:
    urls = directory / "mysite" / "urls.py"
    good = urls.read_text()
    urls.write_text(good + "\nthis is no Python\n")
    broken = r"channels-run: error: .*urls\.py:\d+: SyntaxError.*; waiting for a change of the code"

    def mend() -> bool:
        # Again and again: the line comes before the files are watched.
        if re.search(broken, site.log):
            urls.write_text(good)
        return "ready: http" in site.log

    site = Site(directory, ("start", "--port", "0", "--reload", "--workers", "1"))
    mending = threading.Thread(target=lambda: wait_until(mend, 30))
    site.log_path.touch()
    mending.start()
    try:
        site.start()
        mending.join(30)
        assert re.search(broken, site.log)
        assert page(site) == (200, "version 1")
    finally:
        assert site.stop() == 0


def test_settings_that_concern_the_interface_are_followed(directory: Path) -> None:
    settings = directory / "mysite" / "settings.py"
    with running_site(directory, "--reload", "--workers", "1") as site:
        site.pid_of("reloader")
        assert not can_connect(site, "https://new.example")
        settings.write_text(settings.read_text() + "\nALLOWED_HOSTS = ['127.0.0.1', 'new.example']\n")
        wait_until(lambda: reloads(site) == 1, 20)
        wait_until(lambda: can_connect(site, "https://new.example"), 20)


def test_a_project_that_cannot_be_forked_is_reloaded_too(directory: Path) -> None:
    urls = directory / "mysite" / "urls.py"
    thread = "threading.Thread(target=threading.Event().wait, daemon=True).start()"
    urls.write_text(urls.read_text() + f"\nimport threading\n{thread}\n")
    with running_site(directory, "--reload", "--workers", "1", environ=COMPILING) as site:
        site.pid_of("reloader")
        site.wait_for_line("WARNING workers are not forked from the preloader")
        assert page(site) == (200, "version 1")
        for count, (before, after) in enumerate([("version 1", "version 2"), ("version 2", "version 3")], 1):
            edit(directory, before, after)
            wait_until(lambda count=count: reloads(site) == count, 20)  # type: ignore[misc]
            wait_until(lambda after=after: page(site) == (200, after), 20)  # type: ignore[misc]
