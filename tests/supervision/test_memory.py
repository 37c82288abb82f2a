import itertools

from procman.supervision.memory import MOST_DOUBLINGS, SAMPLES, MemoryWatch

WORKERS = {"worker.1": 30, "worker.2": 50}


def test_the_largest_worker_goes_when_the_limit_is_passed_again_and_again() -> None:
    watch = MemoryWatch(100)
    assert [watch.largest_of(WORKERS, 101) for _ in range(2 * SAMPLES)] == [None, None, "worker.2"] * 2
    assert not watch.is_in_vain


def test_a_limit_that_cannot_be_kept_does_not_replace_workers_without_end() -> None:
    watch = MemoryWatch(100)
    named = [look for look in range(20_000) if watch.largest_of(WORKERS, 101)]
    pauses = [later - earlier for earlier, later in itertools.pairwise(named)]
    assert pauses[:6] == [3, 6, 6, 12, 12, 24] and set(pauses[-3:]) == {SAMPLES << MOST_DOUBLINGS}
    assert watch.is_in_vain
    watch.largest_of(WORKERS, 100)
    assert [watch.largest_of(WORKERS, 101) for _ in range(SAMPLES)][-1] and not watch.is_in_vain


def test_a_peak_is_no_reason() -> None:
    watch = MemoryWatch(100)
    assert [watch.largest_of(WORKERS, total) for total in (101, 101, 100, 101, 101)] == [None] * 5


def test_without_a_limit_or_a_worker_nothing_goes() -> None:
    assert [MemoryWatch(0).largest_of(WORKERS, 10**12) for _ in range(5)] == [None] * 5
    assert [MemoryWatch(1).largest_of({}, 10**12) for _ in range(5)] == [None] * 5


def test_a_container_that_fills_up_is_worth_one_warning_each_time() -> None:
    watch = MemoryWatch(0)
    used = [50, 89, 90, 95, 85, 95, 79, 91]
    assert [watch.is_worth_a_warning(each, 100) for each in used] == [
        False, False, True, False, False, False, False, True
    ]  # fmt: skip
