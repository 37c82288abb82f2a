"""The end of a WebSocket over a network with a round trip: nobody is cut off before he has read what was said."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from procman.settings import InterfaceSettings
from tests.support.interface import Running, running_interface
from tests.support.relay import relayed

DELAY = 0.1  # seconds each way


@pytest.fixture
def site() -> Iterator[Running]:
    with running_interface(InterfaceSettings(drain_timeout=2.0)) as running:
        yield running


@contextlib.contextmanager
def opened(site: Running) -> Iterator[tuple[ClientConnection, str]]:
    """A WebSocket behind the relay, and its reply channel."""
    with relayed(site.port, DELAY) as port:
        channels: list[str] = []

        def accept() -> None:
            offer, message = site.layer.take("websocket.connect")
            channels.append(message["reply_channel"])
            site.layer.finish(offer, {"accept": True})

        worker = threading.Thread(target=accept)
        worker.start()
        with connect(f"ws://127.0.0.1:{port}/", proxy=None, close_timeout=5) as client:
            worker.join(5)
            yield client, channels[0]


def test_our_close_is_answered_and_its_code_reaches_both_sides(site: Running) -> None:
    with opened(site) as (client, channel):
        site.layer.reply(channel, {"text": "last words", "close": 4000, "reason": "done"})
        assert client.recv(5) == "last words"
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(5)
        assert caught.value.rcvd is not None and caught.value.sent is not None
        assert (caught.value.rcvd.code, caught.value.rcvd.reason, caught.value.sent.code) == (4000, "done", 4000)
        assert site.layer.take("websocket.disconnect")[1]["code"] == 4000


def test_the_clients_close_is_answered_and_what_it_sent_before_runs_first(site: Running) -> None:
    with opened(site) as (client, _):
        client.send("last words")
        client.close(4001, "bye")
        assert client.protocol.close_rcvd is not None and client.protocol.close_rcvd.code == 4001
        offer, message = site.layer.take("websocket.receive")
        assert message["text"] == "last words"
        site.layer.finish(offer)
        message = site.layer.take("websocket.disconnect")[1]
        assert (message["code"], message["reason"]) == (4001, "bye")


def test_closes_that_cross_on_the_way_end_both_sides_in_peace(site: Running) -> None:
    with opened(site) as (client, channel):
        site.layer.reply(channel, {"close": 4000})
        client.close(4001)  # before the other one has come
        assert client.protocol.close_rcvd is not None
        assert site.layer.take("websocket.disconnect")[1]["code"] in (4000, 4001)


def test_a_message_over_the_limit_is_told_with_1009_while_the_client_is_sending(site: Running) -> None:
    with opened(site) as (client, _):
        with contextlib.suppress(ConnectionClosed):
            client.send(b"x" * 8_000_000)
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(5)
        assert caught.value.rcvd is not None and caught.value.rcvd.code == 1009
        assert site.layer.take("websocket.disconnect", timeout=10)[1]["code"] == 1009


def test_a_stop_waits_for_the_round_trip_of_its_1012(site: Running) -> None:
    with opened(site) as (client, _):
        site.stop()
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(5)
        assert caught.value.rcvd is not None and caught.value.rcvd.code == 1012
        assert site.layer.take("websocket.disconnect")[1]["code"] == 1012


def test_a_client_that_shuts_its_half_without_a_close_frame_has_gone_with_1006(site: Running) -> None:
    with opened(site) as (client, _):
        client.socket.shutdown(socket.SHUT_WR)
        assert site.layer.take("websocket.disconnect")[1]["code"] == 1006


def test_a_client_that_never_answers_our_close_is_cut_after_a_while(
    site: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("procman.interface.connection.CLOSE_TIMEOUT", 0.3)
    with opened(site) as (client, channel):
        monkeypatch.setattr(client.protocol, "send_close", lambda *arguments: None)
        site.layer.reply(channel, {"close": 4000})
        assert site.layer.take("websocket.disconnect", timeout=10)[1]["code"] == 4000
