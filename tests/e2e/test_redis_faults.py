"""A site over Redis while Redis restarts, stands still, goes away, fails over, fills up and forgets everything.

Sockets talk throughout. The ledger of their messages is kept by the clients: each frame that was sent is answered once,
in order, with the session that its predecessors left, and no socket closes.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from procman.layers.errors import LayerUnavailable
from procman.layers.redis import RedisChannelLayer
from tests.support.clients import Browser, Talkers, talking
from tests.support.processes import Site, descendants, running_site
from tests.support.redis import RedisServer, Sentinels, running_redis, running_sentinels
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow
SOCKETS = 20
# Longer than every lease, patience and time limit of the layer but ``claim_after``, which does not run meanwhile.
OUTAGE = float(os.environ.get("PROCMAN_TEST_OUTAGE", "8"))
FLAGS = ("--workers", "2", "--request-timeout", "3")


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def site(project: Path, redis_server: RedisServer) -> Iterator[Site]:
    (project / "marks.jsonl").unlink(missing_ok=True)
    with running_site(project, *FLAGS, "--layer", redis_server.url) as site:
        yield site


@contextmanager
def whole(site: Site) -> Iterator[Talkers]:
    """Sockets that talk during the block. Afterwards nothing is missing, doubled or out of order."""
    with talking(site.ws_url, SOCKETS) as talkers:
        talkers.talk_on()
        yield talkers
        talkers.talk_on()
        talkers.finish()
        talkers.assert_answered()
        with connect(f"{site.ws_url}/after/") as late:
            late.send("say the groups are whole")
            for talker in talkers.talkers:
                assert talkers.call(talker.socket.recv()) == "say the groups are whole"
    wait_until(lambda: len(disconnects(site)) >= SOCKETS + 1, 20)
    assert sorted(set(disconnects(site))) == sorted(disconnects(site)), "each disconnect runs once"


def disconnects(site: Site) -> list[str]:
    """Paths of the sockets whose disconnect consumer has run."""
    path = site.directory / "marks.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [mark["path"] for mark in map(json.loads, lines) if mark["event"] == "disconnect"]


def pass_time(seconds: float) -> None:
    """The fault lasts: nothing happens that could be waited for."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, seconds + 5, interval=0.1)


@contextmanager
def errands(site: Site, count: int = 60) -> Iterator[None]:
    """Messages that a consumer sends on to a channel of the project's own during the block; each is worked on."""
    missing = {f"done: background {number}" for number in range(count)}
    with connect(f"{site.ws_url}/errands/") as socket:

        def send() -> None:
            for number in range(count):
                socket.send(f"background {number}")

        sending = threading.Thread(target=send)
        sending.start()
        yield
        sending.join(10)
        while missing:
            missing.discard(str(socket.recv(15)))


def test_sockets_stay_open_while_redis_restarts_and_forgets_everything(site: Site, redis_server: RedisServer) -> None:
    with whole(site) as talkers:
        for _ in range(3):
            redis_server.restart()
            talkers.talk_on()
        redis_server.kill()
        redis_server.start()


def test_nothing_is_lost_while_a_redis_that_saves_restarts(project: Path) -> None:
    (project / "marks.jsonl").unlink(missing_ok=True)
    with running_redis(appendonly="yes", appendfsync="always") as server:
        with running_site(project, *FLAGS, "--layer", server.url) as site, whole(site):
            with errands(site):
                server.restart()


def test_nothing_is_lost_while_redis_is_paused(site: Site, redis_server: RedisServer) -> None:
    with whole(site):
        with errands(site):
            redis_server.pause(3)
    assert "redelivered" not in site.log and "died" not in site.log


def test_nothing_is_lost_while_redis_stands_still_longer_than_its_connections_live(
    site: Site, redis_server: RedisServer
) -> None:
    with whole(site):
        with errands(site), redis_server.frozen():
            pass_time(7)


def test_an_outage_holds_the_sockets_and_answers_requests_with_503(site: Site, redis_server: RedisServer) -> None:
    with whole(site) as talkers:
        redis_server.stop()
        gone = time.monotonic()
        assert Browser(site.url).get("/").status == 503
        assert time.monotonic() - gone < 6
        pass_time(gone + OUTAGE - time.monotonic())
        assert not any(talker.closed for talker in talkers.talkers)
        with pytest.raises(LayerUnavailable):
            RedisChannelLayer(hosts=[redis_server.url]).send("background", {})
        redis_server.start()
        back = time.monotonic()
        talkers.talk_on()
        assert time.monotonic() - back < 5
        assert Browser(site.url).get("/").status == 200
    # A line each time that it goes or comes, not one per attempt.
    assert len([line for line in site.log.splitlines() if "layer" in line]) < 30, site.log


def test_sockets_stay_open_while_the_data_is_flushed_in_mid_flight(site: Site, redis_server: RedisServer) -> None:
    with whole(site) as talkers:
        for _ in range(3):
            redis_server.client.flushall()
            talkers.talk_on()
        redis_server.client.flushall()
        assert Browser(site.url).get("/").status == 200


def test_a_full_redis_refuses_in_so_many_words_and_recovers(site: Site, redis_server: RedisServer) -> None:
    with whole(site) as talkers:
        redis_server.config(maxmemory=1)
        assert Browser(site.url).get("/").status == 503
        layer = RedisChannelLayer(hosts=[redis_server.url])
        with pytest.raises(LayerUnavailable, match="maxmemory"):
            layer.send("background", {"text": "too much"})
        layer.close()
        assert not any(talker.closed for talker in talkers.talkers)
        redis_server.config(maxmemory=0)
        wait_until(lambda: Browser(site.url).get("/").status == 200, 10)
    assert "maxmemory" in site.log


@pytest.fixture(scope="module")
def sentinels() -> Iterator[Sentinels]:
    with running_sentinels() as sentinels:
        yield sentinels


def test_sockets_stay_open_while_another_server_takes_over(project: Path, sentinels: Sentinels) -> None:
    (project / "marks.jsonl").unlink(missing_ok=True)
    with running_site(project, *FLAGS, "--layer", sentinels.url) as site, whole(site) as talkers:
        sentinels.failover()
        talkers.talk_on()


def test_no_password_is_in_the_log_the_process_list_or_what_status_says(project: Path) -> None:
    secret = "s3cr3t-w0rd"
    with ExitStack() as stack:
        server = stack.enter_context(running_redis(requirepass=secret))
        address = f"redis://:{secret}@127.0.0.1:{server.port}/0"
        site = stack.enter_context(running_site(project, "--workers", "1", environ={"PROCMAN_LAYER": address}))
        assert Browser(site.url).get("/").status == 200
        server.config(requirepass="changed")
        server.client.client_kill_filter(_type="normal", skipme=True)
        site.wait_for_line("WARNING .*(refuse|password)")
        server.client.config_set("requirepass", secret)
        wait_until(lambda: Browser(site.url).get("/").status == 200, 20)
        for pid in descendants(site.pid) | {site.pid}:
            assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert secret not in json.dumps(site.status())
    assert secret not in site.log and "***@" in site.log
