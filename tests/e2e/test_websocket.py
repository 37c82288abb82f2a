"""WebSockets from the socket to consumers and back, on real processes."""

import json
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.support.clients import Browser
from tests.support.processes import Site
from tests.support.waiting import wait_until


@pytest.fixture
def socket(site: Site) -> Iterator[ClientConnection]:
    with connect(f"{site.ws_url}/socket/") as socket:
        yield socket


def marks(site: Site, event: str, **facts: object) -> list[dict[str, object]]:
    """Marks of the test project so far that carry *facts*."""
    path = site.directory / "marks.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines]
    return [m for m in found if m["event"] == event and all(m.get(k) == v for k, v in facts.items())]


def test_frames_are_echoed_in_order_with_the_session_kept(socket: ClientConnection) -> None:
    for n in range(50):
        socket.send(f"frame {n}")
    assert [json.loads(socket.recv(10)) for _ in range(50)] == [
        {"echo": f"frame {n}", "count": n + 1} for n in range(50)
    ]


def test_binary_frames_come_back_as_binary(socket: ClientConnection) -> None:
    socket.send(b"\x00\xff")
    assert socket.recv(10) == b"\x00\xff"


def test_a_group_send_reaches_every_member(site: Site, socket: ClientConnection) -> None:
    with connect(f"{site.ws_url}/other/") as other:
        socket.send("say hello to all")
        assert socket.recv(10) == other.recv(10) == "say hello to all"


def test_a_view_reaches_the_sockets(site: Site, socket: ClientConnection) -> None:
    assert Browser(site.url).get("/say/?text=from+a+view").text == "said"
    assert socket.recv(10) == "from a view"


def test_a_channel_of_the_projects_own_is_consumed(socket: ClientConnection) -> None:
    socket.send("background work")
    assert socket.recv(10) == "done: background work"


def test_the_disconnect_consumer_sees_code_and_session(site: Site) -> None:
    with connect(f"{site.ws_url}/leaving/") as socket:
        socket.send("one")
        socket.recv(10)
        socket.send("two")
        socket.close(4001, "bye")
    found = wait_until(lambda: marks(site, "disconnect", path="/leaving/"), 10)
    assert [(m["code"], m["count"], m["session_path"]) for m in found] == [(4001, 2, "/leaving/")]


@pytest.mark.parametrize("text", ["raise", "exit"])
def test_a_consumer_that_fails_closes_its_socket_with_1011_and_the_worker_lives(site: Site, text: str) -> None:
    workers = {site.pid_of("worker.1"), site.pid_of("worker.2")}
    with connect(f"{site.ws_url}/failing/") as socket:
        socket.send(text)
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(10)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1011
    assert {site.pid_of("worker.1"), site.pid_of("worker.2")} == workers


def test_a_connect_consumer_that_fails_is_no_refusal(site: Site) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(f"{site.ws_url}/broken/"):
        raise AssertionError("accepted")
    assert refused.value.response.status_code == 500


def test_an_origin_that_is_not_an_allowed_host_is_refused(site: Site) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(f"{site.ws_url}/x/", origin="https://evil.example"):  # type: ignore[arg-type]
        raise AssertionError("accepted")
    assert refused.value.response.status_code == 403
    site.wait_for_line("evil.example")


def test_the_sites_own_origin_is_accepted(site: Site) -> None:
    with connect(f"{site.ws_url}/x/", origin=site.url) as socket:  # type: ignore[arg-type]
        socket.send("hi")
        assert json.loads(socket.recv(10))["echo"] == "hi"
