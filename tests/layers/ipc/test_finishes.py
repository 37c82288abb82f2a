"""Ends of deliveries: what waits, and how much of it."""

import logging

import pytest

from procman.layers.ipc import frames
from procman.layers.ipc.finishes import FULL_RETRY, LATE
from tests.layers.ipc.test_hub import BODY, Bench, worker


def test_finishes_that_wait_for_room_are_bounded_and_then_applied_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("procman.layers.ipc.finishes.MAX_FINISHES", 1)
    bench = Bench()
    bench.pass_time(LATE + 1)
    client, takers = bench.connect(capacity=1), [worker(bench, capacity=1) for _ in range(2)]
    keys = []
    for taker in takers:
        bench.send(client, "work")
        keys.append(bench.deliver(taker, "work")[1])
    bench.send(client, "full")
    for taker, key in zip(takers, keys, strict=True):
        bench.say(taker, frames.FINISH, key, [["full", BODY, False]], None, False)
    assert list(bench.hub.waiting) == [keys[0]]
    assert [level for level, text in bench.logs if "full" in text] == [logging.ERROR]
    bench.pass_time(FULL_RETRY)
    assert not bench.hub.waiting
    assert not bench.hub.switch.in_flight


def test_finishes_whose_interface_has_not_come_are_bounded_and_then_dropped_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("procman.layers.ipc.finishes.MAX_FINISHES", 1)
    bench = Bench(hub_id="two")
    taker = worker(bench, "one")
    for number in (1, 2):
        bench.say(taker, frames.FINISH, f"i:{number}", [["a", BODY, False]], None, True)
    assert list(bench.hub.unsure) == ["i:1"]
    assert any(level == logging.ERROR and "1 send(s)" in text for level, text in bench.logs)
    bench.pass_time(LATE + 1)
    assert len(bench.hub.switch.mailbox.queues["a"]) == 1
    assert {frame[1] for frame in bench.heard(taker) if frame[0] == frames.ACK} == {"i:1", "i:2"}


def test_a_second_finish_of_a_message_is_acknowledged_and_not_applied() -> None:
    bench = Bench()
    bench.pass_time(LATE + 1)
    client, taker = bench.connect(), worker(bench)
    bench.send(client, "work")
    key = bench.deliver(taker, "work")[1]
    for _ in range(2):
        bench.say(taker, frames.FINISH, key, [["a", BODY, False]], None, False)
    bench.pass_time(1)
    assert [frame for frame in bench.heard(taker) if frame[0] == frames.ACK] == [(frames.ACK, key)] * 2
    assert len(bench.hub.switch.mailbox.queues["a"]) == 1


def test_what_comes_early_after_a_restart_is_bounded_in_bytes() -> None:
    bench = Bench(hub_id="two")
    client = bench.connect(last="one")
    bench.hub.ledger.max_bytes = 5000
    for number in range(3):
        bench.say(client, frames.GROUP_SEND, number, "g", bytes(2000))
        bench.say(client, frames.SEND_AND_WAIT, 10 + number, "i!1", bytes(2000), f"k{number}")
    assert len(bench.hub._early_group_sends) + len(bench.hub._early_parts) == 1
    assert (frames.ERROR, 10, frames.FULL) in [frame[:3] for frame in bench.heard(client)]
    bench.pass_time(LATE + 1)
    assert bench.hub.ledger.bytes == 0
