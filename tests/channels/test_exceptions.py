"""Close codes that a consumer may ask for."""

import pytest

from procman.channels.exceptions import WebsocketCloseException
from procman.channels.message import Message


@pytest.mark.parametrize("code", [None, 1000, 3000, 4999])
def test_allowed_codes_are_sent_to_the_reply_channel(layer, wrapper, code):
    WebsocketCloseException(code).run(Message({"reply_channel": "r!1"}, "websocket.receive", wrapper))
    assert list(layer.queues["r!1"]) == [{"close": code or True}]


@pytest.mark.parametrize("code", [0, 999, 1001, 1011, 2999, 5000, "1000", True, 3000.5])
def test_other_codes_are_refused(code):
    with pytest.raises(ValueError, match="not allowed"):
        WebsocketCloseException(code)
