"""Every limit that protects the interface: its flag, what a client is told, what is counted, what the log says."""

import contextlib
import dataclasses
import logging
import os
import resource
import socket
from collections.abc import Callable, Iterator

import pytest

from procman.interface.server import SPARE_DESCRIPTORS, fit_descriptors
from procman.settings import InterfaceSettings
from tests.support.interface import Running, read_response, running_interface
from tests.support.waiting import wait_until

GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
HANDSHAKE = (
    b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


@contextlib.contextmanager
def served(**values: object) -> Iterator[Running]:
    with running_interface(InterfaceSettings.load({}, drain_timeout=1.0, **values)) as site:
        yield site


def status_of(site: Running, data: bytes) -> int:
    with site.raw(data) as client:
        return read_response(client)[0]


def post(length: int, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: %d\r\n\r\n%b" % (length, body)


def close_code(site: Running, frame: bytes) -> int:
    """The code of the close frame that answers *frame* on an open socket."""
    with site.raw(HANDSHAKE + b"\r\n") as client:
        offer, _ = site.layer.take("websocket.connect")
        site.layer.finish(offer, {"accept": True})
        data = b""
        while not data.endswith(b"\r\n\r\n"):
            data += client.recv(65536)
        client.sendall(frame)
        data = b""
        while part := client.recv(65536):
            data += part
    assert data[0] == 0x88
    return int.from_bytes(data[2:4], "big")


def frozen(site: Running) -> int:
    """The code with which a client that answers no ping ends."""
    with site.raw(HANDSHAKE + b"\r\n"):
        offer, _ = site.layer.take("websocket.connect")
        site.layer.finish(offer, {"accept": True})
        return int(site.layer.take("websocket.disconnect")[1]["code"])


def hasty(site: Running) -> int:
    """How many of the messages that a client sends at once are read at once."""
    with site.raw(HANDSHAKE + b"\r\n") as client:
        offer, _ = site.layer.take("websocket.connect")
        site.layer.finish(offer, {"accept": True})
        client.sendall(b"\x81\x81aaaa\x19" * 20)
        wait_until(lambda: site.server.site.counters.refusals)
        return site.server.site.counters.messages_received


def second(site: Running, data: bytes = GET) -> int:
    """The status of a connection beside one that waits for its answer."""
    with site.raw(data):
        site.layer.take()
        return status_of(site, data)


LARGE = GET[:-2] + b"X: " + b"a" * 3000 + b"\r\n\r\n"
LARGE_FRAME = b"\x82\xfe\x01\x00aaaa" + b"x" * 256
Meet = Callable[[Running], int]
LIMITS: dict[str, tuple[dict[str, object], Meet, int]] = {
    "max_header_bytes": ({"max_header_bytes": 2000}, lambda s: status_of(s, LARGE), 431),
    "header_timeout": ({"header_timeout": 0.2}, lambda s: status_of(s, GET[:-2]), 408),
    "max_body_size": ({"max_body_size": 10}, lambda s: status_of(s, post(11)), 413),
    "body_timeout": ({"body_timeout": 0.2}, lambda s: status_of(s, post(10, b"abc")), 408),
    "request_timeout": ({"request_timeout": 0.2}, lambda s: status_of(s, GET), 504),
    "max_requests": ({"max_requests": 1}, second, 503),
    "max_sockets": ({"max_sockets": 1}, lambda s: second(s, HANDSHAKE + b"\r\n"), 503),
    "max_connections": ({"max_connections": 1}, second, 503),
    "max_connections_per_address": (
        {"max_connections_per_address": 1, "forwarded_allow_ips": "10.0.0.1"}, second, 429,
    ),
    "max_message_size": ({"max_message_size": 100}, lambda s: close_code(s, LARGE_FRAME), 1009),
    "max_message_rate": ({"max_message_rate": 5}, hasty, 6),
    "ping_timeout": ({"ping_interval": 0.2, "ping_timeout": 0.2}, frozen, 1006),
    "handshake_timeout": ({"handshake_timeout": 0.2}, lambda s: status_of(s, HANDSHAKE + b"\r\n"), 503),
}  # fmt: skip


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_that_is_met_is_told_to_the_client_and_counted(limit: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    values, meet, expected = LIMITS[limit]
    with served(**values) as site:
        assert meet(site) == expected
        counters = site.server.site.counters
        wait_until(lambda: counters.refusals.get(limit) or counters.sockets_refused.get(limit))
    if limit.startswith("max_connections"):
        assert f"over --{limit.replace('_', '-')}" in caplog.text
    # One line at least says so, if only that of the access log.
    assert any(
        str(expected) in record.getMessage() or "refused" in record.getMessage() or "more slowly" in record.getMessage()
        for record in caplog.records
    )
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_every_limit_has_a_default_that_protects() -> None:
    defaults = InterfaceSettings()
    for limit, (values, _, _) in LIMITS.items():
        assert getattr(defaults, limit) > 0
        assert set(values) <= {field.name for field in dataclasses.fields(InterfaceSettings)}


def test_a_connection_that_is_over_frees_its_place() -> None:
    with served(max_connections=2) as site:
        for _ in range(10):
            with site.raw(GET) as client:
                site.layer.finish(site.layer.take()[0], {"status": 200})
                assert read_response(client)[0] == 200
            wait_until(lambda: site.server.site.occupancy.total == 0)


def test_sockets_through_a_trusted_proxy_count_for_the_address_that_it_names() -> None:
    with served(max_connections_per_address=1) as site:

        def from_address(address: bytes) -> bytes:
            return HANDSHAKE + b"X-Forwarded-For: " + address + b"\r\n\r\n"

        with site.raw(from_address(b"1.2.3.4")), site.raw(from_address(b"1.2.3.5")):
            site.layer.take("websocket.connect")
            site.layer.take("websocket.connect")
            assert status_of(site, from_address(b"1.2.3.4")) == 429
            assert site.server.site.occupancy.count("127.0.0.1") == 0
        wait_until(lambda: site.server.site.occupancy.count("1.2.3.4") == 0)
        with site.raw(from_address(b"1.2.3.4")):
            site.layer.take("websocket.connect")


def test_a_client_that_sends_its_headers_byte_by_byte_is_ended_in_time() -> None:
    with served(header_timeout=0.3, ping_timeout=0.2) as site, site.raw(b"GET / HTTP/1.1\r\n") as slow:
        slow.settimeout(0.05)
        answer = b""
        for _ in range(200):  # ten seconds, if nobody ended it
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                slow.sendall(b"X")
            try:
                answer = slow.recv(65536)
                break
            except TimeoutError:
                continue
        assert answer.startswith(b"HTTP/1.1 408")


def test_no_more_connections_are_promised_than_files_may_be_open(caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    pid = os.fork()
    if not pid:  # the limit of a process cannot be raised again
        status = 1
        with contextlib.suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_NOFILE, (400, 1000))
            fitted = fit_descriptors(InterfaceSettings(max_connections=500))
            assert fitted.max_connections == 500 and resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 756
            fitted = fit_descriptors(InterfaceSettings(max_connections=5000))
            assert fitted.max_connections == 1000 - SPARE_DESCRIPTORS
            status = 0
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)


def test_a_flood_of_connections_over_the_limit_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with served(max_connections=1, access_log=False) as site, site.raw(GET):
        site.layer.take()
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", site.port), 5) as client:
                assert read_response(client)[0] == 503
    assert len([record for record in caplog.records if "connections are refused" in record.getMessage()]) == 1
