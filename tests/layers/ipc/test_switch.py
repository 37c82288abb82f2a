"""Workers: what they are given, give back, defer, and leave behind, without connections or interfaces."""

import pytest

from procman.layers.ipc import frames
from procman.layers.ipc.peers import Peer
from procman.layers.ipc.switch import REDELIVERY_PAUSE
from tests.layers.ipc.test_queues import Ends


@pytest.fixture
def ends() -> Ends:
    return Ends()


def worker(ends: Ends, *channels: str) -> Peer:
    peer = Peer()
    peer.role = frames.WORKER
    peer.channels = frozenset(channels or ("a",))
    ends.switch.workers[peer] = None
    return peer


def given(peer: Peer) -> list[str]:
    return [frame[1] for frame in peer.out if frame[0] == frames.DELIVER]


def test_the_worker_that_became_idle_last_is_given_the_next_message(ends: Ends) -> None:
    first, second = worker(ends), worker(ends)
    ends.switch.take(first, 0.0)
    ends.switch.take(second, 0.0)
    ends.put("k1")
    ends.put("k2")
    assert (given(first), given(second)) == (["k2"], ["k1"])
    assert set(ends.switch.in_flight) == {"k1", "k2"}


def test_a_worker_that_takes_no_more_gets_the_notice_behind_what_crossed_it(ends: Ends) -> None:
    peer = worker(ends)
    ends.switch.take(peer, 0.0)
    ends.put("k")
    ends.switch.untake(peer)
    ends.put("other")
    assert [frame[0] for frame in peer.out] == [frames.DELIVER, frames.UNTAKEN]


def test_a_claim_counts_for_one_worker_until_its_release(ends: Ends) -> None:
    peer = worker(ends)
    entry = ends.put("k")
    ends.switch.unqueue(entry)
    ends.switch.claim(entry, peer)
    assert ends.switch.in_flight == {"k": entry}
    assert peer.holds == {"k": entry}
    ends.switch.release(entry)
    assert not ends.switch.in_flight
    assert not peer.holds


def test_a_message_of_a_dead_worker_waits_a_moment_and_dies_with_the_second(ends: Ends) -> None:
    for attempt in range(2):
        peer = worker(ends)
        ends.switch.take(peer, float(attempt))
        if attempt == 0:
            ends.put("k")
        assert given(peer) == ["k"]
        ends.switch.now = float(attempt)
        ends.switch.disconnected(peer, float(attempt))
        assert list(ends.switch.again) == ([] if attempt else ["k"])
        ends.switch.timers.run(attempt + REDELIVERY_PAUSE)
    assert ends.ended == [("k", "lost")]
    assert ends.switch.dropped_count == ends.switch.redelivered_count == 1


def test_deferrals_pause_longer_and_longer_and_count_the_new_body(ends: Ends) -> None:
    peer = worker(ends)
    ends.switch.take(peer, 0.0)
    entry = ends.put("k")
    before = ends.switch.ledger.bytes
    pauses = []
    now = 0.0
    for _ in range(8):
        ends.switch.defer(entry, b"a longer body", now)
        assert entry.timer is not None
        pauses.append(entry.timer.due - now)
        now = entry.timer.due
        ends.switch.timers.run(now)
        ends.switch.take(peer, now)
    assert pauses == sorted(pauses)
    assert pauses[-1] == pytest.approx(0.5)
    assert ends.switch.ledger.bytes == before + len(b"a longer body") - len(b"body")


def test_a_flush_ends_what_pauses_and_marks_what_runs(ends: Ends) -> None:
    runs, dies = worker(ends), worker(ends)
    ends.switch.take(runs, 0.0)
    running = ends.put("running")
    ends.switch.take(dies, 0.0)
    ends.put("pauses")
    ends.switch.disconnected(dies, 0.0)
    ends.put("waits")
    ends.switch.flush(0.0)
    ends.switch.timers.run(10.0)
    assert sorted(ends.ended) == [("pauses", "lost"), ("waits", "lost")]
    assert running.is_flushed
    ends.switch.disconnected(runs, 11.0)
    assert ends.ended[2:] == [("running", "dropped")]
