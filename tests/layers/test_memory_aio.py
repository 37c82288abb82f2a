"""The in-memory layer on an event loop, together with threads of the same process."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from procman.layers.limits import Limits
from procman.layers.memory import InMemoryChannelLayer
from procman.layers.memory_aio import AsyncInMemoryLayer
from tests.layers.conformance import Blocking, ConformanceSuite, Make
from tests.layers.conformance_interface import InterfaceSuite, MakeInterface
from tests.support.layers import LoopThread, RecordingInterface
from tests.support.waiting import wait_until


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


class TestAsyncInMemoryLayer(ConformanceSuite):
    @pytest.fixture
    def make(self, loop: LoopThread) -> Iterator[Make]:
        made: list[AsyncInMemoryLayer] = []
        shared: list[InMemoryChannelLayer] = []

        def make(**options: Any) -> Blocking:
            if not shared:
                shared.append(InMemoryChannelLayer(**options))
            made.append(AsyncInMemoryLayer(shared[0]))
            loop.run(made[-1].connect(10))
            return Blocking(made[-1], loop)

        yield make
        for layer in made:
            loop.run(layer.close())

    @pytest.fixture
    def layer(self, make: Make) -> Any:
        return make()


class TestAsyncInMemoryLayerOfAnInterface(InterfaceSuite):
    @pytest.fixture
    def layer(self, make: Make) -> InMemoryChannelLayer:
        return make()

    @pytest.fixture
    def make(self) -> Make:
        made = InMemoryChannelLayer()
        return lambda: made

    @pytest.fixture
    def make_interface(self, make: Make) -> Iterator[MakeInterface]:
        made: list[RecordingInterface] = []

        def make_interface(**options: Any) -> RecordingInterface:
            layer = AsyncInMemoryLayer(make(), Limits(**options))
            made.append(RecordingInterface(layer))
            return made[-1]

        yield make_interface
        for interface in made:
            interface.close()


def test_a_thread_that_sends_faster_than_the_loop_reads_is_held_up(
    loop: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("procman.layers.memory_aio._MAX_FRAMES", 10)
    layer = InMemoryChannelLayer()
    interface = RecordingInterface(AsyncInMemoryLayer(layer), loop)
    is_stopped, may_go_on = threading.Event(), threading.Event()

    def stop() -> None:
        is_stopped.set()
        may_go_on.wait(10)

    loop.loop.call_soon_threadsafe(stop)
    assert is_stopped.wait(10)
    sent: list[int] = []

    def send() -> None:
        for number in range(30):
            layer.send(interface.channel(), {"n": number})
            sent.append(number)

    thread = threading.Thread(target=send)
    thread.start()
    wait_until(lambda: len(sent) == 10)
    thread.join(0.1)
    assert len(sent) == 10
    may_go_on.set()
    thread.join(10)
    wait_until(lambda: len(interface.all("reply")) == 30)
    assert [message["n"] for _, message in interface.all("reply")] == list(range(30))
    interface.close()


def test_an_interface_that_closes_leaves_the_layer_to_the_next(loop: LoopThread) -> None:
    layer = InMemoryChannelLayer()
    for _ in range(2):
        interface = RecordingInterface(AsyncInMemoryLayer(layer), loop)
        layer.send_and_wait(interface.channel(), {"n": 1}, timeout=10)
        interface.close()
    assert layer.statistics()["interfaces"] == 0
