"""Channel and Group: what may be sent, and when it leaves."""

import threading

import pytest
from django.db import connection, connections, transaction
from django.test import TestCase

from procman.channels import Channel, Group
from procman.channels.pending import pending_message_store
from procman.layers.memory import InMemoryChannelLayer


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


def test_a_group_counts_its_members():
    layer = InMemoryChannelLayer()
    news = Group("news", channel_layer=layer)
    assert news.count() == 0
    for member in ("a", "b", "b", "i!1"):
        news.add(member)
    assert news.count() == 3
    news.discard("a")
    assert news.count() == 2


def test_a_layer_of_1x_is_asked_for_the_members_to_count_them():
    class Old:
        def group_channels(self, name):
            return {"a": 1.0, "b": 2.0}

    assert Group("news", channel_layer=Old()).count() == 2


def test_a_name_that_is_not_valid_is_refused_where_it_is_sent_to(layer):
    pending_message_store.prepare()
    try:
        with pytest.raises(TypeError, match="'a b'"):
            Channel("a b").send({})
        with pytest.raises(TypeError, match="'room 5!'"):
            Group("room 5!").send({})
        with pytest.raises(TypeError, match="'room 5!'"):
            Group("room 5!").count()
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


# -- on commit -------------------------------------------------------------------------------------------------------


@pytest.fixture
def consumer():
    """A consumer runs."""
    pending_message_store.prepare()
    yield
    pending_message_store.collect()


@pytest.fixture
def other_database(tmp_path):
    """The alias of a second database, in a file: one in memory is not closed by Django."""
    connections.settings["other"] = {**connections.settings["default"], "NAME": tmp_path / "other.sqlite3"}
    yield "other"
    connections["other"].close()
    del connections["other"], connections.settings["other"]


@pytest.mark.usefixtures("real_transactions")
class TestOnCommit:
    def test_a_send_leaves_with_the_commit_as_it_was_when_it_was_made(self, layer):
        layer.groups = {"g": ["b"]}
        content = {"list": [1]}
        with transaction.atomic():
            Channel("a").send(content, on_commit=True)
            Group("g").send(content, on_commit=True)
            content["list"].append(2)
            content["more"] = 1
            assert not layer.queues
        assert list(layer.queues["a"]) == list(layer.queues["b"]) == [{"list": [1]}]

    def test_nothing_leaves_after_a_rollback(self, layer):
        with pytest.raises(KeyError), transaction.atomic():
            Channel("a").send({}, on_commit=True)
            Group("g").send({}, on_commit=True)
            raise KeyError
        assert layer.log == []

    def test_a_rolled_back_savepoint_takes_its_sends_with_it(self, layer):
        with transaction.atomic():
            Channel("a").send({"n": 1}, on_commit=True)
            with pytest.raises(KeyError), transaction.atomic():
                Channel("a").send({"n": 2}, on_commit=True)
                raise KeyError
        assert list(layer.queues["a"]) == [{"n": 1}]

    def test_without_a_transaction_it_is_a_plain_send(self, layer):
        Channel("a").send({}, on_commit=True)
        assert list(layer.queues) == ["a"]

    def test_in_a_consumer_the_commit_adds_it_to_what_is_held(self, layer, consumer):
        with transaction.atomic():
            Channel("a").send({"n": 1}, on_commit=True)
            Channel("a").send({"n": 2})
        Channel("a").send({"n": 3}, on_commit=True)
        assert not layer.queues
        pending_message_store.flush()
        assert [message["n"] for message in layer.queues["a"]] == [2, 1, 3]

    def test_in_a_consumer_only_plain_sends_survive_a_rollback(self, layer, consumer):
        with pytest.raises(KeyError), transaction.atomic():
            Channel("a").send({"is": "plain"})
            Channel("a").send({"is": "on commit"}, on_commit=True)
            raise KeyError
        pending_message_store.flush()
        assert list(layer.queues["a"]) == [{"is": "plain"}]

    def test_a_commit_after_the_end_of_the_consumer_sends_at_once(self, layer):
        with transaction.atomic():
            pending_message_store.prepare()
            Channel("a").send({}, on_commit=True)
            pending_message_store.send_and_flush()
            assert not layer.queues
        assert list(layer.queues) == ["a"]

    def test_a_bad_name_is_refused_at_the_call(self, layer):
        with transaction.atomic():
            with pytest.raises(TypeError, match="'a b'"):
                Channel("a b").send({}, on_commit=True)
            with pytest.raises(TypeError, match="'room!'"):
                Group("room!").send({}, on_commit=True)

    def test_another_database_has_its_own_commit(self, layer, other_database):
        with transaction.atomic(using=other_database):
            with pytest.raises(KeyError), transaction.atomic():
                Channel("a").send({}, on_commit=True, using=other_database)
                raise KeyError
            assert not layer.queues
        assert list(layer.queues) == ["a"]

    def test_a_test_case_captures_it(self, layer):
        with transaction.atomic():  # what a TestCase puts around each test
            with TestCase.captureOnCommitCallbacks(execute=True) as callbacks:
                Channel("a").send({}, on_commit=True)
                assert not layer.queues
            assert list(layer.queues) == ["a"]
            assert len(callbacks) == 1
            transaction.set_rollback(True)


def test_a_send_opens_no_database_connection(layer):
    connected = []

    def send():  # connections are a thread's own
        Channel("a").send({}, on_commit=True)
        connected.append(connection.connection)

    thread = threading.Thread(target=send)
    thread.start()
    thread.join(10)
    assert connected == [None]
    assert list(layer.queues) == ["a"]


@pytest.mark.parametrize("sender", [Channel("a"), Group("a")])
def test_a_send_is_either_immediate_or_on_commit(layer, sender):
    with pytest.raises(ValueError, match="immediately and on_commit"):
        sender.send({}, immediately=True, on_commit=True)
    assert layer.log == []
