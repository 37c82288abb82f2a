"""The in-memory layer: the contract, and time that is moved."""

import gc
import os
import threading
from typing import Any

import pytest

from procman.layers.base import Send
from procman.layers.memory import InMemoryChannelLayer
from tests.layers.conformance import ConformanceSuite, Make, WorkerSuite
from tests.layers.conformance_deaths import DeathSuite
from tests.support.waiting import wait_until


class MovedClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


@pytest.fixture
def make() -> Make:
    """All layers of one test are one: nothing else could see the same messages."""
    made: list[InMemoryChannelLayer] = []

    def make(**options: Any) -> InMemoryChannelLayer:
        if not made:
            made.append(InMemoryChannelLayer(**options))
        return made[0]

    return make


@pytest.fixture
def layer(make: Make) -> Any:
    return make()


class TestInMemoryChannelLayer(ConformanceSuite, WorkerSuite, DeathSuite):
    # This layer ends with its process: nobody is left to be told.
    test_a_worker_that_ends_on_purpose_does_not_count_as_a_death = None


def test_a_message_is_gone_once_its_expiry_has_passed() -> None:
    clock = MovedClock()
    layer = InMemoryChannelLayer(expiry=60, clock=clock)
    layer.send("a", {})
    clock.now += 59.9
    assert layer.statistics()["messages_max_age"] == pytest.approx(59.9)
    clock.now += 0.1
    assert layer.receive_many(["a"]) == (None, None)


def test_a_send_that_found_no_room_for_two_seconds_is_dropped_with_an_error(caplog: pytest.LogCaptureFixture) -> None:
    clock = MovedClock()
    layer = InMemoryChannelLayer(capacity=1, clock=clock)
    layer.send("full", {"n": 0})
    layer.send("work", {})
    sends = [Send("full", {"n": 1}), Send("other", {"n": 2})]

    def work() -> None:
        delivery = layer.take(["work"], 10)
        assert delivery is not None
        layer.finish(delivery, sends)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: layer.channel_statistics("work")["messages_pending"] == 0 == layer.statistics()["in_flight"])
    assert layer.receive_many(["other"]) == (None, None)
    clock.now += 2.0
    assert layer.receive_many(["other"]) == ("other", {"n": 2})
    thread.join(10)
    assert not thread.is_alive()
    assert layer.statistics()["dropped_count"] == 1
    assert "full" in caplog.text


def test_what_is_finished_after_a_flush_is_in_flight_no_more() -> None:
    layer = InMemoryChannelLayer()
    layer.send("work", {})
    delivery = layer.take(["work"], 1)
    assert delivery is not None
    layer.flush()
    layer.finish(delivery)
    assert layer.statistics()["in_flight"] == 0


def test_a_thread_that_ends_with_its_layer_is_no_death(caplog: pytest.LogCaptureFixture) -> None:
    layer = InMemoryChannelLayer()
    layer.send("work", {})
    delivery = layer.take(["work"], 1)
    assert delivery is not None
    del layer
    gc.collect()
    assert caplog.text == ""


def test_a_forked_child_has_a_copy_and_waits_for_nobody() -> None:
    layer = InMemoryChannelLayer()
    layer.send("copied", {"n": 1})
    thread = threading.Thread(target=layer.receive_many, args=(["late"], True, 20))
    thread.start()
    wait_until(lambda: layer.statistics()["messages_pending"] == 1)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            layer.send("late", {"n": 2})  # not for the thread that the child does not have
            received = [layer.receive_many([name], block=True, timeout=10)[1] for name in ("copied", "late")]
            status = 0 if received == [{"n": 1}, {"n": 2}] else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    layer.send("late", {"n": 3})
    thread.join(10)
    assert not thread.is_alive()
    assert layer.receive_many(["copied"]) == ("copied", {"n": 1})
