"""Queues, receivers and parked sends, without connections or interfaces."""

import pytest

from procman.layers.ipc import frames
from procman.layers.ipc.peers import Entry, Parked, Peer
from procman.layers.ipc.switch import Switch
from procman.layers.limits import Limits
from procman.settings import LayerSettings


class Ends:
    """A switch, and the ends it has told of."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str]] = []
        self.left: list[str] = []
        self.switch = Switch(
            self.on_ended, lambda entry: None, lambda queue, now: self.left.append(queue), LayerSettings()
        )

    def on_ended(self, entry: Entry, how: str, now: float) -> None:
        self.switch.ledger.remove(entry)
        self.ended.append((entry.key, how))

    def put(self, key: str, channel: str = "a", deadline: float = 100.0) -> Entry:
        entry = Entry(key, channel, channel, b"body", deadline=deadline)
        self.switch.enqueue(entry, 0.0)
        return entry


@pytest.fixture
def ends() -> Ends:
    return Ends()


def peer(capacity: int = 1) -> Peer:
    found = Peer()
    found.role = frames.CLIENT
    found.limits = Limits(capacity=capacity)
    return found


def test_who_waits_longest_receives_first(ends: Ends) -> None:
    first, second = peer(), peer()
    for waiting in (first, second):
        ends.switch.receive(waiting, 1, ["a", "b"], None, 0.0)
    ends.put("k1")
    ends.put("k2", "b")
    assert first.out == [(frames.OK, 1, ("a", b"body"))]
    assert second.out == [(frames.OK, 1, ("b", b"body"))]
    assert ends.ended == [("k1", "done"), ("k2", "done")]
    assert not ends.switch._receivers
    assert ends.switch.ledger.bytes == 0


def test_a_receiver_that_timed_out_or_left_gets_nothing(ends: Ends) -> None:
    late, gone = peer(), peer()
    ends.switch.receive(late, 1, ["a"], 2.0, 0.0)
    ends.switch.receive(gone, 1, ["a"], None, 0.0)
    ends.switch.timers.run(2.0)
    ends.switch.disconnected(gone, 2.0)
    ends.put("k")
    assert late.out == [(frames.OK, 1, None)]
    assert gone.out == []
    assert len(ends.switch.mailbox.queues["a"]) == 1


def test_parked_sends_go_on_in_order_as_room_comes_and_leave_with_their_sender(ends: Ends) -> None:
    senders = [peer() for _ in range(3)]
    ends.put("k0")
    for number, sender in enumerate(senders, 1):
        ends.switch.park(Parked(sender, number, Entry(f"k{number}", "a", "a", b"body")))
    held = ends.switch.ledger.bytes
    ends.switch.disconnected(senders[0], 1.0)
    assert ends.switch.ledger.bytes == held * 3 // 4
    reader = peer()
    ends.switch.receive(reader, 9, ["a"], 0.0, 1.0)
    assert [sender.out for sender in senders] == [[], [(frames.OK, 2, None)], []]
    ends.switch.receive(reader, 9, ["a"], 0.0, 1.0)
    assert senders[2].out == [(frames.OK, 3, None)]
    assert not ends.switch.parked


def test_a_sweep_ends_what_has_expired_and_lets_parked_sends_in(ends: Ends) -> None:
    sender = peer()
    ends.put("old", deadline=5.0)
    ends.switch.park(Parked(sender, 1, Entry("next", "a", "a", b"body")))
    ends.switch.sweep(5.0)
    assert ends.ended == [("old", "expired")]
    assert sender.out == [(frames.OK, 1, None)]
    assert [entry.key for entry in ends.switch.mailbox.queues["a"]] == ["next"]


def test_somebody_who_waits_makes_room_on_a_full_channel(ends: Ends) -> None:
    ends.put("k")
    assert not ends.switch.has_room("a", 1, 0.0)
    assert ends.switch.has_room("b", 1, 0.0)
    assert not ends.switch.has_room("b", 1, 0.0, more=2)
    ends.switch.receive(peer(), 1, ["c"], None, 0.0)
    assert ends.switch.has_room("c", 0, 0.0)
    assert not ends.switch.has_room("c", 0, 0.0, size=ends.switch.ledger.max_bytes)


def test_log_lines_are_escaped(ends: Ends) -> None:
    ends.switch.log(30, "%s %d", "a\nb", 5)
    (record,) = ends.switch.logs
    assert "\n" not in record.text % record.arguments
