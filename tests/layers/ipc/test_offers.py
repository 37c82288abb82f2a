"""What interfaces offer, and what becomes of it when hub or interface come back."""

from procman.layers.ipc import frames
from tests.layers.ipc.test_hub import Bench, interface, worker


def test_a_frame_that_is_offered_again_by_an_interface_that_was_declared_dead_is_held_once() -> None:
    bench = Bench(hub_id="two")
    taker = worker(bench, "one")
    bench.say(taker, frames.FINISH, "i:1", [], None, True)
    for _ in range(2):
        server = bench.connect(frames.INTERFACE, "i", "one")
        bench.offer(server, 1, again=True)
        bench.leave(server)
    assert len([batch.entry for batch in bench.hub.unsure.values()]) == 1
    bench.pass_time(20)
    assert bench.statistics()["bytes_held"] == 0


def test_a_number_that_is_offered_twice_is_one_offer() -> None:
    bench = Bench()
    bench.pass_time(2)
    server = interface(bench)
    bench.offer(server, 1)
    bench.offer(server, 1)
    taker = worker(bench)
    assert bench.deliver(taker, "websocket.receive")[1] == "i:1"
    bench.say(taker, frames.FINISH, "i:1", [], None, False)
    assert bench.deliver(taker) is None


def test_an_offer_of_a_running_frame_is_not_withdrawn() -> None:
    bench = Bench()
    bench.pass_time(2)
    server, taker = interface(bench), worker(bench)
    bench.offer(server, 1)
    key = bench.deliver(taker, "websocket.receive")[1]
    bench.say(server, frames.WITHDRAW, 1)
    bench.heard(server)
    bench.say(taker, frames.FINISH, key, [], None, False)
    assert bench.heard(server) == [(frames.FINISHED, 1, None, [])]
