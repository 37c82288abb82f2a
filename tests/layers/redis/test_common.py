"""Two servers, and everything encrypted: the same contract, and where names live."""

import resource
from collections.abc import Iterator
from typing import Any

import pytest

from procman.layers.base import Delivery, Send
from procman.layers.redis import RedisChannelLayer
from procman.layers.redis.common import build_statistics
from tests.layers.conformance import ConformanceSuite, Make, WorkerSuite, rest
from tests.layers.conformance_deaths import DeathSuite, DieWith
from tests.layers.conformance_interface import CHANNELS, InterfaceSuite, MakeInterface, take
from tests.layers.redis.interface import RedisInterface
from tests.support.redis import RedisServer, running_redis

KEYS = ["a key of the tests", "an older key"]


@pytest.fixture(scope="module")
def second_redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def options(shared_redis: RedisServer, second_redis: RedisServer) -> dict[str, Any]:
    shared_redis.client.flushall()
    second_redis.client.flushall()
    return {"hosts": [shared_redis.unix_url, second_redis.unix_url], "symmetric_encryption_keys": KEYS}


@pytest.fixture
def make(options: dict[str, Any]) -> Iterator[Make]:
    made: list[RedisChannelLayer] = []

    def make(**more: Any) -> RedisChannelLayer:
        made.append(RedisChannelLayer(**options, **more))
        return made[-1]

    yield make
    for layer in made:
        layer.close()


@pytest.fixture
def make_interface(options: dict[str, Any]) -> Iterator[MakeInterface]:
    made: list[RedisInterface] = []

    def make_interface(**more: Any) -> RedisInterface:
        made.append(RedisInterface(None, lease=0.5, **options, **more))
        return made[-1]

    yield make_interface
    for interface in made:
        interface.close()


class TestTwoServersEncrypted(ConformanceSuite, WorkerSuite, DeathSuite):
    def test_a_worker_that_waits_does_not_poll(self, layer: Any) -> None:
        layer.take(["never"], 0.01)
        before = resource.getrusage(resource.RUSAGE_THREAD)
        assert layer.take(["never"], 1.0) is None
        after = resource.getrusage(resource.RUSAGE_THREAD)
        # A look and a taking back at each server; who polls both every 100 ms would be at 20.
        assert after.ru_nvcsw - before.ru_nvcsw <= 8


class TestInterfaceOfTwoServersEncrypted(InterfaceSuite):
    pass


def test_an_interface_with_all_that_is_its_own_is_on_one_server(make: Make) -> None:
    layer = make()
    for number in range(50):
        name = f"web.{number}"
        same = {layer.server_of(each) for each in (f"{name}!a", f"{name}!", f"{name}.body?b")}
        assert len(same) == 1
    assert {layer.server_of(f"channel-{number}") for number in range(50)} == {0, 1}


def test_the_servers_see_no_body_and_no_session(make: Make, make_interface: MakeInterface, options: Any) -> None:
    layer, interface = make(), make_interface()
    interface.open("a", session=b"secret session")
    interface.offer("websocket.receive", {"text": "secret text"}, "a", session=b"secret session")
    layer.send("work", {"text": "secret text"})
    layer.finish(take(layer), [Send(interface.channel("a"), {"text": "secret text"})], session=b"secret session")
    layer.stop_taking()
    for host in layer._sessions:
        for key in host.client.scan_iter():
            assert b"secret" not in host.client.dump(key), key


def test_a_consumer_that_runs_again_does_not_send_to_the_other_server_twice(make: Make, die_once: DieWith) -> None:
    layer = make()
    here, there = _names(layer)
    layer.send(here, {})
    delivery = die_once(here)
    far = [Send(there, {"n": 1})]
    # Its first attempt got as far as the other server.
    layer._send_far(layer.server_of(there), f"{delivery.id}.0", ("s", *layer._fields(there, {"n": 1})), delivery.token)
    again = layer.take([here], 10)
    assert again.redelivered
    layer.finish(again, far)
    layer.stop_taking()
    assert layer.receive_many([there]) == (there, {"n": 1})
    assert layer.receive_many([there]) == (None, None)


@pytest.fixture
def die_once(make: Make) -> DieWith:
    def die_once(*channels: str) -> Delivery:
        layer = make(claim_after=0.1)
        delivery: Delivery = layer.take(list(channels), 10)
        layer._keeper.stop()
        rest(layer, 0.15)
        return delivery

    return die_once


def _names(layer: RedisChannelLayer) -> tuple[str, str]:
    """A channel of either server."""
    names = [f"channel-{number}" for number in range(50)]
    here = next(name for name in names if layer.server_of(name) == 0)
    return here, next(name for name in names if layer.server_of(name) == 1)


def test_the_other_server_is_served_while_one_is_away(make: Make, options: dict[str, Any]) -> None:
    with running_redis() as gone:
        layer = RedisChannelLayer(hosts=[gone.unix_url, options["hosts"][1]])
        here, there = _names(layer)
        layer.take([here, there], 0)
        gone.stop()
        layer.send(there, {"n": 1})
        delivery = layer.take([here, there], 10)
        assert delivery is not None and delivery.channel == there
        layer.finish(delivery)
        gone.start()
        layer.send(here, {"n": 2})
        delivery = layer.take([here, there], 10)
        assert delivery is not None and delivery.channel == here
        layer.finish(delivery)
        layer.close()


def test_a_message_of_another_key_is_dropped_and_said_so(
    make: Make, options: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    stranger = RedisChannelLayer(hosts=options["hosts"], symmetric_encryption_keys=["quite another key"])
    stranger.send("work", {"n": 1})
    stranger.send("work", {"n": 2})
    layer = make()
    assert layer.receive_many(["work"]) == (None, None)
    assert layer.take(["work"], 0) is None
    assert caplog.text.count("a message of work is dropped") == 2
    assert layer.statistics()["in_flight"] == 0
    stranger.close()


def test_an_interface_that_dies_has_its_disconnects_run(make: Make, make_interface: MakeInterface) -> None:
    layer, interface = make(), make_interface()
    interface.open("a", order=3, session=b"sa")
    layer.take(CHANNELS, 0)
    interface.abandon()
    delivery = take(layer)
    assert (delivery.channel, delivery.message["order"], delivery.session) == ("websocket.disconnect", 3, b"sa")
    layer.finish(delivery)


def test_the_numbers_of_all_servers_are_added() -> None:
    one = [1, 2, 0, 0, 3, 0, 1, 0, 5, 1500, 1, 1, 2, 7, 4, [b"a", 3, b"b?x", 1, b"b?y", 1]]
    other = [10, 0, 1, 1, 0, 0, 0, 0, 0, 500, 0, 0, 2, 0, 1, [b"a", 4]]
    found = build_statistics([one, other], True)
    assert (found["messages_count"], found["messages_pending"], found["messages_max_age"]) == (11, 5, 1.5)
    assert (found["workers"], found["sockets"], found["dropped_count"]) == (2, 7, 3)
    assert found["channels_pending"] == {"a": 7, "b?": 2}
