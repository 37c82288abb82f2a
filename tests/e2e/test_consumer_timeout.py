"""Consumers that never end: their clients are told, their workers replaced, and nothing is run twice for it."""

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from tests.support.clients import Browser
from tests.support.processes import Site, running_site
from tests.support.redis import running_redis
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow
FLAGS = ("--consumer-timeout", "1", "--request-timeout", "60")


@pytest.fixture(scope="module", params=["ipc", "redis"])
def site(project: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    (project / "marks.jsonl").unlink(missing_ok=True)
    if request.param == "ipc":
        with running_site(project, *FLAGS, "--workers", "1", "--threads", "2") as site:
            yield site
    else:
        with running_redis() as redis, running_site(project, *FLAGS, "--workers", "1", "--threads", "2",
                                                    "--layer", redis.url) as site:  # fmt: skip
            yield site


@pytest.fixture(autouse=True)
def no_marks(site: Site) -> None:
    (site.directory / "marks.jsonl").unlink(missing_ok=True)


def marks(site: Site, event: str) -> list[dict[str, Any]]:
    path = site.directory / "marks.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [found for line in lines if (found := json.loads(line))["event"] == event]


@pytest.mark.parametrize(("method", "how"), [("GET", "wait"), ("POST", "wait"), ("GET", "loop")])
def test_a_request_that_takes_too_long_is_answered_504_and_not_run_again(site: Site, method: str, how: str) -> None:
    before = site.pid_of("worker.1")
    answer = Browser(site.url).request(method, f"/hang/?how={how}")
    assert answer.status == 504
    assert "too long" in answer.text
    wait_until(lambda: site.pid_of("worker.1") != before, 30)
    assert Browser(site.url).get("/").text == "hello"
    assert len(marks(site, "hang")) == 1
    assert "ran for more than 1 s on http.request path /hang/" in site.log
    assert "in stuck" in site.log


def test_a_response_that_has_begun_is_cut(site: Site) -> None:
    with pytest.raises(http.client.IncompleteRead):
        Browser(site.url).get("/hang/?how=stream")
    assert len(marks(site, "hang")) == 1


def test_a_frame_that_takes_too_long_closes_its_socket_and_no_other(site: Site) -> None:
    with connect(f"{site.ws_url}/a/") as stuck, connect(f"{site.ws_url}/b/") as other:
        other.send("one")
        assert json.loads(other.recv(30))["count"] == 1
        stuck.send("hang")
        with pytest.raises(ConnectionClosedError) as closed:
            stuck.recv(30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        other.send("two")
        assert json.loads(other.recv(30))["count"] == 2
    assert len(marks(site, "hang")) == 1


def test_what_another_thread_ran_is_run_again_however_often_the_worker_was_ended(site: Site) -> None:
    with connect(f"{site.ws_url}/a/") as socket:
        socket.send("background slow")
        wait_until(lambda: len(marks(site, "background")) == 1, 20)
        assert Browser(site.url).get("/hang/?how=wait").status == 504
        assert socket.recv(30) == "done: background slow"
    assert [found["redelivered"] for found in marks(site, "background")] == [False, True]


def test_code_that_never_lets_go_of_the_interpreter_ends_with_its_process(site: Site) -> None:
    started = time.monotonic()
    answer = Browser(site.url).request("POST", "/hang/?how=regex")
    assert answer.status in (502, 504)
    assert time.monotonic() - started < 30
    assert Browser(site.url).get("/").text == "hello"
    assert len(marks(site, "hang")) == 1
    wait_until(lambda: "in stuck" in site.log, 10)
