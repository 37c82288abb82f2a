"""The old name of the client."""

from procman.channels.test.http import HttpClient
from procman.channels.test.websocket import WSClient


def test_http_client_is_the_client_of_websockets() -> None:
    assert HttpClient is WSClient
