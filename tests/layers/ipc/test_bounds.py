"""What the hub holds, to the byte, and what it refuses when that is too much."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from procman.layers import codec
from procman.layers.ipc import frames
from procman.layers.ipc.bounds import MAX_PARKED, OVERHEAD_BYTES, Ledger, Throttle
from procman.layers.ipc.hub import Hub
from procman.layers.ipc.peers import Batch, Entry, Peer, SocketRecord
from procman.settings import LayerSettings
from tests.layers.ipc.test_hub import Bench, interface, worker

KIB = 1024


def small_bench(max_bytes: int = 1024 * KIB, max_channel_bytes: int = 1024 * KIB) -> Bench:
    """A hub with little room whose time of restarts is over."""
    bench = Bench()
    chosen = LayerSettings(layer_max_bytes=max_bytes, layer_max_channel_bytes=max_channel_bytes)
    bench.hub = Hub("one", bench.now, chosen)
    bench.pass_time(2)
    return bench


def held_bytes(hub: Hub) -> int:
    """The sum over everything that *hub* holds, from the things themselves."""
    entries: dict[int, Entry] = {}
    batches: dict[int, Batch] = {}
    records: dict[int, SocketRecord] = {}

    def see(entry: Entry | None) -> None:
        if entry is not None:
            entries[id(entry)] = entry

    for queue in hub.switch.mailbox.queues.values():
        for entry in queue:
            see(entry)
    for entry in [*hub.switch.again.values(), *hub._held.values()]:
        see(entry)
    for entry in hub.switch.in_flight.values():
        see(entry)
    for parked in hub.switch.parked.values():
        for one in parked:
            see(one.entry)
    for batch in [*hub.waiting.values(), *hub.unsure.values()]:
        batches[id(batch)] = batch
        see(batch.entry)
    for served in hub.interfaces.values():
        for record in served.sockets.values():
            records[id(record)] = record
    for entry in entries.values():
        if entry.then is not None:
            records[id(entry.then)] = entry.then
    total = sum(
        OVERHEAD_BYTES + len(entry.body) + len(entry.session or b"")
        for entry in entries.values()
        if entry.body is not None
    )
    for batch in batches.values():
        total += OVERHEAD_BYTES + len(batch.session or b"")
        total += sum(OVERHEAD_BYTES + len(name) + len(body) for name, body, _ in batch.sends)
    total += sum(OVERHEAD_BYTES + len(record.path) + len(record.session or b"") for record in records.values())
    total += sum(OVERHEAD_BYTES + len(early.body) for early in hub._early_group_sends)
    total += sum(OVERHEAD_BYTES + len(part.body) for part in hub._early_parts)
    return total


# -- the ledger and the throttle ---------------------------------------------------------------------------------------


def test_a_ledger_counts_each_thing_once_with_its_latest_size() -> None:
    ledger, entry = Ledger(100), Entry("k", "a", "a", b"")
    ledger.add(entry, 60)
    ledger.add(entry, 70)
    assert ledger.bytes == 70
    assert ledger.fits(30)
    assert not ledger.fits(31)
    ledger.remove(entry)
    ledger.remove(entry)
    assert ledger.bytes == 0


def test_a_throttle_passes_one_line_a_second_with_the_number_of_all() -> None:
    throttle = Throttle()
    assert [throttle.count("a", now) for now in (1.0, 1.1, 1.9, 2.0)] == [1, 0, 0, 3]
    assert throttle.count("b", 2.0) == 1
    for number in range(3000):
        throttle.count(number, 3.0)
    assert len(throttle._seen) <= 1000


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_send_past_the_bytes_of_all_channels_is_refused_with_the_bound_and_one_line_a_second() -> None:
    bench = small_bench(max_bytes=100 * KIB)
    client = bench.connect()
    assert bench.send(client, "a", bytes(60 * KIB))[0] == frames.OK
    for _ in range(5):
        assert bench.send(client, "b", bytes(60 * KIB)) == (
            frames.ERROR,
            7,
            frames.FULL,
            ("b", 100, 100 * KIB),
        )
    (line,) = [text for _, text in bench.logs]
    assert "--layer-max-bytes" in line
    found = bench.statistics()
    assert found["bytes_refused_count"] == found["channel_full_count"] == 5
    assert found["bytes_held"] == 60 * KIB + OVERHEAD_BYTES
    assert bench.send(client, "b", bytes(10 * KIB))[0] == frames.OK
    bench.pass_time(1)
    bench.send(client, "b", bytes(60 * KIB))
    assert ": 5 message(s) refused" in bench.logs[-1][1]


def test_a_channel_past_its_bytes_is_full_while_others_have_room() -> None:
    bench = small_bench(max_channel_bytes=20 * KIB)
    client = bench.connect()
    assert bench.send(client, "a", bytes(15 * KIB))[0] == frames.OK
    assert bench.send(client, "a", bytes(15 * KIB))[3] == ("a", 100, 20 * KIB)
    assert bench.send(client, "b", bytes(15 * KIB))[0] == frames.OK
    assert "--layer-max-channel-bytes" in bench.logs[0][1]
    bench.say(client, frames.RECEIVE, 1, ["a"], False, None)
    assert bench.send(client, "a", bytes(15 * KIB))[0] == frames.OK


def test_a_request_past_the_bytes_is_failed_as_full_and_a_frame_of_a_socket_is_not() -> None:
    bench = small_bench(max_bytes=20 * KIB)
    server = interface(bench)
    bench.send(bench.connect(), "a", bytes(19 * KIB))
    bench.heard(server)
    bench.offer(server, 1, "http.request", bounded=True, session=bytes(5 * KIB))
    assert bench.heard(server) == [(frames.FAILED, 1, "full")]
    bench.offer(server, 2, "websocket.receive", session=bytes(5 * KIB))
    assert bench.heard(server) == []
    assert bench.statistics()["bytes_held"] == held_bytes(bench.hub) > 20 * KIB


def test_a_send_that_waits_for_room_counts_and_too_many_of_them_are_refused() -> None:
    bench = small_bench(max_bytes=16 * KIB * KIB)
    client, other = bench.connect(capacity=1), bench.connect(capacity=1)
    for number in range(MAX_PARKED + 1):
        bench.send(other, f"c{number}")
        bench.say(client, frames.SEND_WHEN_ROOM, number, f"c{number}", b"x", None)
    assert [frame[1] for frame in bench.heard(client)] == [MAX_PARKED]
    bench.leave(client)
    assert bench.statistics()["bytes_held"] == held_bytes(bench.hub)


def test_a_finish_whose_sends_have_no_room_in_bytes_waits_and_is_applied_when_there_is() -> None:
    bench = small_bench(max_bytes=100 * KIB)
    client, taker = bench.connect(), worker(bench)
    bench.send(client, "work")
    (_, key, *_) = bench.deliver(taker, "work")
    bench.send(client, "a", bytes(40 * KIB))
    bench.say(taker, frames.FINISH, key, [["b", bytes(59 * KIB), False]], None, False)
    assert bench.hub.waiting
    bench.say(client, frames.RECEIVE, 1, ["a"], False, None)
    assert not bench.hub.waiting
    assert bench.hub.switch.mailbox.queues["b"].size == 59 * KIB + OVERHEAD_BYTES
    assert bench.statistics()["bytes_held"] == held_bytes(bench.hub)


def test_a_finish_that_may_not_even_wait_is_applied_less_what_does_not_fit_with_an_error() -> None:
    bench = small_bench(max_bytes=100 * KIB)
    client, taker = bench.connect(), worker(bench)
    bench.send(client, "work")
    (_, key, *_) = bench.deliver(taker, "work")
    bench.send(client, "a", bytes(90 * KIB))
    bench.say(taker, frames.FINISH, key, [["b", bytes(40 * KIB), False], ["c", b"x", False]], None, False)
    assert not bench.hub.waiting
    assert set(bench.hub.switch.mailbox.queues) == {"a", "c"}
    assert any("b stayed full: 1 message(s)" in text for _, text in bench.logs)


def test_a_session_for_which_there_is_no_room_is_not_mirrored_and_that_is_logged() -> None:
    bench = small_bench(max_bytes=100 * KIB)
    server = interface(bench)
    bench.send(bench.connect(), "a", bytes(90 * KIB))
    bench.say(server, frames.OPENED, "i!1", "/", 1, bytes(50 * KIB))
    assert bench.hub.interfaces["i"].sockets["i!1"].session is None
    assert "not mirrored" in bench.logs[-1][1]


# -- exactness ---------------------------------------------------------------------------------------------------------

CHANNELS = ["a", "b", "i!1", "i!2", "gone!1", "i.body?1"]
BODIES = st.sampled_from([b"", codec.encode({"n": 1}), bytes(3000), bytes(30_000)])


class LedgerMachine(RuleBasedStateMachine):
    """Any operations of any clients, also during a restart: the counter equals the sum over what is held."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        chosen = LayerSettings(layer_max_bytes=100_000, layer_max_channel_bytes=50_000)
        self.bench.hub = Hub("two", self.bench.now, chosen)
        self.clients = [self.bench.connect(last="one", capacity=2, expiry=3) for _ in range(2)]
        self.workers = [self.come() for _ in range(2)]
        self.server: Peer | None = None
        self.keys = [f"i:{number}" for number in range(5)] + ["~one:1", "~one:2"]
        self.rid = 0
        self.offers = 0

    def come(self) -> Peer:
        return self.bench.connect(frames.WORKER, None, "one", capacity=2, expiry=3)

    def notice(self) -> None:
        for peer, inbox in self.bench.inbox.items():
            for frame in inbox:
                if frame[0] == frames.DELIVER and frame[1] not in self.keys:
                    self.keys.append(frame[1])
                if frame[0] == frames.PART and peer.role:
                    self.say(peer, frames.WRITTEN, frame[3], True)
            inbox.clear()
        del self.keys[:-12]

    def say(self, peer: Peer, *frame: Any) -> None:
        self.bench.say(peer, *frame)

    def any_client(self, data: st.DataObject) -> Peer:
        return data.draw(st.sampled_from([*self.clients, *self.workers]))

    @rule(data=st.data(), channel=st.sampled_from(CHANNELS), body=BODIES, how=st.sampled_from("spwg"))
    def send(self, data: st.DataObject, channel: str, body: bytes, how: str) -> None:
        peer = self.any_client(data)
        self.rid += 1
        if how == "s":
            self.say(peer, frames.SEND, self.rid, channel, body, None)
        elif how == "p":
            self.say(peer, frames.SEND_AND_WAIT, self.rid, channel, body, f"k{self.rid}")
        elif how == "w":
            self.say(peer, frames.SEND_WHEN_ROOM, self.rid, channel, body, None)
        else:
            self.say(peer, frames.GROUP_SEND, self.rid, "g", body)

    @rule(data=st.data(), channel=st.sampled_from(CHANNELS), is_add=st.booleans())
    def group(self, data: st.DataObject, channel: str, is_add: bool) -> None:
        self.say(self.any_client(data), frames.GROUP_ADD if is_add else frames.GROUP_DISCARD, 0, "g", channel)

    @rule(data=st.data(), channels=st.sampled_from([["a"], ["a", "b"], ["i!"]]), block=st.booleans())
    def receive(self, data: st.DataObject, channels: list[str], block: bool) -> None:
        self.rid += 1
        self.say(self.any_client(data), frames.RECEIVE, self.rid, channels, block, 2.0)

    @rule(data=st.data(), back=st.integers(0, 5))
    def cancel(self, data: st.DataObject, back: int) -> None:
        self.say(self.any_client(data), frames.CANCEL, self.rid - back)

    @rule(data=st.data(), is_taking=st.booleans())
    def take(self, data: st.DataObject, is_taking: bool) -> None:
        peer = data.draw(st.sampled_from(self.workers))
        if is_taking:
            self.say(peer, frames.TAKE, ["a", "b", "websocket.receive", "websocket.disconnect", "http.request"])
        else:
            self.say(peer, frames.UNTAKE)

    @rule(data=st.data(), body=BODIES, name=st.sampled_from(CHANNELS), is_resent=st.booleans(), count=st.integers(0, 3))
    def finish(self, data: st.DataObject, body: bytes, name: str, is_resent: bool, count: int) -> None:
        self.notice()
        key = data.draw(st.sampled_from(self.keys))
        sends = [[name, body, False]] * count + [["g", body, True]] * (count > 1)
        session = body if count == 1 else None
        self.say(data.draw(st.sampled_from(self.workers)), frames.FINISH, key, sends, session, is_resent)

    @rule(data=st.data(), body=BODIES)
    def defer(self, data: st.DataObject, body: bytes) -> None:
        self.notice()
        key = data.draw(st.sampled_from(self.keys))
        for peer in self.workers:
            self.say(peer, frames.DEFER, key, body)

    @rule(data=st.data())
    def running(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.keys))
        self.say(data.draw(st.sampled_from(self.workers)), frames.RUNNING, [[key, "a", 0]])

    @rule(data=st.data(), is_dead=st.booleans())
    def worker_dies(self, data: st.DataObject, is_dead: bool) -> None:
        index = data.draw(st.integers(0, 1))
        self.bench.leave(self.workers[index])
        self.workers[index] = self.come()

    @rule(data=st.data())
    def client_leaves(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, 1))
        self.bench.leave(self.clients[index])
        self.clients[index] = self.bench.connect(last="one", capacity=2, expiry=3)

    @rule(is_orderly=st.booleans())
    def interface_changes(self, is_orderly: bool) -> None:
        if self.server is None:
            self.server = self.bench.connect(frames.INTERFACE, "i", "one")
        else:
            if is_orderly:
                self.say(self.server, frames.GOODBYE)
            self.bench.leave(self.server)
            self.server = None

    @rule(
        data=st.data(),
        number=st.integers(0, 8),
        body=BODIES,
        reply=st.sampled_from(["i!1", "i!2"]),
        what=st.sampled_from(["offer", "again", "open", "close", "members", "reported", "withdraw", "gone"]),
        is_bounded=st.booleans(),
    )
    def interface_says(
        self, data: st.DataObject, number: int, body: bytes, reply: str, what: str, is_bounded: bool
    ) -> None:
        if self.server is None:
            return
        channel = "http.request" if is_bounded else "websocket.receive"
        fields = [number, channel, body, reply, number % 2 == 0, is_bounded, body or None, False, what == "again"]
        frame: dict[str, Any] = {
            "offer": (frames.OFFER, *fields),
            "again": (frames.OFFER, *fields),
            "open": (frames.OPENED, reply, "/path", number, body),
            "close": (frames.CLOSED, reply, None if is_bounded else fields),
            "members": (frames.MEMBERS, "g", [reply]),
            "reported": (frames.REPORTED,),
            "withdraw": (frames.WITHDRAW, number),
            "gone": (frames.GROUP_GONE, "g", reply),
        }[what]
        self.say(self.server, *frame)

    @rule(seconds=st.floats(0.01, 12))
    def time_passes(self, seconds: float) -> None:
        self.bench.pass_time(seconds)

    @rule(is_wanted=st.integers(0, 9))
    def flush(self, is_wanted: int) -> None:
        if is_wanted == 0:
            self.say(self.clients[0], frames.FLUSH, 0)

    @invariant()
    def the_counter_is_the_sum(self) -> None:
        assert self.bench.hub.ledger.bytes == held_bytes(self.bench.hub)

    def teardown(self) -> None:
        """When all clients have gone and the messages have run or expired, nothing is left."""
        for peer in [*self.clients, *self.workers, *([self.server] if self.server else [])]:
            self.bench.leave(peer)
        last = self.bench.connect(frames.WORKER)
        for _ in range(300):
            self.bench.pass_time(0.5)
            self.bench.say(last, frames.TAKE, ["a", "b", "websocket.receive", "websocket.disconnect", "http.request"])
            taken = [frame[1] for frame in self.bench.heard(last) if frame[0] == frames.DELIVER]
            for key in taken:
                self.bench.say(last, frames.FINISH, key, [], None, False)
            if not taken and self.bench.hub.ledger.bytes == 0:
                break
        assert self.bench.hub.ledger.bytes == 0


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("count", [1, 2])
def test_a_ledger_is_empty_when_everything_is_finished(count: int) -> None:
    bench = small_bench()
    client, taker = bench.connect(), worker(bench)
    for _ in range(count):
        bench.send(client, "a", bytes(100))
    for _ in range(count):
        key = bench.deliver(taker, "a")[1]
        bench.say(taker, frames.FINISH, key, [], None, False)
    assert bench.hub.ledger.bytes == held_bytes(bench.hub) == 0
