"""Frames of wrong types, and whole conversations of nonsense: the hub refuses the frame and lives on."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procman.layers import codec
from procman.layers.ipc import frames, shapes
from procman.layers.ipc.hub import BadFrame
from procman.layers.ipc.peers import Peer
from tests.layers.ipc.test_bounds import held_bytes
from tests.layers.ipc.test_hub import Bench, interface, worker

OPERATIONS = sorted(set(shapes.SHAPES) - {frames.HELLO})
ODD: list[Any] = [
    None,
    True,
    0,
    -1,
    2**63,
    2**64 - 1,
    float("nan"),
    float("inf"),
    -1e308,
    "",
    "a",
    "i!1",
    "i.body?1",
    "x" * 300,
    "\x00\n\x1b[31m",
    b"",
    b"\xff" * 100,
    [],
    [[]],
    ["a", None],
    ["a"] * 5000,
    [["a", b"", False]],
    [["~one:1", "a", 0]],
    [["k", "a", 2**64 - 1]],
]
SENSIBLE: dict[type, list[Any]] = {
    int: [0, 1, 2, 7, 2**64 - 1, -5],
    str: ["a", "b", "g", "i!1", "i!2", "i", "i:1", "i:2", "~one:1", "~two:3", "i.body?1", "x" * 300, "\n"],
    bytes: [b"", codec.encode({"n": 1}), b"\xc1 no message", bytes(10_000)],
    bool: [True, False],
    float: [0.0, 0.5, -1.0, float("nan"), float("inf"), 1e300],
    type(None): [None],
    list: [
        [],
        ["a"],
        ["a", "b", "i!"],
        ["websocket.receive", "websocket.disconnect", "http.request"],
        [["a", b"x", False], ["i!1", b"y", False], ["g", b"z", True]],
        [["a", "no bytes", False]],
        [["i:1", "a", 0], ["~two:9", "b", 1]],
        [["i:1"]],
        [4, "websocket.disconnect", b"x", "i!1", True, False, None, False, False],
        [None] * 9,
    ],
}


def nonsense(generator: random.Random, role: str) -> list[Any]:
    """A frame: of the right types as a rule, of any others now and then, with fields too many or too few."""
    operation = generator.choice(OPERATIONS)
    if role != frames.INTERFACE and frames.OFFER <= operation < frames.WELCOME and generator.random() < 0.95:
        operation = generator.choice([frames.SEND, frames.TAKE, frames.FINISH, frames.DEFER, frames.RUNNING])
    fields = list(generator.choice(sorted(shapes.SHAPES[operation], key=str)))[1:]
    frame: list[Any] = [operation]
    for kind in fields:
        frame.append(generator.choice(ODD if generator.random() < 0.03 else SENSIBLE[list if kind is tuple else kind]))
    if generator.random() < 0.02:
        frame = frame[: generator.randrange(len(frame) + 1)]
    elif generator.random() < 0.02:
        frame.append(generator.choice(ODD))
    return frame


def hear(bench: Bench, peer: Peer, frame: Any) -> bool:
    """Say *frame* as the driver does; whether the peer is still connected. What the hub says can be written."""
    try:
        bench.hub.handle(peer, frame, bench.now)
    except BadFrame:
        bench.hub.disconnected(peer, bench.now)
        alive = False
    else:
        alive = True
    for _, output in bench.hub.drain():
        for answer in output:
            codec.pack(answer)
    for record in bench.hub.drain_logs():
        assert (record.text % record.arguments).isprintable()
    return alive


@pytest.mark.parametrize("seed", range(20))
def test_nonsense_on_many_connections_closes_those_alone_and_leaves_nothing_behind(seed: int) -> None:
    generator = random.Random(seed)
    bench = Bench(hub_id="two")
    witness = bench.connect()
    peers: list[tuple[Peer, str]] = []
    roles = [frames.CLIENT, frames.WORKER, frames.WATCHER, frames.INTERFACE]
    for step in range(1000):
        while len(peers) < 6:
            role = generator.choice(roles)
            name = generator.choice(["i", "j"]) if role == frames.INTERFACE else None
            peers.append((bench.connect(role, name, generator.choice(["one", None]), capacity=3), role))
        index = generator.randrange(len(peers))
        if not hear(bench, peers[index][0], nonsense(generator, peers[index][1])):
            del peers[index]
        if generator.random() < 0.1:
            bench.now += generator.choice([0.01, 0.2, 1.5])
            bench.hub.tick(bench.now)
        if step % 100 == 0:
            assert bench.hub.ledger.bytes == held_bytes(bench.hub)
            assert bench.send(witness, f"quiet{step}")[0] == frames.OK
    for peer, _ in peers:
        bench.hub.disconnected(peer, bench.now)
    bench.pass_time(120)
    assert bench.send(witness, "quiet")[0] == frames.OK
    assert bench.hub.ledger.bytes == held_bytes(bench.hub)
    hub = bench.hub
    assert set(hub.peers) == {witness}
    assert not (hub.waiting or hub.unsure or hub.interfaces or hub._held or hub._early_parts or hub._tokens)
    assert not (hub.switch.in_flight or hub.switch.parked or hub.switch._receivers or hub.switch.takers)
    assert not (hub.switch.workers or hub.switch.watchers or hub.switch._ahead or hub.switch._pausing)
    assert hub.members.count == 0


@given(
    st.lists(
        st.recursive(
            st.one_of(
                st.sampled_from(ODD), st.integers(-(2**63), 2**64 - 1), st.text(max_size=5), st.binary(max_size=5)
            ),
            lambda inner: st.lists(inner, max_size=4),
            max_leaves=12,
        ),
        max_size=12,
    ),
    st.sampled_from(OPERATIONS),
    st.sampled_from([frames.CLIENT, frames.WORKER, frames.WATCHER, frames.INTERFACE]),
)
@settings(max_examples=400, deadline=None)
def test_any_fields_of_any_operation_are_understood_or_refused(fields: list[Any], operation: int, role: str) -> None:
    bench = Bench()
    peer = bench.connect(role, "i" if role == frames.INTERFACE else None)
    if hear(bench, peer, [operation, *fields]):
        bench.hub.disconnected(peer, bench.now)
    bench.pass_time(15)
    assert bench.send(bench.connect(), "a")[0] == frames.OK


@given(
    st.lists(st.one_of(st.sampled_from(ODD), st.sampled_from([frames.HELLO, frames.VERSION, "client", "interface"])))
)
@settings(max_examples=300, deadline=None)
def test_any_greeting_is_understood_or_refused(fields: list[Any]) -> None:
    bench = Bench()
    hear(bench, bench.hub.connected(), [frames.HELLO, frames.VERSION, *fields])
    hear(bench, bench.hub.connected(), fields)
    assert bench.send(bench.connect(), "a")[0] == frames.OK


@pytest.mark.parametrize(
    "frame", [[], None, 5, "abc", b"\x0b\x01", {"a": 1}, [[1]], [frames.FLUSH], [frames.FLUSH, True]]
)
def test_a_frame_is_a_list_of_an_operation_and_its_fields(frame: Any) -> None:
    with pytest.raises((TypeError, KeyError, IndexError)):
        shapes.check(frame)
    bench = Bench()
    assert not hear(bench, bench.connect(), frame)


def test_a_time_to_wait_that_is_no_number_is_refused_because_it_would_stop_all_timers() -> None:
    bench = Bench()
    assert not hear(bench, bench.connect(), [frames.RECEIVE, 1, ["a"], True, float("nan")])
    other = bench.connect()
    bench.say(other, frames.RECEIVE, 2, ["a"], True, 1.0)
    bench.pass_time(1)
    assert bench.heard(other) == [(frames.OK, 2, None)]


def test_a_request_number_that_waits_is_not_used_again() -> None:
    bench = Bench()
    peer = bench.connect()
    bench.say(peer, frames.RECEIVE, 1, ["a"], True, None)
    assert not hear(bench, peer, [frames.RECEIVE, 1, ["b"], True, None])
    assert not bench.hub.switch._receivers


def test_receives_of_one_connection_are_bounded_by_their_names() -> None:
    bench = Bench()
    peer = bench.connect()
    for rid in range(5):
        bench.say(peer, frames.RECEIVE, rid, [f"c{rid}.{number}" for number in range(1000)], True, None)
    assert [frame[:3] for frame in bench.heard(peer)] == [(frames.ERROR, 4, frames.BOUND)]


def test_group_memberships_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("procman.layers.ipc.hub.MAX_MEMBERSHIPS", 2)
    bench = Bench()
    bench.pass_time(2)
    interface(bench)
    peer = worker(bench)
    for group, channel in (("g", "i!1"), ("g", "i!1"), ("g", "a"), ("h", "a")):
        bench.say(peer, frames.GROUP_ADD, 1, group, channel)
    assert [frame[0] for frame in bench.heard(peer)] == [frames.OK, frames.OK, frames.OK, frames.ERROR]
    bench.say(peer, frames.GROUP_DISCARD, 1, "g", "i!1")
    bench.say(peer, frames.GROUP_ADD, 1, "h", "a")
    assert [frame[0] for frame in bench.heard(peer)] == [frames.OK, frames.OK]
