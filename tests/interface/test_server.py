"""The server as a whole: real sockets, the test is the worker."""

from tests.support.interface import read_response, running_interface


def test_a_get_request_is_answered_by_what_the_worker_replies():
    with running_interface() as site:
        with site.raw(b"GET /hello?a=1 HTTP/1.1\r\nHost: example.com\r\n\r\n") as client:
            offer, message = site.layer.take("http.request")
            assert (message["method"], message["path"], message["query_string"]) == ("GET", "/hello", b"a=1")
            site.layer.finish(offer, {"status": 200, "headers": [[b"X-A", b"b"]], "content": b"hi"})
            status, headers, content = read_response(client)
    assert (status, content, headers["x-a"], headers["content-length"]) == (200, b"hi", "b", "2")


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
