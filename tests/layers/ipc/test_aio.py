"""The asyncio client at a real hub."""

import asyncio
import contextlib
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from procman.errors import ConfigurationError
from procman.layers import codec
from procman.layers.base import Offer, Send
from procman.layers.errors import LayerUnavailable, ProtocolMismatch
from procman.layers.ipc import IPCChannelLayer, frames
from procman.layers.ipc.aio import AsyncIPCLayer
from tests.layers.conformance import Blocking, ConformanceSuite, Make
from tests.layers.conformance_interface import CHANNELS, InterfaceSuite, MakeInterface, take
from tests.support.layers import HubProcess, LoopThread, RecordingInterface
from tests.support.waiting import wait_until


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


class TestAsyncIPCLayer(ConformanceSuite):
    @pytest.fixture
    def logged(self, shared_hub: HubProcess) -> Callable[[], str]:
        return lambda: shared_hub.log

    @pytest.fixture
    def make(self, shared_hub: HubProcess, loop: LoopThread) -> Iterator[Make]:
        made: list[AsyncIPCLayer] = []

        def make(**options: Any) -> Blocking:
            layer = AsyncIPCLayer(shared_hub.address, **options)
            loop.run(layer.connect(10))
            if not made:
                loop.run(layer.flush())
            made.append(layer)
            return Blocking(layer, loop)

        yield make
        for layer in made:
            loop.run(layer.close())


class TestAsyncIPCLayerOfAnInterface(InterfaceSuite):
    @pytest.fixture
    def make_interface(self, shared_hub: HubProcess) -> Iterator[MakeInterface]:
        made: list[RecordingInterface] = []

        def make_interface(**options: Any) -> RecordingInterface:
            made.append(RecordingInterface(shared_hub.address, **options))
            return made[-1]

        yield make_interface
        for interface in made:
            interface.close()


@pytest.fixture
def interface(hub: HubProcess) -> Iterator[RecordingInterface]:
    interface = RecordingInterface(hub.address)
    yield interface
    interface.close()


@pytest.fixture
def worker(hub: HubProcess) -> Iterator[IPCChannelLayer]:
    layer = IPCChannelLayer(hub.address)
    yield layer
    layer.close()


def test_a_part_that_was_on_its_way_when_the_hub_died_is_written_once(
    hub: HubProcess, interface: RecordingInterface, worker: IPCChannelLayer
) -> None:
    interface.answers_tokens = None
    thread = threading.Thread(target=worker.send_and_wait, args=(interface.channel(), {"content": b"1"}, 20))
    thread.start()
    interface.heard("reply")
    hub.kill()
    interface.heard("lost")
    interface.loop.call(interface.layer.written, 1, True)
    hub.start()
    thread.join(20)
    assert not thread.is_alive()
    interface.answers_tokens = True
    worker.send_and_wait(interface.channel(), {"content": b"2"}, 20)
    assert [message["content"] for _, message in interface.all("reply")] == [b"1", b"2"]


def test_nothing_is_lost_or_run_twice_when_the_hub_is_killed_under_load(hub: HubProcess) -> None:
    interface = RecordingInterface(hub.address)
    runs: Counter[int] = Counter()
    lock = threading.Lock()
    is_over = threading.Event()
    inside, may_go_on = threading.Semaphore(0), threading.Event()

    def work() -> None:
        layer = IPCChannelLayer(hub.address)
        while not is_over.is_set():
            delivery = layer.take(CHANNELS, 0.2)
            if delivery is None:
                continue
            number = delivery.message["n"]
            with lock:
                runs[number] += 1
            if number < 3:  # these are inside a consumer while the hub is gone
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
    hub.kill()
    interface.heard("lost")
    for number in range(30, 40):
        interface.offer(
            "websocket.receive", {"n": number, "reply_channel": interface.channel(str(number))}, str(number)
        )
    hub.start()
    probe = IPCChannelLayer(hub.address)
    wait_until(lambda: probe.statistics()["in_flight"] == 3, what="the workers have reported what they run")
    assert probe.receive_many(["never"], block=True, timeout=1.2) == (None, None)  # the grace of the new hub is over
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


def test_groups_and_sockets_are_rebuilt_from_the_interface_after_a_restart(
    hub: HubProcess, interface: RecordingInterface, worker: IPCChannelLayer
) -> None:
    interface.open("a", order=2)
    worker.group_add("room", interface.channel("a"))
    hub.kill()
    interface.heard("lost")
    hub.start()
    worker.send_group("room", {"n": 1})
    assert interface.heard("group") == ("room", {"n": 1})
    assert worker.group_channels("room") == [interface.channel("a")]
    assert worker.statistics()["sockets"] == 1
    number = interface.shut("a")
    delivery = take(worker)
    assert delivery.channel == "websocket.disconnect"
    worker.finish(delivery)
    assert interface.heard("finished") == (number, None)


def test_connecting_without_a_hub_fails_within_the_timeout(loop: LoopThread, tmp_path: Path) -> None:
    layer = AsyncIPCLayer(f"ipc://{tmp_path}/none.sock")
    with pytest.raises(LayerUnavailable, match="is `channels-run`"):
        loop.run(layer.connect(0.05))
    loop.run(layer.close())


def test_serving_after_connecting_is_refused(loop: LoopThread, shared_hub: HubProcess) -> None:
    layer = AsyncIPCLayer(shared_hub.address)
    loop.run(layer.connect(10))
    with pytest.raises(ConfigurationError):
        layer.serve(object())  # type: ignore[arg-type]
    loop.run(layer.close())


def test_the_end_of_a_frame_is_heard_though_the_next_write_finds_the_hub_dead(loop: LoopThread, tmp_path: Path) -> None:
    path = f"{tmp_path}/hub.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(4)
        listener.settimeout(20)
        made: list[socket.socket] = []

        def welcome() -> None:
            made.append(listener.accept()[0])
            made[0].recv(4096)
            made[0].sendall(codec.pack((frames.WELCOME, frames.VERSION, "one", False, 1)))

        thread = threading.Thread(target=welcome)
        thread.start()
        interface = RecordingInterface(f"ipc://{path}", loop)
        thread.join(10)
        number = interface.offer("a", {})
        assert made[0].recv(65536)

        def die_and_offer() -> None:
            made[0].sendall(codec.pack((frames.FINISHED, number, None, ())))
            made[0].close()
            interface.layer.offer(Offer(99, "a", interface.layer.encode({}), interface.channel()))
            assert interface.layer._protocol is not None
            interface.layer._protocol.flush()

        loop.call(die_and_offer)
        assert interface.heard("finished")[0] == number
        interface.close()


def test_an_interface_says_once_that_the_hub_is_of_another_version_and_comes_back_to_its_own(
    loop: LoopThread, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"{tmp_path}/hub.sock"
    welcome = (frames.WELCOME, frames.VERSION, "one", False, 1)
    refusal = (frames.REFUSED, 99, "restart all of `channels-run`")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(4)
        listener.settimeout(20)

        def answer(frame: tuple[Any, ...]) -> socket.socket:
            connection, _ = listener.accept()
            connection.recv(4096)
            connection.sendall(codec.pack(frame))
            return connection

        thread = threading.Thread(target=lambda: answer(welcome).close())
        thread.start()
        interface = RecordingInterface(f"ipc://{path}", loop)
        thread.join(10)
        answer(refusal).close()
        answer(refusal).close()
        with answer(welcome):
            wait_until(lambda: interface.found_count == 2)
            interface.close()
    lines = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(lines) == 1
    assert "restart all of `channels-run`" in lines[0]


def test_the_first_connection_to_a_hub_of_another_version_fails_with_what_to_do(
    loop: LoopThread, tmp_path: Path
) -> None:
    path = f"{tmp_path}/hub.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(codec.pack((frames.WELCOME, 2, "old", False)))

        thread = threading.Thread(target=answer)
        thread.start()
        layer = AsyncIPCLayer(f"ipc://{path}")
        with pytest.raises(ProtocolMismatch, match=rf"version 2, this process {frames.VERSION}.*restart all of"):
            loop.run(layer.connect(5))
        loop.run(layer.close())
        thread.join(10)


def test_a_message_that_crosses_a_cancelled_receive_is_not_lost(loop: LoopThread, hub: HubProcess) -> None:
    sender = IPCChannelLayer(hub.address, capacity=1000)

    async def turn() -> None:
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(future.set_result, None)
        await future

    async def race(count: int) -> list[int]:
        layer = AsyncIPCLayer(hub.address)
        await layer.connect(10)
        found = []
        for number in range(count):
            waiting = asyncio.ensure_future(layer.receive_many(["a"], block=True))
            sent = asyncio.get_running_loop().run_in_executor(None, sender.send, "a", {"n": number})
            for _ in range(number % 40):  # the cancellation meets the message at every stage of its way
                await turn()
            waiting.cancel()
            (result,) = await asyncio.gather(waiting, return_exceptions=True)
            if isinstance(result, tuple):
                found.append(result[1]["n"])
            await sent
        await layer.statistics()  # what was given back has arrived
        while (message := (await layer.receive_many(["a"]))[1]) is not None:
            found.append(message["n"])
        await layer.close()
        return found

    assert sorted(loop.run(race(400), 60)) == list(range(400))
    sender.close()


def test_a_receive_that_is_cancelled_before_a_message_comes_takes_none(loop: LoopThread, hub: HubProcess) -> None:
    async def cancel() -> Any:
        layer = AsyncIPCLayer(hub.address)
        await layer.connect(10)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await layer.receive_many(["a"], block=True)
        await layer.send("a", {"n": 1})
        found = await layer.receive_many(["a"])
        assert not layer._requests
        await layer.close()
        return found

    assert loop.run(cancel()) == ("a", {"n": 1})


def test_a_blocked_receive_survives_any_number_of_restarts(loop: LoopThread, hub: HubProcess) -> None:
    layer = AsyncIPCLayer(hub.address)
    loop.run(layer.connect(10))
    waiting = asyncio.run_coroutine_threadsafe(layer.receive_many(["a"], block=True), loop.loop)
    for _ in range(5):
        hub.kill()
        hub.start()
        loop.run(layer.statistics())
    sender = IPCChannelLayer(hub.address)
    sender.send("a", {"n": 1})
    assert waiting.result(20) == ("a", {"n": 1})
    sender.close()
    loop.run(layer.close())
