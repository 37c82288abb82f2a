"""Request bodies: inline, in chunks, too large, too slow, cut off."""

import asyncio

import pytest

from procman.interface.body import CHUNK_SIZE
from procman.layers.errors import LayerUnavailable
from procman.settings import InterfaceSettings
from tests.support.interface import read_response, running_interface
from tests.support.waiting import wait_until


def post(length, extra=b""):
    return b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: %d\r\n%s\r\n" % (length, extra)


CHUNKED = b"POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def site():
    values = InterfaceSettings(
        drain_timeout=1.0, inline_body_size=1000, max_body_size=1_000_000, body_timeout=0.5, request_timeout=5
    )
    with running_interface(values) as running:
        yield running


def chunks(site):
    """Channel and content of the streamed body, once it is complete; None for one that was given up."""
    channels, content = set(), b""
    while True:
        channel, message = site.layer.sent.get(timeout=5)
        channels.add(channel)
        if message.get("closed"):
            return channels.pop(), None
        content += message["content"]
        # Whole reads are sent on: a chunk is over its size by at most one read of the event loop (256 KiB).
        assert len(message["content"]) < 2 * CHUNK_SIZE + 65536
        if not message["more_content"]:
            assert len(channels) == 1
            return channels.pop(), content


def test_a_body_up_to_the_inline_size_is_in_the_message(site):
    with site.raw(post(1000) + b"x" * 1000):
        _, message = site.layer.take()
    assert message["body"] == b"x" * 1000 and "body_channel" not in message


def test_a_chunked_body_up_to_the_inline_size_is_in_the_message(site):
    with site.raw(CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"):
        _, message = site.layer.take()
    assert message["body"] == b"abcde" and "body_channel" not in message


def test_a_larger_body_follows_in_chunks_once_a_worker_has_begun(site):
    body = bytes(range(256)) * 3000
    with site.raw(post(len(body)) + body) as client:
        offer, message = site.layer.take()
        assert message["body"] == b"" and "?" in message["body_channel"] and not offer.redeliverable
        assert site.layer.sent.empty()
        site.layer.begin(offer)
        assert chunks(site) == (message["body_channel"], body)
        site.layer.finish(offer, {"status": 200})
        assert read_response(client)[0] == 200


def test_a_chunked_body_that_outgrows_the_inline_size_goes_on_in_chunks(site):
    with site.raw(CHUNKED) as client:
        for _ in range(20):
            client.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
        offer, message = site.layer.take()
        client.sendall(b"0\r\n\r\n")
        site.layer.begin(offer)
        channel, rest = chunks(site)
    assert channel == message["body_channel"] and len(message["body"] + rest) == 20 * 1024


def test_a_body_announced_as_too_large_is_413_at_once(site):
    with site.raw(post(1_000_001)) as client:
        assert read_response(client)[0] == 413
    assert site.layer.offers.empty()


def test_a_chunked_body_that_becomes_too_large_is_413_and_the_worker_is_told(site):
    with site.raw(CHUNKED) as client:
        client.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        offer, _ = site.layer.take()
        site.layer.begin(offer)
        for _ in range(16):
            client.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert chunks(site)[1] is None
        assert read_response(client)[0] == 413


def test_a_body_that_does_not_arrive_is_408(site):
    with site.raw(post(10) + b"abc") as client:
        assert read_response(client)[0] == 408
    assert site.layer.offers.empty()


def test_a_streamed_body_that_stops_is_408_and_the_worker_is_told(site):
    with site.raw(post(500_000) + b"x" * 1000) as client:
        offer, _ = site.layer.take()
        site.layer.begin(offer)
        assert read_response(client)[0] == 408
        assert chunks(site)[1] is None


def test_the_wait_for_a_worker_does_not_count_against_the_body(site):
    with site.raw(post(2000)) as client:
        offer, _ = site.layer.take()
        started = site.server.site.now()
        wait_until(lambda: site.server.site.now() - started > 0.7)
        client.sendall(b"x" * 2000)
        site.layer.begin(offer)
        assert chunks(site)[1] == b"x" * 2000


def test_a_client_that_leaves_in_its_body_closes_the_workers_channel(site):
    with site.raw(post(500_000) + b"x" * 300_000):
        offer, _ = site.layer.take()
        site.layer.begin(offer)
        assert site.layer.sent.get(timeout=5)[1]["more_content"]
    assert chunks(site)[1] is None
    assert site.layer.withdrawn.get(timeout=5) == offer.id


def test_a_client_that_leaves_in_an_inline_body_has_offered_nothing(site):
    with site.raw(post(10) + b"abc"):
        pass
    wait_until(lambda: not site.server.replies.clients)
    assert site.layer.offers.empty()


def test_a_response_before_the_end_of_the_body_ends_the_streaming(site):
    with site.raw(post(500_000) + b"x" * 300_000) as client:
        offer, _ = site.layer.take()
        site.layer.begin(offer)
        assert site.layer.sent.get(timeout=5)[1]["more_content"]
        site.layer.finish(offer, {"status": 403, "content": b"CSRF"})
        assert read_response(client)[0] == 403
        # What is left of the body is read and dropped: the next request is understood.
        client.sendall(b"x" * 200_000 + b"GET /next HTTP/1.1\r\nHost: example.com\r\n\r\n")
        assert site.layer.take()[1]["path"] == "/next"


def test_a_layer_that_is_lost_in_the_body_is_503(site):
    site.layer.send_error = LayerUnavailable("gone")
    with site.raw(post(2000) + b"x" * 2000) as client:
        offer, _ = site.layer.take()
        site.layer.begin(offer)
        assert read_response(client)[0] == 503


def test_after_a_loss_of_the_layer_no_chunk_follows(site):
    with site.raw(post(500_000) + b"x" * 300_000) as client:
        offer, _ = site.layer.take()
        site.layer.begin(offer)
        assert site.layer.sent.get(timeout=5)[1]["more_content"]
        site.layer.run(site.layer.handler.on_layer_lost)
        client.sendall(b"x" * 200_000)
        assert read_response(client)[0] == 503
        assert site.layer.sent.get(timeout=5)[1] == {"closed": True}


def test_a_worker_is_told_of_the_end_of_its_body_also_after_the_response(site):
    site.layer.back = asyncio.Event()
    with site.raw(post(500_000) + b"x" * 1000) as client:
        offer, _ = site.layer.take()
        site.layer.begin(offer)
        assert read_response(client)[0] == 408
        wait_until(lambda: not site.server.replies.clients)
        site.layer.run(site.layer.back.set)
        assert chunks(site)[1] is None


def test_a_worker_that_may_still_wait_for_chunks_hears_of_the_loss_of_the_layer(site):
    with site.raw(post(2000) + b"x" * 2000) as client:
        offer, message = site.layer.take()
        site.layer.begin(offer)
        assert chunks(site)[1] == b"x" * 2000
        site.layer.run(site.layer.handler.on_layer_lost)
        assert site.layer.sent.get(timeout=5) == (message["body_channel"], {"lost": True})
        site.layer.finish(offer, {"status": 200})
        assert read_response(client)[0] == 200


def test_a_client_that_expects_100_continue_gets_it_when_its_body_is_read(site):
    with site.raw(post(3, b"Expect: 100-continue\r\n")) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 100")
        client.sendall(b"abc")
        assert site.layer.take()[1]["body"] == b"abc"
