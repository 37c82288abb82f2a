"""``kill -9`` of each process in turn while fifty WebSockets talk; what survives is counted, frame by frame."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.clients import Browser, Talkers, talking
from tests.support.processes import Site, descendants, is_alive, running_site
from tests.support.waiting import wait_until

SOCKETS = 50


@pytest.fixture
def site(project: Path) -> Iterator[Site]:
    (project / "marks.jsonl").unlink(missing_ok=True)
    with running_site(project, "--workers", "2") as site:
        yield site


def marks(site: Site, event: str) -> list[dict[str, object]]:
    path = site.directory / "marks.jsonl"
    return [
        m
        for line in (path.read_text().splitlines() if path.exists() else ())
        if (m := json.loads(line))["event"] == event
    ]


def talk_on(talkers: Talkers, echoes: int = 200) -> None:
    """Wait until all sockets together got that many echoes more, and each of them at least one."""
    before = talkers.echoes()
    counts = [len(talker.echoes) for talker in talkers.talkers]
    wait_until(
        lambda: (
            talkers.echoes() >= before + echoes
            and all(len(t.echoes) > c for t, c in zip(talkers.talkers, counts, strict=True))
        ),
        30,
        what="the sockets go on talking",
    )


def assert_answered_in_order(talkers: Talkers) -> None:
    """Every frame of every socket was answered once, in order, and no socket closed."""
    for talker in talkers.talkers:
        assert not talker.closed, f"socket {talker.number}: {talker.closed}"
        assert [e["echo"] for e in talker.echoes] == [f"{talker.number}:{n}" for n in range(talker.sent)]
        # The session moves with the frames: a count that jumps or repeats is a frame run twice or lost state.
        assert [e["count"] for e in talker.echoes] == list(range(1, talker.sent + 1))


def test_sockets_survive_the_death_of_every_worker(site: Site) -> None:
    with talking(site.ws_url, SOCKETS) as talkers:
        talk_on(talkers)
        for name in ("worker.1", "worker.2", "worker.1", "worker.2"):
            killed = site.kill(name)
            wait_until(lambda killed=killed, name=name: site.pid_of(name) != killed, 30)  # type: ignore[misc]
            talk_on(talkers)
        site.kill("worker.1")
        site.kill("worker.2")
        talk_on(talkers)
        talkers.finish()
        assert_answered_in_order(talkers)
    wait_until(lambda: len(marks(site, "disconnect")) == SOCKETS, 20)


def test_sockets_survive_a_restart_of_every_worker(site: Site) -> None:
    with talking(site.ws_url, SOCKETS) as talkers:
        talk_on(talkers)
        before = {name: site.pid_of(name) for name in ("worker.1", "worker.2")}
        os.kill(site.pid, signal.SIGHUP)
        for name, pid in before.items():
            wait_until(lambda pid=pid, name=name: site.pid_of(name) != pid, 30)  # type: ignore[misc]
        talk_on(talkers)
        talkers.finish()
        assert_answered_in_order(talkers)
    wait_until(lambda: len(marks(site, "disconnect")) == SOCKETS, 20)


def test_a_sigterm_to_every_process_at_once_still_runs_the_disconnects(site: Site) -> None:
    with talking(site.ws_url, SOCKETS) as talkers:
        talk_on(talkers)
        for pid in [*sorted(descendants(site.pid)), site.pid]:
            os.kill(pid, signal.SIGTERM)
        assert site.process is not None
        assert site.process.wait(8) == 0
        wait_until(lambda: all("1012" in talker.closed for talker in talkers.talkers), 5)
        assert len(marks(site, "disconnect")) == SOCKETS
        assert "restarting" not in site.log and "killing" not in site.log


def test_sockets_survive_the_death_of_the_layer(site: Site) -> None:
    with talking(site.ws_url, SOCKETS) as talkers:
        talk_on(talkers)
        for _ in range(3):
            killed = site.kill("layer")
            wait_until(lambda killed=killed: site.pid_of("layer") != killed, 30)  # type: ignore[misc]
            talk_on(talkers)
        talkers.finish()
        assert_answered_in_order(talkers)
        with connect(f"{site.ws_url}/after/") as late:
            late.send("say groups are rebuilt")
            for talker in talkers.talkers:
                assert talkers.call(talker.socket.recv()) == "say groups are rebuilt"
    wait_until(lambda: len(marks(site, "disconnect")) == SOCKETS + 1, 20)


def test_the_death_of_the_interface_runs_the_disconnects_and_refuses_nobody(site: Site) -> None:
    with talking(site.ws_url, SOCKETS) as talkers:
        talk_on(talkers)
        site.kill("interface.1")
        asked = time.monotonic()
        assert Browser(site.url).get("/", timeout=10).status == 200
        with connect(f"{site.ws_url}/new/") as socket:
            socket.send("hello")
            assert json.loads(socket.recv(10))["count"] == 1
        assert time.monotonic() - asked < 2.0, "connections are accepted again within a second"
        wait_until(lambda: all(talker.closed for talker in talkers.talkers), 10)
        old = wait_until(lambda: [m for m in marks(site, "disconnect") if m["path"] != "/new/"][SOCKETS - 1 :], 20)
        assert old
        disconnects = {m["path"]: m for m in marks(site, "disconnect") if m["path"] != "/new/"}
        assert set(disconnects) == {f"/talk/{n}/" for n in range(SOCKETS)}
        assert len(marks(site, "disconnect")) in (SOCKETS, SOCKETS + 1)
        for talker in talkers.talkers:
            left = disconnects[f"/talk/{talker.number}/"]
            assert (left["code"], left["session_path"]) == (1006, f"/talk/{talker.number}/")
            # Frames answered, plus those whose answers died with the interface.
            assert len(talker.echoes) <= left["count"] <= talker.sent


def test_what_a_forwarded_message_stores_in_the_session_outlives_workers_layer_and_interface(site: Site) -> None:
    with connect(f"{site.ws_url}/one/") as socket:
        socket.send("first")
        assert json.loads(socket.recv(10))["count"] == 1
        socket.send("remember blue")
        assert socket.recv(10) == "remembered on /one/"
        for name in ("worker.1", "worker.2", "layer"):
            killed = site.kill(name)
            wait_until(lambda killed=killed, name=name: site.pid_of(name) != killed, 30)  # type: ignore[misc]
        socket.send("second")
        assert json.loads(socket.recv(30))["count"] == 2
        site.kill("interface.1")
        (left,) = wait_until(lambda: marks(site, "disconnect"), 20)
    assert (left["remembered"], left["count"], left["path"]) == ("blue", 2, "/one/")


def test_nothing_survives_the_death_of_the_supervisor(site: Site) -> None:
    browser = Browser(site.url)
    grandchild = int(browser.get("/grandchild/").text)
    with talking(site.ws_url, 5) as talkers:
        talk_on(talkers, 10)
        stopped = site.kill("worker.2", signal.SIGSTOP)
        below = descendants(site.pid) | {grandchild, stopped}
        os.kill(site.pid, signal.SIGKILL)
        killed = time.monotonic()
        wait_until(lambda: not any(is_alive(pid) for pid in below), 5, what="every process has gone")
        assert time.monotonic() - killed < 1.5
        wait_until(lambda: all(talker.closed for talker in talkers.talkers), 5)


def test_a_view_that_kills_its_worker_is_502_and_the_site_goes_on(site: Site) -> None:
    browser = Browser(site.url)
    asked = time.monotonic()
    assert browser.request("POST", "/die/").status == 502
    assert time.monotonic() - asked < 1.0
    assert len(marks(site, "die")) == 1, "an unsafe method is not run twice"

    assert browser.get("/die/").status == 502
    assert len(marks(site, "die")) == 3, "a safe method is retried once"

    assert browser.get("/die-once/").text == "second time lucky"
    assert browser.get("/").status == 200


def test_a_frame_that_kills_two_workers_closes_its_socket_only(site: Site) -> None:
    with connect(f"{site.ws_url}/bystander/") as bystander, connect(f"{site.ws_url}/poison/") as poison:
        poison.send("die")
        with pytest.raises(ConnectionClosed) as closed:
            poison.recv(20)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1011
        assert [m["redelivered"] for m in marks(site, "die")] == [False, True]
        bystander.send("still here")
        assert json.loads(bystander.recv(20))["echo"] == "still here"


def test_a_frame_whose_worker_died_once_is_run_by_another(site: Site) -> None:
    with connect(f"{site.ws_url}/once/") as socket:
        socket.send("die once")
        assert json.loads(socket.recv(20)) == {"echo": "die once", "count": 1}
