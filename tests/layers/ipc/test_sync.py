"""The blocking client at a real hub."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from procman.clock import SystemClock
from procman.errors import ConfigurationError
from procman.layers import codec
from procman.layers.base import Send
from procman.layers.errors import LayerUnavailable, LimitReached, MessageTooLarge, ProtocolMismatch
from procman.layers.ipc import IPCChannelLayer, frames
from tests.layers.conformance import ConformanceSuite, Make, WorkerSuite, contents
from tests.layers.conformance_deaths import DeathSuite
from tests.support.layers import HubProcess, running_hub
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[3]


class TestIPCChannelLayer(ConformanceSuite, WorkerSuite, DeathSuite):
    @pytest.fixture
    def logged(self, shared_hub: HubProcess) -> Callable[[], str]:
        return lambda: shared_hub.log


WORKER = """
import sys, time
from procman.layers.ipc import IPCChannelLayer
layer = IPCChannelLayer(sys.argv[1])
print("ready", flush=True)
while True:
    delivery = layer.take(sys.argv[2:])
    print(delivery.message["n"], delivery.redelivered, flush=True)
    sys.stdin.readline()
    layer.finish(delivery)
"""


class WorkerProcess:
    """A worker that says what it took and finishes when told."""

    def __init__(self, address: str, *channels: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, address, *channels],
            cwd=ROOT,
            env=os.environ | {"PROCMAN_NAME": "worker.7"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready"

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def finish(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextlib.contextmanager
def workers(count: int, address: str, *channels: str) -> Iterator[list[WorkerProcess]]:
    started = [WorkerProcess(address, *channels) for _ in range(count)]
    try:
        yield started
    finally:
        for worker in started:
            worker.kill()


def test_a_message_whose_worker_is_killed_goes_to_another_one_marked_and_is_dropped_after_the_second_death(
    hub: HubProcess,
) -> None:
    layer = IPCChannelLayer(hub.address)
    with workers(1, hub.address, "work") as (first,):
        layer.send("work", {"n": 1, "reply_channel": "x!1"})
        assert first.line() == "1 False"
        first.kill()
        with workers(1, hub.address, "work") as (second,):
            assert second.line() == "1 True"
            assert layer.statistics()["redelivered_count"] == 1
            second.kill()
            layer.send("work", {"n": 2})
            with workers(1, hub.address, "work") as (third,):
                assert third.line() == "2 False"
                third.finish()
                wait_until(lambda: layer.statistics()["in_flight"] == 0)
    assert layer.statistics()["dropped_count"] == 1
    wait_until(lambda: "ERROR worker.7" in hub.log and "x!1" in hub.log, what=hub.log)
    layer.close()


def test_a_forked_child_uses_connections_of_its_own(make: Make) -> None:
    layer = make()
    layer.send("fork", {"n": 0})
    parent_connection = layer._shared
    child = os.fork()
    if child == 0:
        status = 1
        try:
            layer.send("fork", {"n": 1})
            received = [layer.receive_many(["fork"])[1]["n"] for _ in range(2)]
            layer.send("fork.answer", {"received": received})
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert layer.receive_many(["fork.answer"])[1] == {"received": [0, 1]}
    assert layer._shared is parent_connection


def test_threads_may_share_a_layer(make: Make) -> None:
    layer = make(capacity=1000)

    def send(number: int) -> None:
        for index in range(50):
            layer.send("threads", {"thread": number, "index": index})

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    received = contents(layer, "threads")
    assert len(received) == 200
    for number in range(4):
        assert [m["index"] for m in received if m["thread"] == number] == list(range(50))


def test_a_blocked_receiver_does_not_hold_up_other_threads(make: Make) -> None:
    layer = make()
    received: list[Any] = []
    thread = threading.Thread(target=lambda: received.append(layer.receive_many(["late"], block=True, timeout=20)))
    thread.start()
    layer.send("elsewhere", {})
    assert layer.receive_many(["elsewhere"])[0] == "elsewhere"
    layer.send("late", {"n": 1})
    thread.join(20)
    assert received == [("late", {"n": 1})]


def test_a_layer_without_a_hub_says_at_once_where_it_looked_and_what_to_do(tmp_path: Path) -> None:
    # Longer than a test may take: only an answer that does not wait passes.
    layer = IPCChannelLayer(f"ipc://{tmp_path}/none.sock", connect_timeout=600)
    for _ in range(2):
        with pytest.raises(LayerUnavailable, match=r"none\.sock.*is `channels-run`"):
            layer.send("a", {})


def test_a_hub_that_has_ended_is_waited_for_once() -> None:
    with running_hub() as hub:
        layer = IPCChannelLayer(hub.address, connect_timeout=0.2)
        layer.send("a", {})
    with pytest.raises(LayerUnavailable):
        layer.send("a", {})
    layer.connect_timeout = 600
    with pytest.raises(LayerUnavailable):
        layer.send("a", {})
    layer.close()


def test_the_constructor_touches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    monkeypatch.delenv("PROCMAN_LAYER", raising=False)
    layer = IPCChannelLayer()
    with pytest.raises(ConfigurationError, match="DJANGO_SETTINGS_MODULE"):
        layer.send("a", {})


def test_requests_go_on_at_the_next_hub_when_one_is_killed(hub: HubProcess) -> None:
    layer = IPCChannelLayer(hub.address)
    layer.send("a", {"n": 1})
    hub.kill()
    restarting = threading.Thread(target=hub.start)
    restarting.start()
    layer.send("a", {"n": 2})
    restarting.join(20)
    assert contents(layer, "a") == [{"n": 2}]
    assert "WARNING the channel layer has restarted" in hub.log
    layer.close()


def test_a_worker_that_waits_goes_on_at_the_next_hub(hub: HubProcess) -> None:
    layer = IPCChannelLayer(hub.address)
    with workers(1, hub.address, "work") as (worker,):
        wait_until(lambda: layer.statistics()["workers"] == 1)
        hub.kill()
        hub.start()
        layer.send("work", {"n": 1})
        assert worker.line() == "1 False"
    layer.close()


def test_a_listener_of_another_version_is_named_as_the_reason(tmp_path: Path) -> None:
    path = tempfile.mktemp(prefix="pm-", suffix=".sock", dir="/tmp")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)

        def refuse() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(codec.pack((frames.REFUSED, 99, "it is too old")))

        thread = threading.Thread(target=refuse)
        thread.start()
        layer = IPCChannelLayer(f"ipc://{path}", connect_timeout=2)
        with pytest.raises(ProtocolMismatch, match="too old"):
            layer.send("a", {})
        thread.join(10)
    Path(path).unlink()


def test_a_wake_ends_a_take_although_the_hub_has_gone(hub: HubProcess) -> None:
    layer = IPCChannelLayer(hub.address)
    assert layer.take(["work"], 0) is None
    layer.wake()
    hub.kill()
    assert layer.take(["work"], 20) is None
    layer.close()


def test_a_blocked_receive_survives_any_number_of_restarts(hub: HubProcess) -> None:
    layer, sender = IPCChannelLayer(hub.address), IPCChannelLayer(hub.address)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(layer.receive_many(["a"], block=True, timeout=60)))
    thread.start()
    for _ in range(5):
        wait_until(lambda: sender.statistics()["connections"] == 2)
        hub.kill()
        hub.start()
    sender.send("a", {"n": 1})
    thread.join(30)
    assert found == [("a", {"n": 1})]
    layer.close()
    sender.close()


def test_a_stopped_hub_is_noticed_by_a_take_and_serves_it_when_it_continues(
    hub: HubProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("procman.layers.ipc.taking.ANSWER_TIMEOUT", 0.5)
    assert hub.process is not None
    layer, sender = IPCChannelLayer(hub.address, connect_timeout=0.5), IPCChannelLayer(hub.address)
    assert layer.take(["work"], 0.1) is None
    hub.process.send_signal(signal.SIGSTOP)
    try:
        begin = SystemClock.monotonic()
        assert layer.take(["work"], 0.1) is None
        with pytest.raises(LayerUnavailable):
            layer.take(["work"], 0.1)
        assert SystemClock.monotonic() - begin < 5
    finally:
        hub.process.send_signal(signal.SIGCONT)
    sender.send("work", {"n": 1})
    delivery = layer.take(["work"], 20)
    assert delivery is not None
    assert delivery.message == {"n": 1}
    assert not delivery.redelivered
    layer.finish(delivery)
    layer.close()
    sender.close()


def test_more_sends_than_a_finish_carries_are_refused_before_they_are_written(make: Make) -> None:
    layer = make(max_message_size=1000, capacity=100)
    layer.send("work", {})
    delivery = layer.take(["work"], 10)
    with pytest.raises(LimitReached, match="60001 messages"):
        layer.finish(delivery, [Send("other", {})] * 60_001)
    with pytest.raises(MessageTooLarge):
        layer.finish(delivery, [Send("other", {})] * 500)
    layer.finish(delivery, [Send("other", {})] * 50)
    assert layer.take(["work"], 0.1) is None
    assert len(contents(layer, "other")) == 50
    layer.close()
