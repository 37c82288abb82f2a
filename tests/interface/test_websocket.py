"""WebSockets over real sockets."""

import contextlib
import logging
import os
import random
import threading

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from procman.interface.connection import State
from procman.interface.messages import build_disconnect
from procman.layers import names, sessions
from procman.layers.sessions import Changes, Read
from procman.settings import InterfaceSettings, ProjectConfiguration
from tests.support.interface import read_response, running_interface
from tests.support.waiting import wait_until

HANDSHAKE = (
    b"GET /chat?a=1 HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


def settings(**values):
    return InterfaceSettings(drain_timeout=1.0, **values)


@pytest.fixture
def site():
    with running_interface() as running:
        yield running


def connecting(site, path="/", **options):
    """A client in a thread whose handshake waits for its answer; ``result()`` ends it."""
    found = []

    def run():
        try:
            found.append(site.connect(path, **options))
        except InvalidStatus as error:
            found.append(error.response.status_code)

    thread = threading.Thread(target=run)
    thread.start()

    def result():
        thread.join(5)
        return found[0]

    return result


def code_of(client):
    """The close code that ends the client's connection; data before it is read and dropped."""
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            client.recv(5)
    return caught.value.rcvd.code if caught.value.rcvd else 1006


def frame(opcode, payload=b"", fin=True):
    return Frame(opcode, payload, fin).serialize(mask=True)


def raw_open(site):
    """A TCP connection whose handshake was accepted, and its reply channel."""
    client = site.raw(HANDSHAKE + b"\r\n")
    offer, message = site.layer.take("websocket.connect")
    site.layer.finish(offer, {"accept": True})
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        data += client.recv(65536)
    assert data.startswith(b"HTTP/1.1 101")
    return client, message["reply_channel"]


def test_the_connect_message_has_every_field(site):
    with site.raw(HANDSHAKE + b"X_Evil: 1\r\nCookie: a\r\nCookie: b\r\n\r\n") as client:
        offer, message = site.layer.take("websocket.connect")
        port = client.getsockname()[1]
    headers = message.pop("headers")
    assert [b"cookie", b"a"] in headers and [b"cookie", b"b"] in headers
    assert b"x_evil" not in [name for name, _ in headers]
    assert message == {
        "reply_channel": offer.reply_channel,
        "scheme": "ws",
        "path": "/chat",
        "query_string": b"a=1",
        "root_path": "",
        "order": 0,
        "client": ["127.0.0.1", port],
        "server": ["127.0.0.1", site.port],
    }
    assert not offer.bounded


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ({"accept": True}, "open"),
        ({"accept": True, "text": "hi"}, "hi"),
        ({"accept": True, "bytes": b"hi"}, b"hi"),
        ({"accept": False}, 403),
        ({"accept": False, "text": "hi"}, 403),
        ({"text": "hi"}, "hi"),
        ({"bytes": b"hi"}, b"hi"),
        ({"close": True}, 403),
        ({"close": 4000}, 403),
        ({"close": 1011}, 500),
        ({"close": True, "text": "hi"}, "hi"),
    ],
)
def test_the_handshake_table_of_channels_1(site, reply, expected):
    result = connecting(site)
    offer, _ = site.layer.take("websocket.connect")
    site.layer.finish(offer, reply)
    client = result()
    if isinstance(expected, int):
        assert client == expected
        assert site.layer.ended == [offer.reply_channel]
        return
    with client:
        if expected != "open":
            assert client.recv(5) == expected
        if reply.get("close"):
            assert code_of(client) == 1000


def test_an_accepted_socket_is_reported_and_ends_with_one_disconnect(site):
    client, channel = site.accepted("/chat")
    assert [(each.reply_channel, each.path, each.order) for each in site.layer.opened] == [(channel, "/chat", 0)]
    client.close(4001)
    _, message = site.layer.take("websocket.disconnect")
    assert message == {"reply_channel": channel, "path": "/chat", "code": 4001, "order": 1}
    assert site.layer.ended == [channel]


def test_a_connection_that_breaks_off_ends_with_1006(site):
    client, _ = raw_open(site)
    client.close()
    assert site.layer.take("websocket.disconnect")[1]["code"] == 1006


def test_a_close_frame_without_a_code_is_1005(site):
    client, _ = raw_open(site)
    with client:
        client.sendall(frame(Opcode.CLOSE))
        assert site.layer.take("websocket.disconnect")[1]["code"] == 1005


def test_frames_sent_right_before_the_close_are_run_in_order_before_the_disconnect(site):
    client, _ = raw_open(site)
    with client:
        client.sendall(frame(Opcode.TEXT, b"a") + frame(Opcode.TEXT, b"b") + frame(Opcode.CLOSE, b"\x03\xe8"))
    for order, text in ((1, "a"), (2, "b")):
        offer, message = site.layer.take("websocket.receive")
        assert (message["order"], message["text"]) == (order, text)
        assert site.layer.offers.empty()
        site.layer.finish(offer)
    _, message = site.layer.take("websocket.disconnect")
    assert (message["order"], message["code"]) == (3, 1000)


def test_a_client_that_leaves_before_the_answer_withdraws_its_connect_and_has_no_disconnect(site):
    with site.raw(HANDSHAKE + b"\r\n"):
        offer, _ = site.layer.take("websocket.connect")
    assert site.layer.withdrawn.get(timeout=5) == offer.id
    site.layer.fail(offer, "withdrawn")
    wait_until(lambda: site.layer.ended == [offer.reply_channel])
    assert site.layer.opened == [] and not site.server.replies.clients


def test_a_connect_consumer_that_accepts_a_client_which_has_left_is_followed_by_the_disconnect(site):
    with site.raw(HANDSHAKE + b"\r\n"):
        offer, _ = site.layer.take("websocket.connect")
    assert site.layer.withdrawn.get(timeout=5) == offer.id
    assert site.layer.ended == [] and offer.reply_channel in site.server.replies.clients
    site.layer.finish(offer, {"accept": True}, session=b"s")
    disconnect, message = site.layer.take("websocket.disconnect")
    assert (message["order"], message["code"], disconnect.session) == (1, 1006, b"s")
    assert [opened.reply_channel for opened in site.layer.opened] == [offer.reply_channel]
    counters = site.server.site.counters
    assert (counters.sockets_opened, counters.sockets_open) == (1, 0)


def test_a_connect_consumer_that_refuses_a_client_which_has_left_is_followed_by_nothing(site):
    with site.raw(HANDSHAKE + b"\r\n"):
        offer, _ = site.layer.take("websocket.connect")
    assert site.layer.withdrawn.get(timeout=5) == offer.id
    site.layer.finish(offer, {"accept": False})
    wait_until(lambda: site.layer.ended == [offer.reply_channel])
    assert site.layer.opened == [] and site.layer.offers.empty()


def test_no_answer_in_time_is_503():
    with running_interface(settings(handshake_timeout=0.2)) as site:
        result = connecting(site)
        offer, _ = site.layer.take()
        site.layer.finish(offer)
        assert result() == 503


@pytest.mark.parametrize(("reason", "status"), [("lost", 500), ("full", 503)])
def test_a_failed_connect_is_refused(site, reason, status):
    result = connecting(site)
    offer, _ = site.layer.take()
    site.layer.fail(offer, reason)
    assert result() == status


def test_a_frame_whose_workers_died_closes_the_socket_with_1011(site, caplog):
    client, _ = site.accepted("/chat")
    with client:
        client.send("poison")
        offer, _ = site.layer.take("websocket.receive")
        site.layer.fail(offer, "lost")
        assert code_of(client) == 1011
    assert site.layer.take("websocket.disconnect")[1]["code"] == 1011
    assert any(record.levelno == logging.ERROR and "/chat" in record.getMessage() for record in caplog.records)


def test_the_session_goes_with_every_frame_and_comes_back_with_the_finish(site):
    client, channel = site.accepted()
    with client:
        client.send("a")
        offer, _ = site.layer.take()
        assert offer.session == b""
        site.layer.finish(offer, session=b"one")
        client.send("b")
        offer, _ = site.layer.take()
        assert offer.session == b"one"
        site.layer.lose()
        snapshot = site.layer.find()
        assert snapshot.offers == [offer]
        assert [(each.reply_channel, each.order, each.session) for each in snapshot.sockets] == [(channel, 2, b"one")]
        site.layer.finish(offer)
    assert site.layer.take("websocket.disconnect")[0].session == b"one"


def test_the_layer_learns_the_session_of_the_connect_consumer(site):
    result = connecting(site)
    offer, _ = site.layer.take()
    site.layer.finish(offer, {"accept": True}, session=b"s")
    with result():
        assert [each.session for each in site.layer.opened][-1] == b"s"


def test_the_session_is_told_to_who_asks(site):
    client, channel = site.accepted()
    with client:
        client.send("a")
        offer, _ = site.layer.take()
        site.layer.finish(offer, session=b"one")
        site.layer.reply(channel, sessions.build_read(Read("answers?1", 5)), token=3)
        assert site.layer.answers.get(timeout=5) == (3, True)
        assert site.layer.sent.get(timeout=5) == ("answers?1", {"number": 5, "session": b"one"})


def test_what_is_merged_into_the_session_goes_with_the_next_frame_and_to_the_layers_record(site):
    client, channel = site.accepted()
    with client:
        site.layer.reply(channel, sessions.build_merge(Changes({"a": b"1"}, [])))
        merged = sessions.pack({"a": b"1"})
        record = site.layer.opened[-1]
        assert (record.reply_channel, record.order, record.session) == (channel, 0, merged)
        client.send("a")
        offer, _ = site.layer.take()
        assert (offer.session, record.order) == (merged, 0)


def test_a_request_for_the_session_that_is_none_is_logged_and_dropped(site, caplog):
    client, channel = site.accepted("/chat")
    with client:
        site.layer.reply(channel, {sessions.REQUEST: "from a client"}, token=4)
        assert site.layer.answers.get(timeout=5) == (4, True)
    assert "/chat dropped: it is no request for a session" in caplog.text


def test_sockets_are_known_by_their_reply_channels(site):
    client, channel = site.accepted()
    with client:
        assert channel.startswith("fake!ws-")
        assert names.is_socket(channel.replace("fake", "interface.1.00000000"))


def test_a_second_finish_of_a_frame_is_dropped_with_its_replies(site):
    client, _ = site.accepted()
    with client:
        client.send("a")
        offer, _ = site.layer.take()
        site.layer.finish(offer, {"text": "once"})
        site.layer.finish(offer, {"text": "twice"})
        client.send("b")
        site.layer.finish(site.layer.take()[0], {"text": "next"})
        assert [client.recv(5), client.recv(5)] == ["once", "next"]


def test_a_fragmented_message_is_one_frame_for_the_consumer(site):
    client, _ = raw_open(site)
    with client:
        client.sendall(frame(Opcode.TEXT, b"a\xc3", fin=False) + frame(Opcode.PING, b"p"))
        client.sendall(frame(Opcode.CONT, fin=False) * 1000 + frame(Opcode.CONT, b"\xa4"))
        offer, message = site.layer.take("websocket.receive")
        assert message["text"] == "aä"
        site.layer.finish(offer)
        assert client.recv(100) == b"\x8a\x01p"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(Opcode.TEXT, b"\xff"), 1007),
        (frame(Opcode.CONT, b"a"), 1002),
        (b"\x83\x80\x00\x00\x00\x00", 1002),
        (b"\x81\x01a", 1002),
        (b"\xc1\x81\x00\x00\x00\x00a", 1002),
    ],
)
def test_a_client_that_breaks_the_protocol_is_closed_with_the_reason(site, data, code):
    client, _ = raw_open(site)
    with client:
        client.sendall(data)
        answer = client.recv(200)
        assert answer[0] == 0x88 and int.from_bytes(answer[2:4], "big") == code
    assert site.layer.take("websocket.disconnect")[1]["code"] == code


def test_bad_text_followed_by_a_close_frame_does_not_confuse_the_socket(site):
    client, _ = raw_open(site)
    with client:
        client.sendall(frame(Opcode.TEXT, b"\xff") + frame(Opcode.CLOSE, b"\x03\xe8"))
        data = b""
        while part := client.recv(65536):
            data += part
    assert data[2:4] == b"\x03\xef"
    assert site.layer.take("websocket.disconnect")[1]["code"] == 1007


@pytest.mark.parametrize("fragmented", [False, True])
def test_a_message_over_the_limit_closes_with_1009(fragmented):
    with running_interface(settings(max_message_size=1000)) as site:
        client, _ = site.accepted()
        with client:
            with contextlib.suppress(ConnectionClosed):  # the answer may come before the last fragment is out
                client.send(["x" * 600] * 2 if fragmented else "x" * 1001)
            assert code_of(client) == 1009
        assert site.layer.take("websocket.disconnect")[1]["code"] == 1009


def test_a_message_that_is_too_large_for_the_layer_closes_with_1009(site):
    client, _ = site.accepted()
    site.layer.max_size = 1000
    with client:
        client.send("x" * 2000)
        assert code_of(client) == 1009
    site.layer.take("websocket.disconnect")


def test_reading_pauses_when_frames_wait_and_no_frame_is_lost():
    with running_interface(settings(max_waiting_frames=4, max_message_rate=0)) as site:
        client, channel = site.accepted()
        with client:
            thread = threading.Thread(target=lambda: [client.send(f"{n}{'x' * 5000}") for n in range(2000)])
            thread.start()
            offer, message = site.layer.take("websocket.receive")
            socket = site.server.replies.clients[channel]
            wait_until(lambda: socket.connection.is_paused)
            assert len(socket.connection.waiting) < 8 and socket.decoder.unread <= 512 * 1024
            for number in range(2000):
                assert message["text"].startswith(f"{number}x") and message["order"] == number + 1
                site.layer.finish(offer)
                if number < 1999:
                    offer, message = site.layer.take("websocket.receive")
            thread.join(5)
            assert not socket.connection.is_paused and socket.decoder.unread == 0


def test_a_slow_reader_is_closed_while_the_others_go_on(caplog, monkeypatch):
    monkeypatch.setattr("procman.interface.connection.CLOSE_TIMEOUT", 0.2)
    with running_interface(settings(write_limit=200_000)) as site:
        slow, slow_channel = raw_open(site)
        fast, fast_channel = site.accepted("/fast")
        received = []
        reader = threading.Thread(target=lambda: received.extend(len(fast.recv(5)) for _ in range(400)))
        reader.start()
        site.layer.add("news", [slow_channel, fast_channel])
        for _ in range(400):
            site.layer.send_to_group("news", {"bytes": os.urandom(60_000)})
        reader.join(10)
        assert received == [60_000] * 400
        messages = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len([text for text in messages if "1013" in text and "/chat" in text]) == 1
        _, message = site.layer.take("websocket.disconnect", timeout=10)
        assert (message["reply_channel"], message["code"]) == (slow_channel, 1013)
        slow.close()
        fast.close()


@pytest.mark.parametrize("policy", ["drop-oldest", "latest-only"])
def test_a_slow_reader_of_a_group_that_may_drop_stays_and_gets_the_last_message(caplog, policy):
    project = ProjectConfiguration("x", "fake://", allowed_hosts=["*"], slow_readers={"news": policy})
    with running_interface(settings(write_limit=200_000, write_timeout=0.2), project) as site:
        slow, slow_channel = raw_open(site)
        site.layer.add("news", [slow_channel])
        payloads = [b"%03d" % number + os.urandom(60_000) for number in range(200)]
        for payload in payloads:
            site.layer.send_to_group("news", {"bytes": payload})
        socket = site.server.replies.clients[slow_channel]
        assert socket.backlog is not None and not socket.backlog.is_empty
        assert socket.backlog.unsent(socket.transport.get_write_buffer_size()) < 500_000
        started = site.server.site.now()
        wait_until(lambda: site.server.site.now() - started > 0.5)  # longer than what must arrive may take
        with slow:
            data = b""
            while not data.endswith(payloads[-1]):
                part = slow.recv(1024 * 1024)
                assert part
                data += part
            assert len(data) < 60_000 * 150
        assert socket.connection.state is not State.CLOSING
    assert "group messages were dropped, as its client was behind" in caplog.text and "1013" not in caplog.text
    assert site.server.site.counters.slow_readers_dropped > 0 == site.server.site.counters.slow_readers_closed


def test_a_reader_that_takes_nothing_is_closed_after_a_while_however_little_waits(caplog, monkeypatch):
    monkeypatch.setattr("procman.interface.connection.CLOSE_TIMEOUT", 0.2)
    with running_interface(settings(write_limit=100_000_000, write_timeout=0.3)) as site:
        slow, channel = raw_open(site)
        socket = site.server.replies.clients[channel]
        while socket.backlog is None:
            site.layer.reply(channel, {"bytes": os.urandom(1_000_000)})
        _, message = site.layer.take("websocket.disconnect", timeout=10)
        assert message["code"] == 1013
        slow.close()
    assert "closed with 1013" in caplog.text


def test_a_group_send_reaches_the_members_that_are_here(site):
    one, first = site.accepted()
    two, second = site.accepted()
    site.layer.add("news", [first, second, "fake!unknown"])
    assert site.layer.gone == [("news", "fake!unknown")]
    site.layer.send_to_group("news", {"text": "a"})
    site.layer.run(site.layer.handler.on_group_discard, "news", second)
    site.layer.send_to_group("news", {"text": "b", "close": True})
    with one, two:
        assert [one.recv(5), one.recv(5)] == ["a", "b"]
        assert code_of(one) == 1000
        assert two.recv(5) == "a"
        site.layer.reply(second, {"text": "still here"})
        assert two.recv(5) == "still here"


def test_memberships_end_with_the_socket_and_with_a_flush(site):
    one, first = site.accepted()
    two, second = site.accepted()
    site.layer.add("news", [first, second])
    one.close()
    site.layer.take("websocket.disconnect")
    assert site.layer.find().memberships == [("news", second)]
    site.layer.run(site.layer.handler.on_flush)
    assert site.layer.find().memberships == []
    two.close()


@pytest.mark.parametrize("reply", [{"text": "a", "bytes": b"b"}, {"unknown": 1}, {"text": b"a"}, {"close": 1006}])
def test_a_broken_reply_is_dropped_with_an_error_and_the_socket_lives(site, caplog, reply):
    client, channel = site.accepted("/chat")
    with client:
        site.layer.reply(channel, reply)
        site.layer.send_to_group("nobody", reply)
        site.layer.reply(channel, {"text": "fine"})
        assert client.recv(5) == "fine"
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1 and "/chat" in errors[0]


def test_a_broken_group_message_is_one_error(site, caplog):
    client, channel = site.accepted()
    site.layer.add("news", [channel])
    with client:
        site.layer.send_to_group("news", {"texts": "typo"})
        site.layer.send_to_group("news", {"text": "fine"})
        assert client.recv(5) == "fine"
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1


def test_a_foreign_origin_is_refused_with_a_warning_that_says_what_to_do(site, caplog):
    with pytest.raises(InvalidStatus) as caught:
        site.connect("/chat", origin="https://evil.org")
    assert caught.value.response.status_code == 403
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "https://evil.org" in warning and "/chat" in warning and "ALLOWED_HOSTS" in warning
    assert site.layer.offers.empty()


def test_an_allowed_origin_is_asked_to_the_application(site):
    client, _ = site.accepted(origin="https://example.com")
    client.close()


@pytest.mark.parametrize("value", [b"a\x0bb", b"a\x7fb", b"\x85", b"a\xc2\x85b", b"a\x01"])
def test_forbidden_bytes_in_a_header_are_400(site, value):
    with site.raw(HANDSHAKE + b"Cookie: " + value + b"\r\n\r\n") as client:
        assert read_response(client)[0] == 400
    assert site.layer.offers.empty()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ((b"Version: 13", b"Version: 8"), 400),
        ((b"dGhlIHNhbXBsZSBub25jZQ==", b"short"), 400),
        ((b"Sec-WebSocket-Key", b"Sec-Other-Key"), 400),
        ((b"GET", b"POST"), 405),
    ],
)
def test_a_broken_handshake_is_refused(site, change, status):
    with site.raw(HANDSHAKE.replace(*change) + b"\r\n") as client:
        assert read_response(client)[0] == status
    assert site.layer.offers.empty() and not site.server.replies.clients


def test_data_before_the_answer_to_the_handshake_ends_the_connection(site):
    with site.raw(HANDSHAKE + b"\r\n") as client:
        offer, _ = site.layer.take()
        client.sendall(frame(Opcode.TEXT, b"early"))
        assert site.layer.withdrawn.get(timeout=5) == offer.id


def test_sockets_beyond_max_sockets_are_503():
    with running_interface(settings(max_sockets=1)) as site:
        client, _ = site.accepted()
        with pytest.raises(InvalidStatus) as caught:
            site.connect()
        assert caught.value.response.status_code == 503
        client.close()
        offer, _ = site.layer.take("websocket.disconnect")
        site.layer.finish(offer)
        client, _ = site.accepted()
        client.close()


def test_no_compression_is_negotiated(site):
    client, _ = site.accepted(compression="deflate")
    with client:
        assert client.protocol.extensions == []


def test_a_silent_client_is_pinged_and_dropped():
    with running_interface(settings(ping_interval=0.1, ping_timeout=0.2)) as site:
        client, _ = raw_open(site)
        with client:
            assert client.recv(100) == b"\x89\x00"
            assert site.layer.take("websocket.disconnect")[1]["code"] == 1006


def test_a_client_that_answers_pings_stays():
    with running_interface(settings(ping_interval=0.1, ping_timeout=0.2)) as site:
        client, channel = site.accepted(ping_interval=None)
        with client:
            started = site.server.site.now()
            wait_until(lambda: site.server.site.now() - started > 0.7)
            site.layer.reply(channel, {"text": "still here"})
            assert client.recv(5) == "still here"


def test_a_sender_that_waits_is_told_when_its_message_is_written(site):
    client, channel = site.accepted()
    with client:
        site.layer.reply(channel, {"text": "a"}, token=7)
        assert site.layer.answers.get(timeout=5) == (7, True)
        assert client.recv(5) == "a"
    site.layer.take("websocket.disconnect")
    site.layer.reply(channel, {"text": "a"}, token=8)
    assert site.layer.answers.get(timeout=5) == (8, False)


def test_an_interface_that_was_declared_dead_closes_its_sockets_without_a_disconnect(site):
    client, _ = site.accepted()
    with client:
        client.send("a")
        site.layer.take("websocket.receive")
        site.layer.run(site.layer.handler.on_declared_dead)
        assert code_of(client) == 1012
    assert site.layer.find().sockets == [] and site.layer.find().offers == []
    assert site.layer.offers.empty()


def test_the_access_log_tells_each_step_of_a_socket(site, caplog):
    caplog.set_level(logging.INFO, "procman.interface.access")
    client, _ = site.accepted("/a%0Ab")
    client.close()
    site.layer.take("websocket.disconnect")
    with pytest.raises(InvalidStatus):
        site.connect("/c", origin="null")
    lines = [record.getMessage() for record in caplog.records if record.name.endswith("access")]
    assert [line.rpartition(" ")[0] for line in lines] == [  # without the id
        "WebSocket CONNECT /a\\x0ab 127.0.0.1",
        "WebSocket ACCEPT /a\\x0ab 127.0.0.1",
        "WebSocket DISCONNECT /a\\x0ab 1000 127.0.0.1",
        "WebSocket CONNECT /c 127.0.0.1",
        "WebSocket REJECT /c 403 127.0.0.1",
    ]


def test_no_bytes_of_a_client_upset_the_server(site, caplog):
    """Random frames and cut handshakes: each connection ends or waits, none is an error in the log."""
    dice = random.Random(7)
    for _ in range(60):
        client, _channel = raw_open(site)
        with client:
            good = frame(Opcode.BINARY, dice.randbytes(dice.randrange(300)))
            noise = bytearray(good * dice.randrange(1, 4) + dice.randbytes(dice.randrange(40)))
            for _ in range(dice.randrange(3)):
                noise[dice.randrange(len(noise))] = dice.randrange(256)
            client.sendall(noise)
        while True:
            offer, _message = site.layer.take()
            site.layer.finish(offer)
            if offer.channel == "websocket.disconnect":
                break
    for _ in range(100):
        handshake = bytearray(HANDSHAKE + b"Cookie: a=b\r\n\r\n")
        for _ in range(dice.randrange(1, 4)):
            handshake[dice.randrange(len(handshake))] = dice.randrange(256)
        site.raw(bytes(handshake)).close()
    wait_until(lambda: not site.server.site.connections)
    wait_until(lambda: not site.server.replies.clients)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
    # Handshakes that were fine nevertheless come first; the server takes this one as ever.
    with site.raw(b"GET /the-last-one HTTP/1.1\r\nHost: example.com\r\n\r\n") as client:
        while True:
            offer, message = site.layer.take()
            if message["path"] == "/the-last-one":
                break
        site.layer.finish(offer, {"status": 200, "content": b"fine"})
        assert read_response(client)[0] == 200


@pytest.mark.parametrize(
    ("offered", "agreed"), [(["v2", "v1"], "v2"), (["unknown", "v1"], "v1"), (["unknown"], None), (None, None)]
)
def test_the_sub_protocol_of_the_client_that_the_project_lists_is_agreed_to(offered, agreed):
    project = ProjectConfiguration("mysite.settings", "memory://", allowed_hosts=["*"], ws_protocols=["v1", "v2"])
    with running_interface(project=project) as site:
        client, _ = site.accepted(subprotocols=offered)
        assert client.subprotocol == agreed
        client.close()


def test_messages_are_compressed_both_ways_for_clients_that_offer_it_and_only_for_them():
    with running_interface(settings(websocket_compression=True)) as site:
        packed, packed_channel = site.accepted(compression="deflate")
        plain, plain_channel = site.accepted(compression=None)
        text = "all the same " * 1000
        with packed, plain:
            assert packed.protocol.extensions and not plain.protocol.extensions
            for channel in (packed_channel, plain_channel):
                site.layer.run(site.layer.handler.on_group_add, "all", channel)
            site.layer.run(site.layer.handler.on_group_send, "all", {"text": text})
            assert packed.recv(5) == plain.recv(5) == text
            site.layer.run(site.layer.handler.on_group_send, "all", {"text": "short"})
            assert packed.recv(5) == plain.recv(5) == "short"
            packed.send(text)
            assert site.layer.take("websocket.receive")[1]["text"] == text


def test_without_the_flag_no_compression_is_agreed_to(site):
    client, _ = site.accepted(compression="deflate")
    with client:
        assert not client.protocol.extensions


def test_the_reason_of_a_close_reaches_the_other_side_both_ways(site):
    client, _ = site.accepted()
    with client:
        client.close(4001, "gone fishing")
    message = site.layer.take("websocket.disconnect")[1]
    assert (message["code"], message["reason"]) == (4001, "gone fishing")
    client, channel = site.accepted()
    with client:
        site.layer.reply(channel, {"close": 4002, "reason": "come back later"})
        with pytest.raises(ConnectionClosed) as caught:
            client.recv(5)
        assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4002, "come back later")
    assert "reason" not in build_disconnect("i!1", "/", 1000, 1)


@pytest.mark.parametrize("reply", [{"close": 4000, "reason": 5}, {"close": 4000, "reason": "x" * 124}, {"reason": "x"}])
def test_a_reason_that_cannot_be_sent_is_an_error_in_the_log(site, caplog, reply):
    client, channel = site.accepted()
    with client:
        site.layer.reply(channel, reply)
        site.layer.reply(channel, {"text": "still here"})
        assert client.recv(5) == "still here"
    assert "'reason' is" in caplog.text


def test_a_client_that_is_still_sending_can_read_why_it_is_closed():
    with running_interface(settings(max_message_size=1000)) as site:
        client, _ = raw_open(site)
        with client:
            with contextlib.suppress(OSError):
                client.sendall(frame(Opcode.BINARY, b"x" * 20_000_000))
            data = b""
            while part := client.recv(65536):
                data += part
        assert data[:4] == b"\x88\x1a\x03\xf1"  # 1009 and its text
        assert site.layer.take("websocket.disconnect")[1]["code"] == 1009


def test_a_socket_that_sends_too_often_is_slowed_down_and_loses_nothing():
    with running_interface(settings(max_message_rate=20, ping_timeout=0.1)) as site:
        client, _ = site.accepted()
        started = site.server.site.now()
        with client:
            for number in range(40):
                client.send(str(number))
            for number in range(40):
                offer, message = site.layer.take("websocket.receive")
                assert message["text"] == str(number)
                site.layer.finish(offer)
            assert site.server.site.now() - started > 0.8
