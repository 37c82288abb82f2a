"""A blocking connection, against a listener that says what the test wants."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from procman.clock import SystemClock
from procman.layers import codec
from procman.layers.errors import ChannelFull, LayerUnavailable, LimitReached
from procman.layers.ipc import frames
from procman.layers.ipc.connection import Connection, ConnectionBroken, connect
from procman.layers.wake import WakePipe, Woken

HELLO = ("a greeting",)


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{tmp_path}/hub.sock")
        listener.listen(4)
        listener.settimeout(10)
        yield listener


@pytest.fixture
def ends(listener: socket.socket) -> Iterator[tuple[Connection, socket.socket]]:
    """A connection and the hub's end of it."""
    connection = Connection(listener.getsockname(), "ipc:///x", 100_000, 1.0)
    hub, _ = listener.accept()
    with hub:
        yield connection, hub
    connection.close()


def test_frames_are_read_one_at_a_time_however_they_arrive(ends: tuple[Connection, socket.socket]) -> None:
    connection, hub = ends
    data = b"".join(codec.pack((frames.OK, number, None)) for number in range(3))
    hub.sendall(data[:7])
    assert connection.read(5) == [frames.OK, 0, None]
    assert connection.read(0) is None
    hub.sendall(data[7:])
    assert [connection.read(5)[1], connection.read(5)[1]] == [1, 2]


def test_nothing_within_the_time_is_none(ends: tuple[Connection, socket.socket]) -> None:
    begin = SystemClock.monotonic()
    assert ends[0].read(0.05) is None
    assert SystemClock.monotonic() - begin >= 0.05


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\xc6\xff\xff\xff\xff"])
def test_an_end_and_rubbish_break_the_connection(ends: tuple[Connection, socket.socket], data: bytes) -> None:
    connection, hub = ends
    hub.sendall(data)
    hub.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionBroken):
        connection.read(5)


def test_a_wake_ends_a_read_and_is_remembered(ends: tuple[Connection, socket.socket]) -> None:
    wake = WakePipe()
    ends[0].watch(wake)
    wake.set()
    assert ends[0].read(None) is None
    assert ends[0].was_woken


def test_an_answer_is_told_from_other_frames_and_an_error_is_raised(ends: tuple[Connection, socket.socket]) -> None:
    connection, hub = ends
    hub.sendall(codec.pack((frames.ACK, "some key")) + codec.pack((frames.OK, 2, "value")))
    assert connection.answer(2, 5) == "value"
    hub.sendall(codec.pack((frames.ERROR, 3, frames.FULL, ("a", 5, 1000))))
    with pytest.raises(ChannelFull, match="1000 bytes") as caught:
        connection.answer(3, 5)
    assert caught.value.limit_bytes == 1000
    hub.sendall(codec.pack((frames.ERROR, 4, frames.BOUND, ("too many",))))
    with pytest.raises(LimitReached, match="too many"):
        connection.answer(4, 5)


def test_a_write_to_a_hub_that_does_not_read_breaks_within_its_time(ends: tuple[Connection, socket.socket]) -> None:
    begin = SystemClock.monotonic()
    with pytest.raises(ConnectionBroken):
        ends[0].write(bytes(10_000_000))
    assert SystemClock.monotonic() - begin < 8


def test_connecting_waits_for_a_welcome_and_no_longer_than_told(listener: socket.socket) -> None:
    begin = SystemClock.monotonic()
    with pytest.raises(LayerUnavailable, match="it did not answer"):
        connect(listener.getsockname(), "ipc:///x", HELLO, 1000, 0.3, None)
    assert SystemClock.monotonic() - begin < 5


def test_connecting_goes_on_after_a_connection_that_breaks(listener: socket.socket) -> None:
    def welcome_the_second() -> None:
        listener.accept()[0].close()
        hub, _ = listener.accept()
        with hub:
            hub.recv(1000)
            hub.sendall(codec.pack((frames.WELCOME, frames.VERSION, "one", False, 7)))
            hub.recv(1000)

    thread = threading.Thread(target=welcome_the_second)
    thread.start()
    connection = connect(listener.getsockname(), "ipc:///x", HELLO, 1000, 10, None)
    assert (connection.hub_id, connection.number) == ("one", 7)
    connection.close()
    thread.join(10)


def test_where_nobody_listens_the_impatient_hear_it_at_once_and_the_patient_may_be_woken(tmp_path: Path) -> None:
    path = f"{tmp_path}/none.sock"
    begin = SystemClock.monotonic()
    with pytest.raises(LayerUnavailable, match="is `channels-run`"):
        connect(path, "ipc:///x", HELLO, 1000, 30, None, is_patient=False)
    wake = WakePipe()
    wake.set()
    with pytest.raises(Woken):
        connect(path, "ipc:///x", HELLO, 1000, 30, wake)
    assert SystemClock.monotonic() - begin < 10


def test_what_a_dead_hub_had_said_is_heard_by_others_and_still_read_by_the_thread_in_order(
    ends: tuple[Connection, socket.socket],
) -> None:
    connection, hub = ends
    hub.sendall(b"".join(codec.pack((frames.OK, number, None)) for number in range(3)) + codec.pack((1, 2))[:1])
    assert connection.read(5)[1] == 0
    hub.sendall(codec.pack((frames.OK, 3, None)))
    hub.close()
    assert [frame[:2] for frame in connection.read_rest()][:2] == [[frames.OK, 1], [frames.OK, 2]]
    assert connection.read_fetched()[1] == 1
    assert connection.read(5)[1] == 2


def test_the_rest_of_a_hub_that_lives_is_not_waited_for(ends: tuple[Connection, socket.socket]) -> None:
    connection, hub = ends
    hub.sendall(codec.pack((frames.OK, 1, None)))
    assert [frame[1] for frame in connection.read_rest()] == [1]
    assert connection.read_rest() == connection.read_rest()
    hub.sendall(codec.pack((frames.OK, 2, None)))
    assert [connection.read(5)[1], connection.read(5)[1]] == [1, 2]
