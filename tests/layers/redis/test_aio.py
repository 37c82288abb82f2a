"""The asyncio client at a real server: the contract, and the interface's side."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from procman.errors import ConfigurationError
from procman.layers.base import Send
from procman.layers.errors import LayerUnavailable, ReplyChannelGone
from procman.layers.redis import RedisChannelLayer
from procman.layers.redis.aio import AsyncRedisLayer
from tests.layers.conformance import Blocking, ConformanceSuite, Make
from tests.layers.conformance_interface import CHANNELS, InterfaceSuite, MakeInterface, take
from tests.layers.redis.interface import RedisInterface
from tests.support.layers import LoopThread
from tests.support.redis import RedisServer
from tests.support.waiting import wait_until


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


class TestAsyncRedisLayer(ConformanceSuite):
    @pytest.fixture
    def make(self, shared_redis: RedisServer, loop: LoopThread) -> Iterator[Make]:
        made: list[AsyncRedisLayer] = []

        shared_redis.client.flushall()

        def make(**options: Any) -> Blocking:
            layer = AsyncRedisLayer(shared_redis.unix_url, **options)
            loop.run(layer.connect(10))
            made.append(layer)
            return Blocking(layer, loop)

        yield make
        for layer in made:
            loop.run(layer.close())


class TestAsyncRedisLayerOfAnInterface(InterfaceSuite):
    @pytest.fixture
    def make_interface(self, shared_redis: RedisServer) -> Iterator[MakeInterface]:
        made: list[RedisInterface] = []

        def make_interface(**options: Any) -> RedisInterface:
            made.append(RedisInterface(shared_redis.unix_url, lease=0.5, **options))
            return made[-1]

        yield make_interface
        for interface in made:
            interface.close()


@pytest.fixture
def interface(server: RedisServer) -> Iterator[RedisInterface]:
    interface = RedisInterface(server.unix_url)
    yield interface
    interface.close()


@pytest.fixture
def worker(server: RedisServer) -> Iterator[RedisChannelLayer]:
    layer = RedisChannelLayer(server.unix_url)
    yield layer
    layer.close()


def test_a_part_that_was_on_its_way_when_redis_died_is_written_once(
    server: RedisServer, interface: RedisInterface, worker: RedisChannelLayer
) -> None:
    interface.answers_tokens = None
    thread = threading.Thread(target=worker.send_and_wait, args=(interface.channel(), {"content": b"1"}, 20))
    thread.start()
    interface.heard("reply")
    server.kill()
    interface.heard("lost")
    interface.loop.call(interface.layer.written, 1, True)
    server.start()
    thread.join(20)
    assert not thread.is_alive()
    interface.answers_tokens = True
    worker.send_and_wait(interface.channel(), {"content": b"2"}, 20)
    assert [message["content"] for _, message in interface.all("reply")] == [b"1", b"2"]


def test_a_sender_that_waits_hears_of_the_death_of_the_interface(
    server: RedisServer, worker: RedisChannelLayer
) -> None:
    interface = RedisInterface(server.unix_url, lease=0.5)
    worker.take(CHANNELS, 0)
    interface.answers_tokens = None
    raised: list[BaseException] = []

    def wait() -> None:
        with pytest.raises(ReplyChannelGone) as caught:
            worker.send_and_wait(interface.channel(), {}, timeout=20)
        raised.append(caught.value)

    thread = threading.Thread(target=wait)
    thread.start()
    interface.heard("reply")
    interface.abandon()
    thread.join(10)
    assert len(raised) == 1


def test_sending_when_there_is_room_waits_for_the_reader(interface: RedisInterface, worker: RedisChannelLayer) -> None:
    layer, loop = interface.layer, interface.loop
    name = worker.new_channel("body?")
    for number in range(100):
        loop.run(layer.send(name, {"n": number}))
    waiting = asyncio.run_coroutine_threadsafe(layer.send_when_room(name, {"n": 100}), loop.loop)
    assert loop.run(layer.statistics())["messages_pending"] == 100
    assert not waiting.done()
    received = [worker.receive_many([name], block=True, timeout=10)[1]["n"] for _ in range(101)]
    assert received == list(range(101))
    waiting.result(10)


def test_nothing_is_lost_or_run_twice_when_redis_is_killed_under_load(server: RedisServer) -> None:
    interface = RedisInterface(server.unix_url)
    runs: Counter[int] = Counter()
    lock = threading.Lock()
    is_over = threading.Event()
    inside, may_go_on = threading.Semaphore(0), threading.Event()

    def work() -> None:
        layer = RedisChannelLayer(server.unix_url)
        while not is_over.is_set():
            delivery = layer.take(CHANNELS, 0.2)
            if delivery is None:
                continue
            number = delivery.message["n"]
            with lock:
                runs[number] += 1
            if number < 3:  # these are inside a consumer while Redis is gone
                inside.release()
                may_go_on.wait(20)
            layer.finish(delivery, [Send(delivery.message["reply_channel"], {"n": number})])
        layer.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(3):
        interface.offer(
            "websocket.receive", {"n": number, "reply_channel": interface.channel(str(number))}, str(number)
        )
    for _ in range(3):
        assert inside.acquire(timeout=10)
    for number in range(3, 30):
        interface.offer(
            "websocket.receive", {"n": number, "reply_channel": interface.channel(str(number))}, str(number)
        )
    server.kill()
    interface.heard("lost")
    for number in range(30, 40):
        interface.offer(
            "websocket.receive", {"n": number, "reply_channel": interface.channel(str(number))}, str(number)
        )
    server.start()
    probe = RedisChannelLayer(server.unix_url)
    wait_until(lambda: probe.statistics()["in_flight"] == 3, what="the workers have reported what they run")
    assert probe.receive_many(["never"], block=True, timeout=1.2) == (None, None)  # the grace is over
    may_go_on.set()
    wait_until(lambda: not interface.unfinished, 20, what="all offers are finished")
    is_over.set()
    for thread in threads:
        thread.join(10)
    assert runs == Counter(dict.fromkeys(range(40), 1))
    replies = Counter(message["n"] for _, message in interface.all("reply"))
    assert replies == Counter(dict.fromkeys(range(40), 1))
    probe.close()
    interface.close()


def test_a_killed_interface_gets_its_disconnects_run_once_each(server: RedisServer, worker: RedisChannelLayer) -> None:
    interface = RedisInterface(server.unix_url, lease=0.5)
    interface.open("a", order=3, session=b"sa")
    interface.open("b", order=1)
    interface.loop.run(interface.layer.group_add("room", interface.channel("a")))
    interface.abandon()
    seen = {}
    for _ in range(2):
        delivery = take(worker)
        assert delivery.channel == "websocket.disconnect"
        seen[delivery.message["reply_channel"]] = (delivery.message, delivery.session)
        worker.finish(delivery)
    message, session = seen[interface.channel("a")]
    assert message == {"reply_channel": interface.channel("a"), "code": 1006, "path": "/ws/", "order": 3}
    assert session == b"sa"
    assert worker.take(CHANNELS, 0.05) is None
    assert worker.group_channels("room") == []


def test_groups_and_sockets_are_rebuilt_from_the_interface_after_a_restart(
    server: RedisServer, interface: RedisInterface, worker: RedisChannelLayer
) -> None:
    interface.open("a", order=2)
    worker.group_add("room", interface.channel("a"))
    server.kill()
    interface.heard("lost")
    server.start()
    worker.send_group("room", {"n": 1})
    assert interface.heard("group") == ("room", {"n": 1})
    assert worker.group_channels("room") == [interface.channel("a")]
    assert worker.statistics()["sockets"] == 1
    number = interface.shut("a")
    delivery = take(worker)
    assert delivery.channel == "websocket.disconnect"
    worker.finish(delivery)
    assert interface.heard("finished") == (number, None)


def test_an_interface_that_says_goodbye_leaves_its_queued_frames_valid(
    server: RedisServer, worker: RedisChannelLayer
) -> None:
    interface = RedisInterface(server.unix_url)
    interface.open("a")
    interface.shut("a")
    interface.close()
    delivery = take(worker)
    assert (delivery.channel, delivery.message["code"]) == ("websocket.disconnect", 1000)
    worker.finish(delivery)
    assert worker.take(CHANNELS, 0.05) is None


def test_flush_reaches_the_interfaces(interface: RedisInterface, worker: RedisChannelLayer) -> None:
    worker.group_add("room", interface.channel())
    wait_until(lambda: interface.members)
    number = interface.offer("websocket.receive", {})
    worker.flush()
    assert interface.heard("failed") == (number, "lost")
    wait_until(lambda: not interface.members)


def test_connecting_without_a_server_fails_within_the_timeout(loop: LoopThread, tmp_path: Path) -> None:
    layer = AsyncRedisLayer(f"unix://{tmp_path}/none.sock")
    with pytest.raises(LayerUnavailable, match="is Redis running"):
        loop.run(layer.connect(0.05))
    loop.run(layer.close())


def test_serving_after_connecting_is_refused(loop: LoopThread, shared_redis: RedisServer) -> None:
    layer = AsyncRedisLayer(shared_redis.unix_url)
    loop.run(layer.connect(10))
    with pytest.raises(ConfigurationError):
        layer.serve(object())  # type: ignore[arg-type]
    loop.run(layer.close())
