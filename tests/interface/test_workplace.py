"""The page that browsers get while the code of a site does not run."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from procman.interface.embedded import InterfaceThread
from procman.interface.request import Request, Target
from procman.interface.workplace import build_page, is_for_page
from procman.layers.base import Send
from procman.layers.memory import InMemoryChannelLayer
from procman.settings import InterfaceSettings, ProjectConfiguration
from tests.support.interface import read_response
from tests.support.waiting import wait_until

BROWSER = b"GET / HTTP/1.1\r\nHost: example.com\r\nAccept: text/html,*/*;q=0.8\r\n\r\n"
PROGRAM = b"GET / HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n"


class Site:
    """An interface over a layer whose workers are the test."""

    def __init__(self, debug: bool) -> None:
        self.layer = InMemoryChannelLayer()
        self.listener = socket.create_server(("127.0.0.1", 0))
        project = ProjectConfiguration("mysite.settings", "memory://", allowed_hosts=["*"], debug=debug)
        self.thread = InterfaceThread(InterfaceSettings(drain_timeout=0.1, access_log=False), project, self.layer)
        self.thread.start([self.listener])
        self.port = self.listener.getsockname()[1]

    def ask(self, request: bytes) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), 10)
        client.sendall(request)
        return client

    def answer(self) -> None:
        """Answer one request as a worker would."""
        request = self.layer.take(["http.request"], 10)
        assert request is not None
        answer = {"status": 200, "headers": [], "content": b"hi"}
        self.layer.finish(request, [Send(request.message["reply_channel"], answer)])

    def show(self, page: str) -> None:
        """Show *page*; returns when the interface does."""
        shown = threading.Event()
        self.thread.show(page)
        self.thread._call(lambda server: shown.set())
        assert shown.wait(10)

    def close(self) -> None:
        self.thread.stop(hurry=True)
        assert self.thread.join(10)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site(debug=True)
    yield site
    site.close()


def test_the_page_shows_its_text_as_it_is_and_loads_again_by_itself() -> None:
    page = build_page("It's <broken>", 'File "<x>"')
    assert "<broken>" not in page and "&lt;broken&gt;" in page and "&lt;x&gt;" in page
    assert 'http-equiv="refresh"' in page


@pytest.mark.parametrize(
    ("method", "accept", "expected"),
    [
        ("GET", b"text/html,*/*", True),
        ("POST", b"text/html", False),
        ("GET", b"*/*", False),
        ("GET", b"application/json, text/html", False),
        ("GET", None, False),
    ],
)
def test_only_a_person_who_asks_for_a_page_gets_it(method: str, accept: bytes | None, expected: bool) -> None:
    headers = [(b"host", b"x")] + ([(b"accept", accept)] if accept is not None else [])
    assert is_for_page(Request(method, Target(b"/", b""), headers, "1.1")) is expected


def test_a_browser_that_waits_and_one_that_asks_are_shown_the_page_and_a_program_waits(site: Site) -> None:
    with site.ask(BROWSER) as browser, site.ask(PROGRAM) as program:
        wait_until(lambda: site.layer.channel_statistics("http.request")["messages_pending"] == 2)
        site.show(build_page("Broken", "SyntaxError"))
        for client in (browser, site.ask(BROWSER)):
            status, headers, content = read_response(client)
            client.close()
            assert (status, headers["content-type"]) == (503, "text/html; charset=utf-8")
            assert b"SyntaxError" in content
        site.show("")
        site.answer()
        assert read_response(program)[0] == 200


def test_once_the_code_runs_browsers_are_served_again(site: Site) -> None:
    site.show("gone")
    site.show("")
    with site.ask(BROWSER) as browser:
        site.answer()
        assert read_response(browser)[0] == 200


def test_without_debug_no_page_tells_of_the_code() -> None:
    site = Site(debug=False)
    site.show(build_page("Broken", "secret"))
    with site.ask(BROWSER) as browser:
        site.answer()
        status: Any = read_response(browser)[0]
        assert status == 200
    site.close()
