"""The worker's loop: what it reads, what it survives, when it stops."""

import gc
import logging
import os
import signal
import threading

import pytest
from django.test import override_settings

from procman.channels import Channel, route
from procman.channels.asgi import ChannelLayerWrapper, channel_layers
from procman.channels.exceptions import ConsumeLater
from procman.channels.signals import worker_ready
from procman.channels.worker import Worker, WorkerGroup, run_worker
from procman.errors import ConfigurationError
from procman.layers.errors import LayerUnavailable
from procman.settings import WorkerSettings
from tests.channels.layer import BareLayer

CHANNELS = ["test", "websocket.connect", "websocket.receive", "http.request"]


def run(wrapper, consumer, channel="test", content=None, steps=1, **facts):
    """One message through a worker whose routing leads to *consumer*."""
    wrapper.router.add_route(route(CHANNELS, consumer))
    content = {"reply_channel": "i!1", "path": "/p/", **(content or {})}
    wrapper.channel_layer.deliver(channel, content, **facts)
    worker = Worker(wrapper)
    for _ in range(steps):
        worker.step(CHANNELS)
    return worker


class Clock:
    """A clock that the test moves."""

    now = 0.0

    def monotonic(self):
        return self.now


class CountedWorker(Worker):
    """Stops after as many rounds as ``termed`` was set to."""

    rounds = 0

    @property
    def termed(self):
        self.rounds -= 1
        return self.rounds < 0

    @termed.setter
    def termed(self, value):
        self.rounds = int(value)


def test_an_outage_is_logged_once_and_survived(layer, wrapper, caplog):
    layer.deliveries.extend([LayerUnavailable("gone"), LayerUnavailable("gone")])
    with caplog.at_level(logging.INFO, "django.channels"):
        run(wrapper, lambda message: message.reply_channel.send({"text": "alive"}), steps=3)
    assert layer.sent() == [{"text": "alive"}]
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


def test_termed_may_be_a_property_that_counts(layer, wrapper):
    calls = []
    wrapper.router.add_route(route("test", calls.append))
    for _ in range(3):
        layer.deliver("test", {})
    worker = CountedWorker(wrapper, signal_handlers=False)
    worker.termed = 2
    worker.run()
    assert len(calls) == 2
    assert worker.in_job is False


def test_a_layer_of_1x_is_served_too(caplog):
    bare = BareLayer()
    wrapper = ChannelLayerWrapper(bare, "bare", [])
    calls = []

    def consumer(message):
        calls.append(message.content.get("__retries__", 0))
        if len(calls) == 1:
            raise ConsumeLater
        Channel("answer", channel_layer=wrapper).send({"x": 1})

    wrapper.router.add_route(route("test", consumer))
    bare.send("test", {})
    worker = Worker(wrapper)
    worker.step(["test"])
    worker.step(["test"])
    assert calls == [0, 1]
    assert list(bare.queue) == [("answer", {"x": 1})]


def test_only_goes_before_exclude_and_order_is_kept(layer, wrapper):
    channels = ["yes.1", "no.1", "maybe.2", "yes"]
    assert Worker(wrapper, only_channels=["yes.*", "maybe.*"]).apply_channel_filters(channels) == ["yes.1", "maybe.2"]
    assert Worker(wrapper, exclude_channels=["no.*", "maybe.*"]).apply_channel_filters(channels) == ["yes.1", "yes"]
    both = Worker(wrapper, only_channels=["yes*"], exclude_channels=["yes.*"])
    assert both.apply_channel_filters(channels) == ["yes"]
    assert Worker(wrapper, only_channels=["YES*"]).apply_channel_filters(channels) == []


def test_a_worker_that_reads_nothing_says_so(layer, wrapper):
    with pytest.raises(ConfigurationError, match="no channel is left"):
        Worker(wrapper, signal_handlers=False).run()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_current_message_finish(layer, wrapper, number):
    before = signal.getsignal(number)

    def consumer(message):
        os.kill(os.getpid(), number)
        message.reply_channel.send({"text": "done"})

    wrapper.router.add_route(route("test", consumer))
    layer.deliver("test", {"reply_channel": "i!1"})
    layer.deliver("test", {"reply_channel": "i!1"})
    Worker(wrapper).run()
    assert layer.sent() == [{"text": "done"}]
    assert layer.woken == 1
    assert signal.getsignal(number) is before


def test_a_worker_that_lingers_runs_what_still_comes_after_the_signal(layer, wrapper):
    calls = []

    def consumer(message):
        calls.append(message["n"])
        if message["n"] == 0:
            signal.raise_signal(signal.SIGTERM)

    wrapper.router.add_route(route("test", consumer))
    for number in range(3):
        layer.deliver("test", {"n": number})
    layer.deliveries.insert(2, None)  # the wait that the signal has ended: it must not count as a quiet one
    worker = Worker(wrapper)
    worker.lingers = True
    worker.run()
    assert calls == [0, 1, 2]
    assert layer.woken == 1
    assert not worker.termed


def test_a_worker_lingers_no_longer_than_five_seconds(layer, wrapper, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("procman.channels.worker.SystemClock", clock)
    calls = []

    def consumer(message):
        calls.append(message["n"])
        clock.now += 2.0
        if message["n"] == 0:
            signal.raise_signal(signal.SIGTERM)

    wrapper.router.add_route(route("test", consumer))
    for number in range(10):
        layer.deliver("test", {"n": number})
    worker = Worker(wrapper)
    worker.lingers = True
    worker.run()
    assert calls == [0, 1, 2, 3]


def test_a_stop_ends_a_worker_that_lingers(layer, wrapper):
    calls = []

    def consumer(message):
        calls.append(message["n"])
        if message["n"] == 0:
            signal.raise_signal(signal.SIGTERM)
        else:
            worker.stop()

    wrapper.router.add_route(route("test", consumer))
    for number in range(3):
        layer.deliver("test", {"n": number})
    worker = Worker(wrapper)
    worker.lingers = True
    worker.run()
    assert calls == [0, 1]


def test_ready_fires_once_per_thread(layer, wrapper):
    seen = []

    def receiver(sender, **kwargs):
        seen.append(sender)

    worker_ready.connect(receiver)
    try:
        WorkerGroup(wrapper, n_threads=3, signal_handlers=False).ready()
    finally:
        worker_ready.disconnect(receiver)
    assert len(seen) == 3


def test_a_group_runs_consumers_at_once_and_stops_when_all_have_finished(layer, wrapper):
    barrier = threading.Barrier(2)
    group = WorkerGroup(wrapper, n_threads=2, signal_handlers=False)

    def consumer(message):
        barrier.wait(10)  # passes only if both consumers run at the same time
        group.stop()
        message.reply_channel.send({"text": "done"})

    wrapper.router.add_route(route("test", consumer))
    layer.deliver("test", {"reply_channel": "i!1"})
    layer.deliver("test", {"reply_channel": "i!2"})
    group.run()
    assert sorted(send.name for _, sends, _ in layer.finished for send in sends) == ["i!1", "i!2"]
    assert not any(thread.is_alive() for thread in group.sub_threads)


def test_a_worker_process_says_that_it_is_ready_and_ends_with_status_0(layer, wrapper, monkeypatch, caplog):
    monkeypatch.setattr("procman.channels.log.setup_worker_logging", lambda settings: None)
    read, write = os.pipe()
    monkeypatch.setenv("PROCMAN_READY_FD", str(write))

    def consumer(message):
        os.kill(os.getpid(), signal.SIGTERM)

    wrapper.router.add_route(route("test", consumer))
    layer.deliver("test", {})
    try:
        with caplog.at_level(logging.INFO, "django.channels"):
            assert run_worker(WorkerSettings(), only=["test", "websocket.*"]) == 0
    finally:
        gc.unfreeze()
    assert os.read(read, 10) == b"1"
    os.close(read)
    assert "worker ready, listening on 4 channels" in caplog.text


def test_a_wrong_routing_is_a_configuration_error(monkeypatch):
    monkeypatch.setattr("procman.channels.log.setup_worker_logging", lambda settings: None)
    before = channel_layers.set("default", None)
    config = {"default": {"BACKEND": "tests.channels.layer.RecordingLayer", "ROUTING": "no.such.routing"}}
    with override_settings(CHANNEL_LAYERS=config), pytest.raises(ConfigurationError, match=r"no\.such\.routing"):
        run_worker(WorkerSettings())
    channel_layers.set("default", before)


def test_a_worker_takes_its_signal_handlers_back(layer, wrapper, caplog):
    def consumer(message):
        if message["n"] == 0:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    wrapper.router.add_route(route("test", consumer))
    for number in range(3):
        layer.deliver("test", {"n": number})
    before = signal.getsignal(signal.SIGTERM)
    Worker(wrapper).run()
    assert [identity for identity, _, _ in layer.finished] == ["m0", "m1"]
    assert f"a consumer of test has replaced the handler of signal {signal.SIGTERM}" in caplog.text
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_group_does_not_go_on_without_one_of_its_threads(layer, wrapper):
    wrapper.router.add_route(route("test", print))
    group = WorkerGroup(wrapper, n_threads=2, signal_handlers=False)

    def end(*args):
        raise ConfigurationError("this thread ends")

    group.workers[0].step = end
    with pytest.raises(ConfigurationError, match="this thread ends"):
        group.run()
    assert group.termed


def test_a_group_that_is_stopped_waits_for_the_thread_that_is_in_a_job(layer, wrapper):
    is_running, may_end = threading.Event(), threading.Event()

    def consumer(message):
        is_running.set()
        assert may_end.wait(10)
        message.reply_channel.send({"text": "done"})

    wrapper.router.add_route(route("test", consumer))
    layer.deliver("test", {"reply_channel": "i!1"})
    group = WorkerGroup(wrapper, n_threads=2, signal_handlers=False)
    thread = threading.Thread(target=group.run)
    thread.start()
    assert is_running.wait(10)
    assert [worker.in_job for worker in (group, *group.workers)].count(True) == 1
    group.stop()
    thread.join(0.1)
    assert thread.is_alive()
    may_end.set()
    thread.join(10)
    assert not thread.is_alive()
    assert layer.sent() == [{"text": "done"}]
    assert not any(worker.in_job for worker in (group, *group.workers))


def test_an_outage_in_a_groups_thread_is_survived_there(layer, wrapper):
    answered = []

    def consumer(message):
        answered.append(threading.current_thread().name)
        barrier.wait(10)
        group.stop()

    barrier = threading.Barrier(2)
    wrapper.router.add_route(route("test", consumer))
    layer.deliveries.extend([LayerUnavailable("gone"), OSError("gone"), RuntimeError("gone")])
    for _ in range(2):
        layer.deliver("test", {})
    group = WorkerGroup(wrapper, n_threads=2, signal_handlers=False)
    group.run()
    assert len(set(answered)) == 2
