from procman.supervision.memory import SAMPLES, MemoryWatch

WORKERS = {"worker.1": 30, "worker.2": 50}


def test_the_largest_worker_goes_when_the_limit_is_passed_again_and_again() -> None:
    watch = MemoryWatch(100)
    assert [watch.largest_of(WORKERS, 101) for _ in range(2 * SAMPLES)] == [None, None, "worker.2"] * 2


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
