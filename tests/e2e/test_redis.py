"""A site over Redis: what works over the local layer works here, and sockets outlive the server."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.e2e.test_kill import assert_answered_in_order, marks, talk_on
from tests.support.clients import Browser, talking
from tests.support.processes import Site, running_site
from tests.support.redis import RedisServer, running_redis
from tests.support.waiting import wait_until

SOCKETS = 20


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis(requirepass="sesame") as server:
        yield server


@pytest.fixture
def site(project: Path, server: RedisServer) -> Iterator[Site]:
    (project / "marks.jsonl").unlink(missing_ok=True)
    address = server.url.replace("redis://", "redis://:sesame@")
    with running_site(project, "--workers", "2", "--layer", address) as site:
        yield site


def test_requests_frames_and_groups_pass_and_the_password_is_nowhere_in_the_log(
    site: Site, server: RedisServer
) -> None:
    browser = Browser(site.url)
    assert browser.get("/").text == "hello"
    token = browser.get("/form/").text
    answer = browser.post_form("/form/", {"name": "n", "csrfmiddlewaretoken": token}, {"file": b"x" * 3_000_000})
    assert json.loads(answer.text)["size"] == 3_000_000
    assert browser.get("/stream/?parts=50&size=1000").body == b"".join(str(n).rjust(1000).encode() for n in range(50))
    with connect(f"{site.ws_url}/a/") as socket, connect(f"{site.ws_url}/b/") as other:
        for n in range(20):
            socket.send(f"frame {n}")
        assert [json.loads(socket.recv(10))["count"] for _ in range(20)] == list(range(1, 21))
        assert browser.get("/say/?text=from+a+view").text == "said"
        assert socket.recv(10) == other.recv(10) == "from a view"
        socket.send("background work")
        assert socket.recv(10) == "done: background work"
    assert set(site.status()) == {"interface.1", "preloader", "worker.1", "worker.2"}
    assert "2 connections per process" in site.log and "sesame" not in site.log
    names = [entry["name"] for entry in server.connections("procman-")]
    assert max(names.count(name) for name in names) <= 2, names
    wait_until(lambda: len(marks(site, "disconnect")) == 2, 20)


def test_a_message_of_a_killed_worker_goes_to_another_one(site: Site) -> None:
    with connect(f"{site.ws_url}/once/") as socket:
        socket.send("die once")
        assert json.loads(socket.recv(20)) == {"echo": "die once", "count": 1}
    browser = Browser(site.url)
    assert browser.request("POST", "/die/").status == 502
    assert len(marks(site, "die")) == 1, "an unsafe method is not run twice"
    assert browser.get("/die-once/").text == "second time lucky"


def test_sockets_survive_a_restart_of_redis_that_loses_everything(site: Site, server: RedisServer) -> None:
    with talking(site.ws_url, SOCKETS) as talkers:
        talk_on(talkers)
        server.kill()
        site.wait_for_line("channel layer lost")
        server.start()
        talk_on(talkers)
        server.client.flushall()
        talk_on(talkers)
        talkers.finish()
        assert_answered_in_order(talkers)
        Browser(site.url).get("/say/?text=still+in+the+group")
        for talker in talkers.talkers:
            assert talkers.call(talker.socket.recv()) == "still in the group"
    wait_until(lambda: len(marks(site, "disconnect")) == SOCKETS, 20)


def test_the_death_of_the_interface_runs_the_disconnects(site: Site) -> None:
    with talking(site.ws_url, SOCKETS) as talkers:
        talk_on(talkers)
        site.kill("interface.1", signal.SIGKILL)
        assert Browser(site.url).get("/", timeout=10).status == 200
        wait_until(lambda: len(marks(site, "disconnect")) >= SOCKETS, 20)
        left = {str(mark["path"]): mark for mark in marks(site, "disconnect")}
        assert set(left) == {f"/talk/{n}/" for n in range(SOCKETS)}
        assert len(marks(site, "disconnect")) == SOCKETS
        for talker in talkers.talkers:
            assert left[f"/talk/{talker.number}/"]["code"] == 1006
