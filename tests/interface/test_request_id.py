"""What a request or socket is called: in its message, its answer and the access log."""

import json

import pytest

from procman.interface.site import access_logger
from procman.settings import InterfaceSettings
from tests.support.interface import read_response, running_interface
from tests.support.waiting import wait_until

TOLD = InterfaceSettings(drain_timeout=1.0, request_id_header=True)


def get(*headers: str) -> bytes:
    return "\r\n".join(("GET / HTTP/1.1", "Host: example.com", *headers, "", "")).encode()


@pytest.fixture
def lines(caplog):
    caplog.set_level("INFO", access_logger.name)
    return lambda: [record.getMessage() for record in caplog.records if record.name == access_logger.name]


def test_a_request_is_called_by_the_end_of_its_reply_channel(lines):
    with running_interface(TOLD) as site, site.raw(get()) as client:
        offer, message = site.layer.take()
        site.layer.finish(offer, {"status": 200})
        found = read_response(client)[1]["x-request-id"]
        assert found and offer.reply_channel == f"fake!{found}" and "request_id" not in message
        wait_until(lambda: lines() and lines()[-1].endswith(f" {found}"))


def test_the_id_of_a_trusted_proxy_is_taken_over():
    with running_interface(TOLD) as site, site.raw(get("X-Request-ID: abc-1")) as client:
        offer, message = site.layer.take()
        site.layer.finish(offer, {"status": 200})
        assert message["request_id"] == read_response(client)[1]["x-request-id"] == "abc-1"


def test_the_id_of_anybody_else_is_not():
    settings = InterfaceSettings(drain_timeout=1.0, request_id_header=True, forwarded_allow_ips="10.0.0.1")
    with running_interface(settings) as site, site.raw(get("X-Request-ID: abc-1")) as client:
        offer, message = site.layer.take()
        site.layer.finish(offer, {"status": 200})
        assert "request_id" not in message and read_response(client)[1]["x-request-id"] != "abc-1"


def test_an_application_may_answer_with_an_id_of_its_own():
    with running_interface(TOLD) as site, site.raw(get()) as client:
        offer, _ = site.layer.take()
        site.layer.finish(offer, {"status": 200, "headers": [[b"x-request-id", b"mine"]]})
        assert read_response(client)[1]["x-request-id"] == "mine"


def test_clients_are_told_only_if_that_is_wanted():
    with running_interface() as site, site.raw(get()) as client:
        offer, _ = site.layer.take()
        site.layer.finish(offer, {"status": 200})
        assert "x-request-id" not in read_response(client)[1]


def test_a_socket_has_one_id_from_its_handshake_to_its_end(lines):
    with running_interface(TOLD) as site:
        client, channel = site.accepted("/chat")
        with client:
            found = client.response.headers["X-Request-ID"]
            assert found and channel == f"fake!ws-{found}"
        assert "request_id" not in site.layer.take("websocket.disconnect")[1]
        wait_until(lambda: len(lines()) == 3)
        assert all(line.endswith(f" {found}") for line in lines())


def test_a_proxys_id_is_in_every_message_of_a_socket():
    with running_interface(TOLD) as site:
        client, _ = site.accepted("/chat", additional_headers={"X-Request-ID": "abc-2"})
        with client:
            assert client.response.headers["X-Request-ID"] == "abc-2"
            client.send("one")
            offer, message = site.layer.take("websocket.receive")
            assert message["request_id"] == "abc-2"
            site.layer.finish(offer, {"text": "ONE"})
            assert client.recv(5) == "ONE"
        assert site.layer.take("websocket.disconnect")[1]["request_id"] == "abc-2"


def test_the_access_log_can_be_json(lines):
    settings = InterfaceSettings(drain_timeout=1.0, access_log_format="json")
    with running_interface(settings) as site:
        with site.raw(get("X-Request-ID: abc-3")) as client:
            offer, _ = site.layer.take()
            site.layer.finish(offer, {"status": 201, "content": b"1234"})
            read_response(client)
        client, _ = site.accepted("/chat")
        client.close(4000)
        wait_until(lambda: len(lines()) == 4)
    request, connect, accept, disconnect = map(json.loads, lines())
    assert (request["action"], request["method"], request["path"], request["status"], request["size"]) == (
        "REQUEST",
        "GET",
        "/",
        201,
        4,
    )
    assert request["request_id"] == "abc-3" and request["client"] == "127.0.0.1" and request["time_taken"] >= 0
    assert [each["action"] for each in (connect, accept, disconnect)] == ["CONNECT", "ACCEPT", "DISCONNECT"]
    assert disconnect["code"] == 4000 and disconnect["request_id"] == accept["request_id"]
