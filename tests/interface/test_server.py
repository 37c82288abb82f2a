"""The server as a whole: start, limits of the HTTP parser, the end."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap

import pytest
from websockets.exceptions import ConnectionClosed

from procman.errors import ConfigurationError
from procman.interface.server import InterfaceServer, make_layer, run_interface
from procman.settings import InterfaceSettings, ProjectConfiguration
from tests.support.interface import read_response, running_interface
from tests.support.waiting import wait_until

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"


def test_a_get_request_is_answered_by_what_the_worker_replies():
    with running_interface() as site:
        with site.raw(b"GET /hello?a=1 HTTP/1.1\r\nHost: example.com\r\n\r\n") as client:
            offer, message = site.layer.take("http.request")
            assert (message["method"], message["path"], message["query_string"]) == ("GET", "/hello", b"a=1")
            site.layer.finish(offer, {"status": 200, "headers": [[b"X-A", b"b"]], "content": b"hi"})
            status, headers, content = read_response(client)
    assert (status, content, headers["x-a"], headers["content-length"]) == (200, b"hi", "b", "2")
    assert "date" in headers and "server" not in headers


def test_a_socket_echoes():
    with running_interface() as site:
        client, channel = site.accepted("/chat")
        with client:
            client.send("one")
            client.send(b"two")
            offer, message = site.layer.take("websocket.receive")
            assert message == {"reply_channel": channel, "path": "/chat", "text": "one", "order": 1}
            assert site.layer.offers.empty()
            site.layer.finish(offer, {"text": "ONE"})
            offer, message = site.layer.take("websocket.receive")
            assert message == {"reply_channel": channel, "path": "/chat", "bytes": b"two", "order": 2}
            site.layer.finish(offer, {"bytes": b"TWO"})
            assert (client.recv(5), client.recv(5)) == ("ONE", b"TWO")
        offer, message = site.layer.take("websocket.disconnect")
        assert message == {"reply_channel": channel, "path": "/chat", "code": 1000, "order": 3}


def test_no_two_clients_ever_share_a_reply_channel():
    seen = set()
    for _ in range(2):
        with running_interface() as site:
            for _ in range(3):
                with site.raw(GET):
                    seen.add(site.layer.take()[0].reply_channel)
    assert len(seen) == 6


def test_headers_without_end_are_refused():
    with running_interface() as site:
        with site.raw(b"GET / HTTP/1.1\r\n") as client:
            client.sendall(b"X-A: %s\r\n" % (b"a" * 60) * (site.server.settings.max_header_bytes // 60))
            assert read_response(client)[0] == 431
        assert site.layer.offers.empty()


def test_a_client_that_does_not_finish_its_headers_is_told_and_a_silent_one_dropped():
    with running_interface(InterfaceSettings(drain_timeout=1.0, header_timeout=0.2)) as site:
        with site.raw(b"GET / HTTP/1.1\r\n") as slow, site.raw() as silent, site.raw(GET) as waiting:
            offer, _ = site.layer.take()
            assert read_response(slow)[0] == 408 and silent.recv(100) == b""
            site.layer.finish(offer, {"status": 200})
            assert read_response(waiting)[0] == 200


def test_broken_http_is_answered_400():
    with running_interface() as site:
        with site.raw(b"NONSENSE\r\n\r\n") as client:
            assert read_response(client)[0] == 400


def test_an_upgrade_to_something_else_is_an_ordinary_request():
    with running_interface() as site:
        with site.raw(b"GET / HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n") as client:
            site.layer.finish(site.layer.take("http.request")[0], {"status": 200, "content": b"plain"})
            assert read_response(client)[2] == b"plain"


def test_a_stop_finishes_requests_closes_sockets_with_1012_and_runs_their_frames():
    with running_interface(InterfaceSettings(drain_timeout=5.0)) as site:
        socket_client, _ = site.accepted()
        with socket_client, site.raw(GET) as client:
            request, _ = site.layer.take("http.request")
            socket_client.send("last")
            frame, _ = site.layer.take("websocket.receive")
            site.stop()
            with pytest.raises(ConnectionClosed) as caught:
                socket_client.recv(5)
            assert caught.value.rcvd is not None and caught.value.rcvd.code == 1012
            with pytest.raises(OSError):
                wait_until(lambda: site.raw().close())  # refused once the listening socket is closed
            assert not site.layer.is_closed
            site.layer.finish(frame)
            assert site.layer.take("websocket.disconnect")[1]["code"] == 1012
            site.layer.finish(request, {"status": 200, "content": b"done"})
            assert read_response(client)[2] == b"done"
        site.thread.join(5)
        assert not site.thread.is_alive() and site.layer.is_closed


def test_a_stop_in_a_hurry_waits_for_nobody():
    with running_interface(InterfaceSettings(drain_timeout=60.0)) as site:
        client, _ = site.accepted()
        with client, site.raw(GET):
            site.layer.take("http.request")
            site.stop(hurry=True)
            site.thread.join(5)
            assert not site.thread.is_alive() and site.layer.is_closed


def test_a_handshake_during_the_stop_is_503():
    with running_interface(InterfaceSettings(drain_timeout=5.0)) as site:
        with site.raw(GET) as client, site.raw() as late:
            request, _ = site.layer.take("http.request")
            wait_until(lambda: len(site.server.site.connections) == 2)
            site.layer.run(setattr, site.server.replies, "is_stopping", True)
            key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            late.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + key)
            assert read_response(late)[0] == 503
            site.layer.finish(request, {"status": 200})
            assert read_response(client)[0] == 200


PROGRAM = """
import logging, os, socket, sys
from procman.interface import server
from procman.log import setup_logging
from procman.settings import InterfaceSettings, ProjectConfiguration
from tests.support.layer import FakeLayer
setup_logging()
class Layer(FakeLayer):
    def offer(self, offer):
        print("offered", file=sys.stderr, flush=True)
server.make_layer = lambda project: Layer()
listening = socket.socket(fileno=int(sys.argv[1]))
sys.exit(server.run_interface(InterfaceSettings(drain_timeout=0.5), ProjectConfiguration("x", "fake://"), [listening]))
"""


def start(listening, **environ):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), str(listening.fileno())],
        pass_fds=[listening.fileno(), *environ.pop("fds", ())],
        env={**os.environ, **environ},
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_status_0_and_a_second_one_does_not_force(number):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        process = start(listening)
        assert process.stderr is not None
        with process, process.stderr:
            assert process.stderr.readline().startswith("interface ready on http://127.0.0.1:")
            with socket.create_connection(listening.getsockname()) as client:
                client.sendall(GET)
                assert process.stderr.readline() == "offered\n"
                process.send_signal(number)
                process.send_signal(number)
                assert read_response(client)[0] == 503
                rest = process.stderr.read()
            assert process.wait(10) == 0
    assert rest.splitlines()[-1] == "interface stopped"
    assert "Traceback" not in rest


def test_the_process_announces_itself_and_ends_with_its_supervisor():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        (ready_read, ready_write), (life_read, life_write) = os.pipe(), os.pipe()
        process = start(
            listening,
            fds=(ready_write, life_read),
            PROCMAN_READY_FD=str(ready_write),
            PROCMAN_LIFETIME_FD=str(life_read),
        )
        assert process.stderr is not None
        with process, process.stderr:
            os.close(ready_write)
            os.close(life_read)
            assert os.read(ready_read, 10) == b"1"
            os.close(life_write)
            assert process.wait(5) == 0
        os.close(ready_read)


@pytest.mark.parametrize("layer", ["memory://", "carrier-pigeon://"])
def test_a_layer_that_processes_cannot_share_is_a_clear_error(layer):
    with pytest.raises(ConfigurationError, match=layer):
        make_layer(ProjectConfiguration("x", layer))


def test_a_stop_ends_the_wait_for_a_layer_that_does_not_come(caplog):
    from tests.support.layer import FakeLayer

    class Silent(FakeLayer):
        async def connect(self, timeout=None):
            asyncio.get_running_loop().call_soon(server.stop)
            await asyncio.Event().wait()

    async def run():
        nonlocal server
        server = InterfaceServer(InterfaceSettings(), ProjectConfiguration("x", "fake://"), Silent())
        async with asyncio.timeout(5):
            await server.run([])

    server = None
    with caplog.at_level("INFO", logger="procman.interface"):
        asyncio.run(run())
    assert "interface stopped before it reached the channel layer" in caplog.text


def test_a_layer_that_is_not_there_is_status_1_and_one_line(monkeypatch, caplog):
    from procman.layers.errors import LayerUnavailable
    from tests.support.layer import FakeLayer

    class Absent(FakeLayer):
        async def connect(self, timeout=None):
            raise LayerUnavailable("no layer at /run/x.sock")

    monkeypatch.setattr("procman.interface.server.make_layer", lambda project: Absent())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert run_interface(InterfaceSettings(), ProjectConfiguration("x", "fake://"), [listening]) == 1
    assert "no layer at /run/x.sock" in caplog.text
