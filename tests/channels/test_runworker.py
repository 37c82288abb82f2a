"""manage.py runworker: what it builds its worker from."""

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from procman.channels import handler, staticfiles
from procman.channels.asgi import ChannelLayerWrapper, channel_layers
from procman.channels.management.commands import runworker
from procman.channels.message import Message
from procman.channels.signals import worker_process_ready


class FakeWorker:
    """Records how it was made."""

    made: list[dict] = []

    def __init__(self, **keywords):
        self.made.append(keywords)

    def ready(self):
        pass

    def run(self):
        pass


@pytest.fixture
def made(monkeypatch, layer):
    monkeypatch.setattr(runworker, "Worker", FakeWorker)
    monkeypatch.setattr(runworker, "WorkerGroup", FakeWorker)
    FakeWorker.made.clear()
    return FakeWorker.made


def test_the_worker_gets_the_layer_and_no_filters(made, wrapper):
    call_command("runworker")
    assert made == [{"channel_layer": wrapper, "callback": None, "only_channels": None, "exclude_channels": None}]


def test_filters_and_threads_are_passed_on(made, wrapper):
    call_command("runworker", "--only-channels", "a*", "--only-channels", "b", "--exclude-channels=c", "--threads=3")
    assert made[0]["only_channels"] == ["a*", "b"]
    assert made[0]["exclude_channels"] == ["c"]
    assert made[0]["n_threads"] == 3


def test_start_scripts_of_1x_may_ask_for_a_hard_stop(made):
    call_command("runworker", "--disable-graceful-stop", "--threads=2")
    assert made[0]["n_threads"] == 2


def test_verbosity_sets_the_callback(made, caplog):
    call_command("runworker", verbosity=2)
    made[0]["callback"]("websocket.receive", Message({}, "websocket.receive", None))
    assert made[0]["callback"].__name__ == "consumer_called"


@pytest.mark.parametrize(("debug", "kind"), [(False, handler.ViewConsumer), (True, staticfiles.StaticFilesConsumer)])
def test_debug_with_staticfiles_serves_static_files(made, wrapper, debug, kind):
    with override_settings(DEBUG=debug):
        call_command("runworker")
    consumer, _ = wrapper.router.match(Message({}, "http.request", wrapper))
    assert type(consumer) is kind


def test_the_process_signal_fires_once(made):
    seen = []

    def receiver(**kwargs):
        seen.append(kwargs["sender"])

    worker_process_ready.connect(receiver)
    try:
        call_command("runworker", threads=2)
    finally:
        worker_process_ready.disconnect(receiver)
    assert len(seen) == 1


def test_an_in_memory_layer_is_refused(made):
    from procman.layers.memory import InMemoryChannelLayer

    before = channel_layers.set("default", ChannelLayerWrapper(InMemoryChannelLayer(), "default", []))
    with pytest.raises(CommandError, match="in memory"):
        call_command("runworker")
    channel_layers.set("default", before)


def test_an_unknown_layer_is_refused(made):
    with pytest.raises(CommandError, match="no layer 'other'"):
        call_command("runworker", layer="other")
