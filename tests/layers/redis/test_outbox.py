from typing import Any

from procman.layers.base import OpenSocket, Snapshot
from procman.layers.redis.outbox import MOST, Outbox, opened, report


def offer(number: int, size: int = 1) -> tuple[Any, ...]:
    return (b"O", number, "work", 0, "work", "web!1", 2, 0, b"x" * size)


def test_operations_of_one_turn_leave_together_in_their_order() -> None:
    outbox = Outbox()
    outbox.add((b"C", "web!1"))
    outbox.add(offer(1))
    assert outbox.next_arguments() == [b"C", "web!1", *offer(1)]


def test_what_is_said_meanwhile_waits_for_the_answer() -> None:
    outbox = Outbox()
    outbox.add(offer(1))
    outbox.next_arguments()
    outbox.add(offer(2))
    assert outbox.next_arguments() is None
    outbox.done()
    assert outbox.next_arguments() == [*offer(2)]
    outbox.done()
    assert outbox.is_idle() and outbox.next_arguments() is None


def test_what_was_read_is_told_first_and_once() -> None:
    outbox = Outbox()
    outbox.read(b"5-1", [3, 4])
    outbox.add(offer(1))
    assert outbox.next_arguments() == [b"T", b"5-1", 2, 3, 4, *offer(1)]
    outbox.done()
    assert outbox.next_arguments() is None


def test_a_command_takes_so_many_operations_and_bytes() -> None:
    outbox = Outbox()
    for number in range(MOST + 1):
        outbox.add((b"C", str(number)))
    first = outbox.next_arguments()
    assert first is not None and len(first) == 2 * MOST
    outbox.done()
    assert outbox.next_arguments() == [b"C", str(MOST)]
    outbox.done()
    for number in range(3):
        outbox.add(offer(number, 2_000_000))
    assert outbox.next_arguments() == [*offer(0, 2_000_000)]


def test_a_refused_command_waits_again_before_the_others_without_the_offers_that_failed() -> None:
    outbox = Outbox()
    outbox.add(offer(1))
    outbox.add((b"C", "web!2"))
    outbox.next_arguments()
    outbox.add(offer(3))
    outbox.again(without=[1])
    assert outbox.next_arguments() == [b"C", "web!2", *offer(3)]


def test_an_offer_that_has_not_left_can_be_taken_back() -> None:
    outbox = Outbox()
    outbox.add(offer(1))
    assert outbox.withdraw(1)
    outbox.add(offer(2))
    outbox.next_arguments()
    assert not outbox.withdraw(2)


def test_a_report_ends_with_the_notice_that_it_is_complete() -> None:
    snapshot = Snapshot([OpenSocket("web!1", "/a", 3, b"s")], [("room", "web!1")])
    assert report(snapshot, lambda socket: opened(socket, socket.session, 10)) == [
        (b"S", "web!1", "/a", 3, b"ss"),
        (b"M", "room", "web!1"),
        (b"R",),
    ]


def test_a_session_over_the_limit_is_not_mirrored() -> None:
    assert opened(OpenSocket("web!1", "/", 0), b"x" * 11, 10)[-1] == b""
