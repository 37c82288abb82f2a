"""The address for Prometheus: what it answers, and what it bears."""

import asyncio
import socket

import pytest

from procman.errors import ConfigurationError
from procman.interface import scrape as module
from procman.interface import survey
from procman.interface.scrape import parse_bind
from procman.interface.server import InterfaceServer
from procman.settings import InterfaceSettings, ProjectConfiguration
from tests.support.interface import Running, read_response, running_interface
from tests.support.layer import FakeLayer
from tests.support.waiting import wait_until

SETTINGS = InterfaceSettings(drain_timeout=1.0, metrics_bind="127.0.0.1:0")


def test_each_interface_has_the_port_of_its_place():
    assert parse_bind("127.0.0.1:9100") == ("127.0.0.1", 9100)
    assert parse_bind("127.0.0.1:9100", "interface.1") == ("127.0.0.1", 9100)
    assert parse_bind("[::1]:9100", "interface.3") == ("::1", 9102)
    assert parse_bind("127.0.0.1:0", "interface.3") == ("127.0.0.1", 0)


@pytest.mark.parametrize("text", ["9100", "127.0.0.1", "127.0.0.1:", ":9100", "a:b", "127.0.0.1:99999", "::1:x"])
def test_what_is_no_address_is_refused_with_the_flags_name(text):
    with pytest.raises(ConfigurationError, match="--metrics-bind"):
        parse_bind(text)


def ask(site: Running, request: bytes) -> tuple[int, dict[str, str], bytes]:
    assert site.server.metrics is not None
    with socket.create_connection(("127.0.0.1", site.server.metrics.port), 5) as client:
        client.sendall(request)
        return read_response(client)


def get(path: str = "/metrics", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: any\r\n\r\n".encode()


def test_a_scrape_has_the_numbers_of_interface_and_layer():
    with running_interface(SETTINGS) as site:
        status, headers, content = ask(site, get())
        assert status == 200 and headers["content-type"].startswith("text/plain") and headers["connection"] == "close"
        assert b"procman_sockets 0.0\n" in content and b"procman_layer_workers 1.0\n" in content


def test_other_paths_methods_and_broken_requests_are_told():
    with running_interface(SETTINGS) as site:
        assert ask(site, get("/"))[0] == 404
        assert ask(site, get(method="POST"))[0] == 405
        assert ask(site, b"nonsense\r\n\r\n")[0] == 400
        assert ask(site, b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 2 * module.MAX_HEAD)[0] == 431
        assert ask(site, get())[0] == 200


def test_a_scrape_does_not_hang_on_a_layer_that_does_not_answer(monkeypatch):
    monkeypatch.setattr(survey, "ASK_TIMEOUT", 0.1)
    with running_interface(SETTINGS) as site:
        site.layer.is_silent = True

        def layer_is_down() -> bool:
            content = ask(site, get())[2]
            return b"procman_layer_up 0.0\n" in content and b"procman_layer_workers" not in content

        wait_until(layer_is_down)


def test_clients_that_say_nothing_take_no_place_for_ever(monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 2)
    with running_interface(SETTINGS) as site:
        assert site.server.metrics is not None
        silent = [socket.create_connection(("127.0.0.1", site.server.metrics.port), 5) for _ in range(2)]
        for each in silent:
            with each:
                assert each.recv(1) == b""  # dropped
        assert ask(site, get())[0] == 200


def test_a_port_that_is_taken_is_told_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        layer = FakeLayer()
        settings = InterfaceSettings(metrics_bind=f"127.0.0.1:{port}")
        server = InterfaceServer(settings, ProjectConfiguration("tests.settings", "fake://"), layer)
        with pytest.raises(ConfigurationError, match=f"cannot be served at 127.0.0.1:{port}.*--metrics-bind"):
            asyncio.run(server.run([]))
        assert layer.is_closed


def test_a_stop_drops_who_is_being_answered():
    with running_interface(SETTINGS) as site:
        assert site.server.metrics is not None
        client = socket.create_connection(("127.0.0.1", site.server.metrics.port), 5)
        client.sendall(b"GET /metrics HTTP/1.1\r\n")
    with client:
        assert client.recv(1) == b""
