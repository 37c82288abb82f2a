"""Messages that a worker is given ahead: how many, and how they come back. Without sockets or clocks."""

from collections import Counter, deque
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from procman.layers.ipc import frames
from procman.layers.ipc.peers import Peer
from procman.layers.ipc.prefetch import DEPTH, MAX_BYTES, RECALL_AFTER, Pace
from tests.layers.ipc.test_hub import Bench, interface

# -- how many ----------------------------------------------------------------------------------------------------------


def test_nothing_is_given_ahead_until_short_messages_have_been_seen() -> None:
    pace = Pace()
    assert pace.ahead(100, 1) == 0
    for number in range(40):
        pace.measure(number * 0.0001)
    assert pace.ahead(100, 1) == DEPTH - 1


def test_one_long_message_ends_it_for_a_few_dozen_short_ones() -> None:
    pace = Pace()
    for number in range(40):
        pace.measure(number * 0.0001)
    pace.measure(1.0)
    assert pace.ahead(100, 1) <= 0
    for number in range(80):
        pace.measure(1.0 + number * 0.0001)
    assert pace.ahead(100, 1) > 0


@given(st.lists(st.floats(0, 10), max_size=60), st.integers(0, 1000), st.integers(0, 64))
def test_a_worker_gets_at_most_its_share_and_the_depth(steps: list[float], waiting: int, workers: int) -> None:
    pace = Pace()
    now = 0.0
    for step in steps:
        now += step
        pace.measure(now)
    assert pace.ahead(waiting, workers) <= min(DEPTH - 1, waiting)
    if pace.value > 0.002:
        assert pace.ahead(waiting, workers) <= 0


# -- at the hub --------------------------------------------------------------------------------------------------------


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.pass_time(2)
    return bench


def quick_worker(bench: Bench, process: str = "p", channels: tuple[str, ...] = ("a",)) -> Peer:
    """A worker with a watcher, whose messages are known to be short."""
    bench.watchers = getattr(bench, "watchers", {})  # type: ignore[attr-defined]
    if process not in bench.watchers:  # type: ignore[attr-defined]
        bench.watchers[process] = bench.connect(frames.WATCHER, process=process)  # type: ignore[attr-defined]
    peer = bench.connect(frames.WORKER, process=process)
    client = bench.connect()
    for _ in range(60):
        bench.send(client, channels[0])
        frame = bench.deliver(peer, *channels)
        bench.say(peer, frames.FINISH, frame[1], [], None, False)
    bench.heard(peer)
    return peer


def watcher(bench: Bench, process: str = "p") -> Peer:
    found: Peer = bench.watchers[process]  # type: ignore[attr-defined]
    return found


def deliveries(bench: Bench, peer: Peer) -> list[Any]:
    return [frame for frame in bench.heard(peer) if frame[0] == frames.DELIVER]


def fill(bench: Bench, count: int, channel: str = "a", body: bytes | None = None) -> None:
    client = bench.connect()
    for _ in range(count):
        assert bench.send(client, channel, *([body] if body else []))[0] == frames.OK


def test_short_messages_come_in_batches_in_order(bench: Bench) -> None:
    peer = quick_worker(bench)
    fill(bench, 20)
    bench.say(peer, frames.TAKE, ["a"])
    given_ = deliveries(bench, peer)
    assert len(given_) == DEPTH
    assert [frame[1] for frame in given_] == sorted((frame[1] for frame in given_), key=lambda key: int(key[5:]))


def test_workers_share_what_waits(bench: Bench) -> None:
    first, second = quick_worker(bench), quick_worker(bench, "q")
    fill(bench, 6)
    bench.say(first, frames.TAKE, ["a"])
    assert len(deliveries(bench, first)) <= 4
    bench.say(second, frames.TAKE, ["a"])
    assert deliveries(bench, second)


def test_nothing_is_given_ahead_without_a_watcher_to_call_it_back(bench: Bench) -> None:
    peer = quick_worker(bench)
    bench.leave(watcher(bench))
    fill(bench, 20)
    bench.say(peer, frames.TAKE, ["a"])
    assert len(deliveries(bench, peer)) == 1


def test_large_bodies_are_not_given_ahead(bench: Bench) -> None:
    peer = quick_worker(bench)
    fill(bench, 5, body=b"x" * (MAX_BYTES // 2))
    bench.say(peer, frames.TAKE, ["a"])
    assert len(deliveries(bench, peer)) == 2


def test_what_must_not_run_twice_is_given_to_idle_workers_only(bench: Bench) -> None:
    peer = quick_worker(bench)
    server = interface(bench)
    for number in range(6):
        bench.offer(server, number, "a", redeliverable=number != 2)
    bench.say(peer, frames.TAKE, ["a"])
    given_ = deliveries(bench, peer)
    assert [frame[1] for frame in given_] == ["i:0", "i:1"]
    assert (frames.BEGUN, 2) not in bench.heard(server)
    for frame in given_:
        bench.say(peer, frames.FINISH, frame[1], [], None, False)
    bench.say(peer, frames.TAKE, None)
    assert next(frame[1] for frame in deliveries(bench, peer)) == "i:2"
    assert (frames.BEGUN, 2) in bench.heard(server)


def test_what_waits_behind_a_long_message_is_called_back_and_goes_to_an_idle_worker_in_order(bench: Bench) -> None:
    peer, idle = quick_worker(bench), bench.connect(frames.WORKER)
    fill(bench, 8)
    bench.say(peer, frames.TAKE, ["a"])
    given_ = deliveries(bench, peer)
    assert len(given_) == 4
    bench.pass_time(2 * RECALL_AFTER)
    assert bench.heard(watcher(bench)) == [(frames.RECALL, peer.number, peer.sequence)]
    bench.say(peer, frames.RECALLED, peer.sequence - 3, peer.sequence)
    for expected in given_[1:]:
        frame = bench.deliver(idle, "a")
        assert frame[1:5] == expected[1:5], "the same message, and no attempt counted"
        bench.say(idle, frames.FINISH, frame[1], [], None, False)
    bench.pass_time(1)
    assert bench.heard(watcher(bench)) == [], "nothing else is to be called back"


def test_what_the_worker_has_begun_meanwhile_stays_with_it(bench: Bench) -> None:
    peer = quick_worker(bench)
    fill(bench, 20)
    bench.say(peer, frames.TAKE, ["a"])
    given_ = deliveries(bench, peer)
    bench.pass_time(2 * RECALL_AFTER)
    bench.say(peer, frames.FINISH, given_[0][1], [], None, False)  # crosses the request
    bench.say(peer, frames.RECALLED, peer.sequence - len(given_) + 2, peer.sequence)
    assert list(peer.holds) == [given_[1][1]]
    bench.say(peer, frames.FINISH, given_[1][1], [], None, False)
    bench.say(peer, frames.TAKE, None)
    assert deliveries(bench, peer)[0][1] == given_[2][1]


def test_a_dead_worker_is_blamed_for_the_first_that_it_held_alone(bench: Bench) -> None:
    peer = quick_worker(bench)
    fill(bench, 20)
    bench.say(peer, frames.TAKE, ["a"])
    held = [frame[1] for frame in deliveries(bench, peer)]
    bench.leave(peer)
    assert bench.statistics()["redelivered_count"] == 1
    bench.pass_time(0.2)
    other = bench.connect(frames.WORKER)
    for position, key in enumerate(held):
        frame = bench.deliver(other, "a")
        assert (frame[1], frame[4]) == (key, int(position == 0))
        bench.say(other, frames.FINISH, key, [], None, False)
    assert sum("died while" in text for _, text in bench.logs) == 1


def test_a_message_of_a_dead_worker_that_is_withdrawn_in_the_pause_is_not_run(bench: Bench) -> None:
    peer = quick_worker(bench)
    server = interface(bench)
    for number in range(4):
        bench.offer(server, number, "a", bounded=True)
    bench.say(peer, frames.TAKE, ["a"])
    assert len(deliveries(bench, peer)) == 4
    bench.leave(peer)
    bench.say(server, frames.WITHDRAW, 2)
    bench.pass_time(0.2)
    other = bench.connect(frames.WORKER)
    keys = []
    while (frame := bench.deliver(other, "a")) is not None:
        keys.append(frame[1])
        bench.say(other, frames.FINISH, frame[1], [], None, False)
    assert keys == ["i:0", "i:1", "i:3"]


def test_a_flush_calls_back_what_was_not_begun_and_drops_it(bench: Bench) -> None:
    peer = quick_worker(bench)
    fill(bench, 20)
    bench.say(peer, frames.TAKE, ["a"])
    count = len(deliveries(bench, peer))
    bench.say(bench.connect(), frames.FLUSH, 1)
    assert bench.heard(watcher(bench)) == [(frames.RECALL, peer.number, peer.sequence)]
    bench.say(peer, frames.RECALLED, peer.sequence - count + 1, peer.sequence)
    assert bench.statistics()["in_flight"] == 1
    assert bench.deliver(bench.connect(frames.WORKER), "a") is None


def test_a_request_that_was_lost_with_its_watcher_is_made_again(bench: Bench) -> None:
    peer = quick_worker(bench)
    fill(bench, 20)
    bench.say(peer, frames.TAKE, ["a"])
    bench.pass_time(2 * RECALL_AFTER)
    bench.leave(watcher(bench))
    successor = bench.connect(frames.WATCHER, process="p")
    bench.pass_time(2 * RECALL_AFTER)
    assert bench.heard(successor) == [(frames.RECALL, peer.number, peer.sequence)]


# -- whatever happens --------------------------------------------------------------------------------------------------


class ModelWorker:
    """A worker thread by its own rules: what it has read, begun and given back."""

    def __init__(self, bench: Bench, process: str) -> None:
        self.watcher = bench.connect(frames.WATCHER, process=process)
        self.peer = bench.connect(frames.WORKER, process=process)
        self.peer.pace.value = 0.0
        self.fetched: deque[Any] = deque()
        self.recalls: deque[Any] = deque()
        self.running: Any = None
        self.delivered = self.begun = self.given_back = 0


class PrefetchMachine(RuleBasedStateMachine):
    """Workers fetch, begin, finish, are called back, stop and die; no message is lost, doubled or blamed wrongly."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.bench.pass_time(2)
        self.client = self.bench.connect(capacity=1000)
        self.workers: list[ModelWorker] = []
        self.started = self.accepted = self.finished = 0
        self.deaths: Counter[str] = Counter()

    def read(self) -> None:
        for model in self.workers:
            model.fetched += [f for f in self.bench.heard(model.peer) if f[0] == frames.DELIVER]
            model.recalls += self.bench.heard(model.watcher)

    def go_on(self, model: ModelWorker) -> None:
        """Begin the next message if *model* runs none; ask for more if it has none."""
        self.read()
        while model.running is None and model.fetched:
            frame = model.fetched.popleft()
            model.delivered += 1
            if model.delivered > model.given_back:
                model.begun = model.delivered
                model.running = frame
                assert frame[4] == self.deaths[frame[1]], "exactly the attempts that were begun count"
        if model.running is None:
            self.bench.say(model.peer, frames.TAKE, ["a", "b"])
            self.read()

    @rule(channel=st.sampled_from(["a", "b"]), count=st.integers(1, 30))
    def send(self, channel: str, count: int) -> None:
        for _ in range(count):
            self.accepted += self.bench.send(self.client, channel)[0] == frames.OK
        self.read()

    @precondition(lambda self: len(self.workers) < 3)
    @rule()
    def worker_comes(self) -> None:
        self.started += 1
        model = ModelWorker(self.bench, f"p{self.started}")
        self.workers.append(model)
        self.go_on(model)

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_goes_on(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(self.workers))
        if model.running is not None:
            self.bench.say(model.peer, frames.FINISH, model.running[1], [], None, False)
            self.finished += 1
            model.running = None
            model.peer.pace.value = 0.0
        self.go_on(model)

    @precondition(lambda self: any(model.recalls for model in self.workers))
    @rule(data=st.data())
    def worker_gives_back(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from([model for model in self.workers if model.recalls]))
        _, number, last = model.recalls.popleft()
        assert number == model.peer.number
        model.given_back = max(model.given_back, last)
        self.bench.say(model.peer, frames.RECALLED, model.begun, last)
        self.read()

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_stops(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(self.workers))
        if model.running is not None:
            return
        self.bench.say(model.peer, frames.UNTAKE)
        self.read()
        model.delivered += len(model.fetched)
        model.fetched.clear()
        model.given_back = model.delivered
        self.bench.say(model.peer, frames.RECALLED, model.begun, model.delivered)
        assert not model.peer.holds
        self.workers.remove(model)
        self.bench.leave(model.peer)
        self.bench.leave(model.watcher)
        self.read()

    @precondition(lambda self: self.workers)
    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        model = data.draw(st.sampled_from(self.workers))
        self.go_on(model)
        self.go_on(model)  # the first message that a thread has been given counts as begun
        if model.running is not None:
            self.deaths[model.running[1]] += 1
        self.workers.remove(model)
        self.bench.leave(model.peer)
        self.bench.leave(model.watcher)
        self.read()

    @rule(seconds=st.sampled_from([0.002, 0.006, 0.1, 0.2]))
    def time_passes(self, seconds: float) -> None:
        self.bench.pass_time(seconds)
        self.read()

    @invariant()
    def every_message_has_one_fate(self) -> None:
        switch = self.bench.hub.switch
        waiting = sum(len(queue) for queue in switch.mailbox.queues.values())
        pausing = len(switch._pausing) + sum(
            not timer.is_cancelled and timer.action == switch._redeliver for timer in switch.timers._heap
        )
        total = self.finished + waiting + pausing + len(switch.in_flight) + switch.dropped_count
        assert self.accepted == total

    @invariant()
    def what_is_in_flight_is_in_one_hand(self) -> None:
        held = [key for model in self.workers for key in model.peer.holds]
        assert sorted(held) == sorted(self.bench.hub.switch.in_flight)
        for model in self.workers:
            if model.running is not None:
                assert next(iter(model.peer.holds)) == model.running[1]

    def teardown(self) -> None:
        """Workers that live and go on get everything done."""
        for _ in range(2000):
            for model in self.workers:
                while model.recalls:
                    self.worker_gives_back_now(model)
            busy = [model for model in self.workers if model.running is not None or model.fetched]
            if not busy:
                break
            for model in busy:
                if model.running is not None:
                    self.bench.say(model.peer, frames.FINISH, model.running[1], [], None, False)
                    self.finished += 1
                    model.running = None
                self.go_on(model)
        self.bench.pass_time(0.3)
        self.read()
        if self.workers and not any(model.fetched for model in self.workers):
            assert not self.bench.hub.switch.mailbox.queues

    def worker_gives_back_now(self, model: ModelWorker) -> None:
        _, _, last = model.recalls.popleft()
        model.given_back = max(model.given_back, last)
        self.bench.say(model.peer, frames.RECALLED, model.begun, last)
        self.read()


TestPrefetchMachine = PrefetchMachine.TestCase
TestPrefetchMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
