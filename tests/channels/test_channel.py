"""Channel and Group: what may be sent, and when it leaves."""

import pytest

from procman.channels import Channel, Group
from procman.channels.pending import pending_message_store


def test_a_name_may_be_bytes(layer):
    assert str(Channel(b"hello")) == Channel("hello").name == "hello"
    assert str(Group(b"hello")) == "hello"


def test_outside_a_consumer_a_send_leaves_at_once(layer):
    Channel("a").send({"x": 1})
    Group("g").add("b")
    Group("g").add(Channel("c"))
    Group("g").send({"y": 2})
    assert [list(layer.queues[name]) for name in "abc"] == [[{"x": 1}], [{"y": 2}], [{"y": 2}]]
    Group("g").discard(Channel("b"))
    assert layer.groups["g"] == ["c"]


def test_a_name_that_is_not_valid_is_refused_where_it_is_sent_to(layer):
    pending_message_store.prepare()
    try:
        with pytest.raises(TypeError, match="'a b'"):
            Channel("a b").send({})
        with pytest.raises(TypeError, match="'room 5!'"):
            Group("room 5!").send({})
    finally:
        assert pending_message_store.collect() == []


def test_only_dicts_can_be_sent(layer):
    with pytest.raises(TypeError, match="dicts"):
        Channel("a").send("text")
    with pytest.raises(ValueError, match="dicts"):
        Group("a").send("text")


def test_in_a_consumer_sends_are_held_and_group_changes_are_not(layer):
    pending_message_store.prepare()
    Group("g").send({"x": 1})
    Group("g").add("me")
    Channel("a").send({"x": 2})
    Channel("a").send({"x": 3}, immediately=True)
    assert layer.groups == {"g": ["me"]}
    assert list(layer.queues) == ["a"]
    pending_message_store.send_and_flush()
    assert list(layer.queues["me"]) == [{"x": 1}]  # added before the send left
    assert list(layer.queues["a"]) == [{"x": 3}, {"x": 2}]


def test_a_given_layer_goes_before_the_alias(layer):
    other = type(layer)()
    Channel("a", channel_layer=other).send({})
    assert not layer.queues
    assert list(other.queues) == ["a"]
