"""Interfaces by name, what their death owes, replies that are waited for, and groups."""

import logging

import pytest

from procman.layers.ipc import frames
from procman.layers.ipc.peers import Peer, SocketRecord
from procman.layers.ipc.registry import MAX_SESSION_BYTES, Registry
from procman.settings import LayerSettings


@pytest.fixture
def registry() -> Registry:
    return Registry("one", LayerSettings())


def client(role: str = frames.CLIENT) -> Peer:
    peer = Peer()
    peer.role = role
    return peer


def serve(registry: Registry, name: str) -> Peer:
    peer = client(frames.INTERFACE)
    registry.serve(peer, name)
    assert peer.served is not None
    peer.served.has_reported = True
    return peer


def test_a_channel_belongs_to_the_interface_before_its_mark(registry: Registry) -> None:
    peer = serve(registry, "i")
    assert registry.owner("i!1") is peer.served
    assert registry.owner("i") is None
    assert registry.owner("j!1") is None
    assert registry.owner("!1") is None


def test_dead_interfaces_are_remembered_and_the_oldest_are_forgotten(registry: Registry) -> None:
    for number in range(1500):
        peer = serve(registry, f"i{number}")
        assert peer.served is not None
        registry.lost(peer.served, 1006, 0.0)
    assert len(registry.dead) == 1024
    assert registry.is_dead("i1499!x")
    assert not registry.is_dead("i1!x")
    assert not registry.interfaces


def test_an_interface_that_takes_its_own_place_ends_its_first_connection(registry: Registry) -> None:
    first = serve(registry, "i")
    assert first.served is not None
    registry.opened(first.served, SocketRecord("i!1", "/", 1, None))
    second = client(frames.INTERFACE)
    assert registry.serve(second, "i")  # it was declared dead, and has to be told
    assert first.served is None
    assert registry.owner("i!1") is second.served
    assert [entry.reply_channel for entry in registry.switch.mailbox.queues["websocket.disconnect"]] == ["i!1"]


def test_a_socket_is_closed_once(registry: Registry) -> None:
    served = serve(registry, "i").served
    assert served is not None
    registry.opened(served, SocketRecord("i!1", "/", 1, b"session"))
    assert registry.ledger.bytes > 0
    assert registry.closed(served, "i!1", 0.0)
    assert not registry.closed(served, "i!1", 0.0)
    assert registry.ledger.bytes == 0


def test_a_session_over_its_bound_is_not_mirrored(registry: Registry) -> None:
    served = serve(registry, "i").served
    assert served is not None
    registry.opened(served, SocketRecord("i!1", "/", 1, bytes(MAX_SESSION_BYTES + 1)))
    assert served.sockets["i!1"].session is None
    registry.opened(served, SocketRecord("i!1", "/", 2, b"small"))
    registry.opened(served, SocketRecord("i!1", "/", 3, bytes(MAX_SESSION_BYTES + 1)))
    record = served.sockets["i!1"]
    assert (record.session, record.order) == (b"small", 3)  # an older one is better than none
    assert ["are mirrored" in each.text for each in registry.switch.logs] == [True, True]


def test_a_sender_that_waits_hears_once_what_became_of_its_part(registry: Registry) -> None:
    interface, sender = serve(registry, "i"), client()
    assert interface.served is not None
    for rid in (1, 2, 3):
        registry.reply_and_wait(sender, rid, interface.served, f"i!{rid}", b"x", "key")
    tokens = [frame[3] for frame in interface.out]
    registry.written(tokens[0], True)
    registry.written(tokens[0], True)
    registry.written(tokens[1], False)
    registry.closed(interface.served, "i!3", 0.0)
    assert [frame[:2] for frame in sender.out] == [(frames.OK, 1), (frames.ERROR, 2), (frames.ERROR, 3)]
    assert not registry._tokens


def test_parts_that_are_waited_for_are_bounded(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("procman.layers.ipc.registry._MAX_TOKENS", 1)
    interface, sender = serve(registry, "i"), client()
    assert interface.served is not None
    for rid in (1, 2):
        registry.reply_and_wait(sender, rid, interface.served, "i!1", b"x", "key")
    assert [frame[:3] for frame in sender.out] == [(frames.ERROR, 2, frames.FULL)]


def test_a_member_that_an_interface_holds_is_told_to_it_and_others_are_kept_here(registry: Registry) -> None:
    interface = serve(registry, "i")
    registry.group_add("g", "i!1", 100.0)
    registry.group_add("g", "other", 100.0)
    assert interface.out == [(frames.HELD_ADD, "g", "i!1")]
    assert (registry.members.count, registry.ordinary.count) == (1, 1)
    registry.group_discard("g", "i!1")
    registry.group_discard("g", "i!1")
    registry.group_discard("g", "other")
    assert interface.out[1:] == [(frames.HELD_DISCARD, "g", "i!1")]
    assert (registry.members.count, registry.ordinary.count) == (0, 0)


def test_a_refusal_names_the_bound_and_counts_only_bytes_as_such(registry: Registry) -> None:
    registry.ledger.bytes = registry.ledger.max_bytes
    assert registry.refuse("a", 10, 100, 5.0) == ("a", 100, registry.ledger.max_bytes)
    assert registry.refuse("a", 10, 0, 5.5)[:2] == ("a", 0)
    assert registry.ledger.refused_count == 2
    (line,) = registry.switch.logs
    assert line.level == logging.WARNING
