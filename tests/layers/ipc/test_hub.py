"""The hub's rules, without sockets or clocks."""

import logging
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from procman.layers import codec
from procman.layers.ipc import frames
from procman.layers.ipc.hub import BadFrame, Hub
from procman.layers.ipc.peers import Peer

BODY = codec.encode({"n": 1})


class Bench:
    """A hub, its connections, what each of them has been told, and a time that is moved."""

    def __init__(self, now: float = 1000.0, hub_id: str = "one") -> None:
        self.hub = Hub(hub_id, now)
        self.now = now
        self.inbox: dict[Peer, list[Any]] = {}
        self.logs: list[tuple[int, str]] = []

    def settle(self) -> None:
        for peer, output in self.hub.drain():
            self.inbox.setdefault(peer, []).extend(output)
        self.logs += [(log.level, log.text % log.arguments) for log in self.hub.drain_logs()]

    def connect(
        self,
        role: str = frames.CLIENT,
        name: str | None = None,
        last: str | None = None,
        process: str = "",
        **limits: Any,
    ) -> Peer:
        peer = self.hub.connected()
        own = [limits.get("expiry", 60.0), 86400.0, limits.get("capacity", 100), 1 << 24, []]
        self.say(peer, frames.HELLO, frames.VERSION, role, f"the {role}", 42, own, name, last, process)
        assert self.heard(peer)[0][0] == frames.WELCOME
        return peer

    def say(self, peer: Peer, *frame: Any) -> None:
        self.hub.handle(peer, list(frame), self.now)
        self.settle()

    def heard(self, peer: Peer) -> list[Any]:
        """What *peer* has been told since it was last asked."""
        found, self.inbox[peer] = self.inbox.get(peer, []), []
        return found

    def leave(self, peer: Peer) -> None:
        self.hub.disconnected(peer, self.now)
        self.settle()

    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.hub.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.hub.tick(self.now)
            self.settle()
        self.now = end

    def send(self, peer: Peer, channel: str, body: bytes = BODY) -> Any:
        """The answer to a send."""
        self.say(peer, frames.SEND, 7, channel, body, None)
        return next(frame for frame in self.heard(peer) if frame[0] in (frames.OK, frames.ERROR))

    def deliver(self, peer: Peer, *channels: str) -> Any:
        """The delivery that *peer* gets at once, or None."""
        self.say(peer, frames.TAKE, list(channels) or None)
        return next((frame for frame in self.heard(peer) if frame[0] == frames.DELIVER), None)

    def offer(self, peer: Peer, number: int, channel: str = "websocket.receive", **fields: Any) -> None:
        self.say(
            peer,
            frames.OFFER,
            number,
            channel,
            BODY,
            fields.get("reply", "i!1"),
            fields.get("redeliverable", True),
            fields.get("bounded", False),
            fields.get("session"),
            fields.get("begun", False),
            fields.get("again", False),
        )

    def report(self, peer: Peer) -> None:
        self.say(peer, frames.REPORTED)

    def statistics(self) -> dict[str, Any]:
        peer = self.connect()
        self.say(peer, frames.STATISTICS, 1, None)
        found = codec.decode(self.heard(peer)[0][2])
        self.leave(peer)
        return found


@pytest.fixture
def bench() -> Bench:
    """A hub whose time of restarts is over."""
    bench = Bench()
    bench.pass_time(2)
    return bench


def interface(bench: Bench, name: str = "i", last: str | None = None) -> Peer:
    peer = bench.connect(frames.INTERFACE, name, last)
    bench.report(peer)
    return peer


def worker(bench: Bench, last: str | None = None, **limits: Any) -> Peer:
    return bench.connect(frames.WORKER, None, last, **limits)


# -- waiting and delivery ----------------------------------------------------------------------------------------------


def test_a_waiting_worker_gets_one_message_and_no_second_before_it_has_finished(bench: Bench) -> None:
    client, taker = bench.connect(), worker(bench)
    assert bench.deliver(taker, "a") is None
    bench.send(client, "a")
    bench.send(client, "a")
    (first,) = bench.heard(taker)
    bench.say(taker, frames.TAKE, None)
    assert bench.heard(taker) == []
    bench.say(taker, frames.FINISH, first[1], [], None, False)
    assert bench.heard(taker) == []  # the acknowledgement travels with the next delivery
    bench.say(taker, frames.TAKE, None)
    acknowledgement, second = bench.heard(taker)
    assert acknowledgement == (frames.ACK, first[1])
    assert second[0] == frames.DELIVER
    assert second[1] != first[1]


def test_an_acknowledgement_goes_alone_when_there_is_nothing_to_go_with(bench: Bench) -> None:
    client, takers = bench.connect(), [worker(bench), worker(bench)]
    for taker in takers:
        bench.send(client, "a")
        key = bench.deliver(taker, "a")[1]
        bench.say(taker, frames.FINISH, key, [], None, False)
    bench.say(takers[0], frames.TAKE, None)
    assert [frame[0] for frame in bench.heard(takers[0])] == [frames.ACK]
    assert bench.heard(takers[1]) == []
    bench.pass_time(0.1)
    assert [frame[0] for frame in bench.heard(takers[1])] == [frames.ACK]


def test_an_acknowledgement_that_an_interface_makes_up_for_waits_for_the_next_delivery_or_a_moment(
    bench: Bench,
) -> None:
    server, taker = interface(bench), worker(bench)
    for number in (1, 2):
        bench.offer(server, number, "a")
        key = bench.deliver(taker, "a")[1]
        bench.say(taker, frames.FINISH, key, [], None, False)
        bench.say(taker, frames.TAKE, None)
        assert bench.heard(taker) == []
        if number == 1:
            bench.offer(server, 9, "a")
            assert [frame[0] for frame in bench.heard(taker)] == [frames.ACK, frames.DELIVER]
            bench.say(taker, frames.FINISH, "i:9", [], None, False)
            bench.pass_time(0.1)
            bench.heard(taker)
    bench.pass_time(0.1)
    assert [frame[0] for frame in bench.heard(taker)] == [frames.ACK]


def test_a_worker_that_is_not_idle_gets_nothing(bench: Bench) -> None:
    client, taker = bench.connect(), worker(bench)
    bench.deliver(taker, "a")
    bench.say(taker, frames.UNTAKE)
    assert bench.heard(taker) == [(frames.UNTAKEN,)]
    bench.send(client, "a")
    assert bench.heard(taker) == []
    assert bench.deliver(taker) is not None


def test_a_delivery_that_crosses_the_withdrawal_comes_before_its_answer(bench: Bench) -> None:
    client, taker = bench.connect(), worker(bench)
    bench.deliver(taker, "a")
    bench.send(client, "a")
    bench.say(taker, frames.UNTAKE)
    assert [frame[0] for frame in bench.heard(taker)] == [frames.DELIVER, frames.UNTAKEN]


def test_a_lost_workers_message_goes_to_the_front_past_capacity_and_ends_with_the_second_death(bench: Bench) -> None:
    client, taker = bench.connect(capacity=1), worker(bench)
    bench.send(client, "a", b"first")
    key = bench.deliver(taker, "a")[1]
    assert bench.send(client, "a", b"second")[0] == frames.OK
    bench.leave(taker)
    bench.pass_time(0.1)
    assert bench.send(client, "a")[0] == frames.ERROR
    second = worker(bench)
    again = bench.deliver(second, "a")
    assert (again[1], again[3], again[4]) == (key, b"first", 1)
    bench.leave(second)
    assert bench.deliver(worker(bench), "a")[3] == b"second"
    levels = [level for level, text in bench.logs if "the worker (pid 42) died" in text and " a " in text]
    assert levels == [logging.WARNING, logging.ERROR]
    assert bench.statistics()["dropped_count"] == 1


def test_a_message_is_not_given_to_a_worker_that_is_killed_together_with_its_first(bench: Bench) -> None:
    client, first, second = bench.connect(), worker(bench), worker(bench)
    bench.send(client, "a")
    key = bench.deliver(first, "a")[1]
    assert bench.deliver(second, "a") is None
    bench.leave(first)
    bench.pass_time(0.05)
    bench.leave(second)
    bench.pass_time(0.1)
    again = bench.deliver(worker(bench), "a")
    assert (again[1], again[4]) == (key, 1)


def test_messages_expire_and_those_in_flight_do_not(bench: Bench) -> None:
    client, taker = bench.connect(expiry=10), worker(bench)
    bench.send(client, "a", b"taken")
    bench.send(client, "a", b"left")
    key = bench.deliver(taker, "a")[1]
    bench.pass_time(20)
    assert bench.statistics()["messages_pending"] == 0
    bench.leave(taker)
    bench.pass_time(0.1)
    again = bench.deliver(worker(bench), "a")
    # Its time was over while it was in flight; a redelivery is not refused for that.
    assert again is not None
    assert again[1] == key


def test_a_parked_receiver_is_answered_by_a_message_or_by_its_timeout(bench: Bench) -> None:
    client, reader = bench.connect(), bench.connect()
    bench.say(reader, frames.RECEIVE, 1, ["a", "b"], True, 5.0)
    bench.pass_time(4.9)
    assert bench.heard(reader) == []
    bench.send(client, "b")
    assert bench.heard(reader) == [(frames.OK, 1, ("b", BODY))]
    bench.say(reader, frames.RECEIVE, 2, ["a"], True, 5.0)
    bench.pass_time(5)
    assert bench.heard(reader) == [(frames.OK, 2, None)]
    assert bench.send(client, "a")[0] == frames.OK
    assert bench.heard(reader) == []


def test_a_parked_send_goes_on_when_there_is_room(bench: Bench) -> None:
    client, reader = bench.connect(capacity=1), bench.connect()
    bench.send(client, "a", b"1")
    bench.say(client, frames.SEND_WHEN_ROOM, 8, "a", b"2", None)
    assert bench.heard(client) == []
    bench.say(reader, frames.RECEIVE, 1, ["a"], False, None)
    assert bench.heard(client) == [(frames.OK, 8, None)]
    bench.say(reader, frames.RECEIVE, 2, ["a"], False, None)
    assert [frame[2][1] for frame in bench.heard(reader)] == [b"1", b"2"]


def test_a_parked_send_is_answered_when_the_channel_expires_or_is_flushed(bench: Bench) -> None:
    client = bench.connect(capacity=1, expiry=5)
    bench.send(client, "a", b"1")
    bench.say(client, frames.SEND_WHEN_ROOM, 8, "a", b"2", None)
    bench.pass_time(7)
    assert bench.heard(client) == [(frames.OK, 8, None)]
    bench.say(client, frames.SEND_WHEN_ROOM, 9, "a", b"3", None)
    bench.say(client, frames.FLUSH, 10)
    assert bench.heard(client) == [(frames.OK, 9, None), (frames.OK, 10, None)]


def test_a_flush_reaches_what_pauses_and_what_a_finish_would_have_sent(bench: Bench) -> None:
    client, takers = bench.connect(capacity=1), [worker(bench, capacity=1) for _ in range(3)]
    server = interface(bench)
    for channel in ("deferred", "again", "work", "full"):
        bench.send(client, channel)
    deferred, again, work = (bench.deliver(t, c)[1] for t, c in zip(takers, ("deferred", "again", "work"), strict=True))
    bench.say(takers[0], frames.DEFER, deferred, BODY)
    bench.leave(takers[1])
    bench.say(takers[2], frames.FINISH, work, [["full", BODY, False], ["i!1", BODY, False]], None, False)
    assert bench.hub.waiting
    bench.say(client, frames.FLUSH, 9)
    bench.pass_time(5)
    assert (frames.REPLY, "i!1", BODY) in bench.heard(server)
    assert bench.deliver(takers[0], "deferred", "again", "full") is None
    assert again not in bench.hub.switch.again
    assert bench.statistics()["bytes_held"] == 0


def test_a_flush_reaches_what_was_offered_again_and_tells_its_interface() -> None:
    bench = Bench(hub_id="two")
    server = bench.connect(frames.INTERFACE, "i", "one")
    bench.offer(server, 1, again=True)
    bench.report(server)
    bench.heard(server)
    bench.say(bench.connect(), frames.FLUSH, 1)
    assert (frames.FAILED, 1, "lost") in bench.heard(server)
    bench.pass_time(3)
    assert bench.deliver(worker(bench), "websocket.receive") is None


def test_a_worker_that_connects_again_claims_what_would_be_given_to_another(bench: Bench) -> None:
    client, first, other = bench.connect(), worker(bench), worker(bench)
    bench.send(client, "a")
    key = bench.deliver(first, "a")[1]
    bench.leave(first)
    bench.say(other, frames.RUNNING, [[key, "a", 0]])
    bench.pass_time(1)
    assert bench.deliver(worker(bench), "a") is None
    assert bench.hub.switch.in_flight[key].holder is other


def test_a_deferred_message_comes_again_later_without_being_marked(bench: Bench) -> None:
    client, taker = bench.connect(), worker(bench)
    bench.send(client, "a")
    key = bench.deliver(taker, "a")[1]
    bench.say(taker, frames.DEFER, key, b"later")
    bench.heard(taker)
    assert bench.deliver(taker) is None
    bench.pass_time(0.02)
    (again,) = bench.heard(taker)
    assert (again[1], again[3], again[4]) == (key, b"later", 0)


# -- finishes ----------------------------------------------------------------------------------------------------------


def test_the_sends_of_a_finish_wait_together_for_room_and_hold_back_their_worker(bench: Bench) -> None:
    client, taker = bench.connect(capacity=1), worker(bench, capacity=1)
    bench.send(client, "full")
    bench.send(client, "a")
    bench.send(client, "b")
    key = bench.deliver(taker, "a", "b")[1]
    bench.say(taker, frames.FINISH, key, [["other", BODY, False], ["full", b"late", False]], None, False)
    assert bench.deliver(taker) is None
    reader = bench.connect()
    bench.say(reader, frames.RECEIVE, 1, ["other"], False, None)
    assert bench.heard(reader) == [(frames.OK, 1, None)]
    bench.say(reader, frames.RECEIVE, 2, ["full"], False, None)
    assert [frame[0] for frame in bench.heard(taker)] == [frames.ACK, frames.DELIVER]
    bench.say(reader, frames.RECEIVE, 3, ["full"], False, None)
    assert bench.heard(reader)[-1] == (frames.OK, 3, ("full", b"late"))


def test_a_finish_without_room_for_two_seconds_is_applied_less_what_does_not_fit(bench: Bench) -> None:
    client, taker = bench.connect(capacity=1), worker(bench, capacity=1)
    bench.send(client, "full")
    bench.send(client, "a")
    key = bench.deliver(taker, "a")[1]
    bench.say(taker, frames.FINISH, key, [["full", BODY, False], ["other", BODY, False]], None, False)
    bench.pass_time(1.9)
    assert bench.heard(taker) == []
    bench.pass_time(0.2)
    assert bench.heard(taker) == [(frames.ACK, key)]
    assert bench.statistics()["messages_pending"] == 2
    assert any(level == logging.ERROR and "full" in text for level, text in bench.logs)


def test_a_finish_that_waits_for_room_survives_its_worker(bench: Bench) -> None:
    client, taker = bench.connect(capacity=1), worker(bench, capacity=1)
    bench.send(client, "full")
    bench.send(client, "a")
    key = bench.deliver(taker, "a")[1]
    bench.say(taker, frames.FINISH, key, [["full", b"late", False]], None, False)
    bench.leave(taker)
    reader = bench.connect()
    for rid in (1, 2):
        bench.say(reader, frames.RECEIVE, rid, ["full"], False, None)
    assert [frame[2][1] for frame in bench.heard(reader)] == [BODY, b"late"]
    assert bench.deliver(worker(bench), "a") is None


# -- interfaces --------------------------------------------------------------------------------------------------------


def test_offers_ignore_capacity_unless_they_are_bounded(bench: Bench) -> None:
    peer = bench.connect(frames.INTERFACE, "i", capacity=1)
    bench.report(peer)
    bench.offer(peer, 1)
    bench.offer(peer, 2)
    bench.offer(peer, 3, "http.request", bounded=True)
    bench.offer(peer, 4, "http.request", bounded=True)
    assert bench.heard(peer) == [(frames.FAILED, 4, "full")]
    bench.pass_time(62)
    assert bench.heard(peer) == [(frames.FAILED, 3, "expired")]


def test_an_interface_is_told_before_an_unsafe_request_is_handed_out_and_when_it_is_lost(bench: Bench) -> None:
    peer, taker = interface(bench), worker(bench)
    bench.offer(peer, 1, "http.request", redeliverable=False, bounded=True)
    assert bench.heard(peer) == []
    bench.deliver(taker, "http.request")
    assert bench.heard(peer) == [(frames.BEGUN, 1)]
    bench.leave(taker)
    assert bench.heard(peer) == [(frames.FAILED, 1, "lost")]


def test_a_withdrawn_offer_is_not_handed_out(bench: Bench) -> None:
    peer, taker = interface(bench), worker(bench)
    bench.offer(peer, 1, "http.request", bounded=True)
    bench.say(peer, frames.WITHDRAW, 1)
    assert bench.deliver(taker, "http.request") is None
    assert bench.heard(peer) == [(frames.FAILED, 1, "withdrawn")]


def test_a_finish_reaches_its_interface_as_one_frame_behind_the_sends_to_others(bench: Bench) -> None:
    mine, other, taker = interface(bench), interface(bench, "j"), worker(bench)
    for peer, channel in ((mine, "i!1"), (other, "j!1")):
        bench.say(taker, frames.GROUP_ADD, 1, "g", channel)
        assert bench.heard(peer) == [(frames.HELD_ADD, "g", channel)]
    bench.offer(mine, 1)
    bench.heard(taker)
    key = bench.deliver(taker, "websocket.receive")[1]
    sends = [["i!1", b"a", False], ["g", b"b", True], ["j!1", b"c", False], ["i!1", b"d", False], ["w", b"e", False]]
    bench.say(taker, frames.FINISH, key, sends, b"session", False)
    assert bench.heard(mine) == [(frames.FINISHED, 1, b"session", [sends[0], sends[1], sends[3]])]
    assert bench.heard(other) == [(frames.HELD_SEND, "g", b"b"), (frames.REPLY, "j!1", b"c")]
    assert bench.deliver(taker, "w")[3] == b"e"


def test_a_dead_interfaces_sockets_are_disconnected_once_after_their_last_frame_with_its_session(bench: Bench) -> None:
    peer, taker = interface(bench), worker(bench)
    bench.say(peer, frames.OPENED, "i!1", "/ws/", 1, b"old")
    bench.say(peer, frames.OPENED, "i!2", "/ws/", 1, None)
    bench.offer(peer, 1, reply="i!1")
    key = bench.deliver(taker, "websocket.receive", "websocket.disconnect")[1]
    bench.offer(peer, 2, reply="i!2", channel="websocket.connect")
    bench.leave(peer)
    bench.say(taker, frames.FINISH, key, [["i!1", BODY, False]], b"later", False)
    seen = {}
    for _ in range(2):
        delivery = bench.deliver(taker)
        message = codec.decode(delivery[3])
        seen[message["reply_channel"]] = (delivery[2], message["code"], message["order"], delivery[5])
        bench.say(taker, frames.FINISH, delivery[1], [], None, False)
    assert seen == {
        "i!1": ("websocket.disconnect", 1006, 2, b"later"),
        "i!2": ("websocket.disconnect", 1006, 2, None),
    }
    assert bench.deliver(taker) is None


def test_a_closed_socket_gets_the_disconnect_of_its_interface_once(bench: Bench) -> None:
    peer, taker = interface(bench), worker(bench)
    bench.say(peer, frames.OPENED, "i!1", "/ws/", 1, None)
    bench.say(taker, frames.GROUP_ADD, 1, "g", "i!1")
    fields = [5, "websocket.disconnect", b"bye", "i!1", True, False, None, False, False]
    bench.say(peer, frames.CLOSED, "i!1", fields)
    bench.say(peer, frames.CLOSED, "i!1", [6, *fields[1:]])
    assert bench.heard(peer)[-1] == (frames.FINISHED, 6, None, ())
    bench.heard(taker)
    key = bench.deliver(taker, "websocket.disconnect")[1]
    bench.say(taker, frames.FINISH, key, [], None, False)
    bench.leave(peer)
    assert bench.deliver(taker) is None
    bench.say(taker, frames.GROUP_CHANNELS, 3, "g")
    assert codec.decode(bench.heard(taker)[-1][2]) == {"channels": []}


def test_messages_for_a_dead_interface_are_dropped_and_counted(bench: Bench) -> None:
    client = bench.connect()
    bench.leave(interface(bench))
    assert bench.send(client, "i!1")[0] == frames.OK
    bench.say(client, frames.SEND_AND_WAIT, 2, "i!1", BODY, "k")
    assert bench.heard(client) == [(frames.ERROR, 2, frames.GONE, ("i!1",))]
    assert bench.statistics()["messages_pending"] == 0
    assert bench.statistics()["dropped_count"] == 1


def test_a_connection_that_an_interface_gave_up_before_its_report_is_no_death(bench: Bench) -> None:
    for _ in range(2):  # a hub that starts late finds both connections waiting
        first = bench.connect(frames.INTERFACE, "i", "zero", "")
        bench.leave(first)
    bench.connect(frames.INTERFACE, "i", "zero", "")
    second = bench.hub.connected()
    bench.say(second, frames.HELLO, frames.VERSION, frames.INTERFACE, "x", 1, [60, 60, 1, 1000, []], "i", "zero", "")
    assert bench.heard(second) == [(frames.WELCOME, frames.VERSION, "one", False, second.number)]


def test_a_death_is_told_also_when_the_first_connection_after_it_was_given_up(bench: Bench) -> None:
    bench.leave(interface(bench))
    peers = [bench.hub.connected() for _ in range(2)]
    for peer in peers:
        bench.say(peer, frames.HELLO, frames.VERSION, frames.INTERFACE, "x", 1, [60, 60, 1, 1000, []], "i", "one", "")
        assert bench.heard(peer) == [(frames.WELCOME, frames.VERSION, "one", True, peer.number)]
        bench.leave(peer)


def test_whoever_reads_a_body_of_a_dead_interface_hears_that_it_ends(bench: Bench) -> None:
    peer, early, late = interface(bench), bench.connect(), bench.connect()
    bench.say(early, frames.RECEIVE, 1, ["i.body?1"], True, 60.0)
    bench.leave(peer)
    bench.say(late, frames.RECEIVE, 2, ["i.body?2"], True, 60.0)
    for reader, rid, name in ((early, 1, "i.body?1"), (late, 2, "i.body?2")):
        ((operation, answered, (channel, body)),) = bench.heard(reader)
        assert (operation, answered, channel) == (frames.OK, rid, name)
        assert codec.decode(body) == {"closed": True}


def test_an_interface_that_comes_back_after_its_death_is_told_so(bench: Bench) -> None:
    bench.leave(interface(bench))
    peer = bench.hub.connected()
    bench.say(peer, frames.HELLO, frames.VERSION, frames.INTERFACE, "x", 1, [60, 60, 1, 1000, []], "i", "one", "")
    assert bench.heard(peer) == [(frames.WELCOME, frames.VERSION, "one", True, peer.number)]


def test_a_session_that_is_too_large_is_not_mirrored_and_logged(bench: Bench) -> None:
    peer, taker = interface(bench), worker(bench)
    bench.say(peer, frames.OPENED, "i!1", "/ws/", 1, b"small")
    bench.offer(peer, 1)
    key = bench.deliver(taker, "websocket.receive", "websocket.disconnect")[1]
    bench.say(taker, frames.FINISH, key, [], b"x" * 70_000, False)
    bench.leave(peer)
    assert bench.deliver(taker)[5] == b"small"
    assert any(level == logging.ERROR and "70000 bytes" in text for level, text in bench.logs)


def test_workers_that_fill_a_channel_which_only_they_read_make_room_in_it_themselves(bench: Bench) -> None:
    client, taker = bench.connect(), worker(bench, capacity=1)
    bench.send(client, "work")
    key = bench.deliver(taker, "work", "child", "other")[1]
    for channel in ("child", "work", "other"):
        bench.send(client, channel)
    bench.say(taker, frames.FINISH, key, [["child", b"late", False], ["elsewhere", BODY, False]], None, False)
    bench.say(taker, frames.TAKE, None)
    acknowledgement, child = bench.heard(taker)
    assert child[2:4] == ("child", BODY) and acknowledgement == (frames.ACK, key)
    bench.say(taker, frames.FINISH, child[1], [["child", b"later", False], ["other", BODY, False]], None, False)
    bench.say(taker, frames.TAKE, None)
    (second,) = bench.heard(taker)
    assert second[2] in ("child", "other")
    bench.pass_time(0.1)
    bench.say(taker, frames.FINISH, second[1], [], None, False)
    bench.say(taker, frames.TAKE, None)
    third = next(frame for frame in bench.heard(taker) if frame[0] == frames.DELIVER)
    assert {second[2], third[2]} == {"child", "other"}
    assert not [log for log in bench.logs if log[0] >= logging.ERROR]


def test_full_group_members_are_logged_once_a_second(bench: Bench) -> None:
    client = bench.connect(capacity=1)
    bench.say(client, frames.GROUP_ADD, 1, "g", "member")
    for _ in range(6):
        bench.say(client, frames.GROUP_SEND, 2, "g", BODY)
    bench.pass_time(1)
    bench.say(client, frames.GROUP_SEND, 3, "g", BODY)
    warnings = [text for level, text in bench.logs if level == logging.WARNING]
    assert len(warnings) == 2
    assert "group g: 5 messages" in warnings[1]


def test_log_lines_hold_no_control_characters_of_names(bench: Bench) -> None:
    client, taker = bench.connect(), worker(bench)
    bench.say(client, frames.SEND, 1, "a", BODY, "x\n\x1b[2Jforged")
    bench.deliver(taker, "a")
    bench.leave(taker)
    assert bench.logs
    assert all("\n" not in text and "\x1b" not in text for _, text in bench.logs)


# -- restarts ----------------------------------------------------------------------------------------------------------


def test_what_is_offered_again_waits_and_what_a_worker_runs_is_not_handed_out() -> None:
    bench = Bench()
    runner, idle = worker(bench, "zero"), worker(bench, "zero")
    bench.say(runner, frames.RUNNING, [["i:1", "websocket.receive", 0]])
    peer = bench.connect(frames.INTERFACE, "i", "zero", "")
    bench.offer(peer, 1, again=True)
    bench.offer(peer, 2, again=True)
    bench.offer(peer, 3, "http.request", again=True, begun=True, redeliverable=False, bounded=True)
    bench.report(peer)
    bench.say(runner, frames.RUNNING, [["i:4", "websocket.receive", 0]])
    bench.offer(peer, 4, again=True)
    assert bench.deliver(idle, "websocket.receive", "http.request") is None
    bench.pass_time(1.1)
    assert [frame[1] for frame in bench.heard(idle)] == ["i:2"]
    assert bench.heard(peer) == [(frames.FAILED, 3, "lost")]
    bench.say(runner, frames.FINISH, "i:1", [], None, False)
    assert bench.heard(peer) == [(frames.FINISHED, 1, None, [])]
    bench.leave(runner)
    bench.pass_time(0.1)
    bench.say(idle, frames.FINISH, "i:2", [], None, False)
    bench.heard(idle)
    assert bench.deliver(idle)[1] == "i:4"
    assert any("restarted" in text for _, text in bench.logs)


def test_what_a_worker_may_have_begun_before_the_hub_died_is_marked_and_keeps_its_second_run() -> None:
    bench = Bench()
    peer = bench.connect(frames.INTERFACE, "i", "zero", "")
    bench.offer(peer, 1, again=True)
    bench.report(peer)
    bench.pass_time(1.1)
    for deaths in (-1, 1):
        taker = worker(bench)
        assert bench.deliver(taker, "websocket.receive")[4] == deaths
        bench.leave(taker)
        bench.pass_time(0.2)
    assert bench.heard(peer) == [(frames.BEGUN, 1), (frames.FAILED, 1, "lost")]


def test_the_death_of_a_worker_counts_at_the_next_hub_too(bench: Bench) -> None:
    peer, taker = interface(bench), worker(bench)
    bench.offer(peer, 1)
    assert bench.deliver(taker, "websocket.receive")[4] == 0
    bench.leave(taker)
    assert bench.heard(peer) == [(frames.BEGUN, 1)]
    # The next hub:
    for is_late in (False, True):
        bench = Bench()
        peer = bench.connect(frames.INTERFACE, "i", "zero", "")
        bench.pass_time(2.0 * is_late)
        bench.offer(peer, 1, again=True, begun=True)
        bench.report(peer)
        bench.pass_time(1.1)
        taker = worker(bench)
        assert bench.deliver(taker, "websocket.receive")[4] == 1
        bench.leave(taker)
        assert bench.heard(peer) == [(frames.FAILED, 1, "lost")]


def test_a_message_that_only_its_worker_still_knew_is_reported_with_the_reason_when_that_dies() -> None:
    bench = Bench()
    runner = worker(bench, "zero")
    bench.say(runner, frames.RUNNING, [["~zero:1", "mine", 0]])
    bench.leave(runner)
    ((_, text),) = [log for log in bench.logs if log[0] >= logging.ERROR]
    assert "a message of mine" in text and "given out by a layer that has died since" in text
    assert bench.statistics()["dropped_count"] == 1


def test_a_request_that_died_with_hub_and_worker_is_reported() -> None:
    bench = Bench()
    peer = bench.connect(frames.INTERFACE, "i", "zero", "")
    bench.offer(peer, 1, "http.request", again=True, begun=True, redeliverable=False)
    bench.report(peer)
    bench.pass_time(1.1)
    assert bench.heard(peer) == [(frames.FAILED, 1, "lost")]
    ((_, text),) = [log for log in bench.logs if log[0] >= logging.ERROR]
    assert "http.request (reply channel i!1); the message is dropped" in text
    assert bench.statistics()["dropped_count"] == 1


def test_nothing_is_handed_out_before_those_who_would_send_it_again_know_that_it_was_taken(bench: Bench) -> None:
    peer, client = interface(bench), bench.connect()
    takers = [worker(bench), worker(bench)]
    for taker in takers:
        bench.deliver(taker, "a", "b", "http.request")
    bench.hub.handle(client, [frames.SEND, 1, "a", BODY, None], bench.now)
    fields = [1, "http.request", BODY, "i!1", False, True, None, False, False]
    bench.hub.handle(peer, [frames.OFFER, *fields], bench.now)
    output = bench.hub.drain()
    assert [to for to, _ in output] == [peer, client, takers[1], takers[0]]
    assert [[frame[0] for frame in sent] for _, sent in output] == [
        [frames.BEGUN],
        [frames.OK],
        [frames.DELIVER],
        [frames.DELIVER],
    ]
    # Both finish with a send that the other one gets: each must know that its finish was applied before either has it.
    keys = [sent[0][1] for _, sent in output[2:]]
    for taker, key in zip(reversed(takers), keys, strict=True):
        bench.hub.handle(taker, [frames.FINISH, key, [["b", BODY, False]], None, False], bench.now)
        bench.hub.handle(taker, [frames.TAKE, None], bench.now)
    output = bench.hub.drain()
    assert [[frame[0] for frame in sent] for _, sent in output] == [
        [frames.FINISHED],
        [frames.ACK],
        [frames.ACK],
        [frames.DELIVER],
        [frames.DELIVER],
    ]


def test_a_finish_that_is_sent_again_is_applied_if_its_frame_is_offered_again() -> None:
    bench = Bench()
    taker = worker(bench, "zero")
    for number in (1, 2):
        bench.say(taker, frames.FINISH, f"i:{number}", [["w", BODY, False]], b"s", True)
    assert bench.heard(taker) == []
    peer = bench.connect(frames.INTERFACE, "i", "zero", "")
    bench.offer(peer, 1, again=True)
    bench.report(peer)
    assert bench.heard(peer) == [(frames.FINISHED, 1, b"s", [])]
    bench.pass_time(0.1)
    assert bench.heard(taker) == [(frames.ACK, "i:1"), (frames.ACK, "i:2")]
    assert bench.statistics()["messages_pending"] == 1


def test_a_finish_whose_interface_never_comes_is_applied_once_when_it_is_given_up() -> None:
    bench = Bench()
    taker = worker(bench, "zero")
    bench.say(taker, frames.FINISH, "i:1", [["w", BODY, False], ["i!1", b"answer", False]], None, True)
    bench.pass_time(10.1)
    bench.say(taker, frames.FINISH, "i:1", [["w", BODY, False]], None, True)
    assert bench.statistics()["messages_pending"] == 1


@pytest.mark.parametrize("is_reported", [True, False])
def test_a_frame_whose_interface_comes_after_the_grace_is_not_run_again(is_reported: bool) -> None:
    bench = Bench()
    taker = worker(bench, "zero")
    if is_reported:
        bench.say(taker, frames.RUNNING, [["i:1", "websocket.receive", 0]])
        bench.pass_time(1.1)
    bench.say(taker, frames.FINISH, "i:1", [["i!1", BODY, False]], b"s", not is_reported)
    bench.pass_time(1.1)
    peer = bench.connect(frames.INTERFACE, "i", "zero", "")
    bench.offer(peer, 1, again=True)
    bench.report(peer)
    assert bench.heard(peer) == [(frames.FINISHED, 1, b"s", [["i!1", BODY, False]])]
    assert bench.deliver(taker, "websocket.receive") is None


def test_a_part_waits_for_its_interface_and_keeps_its_key() -> None:
    bench = Bench()
    sender = bench.connect(last="zero")
    bench.say(sender, frames.SEND_AND_WAIT, 1, "i!1", BODY, "k")
    bench.pass_time(2)
    assert bench.heard(sender) == []
    peer = bench.connect(frames.INTERFACE, "i", "zero", "")
    bench.report(peer)
    (frame,) = bench.heard(peer)
    assert (frame[0], frame[1], frame[2], frame[4]) == (frames.PART, "i!1", BODY, "k")
    bench.say(peer, frames.WRITTEN, frame[3], True)
    assert bench.heard(sender) == [(frames.OK, 1, None)]


def test_a_part_whose_interface_never_comes_is_refused() -> None:
    bench = Bench()
    sender = bench.connect(last="zero")
    bench.say(sender, frames.SEND_AND_WAIT, 1, "i!1", BODY, "k")
    bench.pass_time(10.1)
    assert bench.heard(sender) == [(frames.ERROR, 1, frames.GONE, ("i!1",))]


def test_what_a_consumer_sent_at_once_stays_before_its_finish_and_later_sends() -> None:
    bench = Bench()
    taker, client = worker(bench, "zero"), bench.connect(last="zero")
    bench.send(client, "i!1", b"first")
    bench.say(taker, frames.FINISH, "i:1", [["i!1", b"third", False]], None, True)
    peer = bench.connect(frames.INTERFACE, "i", "zero", "")
    bench.send(client, "i!1", b"second")
    bench.offer(peer, 1, again=True)
    bench.report(peer)
    bench.send(client, "i!1", b"last")
    assert bench.heard(peer) == [
        (frames.REPLY, "i!1", b"first"),
        (frames.REPLY, "i!1", b"second"),
        (frames.FINISHED, 1, None, [["i!1", b"third", False]]),
        (frames.REPLY, "i!1", b"last"),
    ]


def test_a_finish_of_a_background_message_of_the_dead_hub_is_applied_once() -> None:
    bench = Bench()
    taker = worker(bench, "zero")
    for _ in range(2):
        bench.say(taker, frames.FINISH, "~zero:5", [["w", BODY, False]], None, True)
    bench.pass_time(0.1)
    assert bench.heard(taker) == [(frames.ACK, "~zero:5")] * 2
    assert bench.statistics()["messages_pending"] == 1


def test_group_sends_and_replies_of_the_first_second_reach_interfaces_that_report_later() -> None:
    bench = Bench()
    client = bench.connect(last="zero")
    bench.say(client, frames.GROUP_ADD, 1, "g", "i!2")
    bench.say(client, frames.GROUP_DISCARD, 2, "g", "i!3")
    bench.say(client, frames.GROUP_SEND, 3, "g", b"to all")
    bench.send(client, "i!1", b"reply")
    peer = bench.connect(frames.INTERFACE, "i", "zero", "")
    bench.say(peer, frames.MEMBERS, "g", ["i!1", "i!3"])
    bench.report(peer)
    assert bench.heard(peer) == [
        (frames.HELD_DISCARD, "g", "i!3"),
        (frames.HELD_SEND, "g", b"to all"),
        (frames.HELD_ADD, "g", "i!2"),
        (frames.REPLY, "i!2", b"to all"),
        (frames.REPLY, "i!1", b"reply"),
    ]


# -- bad frames --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame", [[], [1], [2, 3], None, 5, ["x"], [frames.HELLO, frames.VERSION, "king", "", 1, [], 1, 1, ""]]
)
def test_what_is_no_greeting_is_refused(bench: Bench, frame: Any) -> None:
    with pytest.raises(BadFrame):
        bench.hub.handle(bench.hub.connected(), frame, bench.now)


def test_only_interfaces_may_offer(bench: Bench) -> None:
    with pytest.raises(BadFrame, match="only an interface"):
        bench.offer(bench.connect(), 1)


# -- invariants --------------------------------------------------------------------------------------------------------

CHANNELS = ["a", "b"]


class HubMachine(RuleBasedStateMachine):
    """Clients send, workers take, finish and die, time passes; every accepted message has exactly one fate."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.bench.pass_time(2)
        self.client = self.bench.connect(expiry=5, capacity=3)
        self.workers: list[Peer] = []
        self.holding: dict[Peer, str] = {}
        self.attempts: Counter[str] = Counter()
        self.accepted = self.finished = self.opened = 0
        self.interface = interface(self.bench)
        self.generation = 0
        self.disconnects: Counter[str] = Counter()
        self.open: set[str] = set()

    def notice(self) -> None:
        for peer in self.workers:
            for frame in self.bench.heard(peer):
                if frame[0] == frames.DELIVER:
                    key = frame[1]
                    assert peer not in self.holding, "one delivery at a time"
                    assert key not in self.holding.values(), "no two workers hold one message"
                    self.holding[peer] = key
                    self.attempts[key] += 1
                    assert self.attempts[key] <= 2
                    assert frame[4] == self.attempts[key] - 1
                    if frame[2] == "websocket.disconnect" and frame[4] == 0:
                        self.disconnects[codec.decode(frame[3])["reply_channel"]] += 1

    @rule(channel=st.sampled_from(CHANNELS))
    def send(self, channel: str) -> None:
        self.accepted += self.bench.send(self.client, channel)[0] == frames.OK
        self.notice()

    @precondition(lambda self: len(self.workers) < 3)
    @rule()
    def worker_comes(self) -> None:
        peer = worker(self.bench)
        self.workers.append(peer)
        self.bench.say(peer, frames.TAKE, [*CHANNELS, "websocket.disconnect"])
        self.notice()

    @precondition(lambda self: self.holding)
    @rule(data=st.data())
    def worker_finishes(self, data: st.DataObject) -> None:
        self.worker_ends(data.draw(st.sampled_from(sorted(self.holding, key=self.workers.index))))

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        peer = data.draw(st.sampled_from(self.workers))
        self.workers.remove(peer)
        self.holding.pop(peer, None)
        self.bench.leave(peer)
        self.bench.pass_time(0.1)
        self.notice()

    @rule(seconds=st.floats(0.1, 4))
    def time_passes(self, seconds: float) -> None:
        self.bench.pass_time(seconds)
        self.notice()

    @rule()
    def socket_opens(self) -> None:
        self.opened += 1
        name = f"i{self.generation or ''}!{self.opened}"
        self.open.add(name)
        self.bench.say(self.interface, frames.OPENED, name, "/", 1, None)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def socket_closes(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        self.open.discard(name)
        body = codec.encode({"reply_channel": name})
        fields = [
            self.opened * 1000 + len(self.open),
            "websocket.disconnect",
            body,
            name,
            True,
            False,
            None,
            False,
            False,
        ]
        self.bench.say(self.interface, frames.CLOSED, name, fields)
        self.accepted += 1
        self.notice()

    @rule()
    def interface_dies(self) -> None:
        self.accepted += len(self.open)
        self.open.clear()
        self.bench.leave(self.interface)
        self.generation += 1
        self.interface = interface(self.bench, f"i{self.generation}")
        self.notice()

    @invariant()
    def every_message_has_one_fate(self) -> None:
        found = self.bench.statistics()
        assert found["in_flight"] == len(self.holding)
        waiting = sum(len(queue) for queue in self.bench.hub.switch.mailbox.queues.values())
        assert self.accepted == self.finished + found["in_flight"] + waiting + found["dropped_count"]

    @invariant()
    def no_worker_waits_beside_a_message_that_it_could_have(self) -> None:
        idle = [peer for peer in self.workers if peer not in self.holding]
        live = [
            entry
            for queue in self.bench.hub.switch.mailbox.queues.values()
            for entry in queue
            if entry.deadline > self.bench.now
        ]
        assert not (idle and live)

    @invariant()
    def a_disconnect_runs_at_most_once_per_socket(self) -> None:
        assert all(count == 1 for count in self.disconnects.values())

    def teardown(self) -> None:
        """A worker that lives runs the disconnect of every socket that was opened, unless two workers died in it."""
        self.accepted += len(self.open)
        self.bench.leave(self.interface)
        while self.holding:
            self.worker_ends(next(iter(self.holding)))
        last = worker(self.bench)
        self.workers.append(last)
        self.bench.say(last, frames.TAKE, [*CHANNELS, "websocket.disconnect"])
        self.notice()
        while last in self.holding:
            self.worker_ends(last)
        self.every_message_has_one_fate()
        assert len(self.disconnects) == self.opened

    def worker_ends(self, peer: Peer) -> None:
        self.bench.say(peer, frames.FINISH, self.holding.pop(peer), [], None, False)
        self.finished += 1
        self.bench.say(peer, frames.TAKE, None)
        self.notice()


TestHubMachine = HubMachine.TestCase
TestHubMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
