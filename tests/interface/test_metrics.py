"""Names, types and values of the metrics, without a server."""

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from procman.interface.metrics import COUNTER, HISTOGRAM, METRICS, build_registry, build_text
from procman.interface.replies import Replies
from procman.interface.site import Site
from procman.settings import InterfaceSettings, ProjectConfiguration
from tests.support.layer import FakeLayer


@pytest.fixture
def site() -> Site:
    project = ProjectConfiguration("tests.settings", "fake://")
    return Site(InterfaceSettings(), project, Replies(FakeLayer()))


def scrape(site: Site) -> dict[tuple[str, str], float]:
    """Value by name and label value."""
    text, _ = build_text(build_registry(site), "")
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if not sample.name.endswith("_bucket")
    }


def test_names_follow_the_conventions_of_prometheus():
    for each in METRICS:
        assert re.fullmatch(r"procman(_[a-z]+)+", each.name) and not each.name.endswith("_total"), each.name
        assert each.kind != HISTOGRAM or each.name.endswith("_seconds")
        assert each.help.endswith(".")
    assert len({each.name for each in METRICS}) == len(METRICS)


def test_every_metric_has_its_type_and_help_in_the_text(site):
    site.survey.statistics, site.survey.is_fresh = {"work": {}, "channels_pending": {}}, True
    text = build_text(build_registry(site), "")[0].decode()
    for each in METRICS:
        if not each.name.startswith("procman_layer_"):
            name = f"{each.name}_total" if each.kind == COUNTER else each.name
            assert f"# TYPE {name} {each.kind}\n" in text, each.name


def test_counts_are_told_as_they_are(site):
    site.counters.sockets_opened = 3
    site.counters.socket_closed(1001)
    site.counters.refused("max_sockets")
    site.counters.request_over(404, 0.02)
    site.counters.finished("websocket.receive", 0.5)
    found = scrape(site)
    assert found["procman_sockets", ""] == 2
    assert found["procman_sockets_closed_total", "1001"] == 1
    assert found["procman_limit_refusals_total", "max_sockets"] == 1
    assert found["procman_http_requests_total", "4xx"] == 1
    assert found["procman_http_request_duration_seconds_count", ""] == 1
    assert found["procman_offer_duration_seconds_sum", "websocket.receive"] == 0.5


def test_the_buckets_of_a_histogram_add_up(site):
    for seconds in (0.0005, 0.0005, 0.3, 1000.0):
        site.counters.http_duration.observe(seconds)
    text = build_text(build_registry(site), "")[0].decode()
    found = dict(re.findall(r'procman_http_request_duration_seconds_bucket\{le="([^"]+)"\} (\S+)', text))
    assert (found["0.001"], found["0.25"], found["0.5"], found["120.0"], found["+Inf"]) == (
        "2.0",
        "2.0",
        "3.0",
        "3.0",
        "4.0",
    )


def test_what_the_layer_did_not_say_has_no_series(site):
    found = scrape(site)
    assert found["procman_layer_up", ""] == 0
    assert not [name for name, _ in found if name.startswith("procman_layer_") and name != "procman_layer_up"]
    site.survey.statistics = {"messages_pending": 4, "channels_pending": {"a": 4}, "work": {"worker.1": [1.5, 2]}}
    assert ("procman_layer_waiting_messages", "") not in scrape(site)  # it said so once, and not now
    site.survey.is_fresh = True
    found = scrape(site)
    assert (found["procman_layer_up", ""], found["procman_layer_waiting_messages", ""]) == (1, 4)
    assert found["procman_layer_channel_messages", "a"] == 4
    assert found["procman_worker_busy_seconds_total", "worker.1"] == 1.5
    assert found["procman_worker_deliveries_total", "worker.1"] == 2


def test_names_from_outside_cannot_break_the_text(site):
    site.survey.statistics, site.survey.is_fresh = {"work": {'a"\n} 1\nforged 7': [1, 2]}}, True
    assert ("forged", "") not in scrape(site)


def test_the_format_is_the_one_that_is_asked_for(site):
    registry = build_registry(site)
    text, content_type = build_text(registry, "application/openmetrics-text;version=1.0.0")
    assert content_type.startswith("application/openmetrics-text") and text.endswith(b"# EOF\n")
    assert build_text(registry, "*/*")[1].startswith("text/plain")


def test_memory_and_processor_time_of_the_process_are_told(site):
    found = scrape(site)
    assert found["process_resident_memory_bytes", ""] > 0 and ("process_cpu_seconds_total", "") in found
