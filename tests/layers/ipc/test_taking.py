"""Threads that take from a real hub, and what they have fetched ahead."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from procman.layers.ipc import IPCChannelLayer
from procman.layers.ipc.prefetch import DEPTH
from tests.support.layers import HubProcess, running_hub
from tests.support.waiting import wait_until


@pytest.fixture
def layers(shared_hub: HubProcess) -> Iterator[Any]:
    """Layers of several worker processes, as far as the hub can tell."""
    made: list[IPCChannelLayer] = []

    def make() -> IPCChannelLayer:
        layer = IPCChannelLayer(shared_hub.address, capacity=1000)
        if not made:
            layer.flush()
        made.append(layer)
        return layer

    yield make
    for layer in made:
        layer.close()


def warm_up(layer: IPCChannelLayer, client: IPCChannelLayer, channel: str) -> None:
    """Show the hub that this worker's messages are short."""
    for _ in range(60):
        client.send(channel, {"n": -1})
        delivery = layer.take([channel], 10)
        assert delivery is not None
        layer.finish(delivery)


def fetched(layer: IPCChannelLayer) -> int:
    """How many messages this process holds, as the hub sees it."""
    return int(layer.statistics()["in_flight"])


def test_a_short_message_does_not_wait_behind_a_long_one_while_another_worker_idles(layers: Any) -> None:
    client, slow, quick = layers(), layers(), layers()
    warm_up(slow, client, "work")
    for number in range(DEPTH):
        client.send("work", {"n": number})
    first = slow.take(["work"], 10)
    assert first is not None
    assert fetched(client) > 1, "the others were given ahead"
    found = []
    started = time.monotonic()
    while len(found) < DEPTH - 1:
        delivery = quick.take(["work"], 5)
        assert delivery is not None, f"only {found} came"
        found.append((delivery.message["n"], delivery.redelivered))
        quick.finish(delivery)
    assert time.monotonic() - started < 2, "not when the long one ended: that is below"
    slow.finish(first)
    assert found == [(number, False) for number in range(1, DEPTH)]
    assert slow.take(["work"], 0.05) is None, "what went back is not run here too"
    assert fetched(client) == 0


def test_a_thread_that_stops_taking_gives_back_what_it_has_not_begun(layers: Any) -> None:
    client, layer, other = layers(), layers(), layers()
    warm_up(layer, client, "work")
    for number in range(5):
        client.send("work", {"n": number})
    first = layer.take(["work"], 10)
    assert first is not None
    layer.finish(first)
    layer.stop_taking()
    for number in range(1, 5):
        delivery = other.take(["work"], 5)
        assert delivery is not None
        assert (delivery.message["n"], delivery.redelivered) == (number, False)
        other.finish(delivery)


def test_what_is_given_ahead_is_run_here_in_order_when_nobody_calls_it_back(layers: Any) -> None:
    client, layer = layers(), layers()
    warm_up(layer, client, "work")
    for number in range(50):
        client.send("work", {"n": number})
    found = []
    for _ in range(50):
        delivery = layer.take(["work"], 10)
        assert delivery is not None
        found.append(delivery.message["n"])
        layer.finish(delivery)
    assert found == list(range(50))


def test_two_processes_under_calls_back_run_every_message_once(layers: Any) -> None:
    """Now and then a message takes long, so that the others behind it are called back while the thread goes on."""
    client, workers = layers(), [layers(), layers()]
    count = 600
    found: list[int] = []
    lock = threading.Lock()
    pause = threading.Event()

    def run(layer: IPCChannelLayer) -> None:
        while len(found) < count:
            delivery = layer.take(["work"], 0.5)
            if delivery is None:
                continue
            if delivery.message["n"] % 37 == 36:
                pause.wait(0.012)
            with lock:
                found.append(delivery.message["n"])
            layer.finish(delivery)
        layer.stop_taking()

    for layer in workers:
        warm_up(layer, client, "work")
    for number in range(count):
        client.send("work", {"n": number})
    threads = [threading.Thread(target=run, args=(layer,)) for layer in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(found) == list(range(count))
    wait_until(lambda: fetched(client) == 0, 5)


def test_a_hub_that_dies_takes_nothing_with_it_that_was_begun(hub: HubProcess) -> None:
    """What was fetched and not begun was in the dead hub's hands; the thread does not run it after the restart."""
    client, layer = IPCChannelLayer(hub.address), IPCChannelLayer(hub.address)
    try:
        warm_up(layer, client, "work")
        for number in range(5):
            client.send("work", {"n": number})
        first = layer.take(["work"], 10)
        assert first is not None
        hub.kill()
        hub.start()
        layer.finish(first)
        client.send("work", {"n": 99})
        following = layer.take(["work"], 10)
        assert following is not None
        assert following.message["n"] == 99
        layer.finish(following)
    finally:
        client.close()
        layer.close()


def test_a_closed_layer_has_given_everything_back() -> None:
    with running_hub() as hub:
        client, layer = IPCChannelLayer(hub.address), IPCChannelLayer(hub.address)
        warm_up(layer, client, "work")
        for number in range(5):
            client.send("work", {"n": number})
        first = layer.take(["work"], 10)
        assert first is not None
        layer.finish(first)
        layer.close()
        assert [client.receive_many(["work"], block=True, timeout=5)[1] for _ in range(4)] == [
            {"n": number} for number in range(1, 5)
        ]
        client.close()
