"""HTTP over real sockets: limits, failures, streams, clients that leave."""

import contextlib
import logging
import queue
import re
import threading

import pytest

from procman.settings import InterfaceSettings
from tests.support.interface import read_response, running_interface
from tests.support.layer import FakeLayer
from tests.support.waiting import wait_until

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 3\r\n\r\nabc"


def settings(**values):
    return InterfaceSettings(drain_timeout=1.0, **values)


@pytest.fixture
def site():
    with running_interface() as running:
        yield running


def test_a_request_has_every_field(site):
    data = (
        b"POST /a%20b?x=%20 HTTP/1.1\r\nHost: example.com\r\nX_Evil: 1\r\nA: 1\r\na: 2\r\nContent-Length: 3\r\n\r\nabc"
    )
    with site.raw(data) as client:
        offer, message = site.layer.take("http.request")
        port = client.getsockname()[1]
    assert message.pop("reply_channel") == offer.reply_channel
    assert message == {
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/a b",
        "query_string": b"x=%20",
        "root_path": "",
        "headers": [[b"host", b"example.com"], [b"a", b"1"], [b"a", b"2"], [b"content-length", b"3"]],
        "body": b"abc",
        "client": ["127.0.0.1", port],
        "server": ["127.0.0.1", site.port],
    }
    assert offer.bounded and not offer.redeliverable


@pytest.mark.parametrize(("method", "safe"), [("GET", True), ("HEAD", True), ("OPTIONS", True), ("DELETE", False)])
def test_only_safe_methods_may_be_given_twice(site, method, safe):
    with site.raw(f"{method} / HTTP/1.1\r\nHost: example.com\r\n\r\n".encode()):
        assert site.layer.take("http.request")[0].redeliverable is safe


def test_a_response_to_head_has_the_length_but_no_content(site):
    with site.raw(b"HEAD / HTTP/1.1\r\nHost: example.com\r\n\r\n" + GET) as client:
        offer, _ = site.layer.take()
        site.layer.finish(offer, {"status": 200, "content": b"four"})
        offer, _ = site.layer.take()
        site.layer.finish(offer, {"status": 204, "content": b"dropped"})
        client.shutdown(1)
        data = b""
        while part := client.recv(65536):
            data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    assert b"Content-Length: 4" in head
    assert rest.startswith(b"HTTP/1.1 204") and rest.endswith(b"\r\n\r\n") and b"dropped" not in rest


def test_a_304_with_a_body_and_its_length_is_a_304_without(site, caplog):
    with site.raw(GET) as client:
        offer, _ = site.layer.take()
        headers = [(b"Content-Length", b"4"), (b"ETag", b"x")]
        site.layer.finish(offer, {"status": 304, "headers": headers, "content": b"four"})
        client.shutdown(1)
        data = b""
        while part := client.recv(65536):
            data += part
    assert data.startswith(b"HTTP/1.1 304") and data.endswith(b"\r\n\r\n")
    assert b"content-length" not in data.lower() and b"ETag: x".lower() in data.lower()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_connection_serves_one_request_after_the_other(site):
    with site.raw(GET) as client:
        for number in range(3):
            offer, _ = site.layer.take()
            site.layer.finish(offer, {"status": 200, "content": b"%d" % number})
            assert read_response(client)[2] == b"%d" % number
            client.sendall(GET)


def test_a_streamed_response_is_written_as_it_comes_and_each_sender_is_answered(site):
    with site.raw(GET) as client:
        offer, message = site.layer.take()
        channel = message["reply_channel"]
        site.layer.reply(channel, {"status": 200, "content": b"one", "more_content": True}, token=1)
        assert site.layer.answers.get(timeout=5) == (1, True)
        data = b""
        while b"one" not in data:
            data += client.recv(65536)
        site.layer.finish(offer)
        site.layer.reply(channel, {"content": b"two", "more_content": True}, token=2)
        site.layer.reply(channel, {"content": b"", "more_content": False}, token=3)
        assert site.layer.answers.get(timeout=5) == (2, True)
        assert site.layer.answers.get(timeout=5) == (3, True)
        while not data.endswith(b"0\r\n\r\n"):
            data += client.recv(65536)
    assert b"3\r\ntwo\r\n" in data


def test_the_sender_of_a_stream_waits_for_a_client_that_does_not_read(site):
    with site.raw(GET):
        _, message = site.layer.take()
        channel, part = message["reply_channel"], b"x" * 1024 * 1024
        site.layer.reply(channel, {"status": 200, "content": b"", "more_content": True})
        answered = token = 0
        # The kernel's buffers take some megabytes; then an answer stays away.
        while token < 64:
            token += 1
            site.layer.reply(channel, {"content": part, "more_content": True}, token=token)
            try:
                assert site.layer.answers.get(timeout=0.3) == (token, True)
                answered = token
            except queue.Empty:
                break
        assert 0 < answered < 64
    assert site.layer.answers.get(timeout=5) == (token, False)


def test_the_sender_of_a_stream_hears_that_the_client_has_left(site):
    with site.raw(GET):
        offer, message = site.layer.take()
        site.layer.reply(message["reply_channel"], {"status": 200, "content": b"a", "more_content": True}, token=1)
        assert site.layer.answers.get(timeout=5) == (1, True)
        assert site.layer.settled.get(timeout=5) == offer.id
    wait_until(lambda: not site.server.replies.clients)
    site.layer.reply(message["reply_channel"], {"content": b"b", "more_content": True}, token=2)
    assert site.layer.answers.get(timeout=5) == (2, False)
    assert site.layer.withdrawn.get(timeout=5) == offer.id


def test_a_client_that_leaves_before_the_response_has_its_request_withdrawn(site):
    with site.raw(GET):
        offer, _ = site.layer.take()
    assert site.layer.withdrawn.get(timeout=5) == offer.id
    assert not site.layer.run(site.server.replies.is_unfinished, offer.id)


@pytest.mark.parametrize(("reason", "status"), [("full", 503), ("expired", 503), ("lost", 502)])
def test_a_failed_offer_is_answered_with_a_status_and_a_sentence(site, reason, status):
    with site.raw(GET) as client:
        offer, _ = site.layer.take()
        site.layer.fail(offer, reason)
        found, headers, content = read_response(client)
    assert found == status and content.endswith(b".\n")
    assert headers["content-type"].startswith("text/plain")
    assert headers.get("retry-after") == ("1" if status == 503 else None)


def test_a_response_that_has_begun_is_cut_when_its_worker_dies(site):
    with site.raw(GET) as client:
        offer, message = site.layer.take()
        site.layer.reply(message["reply_channel"], {"status": 200, "content": b"a", "more_content": True})
        site.layer.fail(offer, "lost")
        data = b""
        while part := client.recv(65536):
            data += part
    assert data.startswith(b"HTTP/1.1 200") and b"1\r\na\r\n" in data
    assert not data.endswith(b"0\r\n\r\n")


def test_a_response_may_come_after_the_consumer_has_ended(site):
    with site.raw(GET) as client:
        offer, message = site.layer.take()
        site.layer.finish(offer)
        site.layer.reply(message["reply_channel"], {"status": 200, "content": b"later"})
        assert read_response(client)[2] == b"later"


@pytest.mark.parametrize(
    ("method", "begun", "status"), [(GET, False, 504), (POST, True, 504), (POST, False, 503)], ids=str
)
def test_no_response_in_time_is_504_or_503_if_no_worker_took_the_request(method, begun, status):
    with running_interface(settings(request_timeout=0.2)) as site:
        with site.raw(method) as client:
            offer, _ = site.layer.take()
            if begun:
                site.layer.begin(offer)
            assert read_response(client)[0] == status
        assert site.layer.withdrawn.get(timeout=5) == offer.id


def test_no_response_while_the_layer_is_away_is_503():
    with running_interface(settings(request_timeout=0.2)) as site:
        site.layer.lose()
        with site.raw(GET) as client:
            assert read_response(client)[0] == 503
        site.layer.find()


def test_a_request_that_waits_survives_a_restart_of_the_layer(site):
    with site.raw(GET) as client:
        offer, _ = site.layer.take()
        site.layer.lose()
        snapshot = site.layer.find()
        assert snapshot.offers == [offer]
        site.layer.finish(offer, {"status": 200, "content": b"fine"})
        assert read_response(client)[2] == b"fine"


def test_a_second_finish_of_a_request_is_dropped(site):
    with site.raw(GET) as client:
        offer, _ = site.layer.take()
        site.layer.finish(offer, {"status": 200, "content": b"first"})
        site.layer.finish(offer, {"status": 200, "content": b"second"})
        assert read_response(client)[2] == b"first"


def test_requests_beyond_max_requests_are_503():
    with running_interface(settings(max_requests=1)) as site:
        with site.raw(GET) as first, site.raw() as second:
            offer, _ = site.layer.take()
            second.sendall(GET)
            assert read_response(second)[0] == 503
            site.layer.finish(offer, {"status": 200})
            assert read_response(first)[0] == 200


def test_a_request_larger_than_a_message_is_413():
    with running_interface(layer=FakeLayer(max_size=1000)) as site:
        with site.raw(b"GET /%s HTTP/1.1\r\nHost: example.com\r\n\r\n" % (b"a" * 2000)) as client:
            assert read_response(client)[0] == 413
        assert not site.server.replies.offers


@pytest.mark.parametrize(
    "reply",
    [
        {"content": b"no status"},
        {"status": 99},
        {"status": 200, "content": "text"},
        {"status": 200, "content": 5},
        {"status": 200, "headers": [[1, 2]]},
    ],
)
def test_a_broken_response_is_500_and_an_error_in_the_log(site, caplog, reply):
    with site.raw(GET) as client:
        offer, _ = site.layer.take()
        site.layer.finish(offer, reply)
        assert read_response(client)[0] == 500
    assert any(record.levelno == logging.ERROR and "broken" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("second", [{"status": 200}, {"content": b"too long"}, {"content": b"a"}, {"content": "text"}])
def test_a_response_that_breaks_the_format_later_on_is_cut(site, caplog, second):
    with site.raw(GET) as client:
        offer, _ = site.layer.take()
        first = {"status": 200, "headers": [[b"Content-Length", b"4"]], "content": b"ab", "more_content": True}
        site.layer.finish(offer, first, second)
        data = b""
        while part := client.recv(65536):
            data += part
    assert data.endswith((b"\r\n\r\nab", b"\r\n\r\naba"))
    assert "broken" in caplog.text


def test_a_client_that_takes_nothing_of_its_response_is_cut(caplog):
    with running_interface(settings(request_timeout=0.3)) as site:
        with site.raw(GET):
            offer, message = site.layer.take()
            site.layer.reply(message["reply_channel"], {"status": 200, "content": b"", "more_content": True})
            for _ in range(16):
                part = {"content": b"x" * 1024 * 1024, "more_content": True}
                site.layer.reply(message["reply_channel"], part)
            assert site.layer.withdrawn.get(timeout=5) == offer.id
    assert "takes nothing of the response" in caplog.text


def test_a_response_that_piles_up_is_cut(caplog):
    with running_interface() as site:
        with site.raw(GET):
            offer, message = site.layer.take()
            site.layer.reply(message["reply_channel"], {"status": 200, "content": b"", "more_content": True})
            for _ in range(64):
                site.layer.reply(message["reply_channel"], {"content": b"x" * 1024 * 1024, "more_content": True})
            assert site.layer.withdrawn.get(timeout=5) == offer.id
    assert "wait for its client" in caplog.text


def test_the_access_log_has_one_line_per_request(site, caplog):
    caplog.set_level(logging.INFO, "procman.interface.access")
    with site.raw(GET.replace(b"/ ", b"/a%0Ab ")) as client:
        offer, _ = site.layer.take()
        site.layer.finish(offer, {"status": 200, "content": b"four"})
        read_response(client)
    (line,) = wait_until(lambda: [r.getMessage() for r in caplog.records if r.name.endswith("access")])
    assert line.startswith("GET /a\\x0ab 200 4 B ") and " ms 127.0.0.1 " in line


def test_the_access_log_can_be_switched_off(caplog):
    caplog.set_level(logging.INFO, "procman.interface.access")
    with running_interface(settings(access_log=False)) as site:
        with site.raw(GET) as client:
            site.layer.finish(site.layer.take()[0], {"status": 200})
            read_response(client)
    assert not [record for record in caplog.records if record.name.endswith("access")]


def test_pipelined_requests_are_offered_one_at_a_time_and_answered_in_their_order(site):
    requests = b"".join(b"GET /%d HTTP/1.1\r\nHost: example.com\r\n\r\n" % number for number in range(3))
    with site.raw(requests + POST) as client:
        for number in range(4):
            offer, message = site.layer.take()
            assert message["path"] == ("/" if number == 3 else f"/{number}") and site.layer.offers.empty()
            site.layer.finish(offer, {"status": 200, "content": b"%d" % number})
            assert read_response(client)[2] == b"%d" % number
    assert message["body"] == b"abc"


def test_more_pipelined_requests_than_are_read_at_a_time_wait_with_the_client(site):
    number = 1000
    large = GET.replace(b"\r\n\r\n", b"\r\nX-A: " + b"a" * 1024 + b"\r\n\r\n")
    with site.raw() as client:
        sender = threading.Thread(target=client.sendall, args=(large * number,))
        sender.start()
        data = b""
        for _ in range(number):
            offer, _ = site.layer.take()
            site.layer.finish(offer, {"status": 204})
        sender.join(5)
        while data.count(b"HTTP/1.1 204") < number:
            data += client.recv(1024 * 1024)


def test_a_broken_request_behind_others_is_answered_after_them(site):
    with site.raw(GET + GET + b"BROKEN\r\n\r\n" + GET) as client:
        for _ in range(2):
            offer, _ = site.layer.take()
            site.layer.finish(offer, {"status": 200, "content": b"fine"})
        data = b""
        while part := client.recv(65536):
            data += part
    assert re.findall(rb"HTTP/1.1 (\d+)", data) == [b"200", b"200", b"400"]
    assert site.layer.offers.empty()


def test_a_client_of_http_1_0_gets_its_response_and_the_end(site):
    with site.raw(b"GET / HTTP/1.0\r\n\r\n") as client:
        offer, message = site.layer.take()
        site.layer.finish(offer, {"status": 200, "content": b"a", "more_content": True}, {"content": b"b"})
        data = b""
        while part := client.recv(65536):
            data += part
    assert message["http_version"] == "1.0" and data.endswith(b"\r\n\r\nab") and b"chunked" not in data


def test_a_client_that_wants_to_end_the_connection_does(site):
    with site.raw(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")) as client:
        offer, _ = site.layer.take()
        site.layer.finish(offer, {"status": 200, "content": b"bye"})
        assert read_response(client)[1]["connection"] == "close"
        assert client.recv(1) == b""


def test_a_connection_without_a_request_is_closed_after_a_while():
    with running_interface(settings(keep_alive_timeout=0.2)) as site:
        with site.raw(GET) as client:
            offer, _ = site.layer.take()
            site.layer.finish(offer, {"status": 200, "content": b"fine"})
            assert read_response(client)[2] == b"fine"
            assert client.recv(1) == b""


def test_a_second_request_that_stops_in_its_head_is_408():
    with running_interface(settings(header_timeout=0.2)) as site:
        with site.raw(GET) as client:
            offer, _ = site.layer.take()
            site.layer.finish(offer, {"status": 200, "content": b"fine"})
            assert read_response(client)[2] == b"fine"
            client.sendall(GET[:20])
            assert read_response(client)[0] == 408


def test_a_client_that_is_refused_while_it_sends_can_read_why(site):
    head = b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: %d\r\n\r\n" % (10 * 1024**3)
    with site.raw(head) as client:
        with contextlib.suppress(TimeoutError):
            client.settimeout(0.5)
            client.sendall(b"x" * 32 * 1024 * 1024)
        client.settimeout(5)
        assert read_response(client)[0] == 413
        assert client.recv(1) == b""


def test_an_offer_of_http_2_is_answered_in_http_1(site):
    headers = b"\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
    with site.raw(GET.replace(b"\r\n\r\n", headers)) as client:
        offer, _ = site.layer.take()
        site.layer.finish(offer, {"status": 200, "content": b"fine"})
        assert read_response(client)[2] == b"fine"
        client.sendall(GET)
        assert site.layer.take()[1]["path"] == "/"


def test_what_a_client_sends_after_its_request_does_not_end_its_stream(site):
    with site.raw(GET) as client:
        offer, message = site.layer.take()
        site.layer.reply(message["reply_channel"], {"status": 200, "content": b"one", "more_content": True}, token=1)
        assert site.layer.answers.get(timeout=5) == (1, True)
        client.sendall(GET)
        site.layer.finish(offer, {"content": b"two"})
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += client.recv(65536)
        assert site.layer.take()[1]["path"] == "/"
