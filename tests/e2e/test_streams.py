"""Long responses through real processes: they take no worker away, wait for their clients and end with them."""

import http.client
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser as Chromium

from tests.e2e.test_kill import marks
from tests.support.chromium import running_chromium
from tests.support.clients import Browser
from tests.support.processes import Site, memory_kib, running_site
from tests.support.redis import running_redis
from tests.support.waiting import wait_until

LIMIT = 4


@pytest.fixture(scope="module", params=["ipc", "ipc, 2 threads", "redis"])
def site(request: pytest.FixtureRequest, project: Path) -> Iterator[Site]:
    """One worker only: whatever a stream took away would be missing."""
    (project / "marks.jsonl").unlink(missing_ok=True)
    with ExitStack() as stack:
        layer = ["--layer", stack.enter_context(running_redis()).url] if request.param == "redis" else []
        threads = "2" if "threads" in request.param else "1"
        options = ("--workers", "1", "--threads", threads, "--max-streams", str(LIMIT), "--stream-grace", "0.5")
        yield stack.enter_context(running_site(project, *options, *layer))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    with running_chromium() as browser:
        yield browser


@contextmanager
def streaming(site: Site, path: str) -> Iterator[http.client.HTTPResponse]:
    """A response of which the head has come; its client leaves at the end."""
    host, port = site.url.removeprefix("http://").split(":")
    with closing(http.client.HTTPConnection(host, int(port), timeout=30)) as connection:
        connection.request("GET", path)
        with connection.getresponse() as response:
            yield response


def open_stalled(site: Site, path: str) -> socket.socket:
    """A connection that asks for *path* and reads nothing."""
    host, port = site.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((host, int(port)))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return connection


def wait_for_ends(site: Site) -> None:
    """Until each stream that began has been closed."""
    wait_until(lambda: len(marks(site, "endless begun")) == len(marks(site, "endless closed")), 20)


def test_streams_take_no_worker_away_up_to_their_limit(site: Site) -> None:
    browser = Browser(site.url)
    with ExitStack() as stack:
        for _ in range(LIMIT):
            response = stack.enter_context(streaming(site, "/endless/?pause=0.05"))
            assert response.status == 200
            assert response.read(10) == b"x" * 10
        assert browser.get("/", timeout=5).text == "hello"
        refused = browser.get("/stream/", timeout=5)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")
        for _ in range(20):
            assert browser.get("/users/", timeout=5).status == 200
    wait_for_ends(site)
    assert browser.get("/stream/?parts=3").text.split() == ["0", "1", "2"]


def test_a_client_that_reads_nothing_fills_nobodys_memory(site: Site) -> None:
    names = [name for name in site.status() if name.startswith(("layer", "interface", "worker"))]
    assert Browser(site.url).get("/stream/?parts=40&size=500000").status == 200  # what a stream takes is there
    before = {name: memory_kib(site.pid_of(name))["VmRSS"] for name in names}
    begun = len(marks(site, "endless begun"))
    with closing(open_stalled(site, "/endless/?size=1000000")):
        wait_until(lambda: len(marks(site, "endless begun")) > begun)
        for _ in range(100):
            assert Browser(site.url).get("/users/", timeout=5).status == 200
        for name in names:
            assert memory_kib(site.pid_of(name))["VmRSS"] - before[name] < 24_000, name
    wait_for_ends(site)


def test_a_stream_that_fails_is_incomplete_and_logged_once(site: Site) -> None:
    length = len(site.log)
    with pytest.raises(http.client.IncompleteRead):
        Browser(site.url).get("/broken-stream/")
    site.wait_for_line("broken midway")
    assert Browser(site.url).get("/").status == 200
    assert site.log[length:].count("ERROR") == 1


def test_an_event_source_goes_on_after_the_last_event_that_it_has(site: Site, chromium: Chromium) -> None:
    page = chromium.new_page()
    page.goto(f"{site.url}/events-page/")
    got = page.evaluate(
        """() => new Promise((resolve) => {
            const seen = [], source = new EventSource("/events/");
            source.onmessage = (event) => {
                seen.push(event.data);
                if (seen.length === 7) { source.close(); resolve(seen); }
            };
        })"""
    )
    assert got == [f"event {number}" for number in range(1, 8)]


def test_a_restart_of_the_worker_closes_streams_after_their_grace(site: Site) -> None:
    before = site.pid_of("worker.1")
    with streaming(site, "/endless/?pause=0.05") as response:
        assert response.read(10)
        site.process.send_signal(signal.SIGHUP)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            response.read()
    wait_for_ends(site)
    wait_until(lambda: site.pid_of("worker.1") != before, 20)
    assert Browser(site.url).get("/").text == "hello"


def test_a_response_that_has_begun_is_cut_when_its_worker_dies_and_its_view_does_not_run_again(site: Site) -> None:
    begun = len(marks(site, "endless begun"))
    with streaming(site, "/endless/?pause=0.05") as response:
        assert response.read(10) == b"x" * 10
        site.kill("worker.1")
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            while response.read(1000):
                pass
    site.wait_for_line(r"worker\.1 .* died while it ran a message of http\.request .*cannot be run twice")
    assert Browser(site.url).get("/", timeout=20).text == "hello"
    assert len(marks(site, "endless begun")) == begun + 1
