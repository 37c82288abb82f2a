"""The numbers of one interface process and of its channel layer as Prometheus metrics: their names, types and help.

Pure but for reading what is counted at the time of a scrape; ``prometheus_client`` writes the text. ``METRICS`` is the
one list of what there is: the documentation is made from it. A number that is not known, such as those of a layer that
did not answer, has no series, rather than a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from procman import __version__
from procman.interface.counters import BOUNDS, Histogram

if TYPE_CHECKING:
    from procman.interface.site import Site

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

# Label value -> number, or the number itself, or None where it is not known.
Values = dict[str, Any] | float | None


class Definition(NamedTuple):
    """One metric: how it is named and described, and where its value is. Counters end in ``_total`` when written."""

    name: str
    kind: str
    help: str
    read: Callable[[Site], Values]
    label: str = ""


def _statistic(name: str) -> Callable[[Site], Values]:
    return lambda site: site.survey.fresh.get(name)


def _work(place: int) -> Callable[[Site], Values]:
    def read(site: Site) -> Values:
        work = site.survey.fresh.get("work")
        return None if work is None else {name: numbers[place] for name, numbers in work.items()}

    return read


METRICS = (
    Definition("procman_sockets", GAUGE, "WebSockets that are open.", lambda site: site.counters.sockets_open),
    Definition("procman_sockets_opened", COUNTER, "WebSockets that were accepted.",
               lambda site: site.counters.sockets_opened),
    Definition("procman_sockets_closed", COUNTER, "WebSockets that have ended, by close code (1006: without one).",
               lambda site: site.counters.sockets_closed, "code"),
    Definition("procman_handshakes_refused", COUNTER,
               "WebSocket handshakes that were refused: malformed, origin, stopping, a limit's name, application (its "
               "consumer closed), failed (its consumer did), unavailable.",
               lambda site: site.counters.sockets_refused, "reason"),
    Definition("procman_websocket_messages_received", COUNTER, "Complete WebSocket messages of clients.",
               lambda site: site.counters.messages_received),
    Definition("procman_websocket_messages_sent", COUNTER, "WebSocket messages to clients, those of groups included.",
               lambda site: site.counters.messages_sent),
    Definition("procman_group_sends", COUNTER, "Messages to groups that reached this interface.",
               lambda site: site.counters.group_sends),
    Definition("procman_group_deliveries", COUNTER, "Members here that these messages were for.",
               lambda site: site.counters.group_deliveries),
    Definition("procman_slow_readers_closed", COUNTER, "WebSockets closed with 1013: their clients did not read.",
               lambda site: site.counters.slow_readers_closed),
    Definition("procman_slow_readers_dropped_messages", COUNTER, "Messages dropped for clients that did not read.",
               lambda site: site.counters.slow_readers_dropped),
    Definition("procman_http_requests", COUNTER,
               "HTTP requests that are over, by class of status (left: the client did before its response).",
               lambda site: site.counters.http_requests, "status"),
    Definition("procman_http_requests_in_progress", GAUGE, "HTTP requests in progress.",
               lambda site: site.request_count),
    Definition("procman_http_request_duration_seconds", HISTOGRAM, "From the head of a request to its end.",
               lambda site: {"": site.counters.http_duration}),
    Definition("procman_offer_duration_seconds", HISTOGRAM,
               "From the offer of a request or frame to the workers until its consumer has ended.",
               lambda site: site.counters.durations, "channel"),
    Definition("procman_offers_failed", COUNTER,
               "Requests and frames that no worker will work on: full, expired, lost (with its workers).",
               lambda site: site.counters.failures, "reason"),
    Definition("procman_offers_unfinished", GAUGE, "Requests and frames that wait for a worker or are with one.",
               lambda site: len(site.replies.offers)),
    Definition("procman_limit_refusals", COUNTER, "What a limit kept out, slowed down or ended, by its setting.",
               lambda site: site.counters.refusals, "limit"),
    Definition("procman_received_bytes", COUNTER, "Bytes of clients.", lambda site: site.counters.bytes_received),
    Definition("procman_sent_bytes", COUNTER, "Bytes of responses and WebSocket messages to clients.",
               lambda site: site.counters.bytes_sent),
    Definition("procman_layer_up", GAUGE, "Whether the channel layer answered the question of this scrape.",
               lambda site: float(site.survey.is_fresh)),
    Definition("procman_layer_messages", COUNTER, "Messages that entered the layer's queues.",
               _statistic("messages_count")),
    Definition("procman_layer_waiting_messages", GAUGE, "Messages that wait, all channels together.",
               _statistic("messages_pending")),
    Definition("procman_layer_waiting_bytes", GAUGE, "Bytes that wait (not over Redis).",
               _statistic("bytes_pending")),
    Definition("procman_layer_oldest_message_age_seconds", GAUGE, "Age of the message that has waited longest.",
               _statistic("messages_max_age")),
    Definition("procman_layer_channel_messages", GAUGE,
               "Messages that wait, of the 100 channels with most; names with ? or ! count together.",
               _statistic("channels_pending"), "channel"),
    Definition("procman_layer_channel_bytes", GAUGE, "Bytes that wait on these channels (not over Redis).",
               _statistic("channels_bytes"), "channel"),
    Definition("procman_layer_held_bytes", GAUGE, "All bytes that the layer process holds (not over Redis).",
               _statistic("bytes_held")),
    Definition("procman_layer_in_flight_messages", GAUGE, "Messages that workers have and have not finished.",
               _statistic("in_flight")),
    Definition("procman_layer_redelivered_messages", COUNTER, "Messages given again after their worker died.",
               _statistic("redelivered_count")),
    Definition("procman_layer_dropped_messages", COUNTER,
               "Messages dropped: of workers that died with them, to full members of groups, to interfaces that died.",
               _statistic("dropped_count")),
    Definition("procman_layer_expired_messages", COUNTER, "Messages that nobody took in time (not over Redis).",
               _statistic("expired_count")),
    Definition("procman_layer_full_channels", COUNTER, "Messages refused by a full channel.",
               _statistic("channel_full_count")),
    Definition("procman_layer_workers", GAUGE, "Worker threads at the layer; over Redis, worker processes.",
               _statistic("workers")),
    Definition("procman_layer_interfaces", GAUGE, "Interface processes.", _statistic("interfaces")),
    Definition("procman_layer_groups", GAUGE, "Groups with members.", _statistic("groups")),
    Definition("procman_worker_busy_seconds", COUNTER,
               "Seconds in which a worker had a message, all its threads added (not over Redis).",
               _work(0), "worker"),
    Definition("procman_worker_deliveries", COUNTER, "Messages that a worker has ended (not over Redis).",
               _work(1), "worker"),
)  # fmt: skip


class SiteCollector(Collector):
    """Reads ``METRICS`` of *site*."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not scrape in order to register."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every metric whose value is known."""
        yield InfoMetricFamily("procman", "Version of procman.", value={"version": __version__})
        for definition in METRICS:
            values = definition.read(self._site)
            if values is not None:
                yield build_metric(definition, values if isinstance(values, dict) else {"": values})


def build_metric(definition: Definition, values: dict[str, Any]) -> Metric:
    """The metric of *definition* with one series per key of *values*, ``""`` where it has no label."""
    labels = [definition.label] if definition.label else []
    if definition.kind == HISTOGRAM:
        histogram = HistogramMetricFamily(definition.name, definition.help, labels=labels)
        for name, found in values.items():
            histogram.add_metric([name] if labels else [], _buckets(found), found.total)
        return histogram
    family = CounterMetricFamily if definition.kind == COUNTER else GaugeMetricFamily
    metric = family(definition.name, definition.help, labels=labels)
    for name, number in values.items():
        metric.add_metric([name] if labels else [], number)
    return metric


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = []
    count = 0
    for bound, number in zip((*map(str, BOUNDS), "+Inf"), histogram.counts, strict=True):
        count += number
        buckets.append((bound, count))
    return buckets


def build_registry(site: Site) -> CollectorRegistry:
    """What a scrape of *site* has: ``METRICS``, and memory, processor time and descriptors of this process."""
    registry = CollectorRegistry()
    registry.register(SiteCollector(site))
    ProcessCollector(registry=registry)
    return registry


def build_text(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """The text of a scrape in the format that *accept*, the header, asks for, and its content type."""
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
