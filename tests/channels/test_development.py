"""The development server's choice of a layer, its log lines and its worker threads."""

import logging
import threading
from typing import Any

import pytest
from django.test import override_settings

from procman.channels import route
from procman.channels.asgi import ChannelLayerManager, ChannelLayerWrapper
from procman.channels.development import (
    ActionHandler,
    WorkerThreads,
    action_line,
    can_be_kept,
    choose_layer,
    layer_without_routing,
    use_address,
)
from procman.layers.errors import ChannelFull, LayerUnavailable
from procman.layers.ipc import IPCChannelLayer
from procman.layers.memory import InMemoryChannelLayer
from tests.support.layers import running_hub

DETAILS = {"method": "GET", "path": "/a-path/", "status": 200, "time_taken": 0.12, "client": "a-client"}


def configured(backend: str, **config: Any) -> Any:
    return override_settings(CHANNEL_LAYERS={"default": {"BACKEND": backend, "ROUTING": [], "CONFIG": config}})


def test_an_in_memory_layer_is_served_as_it_is():
    manager = ChannelLayerManager()
    with configured("procman.layers.memory.InMemoryChannelLayer", capacity=7):
        wrapper, note = choose_layer(manager)
    assert wrapper is manager["default"] and note == ""
    assert wrapper.channel_layer.capacity == 7


def test_without_a_layer_process_messages_stay_in_the_process_and_the_limits_are_kept(tmp_path: Any):
    manager = ChannelLayerManager()
    address = f"ipc://{tmp_path}/none.sock"
    with configured("procman.layers.ipc.IPCChannelLayer", address=address, capacity=7, connect_timeout=1):
        wrapper, note = choose_layer(manager)
    assert wrapper is manager["default"] and wrapper.local_only()
    assert type(wrapper.channel_layer) is InMemoryChannelLayer and wrapper.channel_layer.capacity == 7
    assert address in note and "channels-run layer" in note


def test_a_layer_process_that_answers_is_used():
    with running_hub() as hub, configured("procman.layers.ipc.IPCChannelLayer", address=hub.address):
        wrapper, note = choose_layer(ChannelLayerManager())
        assert type(wrapper.channel_layer) is IPCChannelLayer and note == ""
        wrapper.channel_layer.close()


def test_a_redis_that_does_not_answer_is_an_error(tmp_path: Any):
    hosts = [f"unix://{tmp_path}/none.sock"]
    with configured("procman.layers.redis.RedisChannelLayer", hosts=hosts):
        with pytest.raises(LayerUnavailable):
            choose_layer(ChannelLayerManager())


@pytest.mark.parametrize(
    ("protocol", "action", "line"),
    [
        ("http", "complete", "HTTP GET /a-path/ 200 [0.12, a-client]"),
        ("websocket", "connected", "WebSocket CONNECT /a-path/ [a-client]"),
        ("websocket", "disconnected", "WebSocket DISCONNECT /a-path/ [a-client]"),
        ("websocket", "connecting", "WebSocket HANDSHAKING /a-path/ [a-client]"),
        ("websocket", "rejected", "WebSocket REJECT /a-path/ [a-client]"),
        ("websocket", "reconsidered", ""),
        ("http", "begun", ""),
    ],
)
def test_actions_have_the_lines_of_1x(protocol: str, action: str, line: str):
    assert action_line(protocol, action, DETAILS) == line


def test_no_path_can_forge_a_line():
    assert "\n" not in action_line("websocket", "connected", {**DETAILS, "path": "/\nHTTP GET / 200"})


def test_access_records_become_actions_and_others_are_ignored():
    heard: list[Any] = []
    handler = ActionHandler(lambda *facts: heard.append(facts))
    for action in ("REQUEST", "ACCEPT", "SOMETHING"):
        handler.handle(logging.makeLogRecord({"action": action, "details": DETAILS}))
    handler.handle(logging.makeLogRecord({"msg": "no access"}))
    assert heard == [("http", "complete", DETAILS), ("websocket", "connected", DETAILS)]


@pytest.mark.parametrize("count", [1, 4])
def test_worker_threads_run_consumers_until_they_are_stopped(count: int):
    names: list[str] = []
    ran = threading.Barrier(count + 1)

    def consumer(message: Any) -> None:
        names.append(threading.current_thread().name)
        ran.wait(10)  # all of them at once

    wrapper = ChannelLayerWrapper(InMemoryChannelLayer(), "default", [route("test", consumer)])
    workers = WorkerThreads(wrapper, count)
    workers.start()
    for _ in range(count):
        wrapper.send("test", {})
    ran.wait(10)
    workers.stop(10)
    assert len(set(names)) == count
    assert not [thread for thread in threading.enumerate() if thread.name in set(names)]


def test_a_layer_in_memory_moves_to_the_hub_of_another_process_with_its_limits():
    manager = ChannelLayerManager()
    with running_hub() as hub, configured("procman.layers.memory.InMemoryChannelLayer", capacity=1):
        wrapper = use_address(manager, hub.address)
        assert wrapper is manager["default"] and not wrapper.local_only()
        wrapper.send("chat", {"text": "a"})
        with pytest.raises(ChannelFull):
            wrapper.send("chat", {"text": "b"})
        wrapper.channel_layer.close()


def test_a_layer_that_processes_share_stays_where_it_is(tmp_path: Any):
    address = f"ipc://{tmp_path}/own.sock"
    with configured("procman.layers.ipc.IPCChannelLayer", address=address):
        assert use_address(ChannelLayerManager(), f"ipc://{tmp_path}/other.sock").channel_layer.address == address


@pytest.mark.parametrize(
    ("backend", "expected"),
    [
        ("procman.layers.ipc.IPCChannelLayer", True),
        ("procman.layers.memory.InMemoryChannelLayer", True),
        ("tests.channels.test_development.Foreign", False),
        ("no.such.Layer", False),
    ],
)
def test_only_layers_of_ours_are_served_by_the_process_that_keeps_the_sockets(backend: str, expected: bool):
    with configured(backend):
        assert can_be_kept(ChannelLayerManager()) is expected
    with override_settings(CHANNEL_LAYERS={}):
        assert can_be_kept(ChannelLayerManager()) is False


class Foreign:
    """A layer of somebody else's."""


def test_a_process_without_consumers_imports_no_routing_and_asks_a_redis_whether_it_is_there(tmp_path: Any):
    layers = {"default": {"BACKEND": "procman.layers.ipc.IPCChannelLayer", "ROUTING": "no.such.routing"}}
    with override_settings(CHANNEL_LAYERS=layers):
        assert layer_without_routing(ChannelLayerManager()).router.channels == set()
    hosts = [f"unix://{tmp_path}/none.sock"]
    with configured("procman.layers.redis.RedisChannelLayer", hosts=hosts), pytest.raises(LayerUnavailable):
        layer_without_routing(ChannelLayerManager())


def test_a_reload_waits_for_consumers_that_run_and_begins_no_other():
    begun, end = threading.Event(), threading.Event()

    def consumer(message: Any) -> None:
        begun.set()
        end.wait(10)

    layer = InMemoryChannelLayer()
    wrapper = ChannelLayerWrapper(layer, "default", [route("test", consumer)])
    workers = WorkerThreads(wrapper, 1)
    workers.start()
    wrapper.send("test", {})
    assert begun.wait(10)
    begun.clear()
    wrapper.send("test", {})
    workers.stop(0, lingers=False)
    end.set()
    workers.stop(10, lingers=False)
    assert not begun.is_set() and layer.channel_statistics("test")["messages_pending"] == 1
