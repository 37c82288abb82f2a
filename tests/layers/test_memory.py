"""The in-memory layer: the contract, and time that is moved."""

from typing import Any

import pytest

from procman.layers.base import Send
from procman.layers.memory import InMemoryChannelLayer
from tests.layers.conformance import ConformanceSuite, Make, WorkerSuite


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


class TestInMemoryChannelLayer(ConformanceSuite, WorkerSuite):
    pass


def test_a_message_is_gone_once_its_expiry_has_passed() -> None:
    clock = MovedClock()
    layer = InMemoryChannelLayer(expiry=60, clock=clock)
    layer.send("a", {})
    clock.now += 59.9
    assert layer.statistics()["messages_max_age"] == pytest.approx(59.9)
    clock.now += 0.1
    assert layer.receive_many(["a"]) == (None, None)


def test_a_send_that_found_no_room_for_two_seconds_is_dropped_with_an_error(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("procman.layers.memory.FULL_RETRY", 0.01)
    layer = InMemoryChannelLayer(capacity=1)
    layer.send("full", {"n": 0})
    layer.send("work", {})
    delivery = layer.take(["work"], 1)
    assert delivery is not None
    layer.finish(delivery, [Send("full", {"n": 1}), Send("other", {"n": 2})])
    assert layer.receive_many(["other"]) == ("other", {"n": 2})
    assert layer.statistics()["dropped_count"] == 1
    assert "full" in caplog.text


def test_flush_forgets_what_is_in_flight() -> None:
    layer = InMemoryChannelLayer()
    layer.send("work", {})
    delivery = layer.take(["work"], 1)
    assert delivery is not None
    assert layer.statistics()["in_flight"] == 1
    layer.flush()
    assert layer.statistics()["in_flight"] == 0
    layer.finish(delivery)
