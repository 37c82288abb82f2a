"""Held sends: order, full channels, threads."""

import threading

import pytest

from procman.channels import Channel
from procman.channels.pending import PendingMessageStore, pending_message_store
from procman.channels.signals import consumer_finished, consumer_started


def test_the_signals_switch_holding_on_and_off(layer):
    assert not pending_message_store.active
    consumer_started.send(sender=object)
    assert pending_message_store.active
    Channel("a").send({})
    assert not layer.queues
    consumer_finished.send(sender=object)
    assert not pending_message_store.active
    assert list(layer.queues) == ["a"]


def test_a_full_channel_is_tried_again_for_two_seconds():
    assert (PendingMessageStore.retry_time, PendingMessageStore.retry_interval) == (2.0, 0.2)


def test_changing_a_dict_after_the_send_has_no_effect(layer):
    pending_message_store.prepare()
    content = {"list": [1], "text": "a"}
    Channel("a").send(content)
    content["list"].append(2)
    content["text"] = "b"
    pending_message_store.send_and_flush()
    assert list(layer.queues["a"]) == [{"list": [1], "text": "a"}]


def test_another_thread_holds_nothing(layer):
    pending_message_store.prepare()
    found = []
    thread = threading.Thread(target=lambda: found.append(pending_message_store.active))
    thread.start()
    thread.join(5)
    pending_message_store.collect()
    assert found == [False]


def test_a_full_channel_does_not_keep_back_the_others(layer):
    store = PendingMessageStore()
    store.retry_time, store.retry_interval = 0.02, 0.01
    store.prepare()
    layer.full = {"full"}
    for name in ("a", "full", "b"):
        store.append(Channel(name), {})
    with pytest.raises(RuntimeError, match="'full'"):
        store.send_and_flush()
    assert list(layer.queues) == ["a", "b"]
    assert not store.active


def test_flush_sends_and_goes_on_holding(layer):
    pending_message_store.prepare()
    Channel("a").send({})
    pending_message_store.flush()
    assert list(layer.queues) == ["a"]
    assert pending_message_store.active
    assert pending_message_store.collect() == []
