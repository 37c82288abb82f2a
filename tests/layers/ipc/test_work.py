"""How long workers were busy: by the hub's rules, without sockets or clocks."""

import pytest

from procman.layers.ipc import frames
from procman.layers.ipc.peers import Peer
from procman.layers.ipc.work import MAX_NAMES, OTHERS, Work
from tests.layers.ipc.test_hub import Bench, worker

NAME = f"the {frames.WORKER}"


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.pass_time(2)
    return bench


def finish(bench: Bench, taker: Peer, delivery: list) -> None:
    bench.say(taker, frames.FINISH, delivery[1], [], None, False)


def busy(bench: Bench) -> list:
    return bench.statistics()["work"][NAME]


def test_a_worker_is_busy_from_its_delivery_to_its_finish(bench: Bench) -> None:
    client, taker = bench.connect(), worker(bench)
    bench.pass_time(5)
    assert busy(bench) == [0.0, 0]
    bench.send(client, "a")
    delivery = bench.deliver(taker, "a")
    bench.pass_time(3)
    assert busy(bench) == [pytest.approx(3), 0]
    finish(bench, taker, delivery)
    bench.pass_time(4)
    assert busy(bench) == [pytest.approx(3), 1]


def test_a_worker_that_dies_was_busy_until_then_and_its_successor_goes_on_counting(bench: Bench) -> None:
    client, taker = bench.connect(), worker(bench)
    bench.send(client, "a")
    bench.deliver(taker, "a")
    bench.pass_time(2)
    bench.leave(taker)
    bench.pass_time(10)
    successor = worker(bench)
    delivery = bench.deliver(successor, "a")
    bench.pass_time(1)
    finish(bench, successor, delivery)
    assert busy(bench) == [pytest.approx(3), 1]


def test_names_without_end_count_together() -> None:
    work = Work()
    for number in range(MAX_NAMES + 5):
        peer = Peer()
        peer.label = f"process {number}"
        work.add(peer, 1.0)
    found = work.statistics([], 0.0)
    assert len(found) == MAX_NAMES + 1 and found[OTHERS] == [5.0, 5]


def test_the_deepest_channels_are_told_with_their_bytes(bench: Bench) -> None:
    client = bench.connect()
    for channel in ("a", "a", "b?x", "b?y"):
        bench.send(client, channel)
    found = bench.statistics()
    assert found["channels_pending"] == {"a": 2, "b?": 2}
    assert sum(found["channels_bytes"].values()) == found["bytes_pending"]


def test_what_expires_is_counted(bench: Bench) -> None:
    bench.send(bench.connect(expiry=1.0), "a")
    bench.pass_time(5)
    found = bench.statistics()
    assert (found["expired_count"], found["messages_pending"]) == (1, 0)
