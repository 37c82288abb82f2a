"""An interface on a thread, over the in-memory layer of the same process."""

import dataclasses
import socket
import threading
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from procman.errors import ConfigurationError
from procman.interface.embedded import InterfaceThread
from procman.layers.base import Send
from procman.layers.ipc import IPCChannelLayer
from procman.layers.memory import InMemoryChannelLayer
from procman.settings import InterfaceSettings, ProjectConfiguration
from tests.support.interface import read_response

SETTINGS = InterfaceSettings(drain_timeout=0.5, access_log=False)


def configuration(layer: str) -> ProjectConfiguration:
    return ProjectConfiguration("mysite.settings", layer, allowed_hosts=["*"])


@pytest.fixture
def listener() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_requests_and_sockets_are_served_through_the_threads_of_this_process(listener: socket.socket):
    layer = InMemoryChannelLayer()
    interface = InterfaceThread(SETTINGS, configuration("memory://"), layer)
    interface.start([listener])
    port = listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(b"GET /hello HTTP/1.1\r\nHost: example.com\r\n\r\n")
        request = layer.take(["http.request"], 10)
        assert request is not None and request.message["path"] == "/hello"
        answer = {"status": 200, "headers": [], "content": b"hi"}
        layer.finish(request, [Send(request.message["reply_channel"], answer)])
        assert read_response(client)[0] == 200
    with socket.create_connection(("127.0.0.1", port), 10):
        interface.stop()
        assert interface.join(10)
    assert layer.statistics()["interfaces"] == 0


def test_a_connection_that_comes_in_the_moment_of_the_stop_is_closed_and_holds_nobody_up(listener: socket.socket):
    interface = InterfaceThread(SETTINGS, configuration("memory://"), InMemoryChannelLayer())
    interface.start([listener])
    port = listener.getsockname()[1]
    is_stopping, has_connected = threading.Event(), threading.Event()

    def stop() -> None:
        assert interface._server is not None
        interface._server.stop()
        is_stopping.set()
        has_connected.wait(10)

    assert interface._loop is not None
    interface._loop.call_soon_threadsafe(stop)
    assert is_stopping.wait(10)
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        has_connected.set()
        assert interface.join(10)
        assert client.recv(1) == b""


def test_a_stop_closes_open_sockets_with_1012_and_queues_their_disconnects(listener: socket.socket):
    layer = InMemoryChannelLayer()
    interface = InterfaceThread(SETTINGS, configuration("memory://"), layer)
    interface.start([listener])

    def accept() -> None:
        delivery = layer.take(["websocket.connect"], 10)
        assert delivery is not None
        layer.finish(delivery, [Send(delivery.message["reply_channel"], {"accept": True})])

    worker = threading.Thread(target=accept)
    worker.start()
    with connect(f"ws://127.0.0.1:{listener.getsockname()[1]}/", proxy=None) as client:
        worker.join(10)
        interface.stop()
        assert interface.join(10)
        with pytest.raises(ConnectionClosed):
            client.recv(10)
        assert client.protocol.close_code == 1012
    delivery = layer.take(["websocket.disconnect"], 10)
    assert delivery is not None and delivery.message["code"] == 1012
    layer.finish(delivery)


def test_a_layer_of_a_kind_that_no_interface_can_use_is_told_at_the_start(listener: socket.socket):
    interface = InterfaceThread(SETTINGS, configuration("carrier-pigeon://"), IPCChannelLayer("ipc:///none"))
    with pytest.raises(ConfigurationError, match="carrier-pigeon"):
        interface.start([listener])
    assert interface.join(10)


def test_the_project_may_change_while_it_serves(listener: socket.socket):
    layer = InMemoryChannelLayer()
    interface = InterfaceThread(SETTINGS, dataclasses.replace(configuration("memory://"), allowed_hosts=["a"]), layer)
    interface.start([listener])
    uri = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
    with pytest.raises(InvalidStatus, match="403"):
        connect(uri, proxy=None, origin=Origin("http://b.example"))
    interface.update(configuration("memory://"))

    def accept() -> None:
        delivery = layer.take(["websocket.connect"], 10)
        assert delivery is not None
        layer.finish(delivery, [Send(delivery.message["reply_channel"], {"accept": True})])

    worker = threading.Thread(target=accept)
    worker.start()
    with connect(uri, proxy=None, origin=Origin("http://b.example")):
        worker.join(10)
    interface.stop(hurry=True)
    assert interface.join(10)
    interface.update(configuration("memory://"))  # nobody is there to be told
