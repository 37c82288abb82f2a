"""Metrics and health on real processes: each documented number is there, and moves when its thing happens."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from procman.interface.metrics import METRICS
from procman.layers.errors import ChannelFull
from procman.layers.ipc import IPCChannelLayer
from procman.layers.ipc.finishes import GRACE
from tests.e2e.test_slow_reader import open_stuck
from tests.support.clients import Browser
from tests.support.processes import Site, free_port, running_site
from tests.support.waiting import wait_until

Numbers = dict[tuple[str, str], float]
TEXT = "say " + "x" * 60_000


class Measured:
    """A site with the address of its metrics."""

    def __init__(self, site: Site, port: int, layer: str) -> None:
        self.site, self.layer = site, layer
        self.browser = Browser(site.url)
        self._metrics = Browser(f"http://127.0.0.1:{port}")

    def scrape(self) -> Numbers:
        """Value by name and label value."""
        text = self._metrics.get("/metrics").text
        families = text_string_to_metric_families(text)
        samples = [sample for family in families for sample in family.samples if not sample.name.endswith("_bucket")]
        return {(sample.name, next(iter(sample.labels.values()), "")): sample.value for sample in samples}

    def risen(self, before: Numbers, name: str, label: str = "", by: float = 1) -> None:
        """Wait until the metric has risen *by* that much."""

        def has_risen() -> bool:
            return self.scrape().get((name, label), 0.0) >= before.get((name, label), 0.0) + by

        wait_until(has_risen, 15, what=f"{name} {label} rises by {by:g}")


@pytest.fixture(scope="module")
def measured(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    layer = f"ipc://{tmp_path_factory.mktemp('layer')}/l.sock"
    port = free_port()
    flags = ["--workers", "1", "--metrics-bind", f"127.0.0.1:{port}", "--max-message-size", "70000"]
    with running_site(project, *flags, environ={"PROCMAN_LAYER": layer}) as site:
        # In its first second the layer keeps group sends for interfaces that may still come.
        started = time.monotonic()
        wait_until(lambda: time.monotonic() - started > GRACE, 5)
        yield Measured(site, port, layer)


def use_http(site: Measured) -> None:
    assert site.browser.get("/").status == 200
    assert site.browser.get("/nowhere/").status == 404


def use_socket(site: Measured) -> None:
    with connect(f"{site.site.ws_url}/one/", compression=None) as one:
        one.send("hello")
        assert json.loads(one.recv(10))["count"] == 1
        one.send("say to all")
        assert one.recv(10) == "say to all"


def be_refused(site: Measured) -> None:
    with pytest.raises(InvalidStatus), connect(f"{site.site.ws_url}/", origin="https://evil.example"):
        pass


def send_too_much(site: Measured) -> None:
    with connect(f"{site.site.ws_url}/big/", compression=None) as big:
        big.send("x" * 70_001)
        with pytest.raises(ConnectionClosed):
            big.recv(10)


def fill_a_channel(site: Measured) -> None:
    layer = IPCChannelLayer(site.layer, capacity=2, expiry=1)
    layer.send("unread", {})
    layer.send("unread", {})
    with pytest.raises(ChannelFull):
        layer.send("unread", {})
    found = site.scrape()
    assert found["procman_layer_channel_messages", "unread"] == 2
    assert found["procman_layer_waiting_messages", ""] >= 2
    assert found["procman_layer_waiting_bytes", ""] >= found["procman_layer_channel_bytes", "unread"] > 1000
    assert found["procman_layer_held_bytes", ""] > 1000
    assert found["procman_layer_oldest_message_age_seconds", ""] > 0
    layer.close()


def be_slow(site: Measured) -> None:
    """Read nothing while the group gets more than a socket may be behind."""
    with open_stuck(site.site), connect(f"{site.site.ws_url}/talker/", compression=None) as talker:
        before = site.scrape().get(("procman_slow_readers_closed_total", ""), 0.0)
        for _ in range(300):
            talker.send(TEXT)
            assert talker.recv(10) == TEXT
            if site.scrape()["procman_slow_readers_closed_total", ""] > before:
                return


def kill_workers(site: Measured) -> None:
    with connect(f"{site.site.ws_url}/doomed/", compression=None) as doomed:
        doomed.send("die")
        with pytest.raises(ConnectionClosed):
            doomed.recv(20)


@pytest.mark.parametrize(
    ("use", "moved"),
    [
        (
            use_http,
            "procman_http_requests_total=2xx procman_http_requests_total=4xx procman_received_bytes_total "
            "procman_http_request_duration_seconds_count procman_http_request_duration_seconds_sum "
            "procman_offer_duration_seconds_count=http.request procman_sent_bytes_total "
            "procman_worker_busy_seconds_total=worker.1 procman_worker_deliveries_total=worker.1 "
            "procman_layer_messages_total",
        ),
        (
            use_socket,
            "procman_sockets_opened_total procman_sockets_closed_total=1000 "
            "procman_websocket_messages_received_total procman_websocket_messages_sent_total "
            "procman_group_sends_total procman_group_deliveries_total "
            "procman_offer_duration_seconds_count=websocket.connect "
            "procman_offer_duration_seconds_count=websocket.receive "
            "procman_offer_duration_seconds_count=websocket.disconnect",
        ),
        (be_refused, "procman_handshakes_refused_total=origin"),
        (send_too_much, "procman_limit_refusals_total=max_message_size procman_sockets_closed_total=1009"),
        (
            be_slow,
            "procman_slow_readers_closed_total procman_limit_refusals_total=write_limit "
            "procman_sockets_closed_total=1013",
        ),
        (fill_a_channel, "procman_layer_full_channels_total procman_layer_expired_messages_total"),
        (
            kill_workers,
            "procman_layer_redelivered_messages_total procman_layer_dropped_messages_total "
            "procman_offers_failed_total=lost procman_sockets_closed_total=1011",
        ),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_number_moves_when_its_thing_happens(measured: Measured, use: Callable[[Measured], None], moved: str) -> None:
    before = measured.scrape()
    use(measured)
    for each in moved.split():
        name, _, label = each.partition("=")
        measured.risen(before, name, label, by=1e-6 if "_seconds_" in name and not name.endswith("_count") else 1)


def test_what_is_open_and_under_way_is_told(measured: Measured, project: Path) -> None:
    with connect(f"{measured.site.ws_url}/one/", compression=None) as one, connect(f"{measured.site.ws_url}/hard/"):
        wait_until(lambda: measured.scrape()["procman_sockets", ""] == 2)
        found = measured.scrape()
        assert (found["procman_layer_interfaces", ""], found["procman_layer_up", ""]) == (1, 1)
        assert found["procman_layer_workers", ""] >= 1 and found["procman_layer_groups", ""] >= 1
        one.send("hang")
        wait_until(lambda: measured.scrape()["procman_layer_in_flight_messages", ""] == 1)
        busy = measured.scrape()["procman_worker_busy_seconds_total", "worker.1"]
        wait_until(lambda: measured.scrape()["procman_worker_busy_seconds_total", "worker.1"] > busy)
        assert measured.scrape()["procman_offers_unfinished", ""] == 1
        measured.site.kill("worker.1")
        wait_until(lambda: measured.scrape()["procman_layer_in_flight_messages", ""] == 1)
        measured.site.kill("worker.1")
    wait_until(lambda: measured.scrape()["procman_sockets", ""] == 0, 15)


def test_every_metric_that_is_documented_is_there(measured: Measured) -> None:
    use_http(measured)
    use_socket(measured)
    be_refused(measured)
    send_too_much(measured)
    kill_workers(measured)
    fill_a_channel(measured)
    names = {name for name, _ in measured.scrape()}
    wanted = {each.name for each in METRICS}
    missing = {name for name in wanted if not any(re.fullmatch(f"{name}(_total|_count)?", found) for found in names)}
    assert not missing
    plain = {re.sub("_(total|count|sum|created)$", "", name) for name in names}
    assert {name for name in plain if name.startswith("procman_") and name != "procman_info"} == wanted


def test_a_scrape_goes_on_while_the_layer_restarts_and_the_site_is_ready_again_then(measured: Measured) -> None:
    def health(name: str) -> int:
        return measured.browser.get(f"/-/{name}").status

    wait_until(lambda: health("readyz") == 200)
    assert health("healthz") == 200
    before = measured.scrape()["procman_http_requests_total", "2xx"]
    measured.site.kill("layer")
    assert measured.scrape()["procman_http_requests_total", "2xx"] >= before
    assert health("healthz") == 200
    wait_until(lambda: measured.scrape()["procman_layer_up", ""] == 1, 15)
    wait_until(lambda: health("readyz") == 200, 15)


def test_each_of_several_interfaces_answers_at_a_port_of_its_own(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    layer = f"ipc://{tmp_path_factory.mktemp('layer')}/l.sock"
    port = free_port(1)
    flags = ["--workers", "1", "--interfaces", "2", "--metrics-bind", f"127.0.0.1:{port}"]
    with running_site(project, *flags, environ={"PROCMAN_LAYER": layer}) as site:
        for name in ("interface.1", "interface.2"):
            site.pid_of(name)  # once it is ready
        both = [Measured(site, port + place, layer) for place in range(2)]
        for each in both:
            wait_until(lambda each=each: each.scrape()["procman_layer_interfaces", ""] == 2)
        for _ in range(20):
            assert both[0].browser.get("/").status == 200
        told = [each.scrape()["procman_http_requests_total", "2xx"] for each in both]
        assert sum(told) == 20
