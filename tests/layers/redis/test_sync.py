"""The blocking client over a real server: the contract, and what becomes of messages in flight."""

from typing import Any

import pytest

from procman.layers.base import Delivery, Send
from tests.layers.conformance import ConformanceSuite, Make, WorkerSuite, rest
from tests.layers.conformance_deaths import DeathSuite, DieWith
from tests.support.redis import RedisServer


class TestRedisChannelLayer(ConformanceSuite, WorkerSuite, DeathSuite):
    @pytest.fixture
    def die_with(self, make: Make) -> DieWith:
        def die_with(*channels: str) -> Delivery:
            layer = make(claim_after=0.1)
            delivery = layer.take(list(channels), 10)
            _die(layer)
            rest(layer, 0.15)
            make().take(["never"], 0.3)
            return delivery  # type: ignore[no-any-return]

        return die_with


def _die(layer: Any) -> None:
    """Stop renewing, as a killed process does."""
    layer._keeper.stop()


def test_a_message_of_a_silent_worker_goes_to_another_one_once(make: Make) -> None:
    first, second, third = (make(claim_after=0.2) for _ in range(3))
    first.send("work", {"n": 1})
    delivery = first.take(["work"], 10)
    _die(first)
    rest(second, 0.3)
    again = second.take(["work"], 1)
    assert (again.id, again.message, again.redelivered) == (delivery.id, {"n": 1}, True)
    _die(second)
    assert third.take(["work"], 0.6) is None
    assert third.statistics()["dropped_count"] == 1


def test_a_worker_that_lost_its_lease_is_fenced(make: Make) -> None:
    first, second = (make(claim_after=0.2) for _ in range(2))
    first.send("work", {})
    delivery = first.take(["work"], 10)
    _die(first)
    rest(second, 0.3)
    again = second.take(["work"], 1)
    first.finish(delivery, [Send("heard", {"by": "first"})])
    second.finish(again, [Send("heard", {"by": "second"})])
    assert second.receive_many(["heard"]) == ("heard", {"by": "second"})
    assert second.receive_many(["heard"]) == (None, None)


def test_a_lease_is_renewed_while_its_worker_lives(make: Make) -> None:
    first, second = (make(claim_after=0.4) for _ in range(2))
    first.send("work", {})
    delivery = first.take(["work"], 10)
    rest(second, 1.0)
    assert second.take(["work"], 0) is None
    first.finish(delivery)
    assert first.statistics()["in_flight"] == 0


def test_a_worker_of_the_same_name_gets_its_predecessors_messages_at_once(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCMAN_NAME", "worker.1")
    monkeypatch.setenv("PROCMAN_RUN", "one")
    first, second = make(), make()
    first.send("work", {"n": 1})
    delivery = first.take(["work"], 10)
    again = second.take(["work"], 1)
    assert (again.id, again.redelivered) == (delivery.id, True)
    second.finish(again)


def test_processes_of_one_name_below_different_supervisors_leave_each_other_alone(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROCMAN_NAME", "worker.1")
    first, second = make(), make()
    first.send("work", {"n": 1})
    delivery = first.take(["work"], 10)
    assert second.take(["work"], 0.3) is None
    first.finish(delivery)


def test_every_key_ends_by_itself(make: Make, shared_redis: RedisServer) -> None:
    layer = make()
    layer.send("work", {})
    layer.send("other", {})
    layer.group_add("group", "member")
    layer.send_group("group", {})
    delivery = layer.take(["work"], 10)
    layer.defer(delivery, {})
    layer.statistics()
    keys = shared_redis.client.keys()
    assert len(keys) > 5
    assert [key for key in keys if shared_redis.client.pttl(key) == -1] == []
    layer.finish(layer.take(["work"], 10))
