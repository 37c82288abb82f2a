"""What waits for a slow client, and what gives way."""

from hypothesis import given
from hypothesis import strategies as st

from procman.interface.backlog import Backlog, Policies, Policy

LIMIT = 100


def frames(backlog: Backlog) -> list[bytes]:
    taken = []
    while (waiting := backlog.take()) is not None:
        taken.append(waiting.frame)
    return taken


def test_what_must_arrive_keeps_its_order_and_is_never_dropped():
    backlog = Backlog(10)
    for number in range(50):
        backlog.add(b"%d" % number * 10, "", Policy.DISCONNECT, LIMIT, 0.0)
    assert backlog.dropped == 0
    assert frames(backlog) == [b"%d" % number * 10 for number in range(50)]
    assert backlog.is_empty


def test_the_oldest_that_may_gives_way_past_the_limit():
    backlog = Backlog(10)
    backlog.add(b"must", "", Policy.DISCONNECT, LIMIT, 0.0)
    for number in range(9):
        backlog.add(b"%d" % number * 20, "news", Policy.DROP_OLDEST, LIMIT, 0.0)
    assert backlog.dropped == 5 and backlog.unsent(10) <= 10 + LIMIT
    assert frames(backlog) == [b"must", *(b"%d" % number * 20 for number in range(5, 9))]


def test_a_message_over_the_limit_all_by_itself_gives_way_too():
    backlog = Backlog(0)
    backlog.add(b"x" * (LIMIT + 1), "news", Policy.DROP_OLDEST, LIMIT, 0.0)
    assert backlog.is_empty and backlog.dropped == 1


def test_only_the_latest_of_a_group_waits_where_the_group_says_so():
    backlog = Backlog(0)
    for number in range(5):
        backlog.add(b"a%d" % number, "ticker.a", Policy.LATEST_ONLY, LIMIT, 0.0)
        backlog.add(b"b%d" % number, "ticker.b", Policy.LATEST_ONLY, LIMIT, 0.0)
        backlog.add(b"c%d" % number, "news", Policy.DROP_OLDEST, LIMIT, 0.0)
    assert backlog.dropped == 8
    assert frames(backlog) == [b"c0", b"c1", b"c2", b"c3", b"a4", b"b4", b"c4"]


def test_the_age_is_that_of_the_oldest_byte_that_must_arrive():
    backlog = Backlog(1000)
    assert backlog.age(1000, 5.0) is None  # nobody has said that it must
    backlog.required(0.0)
    assert backlog.age(1000, 5.0) == 5.0
    backlog.written(500, True, 6.0)
    assert backlog.age(1400, 7.0) == 7.0  # of the first 1000, 900 are left
    assert backlog.age(500, 8.0) == 0.0  # these are out: what came after them counts from this look on
    assert backlog.age(500, 9.0) == 1.0
    assert backlog.age(0, 10.0) is None


def test_a_client_that_reads_slowly_but_steadily_is_never_too_old():
    backlog = Backlog(1000)
    backlog.required(0.0)
    for second in range(100):
        backlog.written(100, True, second)
        assert backlog.age(1000, second) <= 11


def test_what_may_be_dropped_has_no_age():
    backlog = Backlog(1000)
    backlog.written(100, False, 0.0)
    backlog.add(b"x", "news", Policy.DROP_OLDEST, LIMIT, 0.0)
    assert backlog.age(1100, 50.0) is None
    backlog.add(b"x", "", Policy.DISCONNECT, LIMIT, 50.0)
    assert backlog.age(1100, 53.0) == 3.0


def test_a_client_that_falls_behind_again_keeps_what_waits():
    first = Backlog(0)
    for number in range(3):
        first.add(b"%d" % number, "news", Policy.LATEST_ONLY if number < 2 else Policy.DISCONNECT, LIMIT, 0.0)
    second = Backlog(10)
    second.take_over(first)
    assert second.dropped == 1 and second.unsent(10) == 12
    assert frames(second) == [b"1", b"2"]


@given(st.lists(st.tuples(st.sampled_from(Policy), st.sampled_from(["a", "b"]), st.integers(0, 60)), max_size=30))
def test_nothing_is_lost_without_being_counted_and_what_may_give_way_is_bounded(steps):
    backlog = Backlog(0)
    for number, (policy, group, size) in enumerate(steps):
        backlog.add(b"%02d" % number + b"x" * size, group, policy, LIMIT, 0.0)
    required = sum(2 + size for policy, _, size in steps if policy is Policy.DISCONNECT)
    assert backlog.unsent(0) <= max(LIMIT, required)
    left = frames(backlog)
    assert len(left) + backlog.dropped == len(steps) and left == sorted(left)


def test_a_group_has_the_policy_of_the_first_glob_that_matches():
    policies = Policies({"ticker.*": "latest-only", "*": "drop-oldest", "never": "disconnect"})
    assert policies.of("ticker.a") is Policy.LATEST_ONLY and policies.of("never") is Policy.DROP_OLDEST
    assert Policies({}).of("ticker.a") is Policy.DISCONNECT
