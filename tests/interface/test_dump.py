"""Open WebSockets as plain data: whoever has that and the transport goes on where the other was."""

from collections.abc import Iterator

import msgpack
import pytest
from websockets.frames import Opcode

from procman.interface.websocket import WebSocketProtocol
from procman.settings import InterfaceSettings
from tests.interface.test_websocket import connecting, frame
from tests.support.interface import Running, running_interface
from tests.support.waiting import wait_until


@pytest.fixture
def site() -> Iterator[Running]:
    with running_interface(InterfaceSettings(drain_timeout=1.0, websocket_compression=True)) as running:
        yield running


def hand_over(site: Running, channel: str) -> None:
    """Another object goes on with the socket behind *channel*, knowing only what the first one says of itself."""

    def exchange() -> None:
        replies = site.server.replies
        old = replies.clients[channel]
        assert isinstance(old, WebSocketProtocol)
        data = msgpack.unpackb(msgpack.packb(old.dump()))
        new = WebSocketProtocol.load(site.server.site, old.transport, data)
        groups = [group for group, member in replies.groups.memberships() if member == channel]
        replies.groups.forget(channel)
        for group in groups:
            replies.groups.add(group, channel, new)
        replies.clients[channel] = new
        if new.offer_id in replies.offers:
            offer, _, since = replies.offers[new.offer_id]
            replies.offers[new.offer_id] = (offer, new, since)
        site.server.site.connections.discard(old)
        site.server.site.connections.add(new)
        old.transport.set_protocol(new)
        for name in old.connection.__slots__ if old.connection else ():
            delattr(old.connection, name)

    site.layer.run(exchange)


def test_a_socket_goes_on_in_the_middle_of_everything(site: Running) -> None:
    client, channel = site.accepted("/chat", compression="deflate")
    with client:
        site.layer.add("g", [channel])
        client.send("one")
        first, message = site.layer.take("websocket.receive")
        assert (message["text"], message["order"]) == ("one", 1)
        client.send("two")
        client.send(b"three")
        half = frame(Opcode.TEXT, "f\u00fcnf".encode())
        client.socket.sendall(frame(Opcode.TEXT, b"vi", fin=False) + frame(Opcode.CONT, b"er") + half[:-3])
        socket = site.server.replies.clients[channel]
        assert isinstance(socket, WebSocketProtocol)
        wait_until(lambda: socket.decoder is not None and socket.decoder.unread)
        hand_over(site, channel)
        client.socket.sendall(half[-3:])
        site.layer.finish(first, {"text": "reply"}, session=b"s")
        assert client.recv(5) == "reply"
        for order, (key, value) in enumerate(
            [("text", "two"), ("bytes", b"three"), ("text", "vier"), ("text", "f\u00fcnf")]
        ):
            hand_over(site, channel)
            offer, message = site.layer.take("websocket.receive")
            assert (message[key], message["order"], offer.session) == (value, order + 2, b"s")
            site.layer.finish(offer)
        site.layer.send_to_group("g", {"text": "y" * 1000})
        assert client.recv(5) == "y" * 1000
        hand_over(site, channel)
        client.close(4001, "bye")
    offer, message = site.layer.take("websocket.disconnect")
    assert (message["code"], message["order"], offer.session) == (4001, 6, b"s")


def test_a_socket_is_handed_over_before_its_accept(site: Running) -> None:
    result = connecting(site, "/chat")
    offer, message = site.layer.take("websocket.connect")
    hand_over(site, message["reply_channel"])
    site.layer.finish(offer, {"accept": True}, {"text": "hello"})
    with result() as client:
        assert client.recv(5) == "hello"
