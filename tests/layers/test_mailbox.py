"""Queues that forget."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procman.layers.mailbox import FOREVER, Mailbox, Meter


@dataclass(eq=False)
class Item:
    name: str
    deadline: float = FOREVER
    since: float = 0.0
    size: int = 1


@pytest.fixture
def expired() -> list[Item]:
    return []


@pytest.fixture
def mailbox(expired: list[Item]) -> Mailbox[Item]:
    return Mailbox(expired.append)


def test_messages_leave_in_the_order_in_which_they_came(mailbox: Mailbox[Item]) -> None:
    items = [Item(str(number)) for number in range(3)]
    for item in items:
        mailbox.put("a", item, 0)
    assert [mailbox.pop("a", 0) for _ in range(4)] == [*items, None]
    assert not mailbox.queues


def test_a_message_put_to_the_front_is_the_next(mailbox: Mailbox[Item]) -> None:
    mailbox.put("a", Item("first"), 0)
    again = Item("again")
    mailbox.put_front("a", again)
    assert mailbox.pop("a", 0) is again


def test_a_message_is_gone_at_its_deadline_and_reported(mailbox: Mailbox[Item], expired: list[Item]) -> None:
    item = Item("old", deadline=10)
    mailbox.put("a", item, 0)
    assert mailbox.has_room("a", 1, 9.9) is False
    assert mailbox.pop("a", 10) is None
    assert expired == [item]


def test_what_has_expired_takes_up_no_room(mailbox: Mailbox[Item], expired: list[Item]) -> None:
    mailbox.put("a", Item("old", deadline=10), 0)
    assert mailbox.has_room("a", 1, 10)
    assert len(expired) == 1


def test_a_sweep_finds_what_expired_behind_longer_lived_messages(mailbox: Mailbox[Item], expired: list[Item]) -> None:
    kept, dropped = Item("kept"), Item("dropped", deadline=5)
    mailbox.put("a", kept, 0)
    mailbox.put("a", dropped, 0)
    mailbox.sweep(5)
    assert expired == [dropped]
    assert mailbox.pop("a", 5) is kept


def test_the_choice_among_channels_reaches_each_of_them(mailbox: Mailbox[Item]) -> None:
    for number in range(100):
        mailbox.put("a", Item(f"a{number}"), 0)
        mailbox.put("b", Item(f"b{number}"), 0)
    firsts = {item.name[0] for _ in range(60) if (item := mailbox.pop_any(["a", "b", "empty"], 0))}
    assert firsts == {"a", "b"}


def test_a_removed_message_does_not_come(mailbox: Mailbox[Item]) -> None:
    item = Item("x")
    mailbox.put("a", item, 0)
    assert mailbox.remove("a", item)
    assert not mailbox.remove("a", item)
    assert mailbox.pop("a", 0) is None


def test_meters_tell_the_rate_of_the_last_full_second() -> None:
    meter = Meter()
    for now in (10.0, 10.5, 10.9, 11.1):
        meter.add(now)
    assert (meter.count, meter.rate(11.5), meter.rate(12.0), meter.rate(14.0)) == (4, 3, 1, 0)


def test_counts_are_kept_for_a_bounded_number_of_names(mailbox: Mailbox[Item]) -> None:
    for number in range(5000):
        mailbox.count(f"body?{number}", 0)
    assert len(mailbox._channel_meters) <= 1024
    assert mailbox.statistics(0)["messages_count"] == 5000


@given(st.lists(st.tuples(st.sampled_from(["put", "pop", "front", "sweep"]), st.integers(0, 5)), max_size=60))
def test_every_message_is_taken_expired_or_waiting_exactly_once(steps: list[tuple[str, int]]) -> None:
    expired: list[Item] = []
    mailbox: Mailbox[Item] = Mailbox(expired.append)
    put: list[Item] = []
    taken: list[Item] = []
    for now, (step, life) in enumerate(steps):
        if step in ("put", "front"):
            item = Item(str(now), deadline=now + life)
            put.append(item)
            if step == "put":
                mailbox.put("a", item, now)
            else:
                mailbox.put_front("a", item)
        elif step == "pop":
            item_ = mailbox.pop("a", now)
            if item_ is not None:
                assert item_.deadline > now
                taken.append(item_)
        else:
            mailbox.sweep(now)
            assert all(item.deadline > now for queue in mailbox.queues.values() for item in queue)
    waiting = [item for queue in mailbox.queues.values() for item in queue]
    assert sorted(map(id, put)) == sorted(map(id, taken + expired + waiting))


def test_a_channel_that_holds_its_bytes_is_full_and_one_message_always_fits_an_empty_one(expired: list[Item]) -> None:
    mailbox: Mailbox[Item] = Mailbox(expired.append, max_bytes=10)
    assert mailbox.has_room("a", 5, 0, size=11)
    mailbox.put("a", Item("large", size=8), 0)
    assert mailbox.has_room("a", 5, 0, size=2)
    assert not mailbox.has_room("a", 5, 0, size=3)
    assert mailbox.has_room("b", 5, 0, size=3)
    mailbox.pop("a", 0)
    assert mailbox.has_room("a", 5, 0, size=11)


def test_what_has_expired_takes_up_no_bytes(expired: list[Item]) -> None:
    mailbox: Mailbox[Item] = Mailbox(expired.append, max_bytes=10)
    mailbox.put("a", Item("short", deadline=5, size=8), 0)
    mailbox.put("a", Item("long", deadline=9, size=2), 0)
    assert not mailbox.has_room("a", 5, 4, size=8)
    assert mailbox.has_room("a", 5, 5, size=8)
    assert [item.name for item in expired] == ["short"]


@given(st.lists(st.tuples(st.sampled_from("pfbortxs"), st.integers(0, 9), st.integers(1, 9)), max_size=60))
def test_the_bytes_and_the_soonest_deadline_of_a_queue_are_those_of_its_messages(
    steps: list[tuple[str, int, int]],
) -> None:
    mailbox: Mailbox[Item] = Mailbox()
    items: list[Item] = []
    now = 0
    for step, number, size in steps:
        item = Item(str(number), deadline=now + number, size=size)
        if step == "p":
            mailbox.put("a", item, now)
            items.append(item)
        elif step == "f":
            mailbox.put_front("a", item)
        elif step == "b":
            mailbox.put_back("a", item)
        elif step == "o":
            mailbox.pop("a", now)
        elif step == "r" and items:
            mailbox.remove("a", items[number % len(items)])
        elif step == "t":
            now += number
        elif step == "x":
            mailbox.sweep(now)
        elif step == "s" and number == 0:
            mailbox.take_all("a")
        queue = mailbox.queues.get("a")
        if queue is not None:
            assert queue
            assert queue.size == sum(item.size for item in queue)
            assert queue.soonest <= min(item.deadline for item in queue)
