"""The hub inside one process: who wakes for its timers, and what a thread that ends leaves."""

import threading
import weakref

from procman.layers.ipc import frames
from procman.layers.limits import Limits
from procman.layers.local import Desk, LocalHub
from procman.layers.memory import InMemoryChannelLayer
from tests.support.waiting import wait_until

LIMITS = Limits()


def desk_of(local: LocalHub, role: str = frames.CLIENT) -> Desk:
    return Desk(local, role, LIMITS, "test")


def test_a_call_is_answered_at_once() -> None:
    local = LocalHub()
    desk = desk_of(local)
    assert local.call(desk.peer, (frames.SEND, 7, "a", b"\x80", None)) == [(frames.OK, 7, None)]
    assert local.call(desk.peer, (frames.RECEIVE, 8, ["a"], False, None)) == [(frames.OK, 8, ("a", b"\x80"))]


def test_what_is_meant_for_another_client_arrives_on_its_desk() -> None:
    local = LocalHub()
    sender, receiver = desk_of(local), desk_of(local)
    assert local.call(receiver.peer, (frames.RECEIVE, 1, ["a"], True, None)) == []
    local.call(sender.peer, (frames.SEND, 1, "a", b"\x80", None))
    assert receiver.take_all() == [(frames.OK, 1, ("a", b"\x80"))]


def test_a_sleeping_thread_does_what_falls_due_later_than_it_fell_asleep() -> None:
    layer = InMemoryChannelLayer()
    layer.send("work", {"n": 1})
    taken: list[object] = []
    sleeper = threading.Thread(target=lambda: taken.append(layer.take(["work"], 20)))

    def die() -> None:
        layer.take(["work"], 10)

    first = threading.Thread(target=die)
    first.start()
    first.join(10)
    sleeper.start()  # the redelivery is due 0.1 s after the death, and nobody calls the layer then
    sleeper.join(10)
    assert not sleeper.is_alive()
    assert taken != [None]


def test_the_desk_of_a_thread_ends_with_it() -> None:
    layer = InMemoryChannelLayer()
    desks: list[weakref.ref[Desk]] = []

    def take() -> None:
        layer.take(["work"], 0)
        desks.append(weakref.ref(layer._threads.worker))

    thread = threading.Thread(target=take)
    thread.start()
    thread.join(10)
    wait_until(lambda: desks[0]() is None)
    assert layer.statistics()["workers"] == 0
