"""What a client is told, and which sends are at fault."""

import pytest

from procman.channels import failures
from procman.channels.message import Message
from procman.layers.base import Send


@pytest.mark.parametrize(
    ("channel", "frames", "told"),
    [
        ("websocket.connect", True, {"close": 1011}),
        ("websocket.connect", False, {"close": 1011}),
        ("websocket.receive", True, {"close": 1011}),
        ("websocket.receive", False, None),
        ("websocket.disconnect", True, None),
        ("background", True, None),
    ],
)
def test_only_who_waits_is_told(channel, frames, told):
    assert failures.answer_for(Message({}, channel, None), "text", 500, frames) == told


def test_an_http_client_gets_the_status_and_a_sentence():
    told = failures.answer_for(Message({}, "http.request", None), "A sentence.", 503)
    assert (told["status"], told["content"], told["more_content"]) == (503, b"A sentence.", False)


def test_a_message_without_reply_channel_is_answered_to_nobody(layer, wrapper):
    failures.answer(Message({}, "http.request", wrapper), "text", 500)
    assert not layer.queues


def test_the_sends_at_fault_are_named_and_the_others_kept_in_order():
    good, bad = failures.split_sends([Send("a", {"x": 1}), Send("b", {"x": {1}}), Send("c", {"x": 2})])
    assert [send.name for send in good] == ["a", "c"]
    ((send, reason),) = bad
    assert send.name == "b"
    assert "set" in reason
