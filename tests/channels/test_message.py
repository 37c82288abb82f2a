"""Messages as dicts with channels."""

import copy

from procman.channels.message import Message, SessionSlot


def test_a_message_without_channel_and_layer_works():
    message = Message({"a": 1}, None, None)
    assert message["a"] == 1
    assert message.reply_channel is None
    assert message.channel.name is None


def test_a_message_is_a_mapping():
    message = Message({"a": 1}, "x", object())
    message["b"] = 2
    assert "b" in message
    assert "c" not in message
    assert message.get("c", 3) == 3
    assert list(message.keys()) == ["a", "b"]
    assert list(message.values()) == [1, 2]
    assert dict(message.items()) == {"a": 1, "b": 2}


def test_the_reply_channel_lives_on_the_messages_layer():
    layer = object()
    message = Message({"reply_channel": "r!1"}, "x", layer)
    assert message.reply_channel.name == "r!1"
    assert message.reply_channel.channel_layer is layer
    assert message.channel.channel_layer is layer
    assert Message({"reply_channel": ""}, "x", layer).reply_channel is None


def test_a_copy_is_deep_and_forgets_what_decorators_added():
    message = Message({"list": [1], "reply_channel": "r!1"}, "x", None)
    message.user = "somebody"
    message.id, message.redelivered, message.session_slot = "m1", True, SessionSlot(b"")
    copied = message.copy()
    copied["list"].append(2)
    assert message["list"] == [1]
    assert not hasattr(copied, "user")
    assert (copied.id, copied.redelivered) == ("m1", True)
    assert copied.session_slot is message.session_slot


def test_an_overlay_changes_nothing_beneath():
    message = Message({"path": "/a/b", "body": b"x" * 10}, "x", None)
    seen = message.overlaid({**message.content, "path": "/b"})
    assert seen["path"] == "/b"
    assert message["path"] == "/a/b"
    assert seen["body"] is message["body"]
    assert copy.copy(seen)["path"] == "/b"
