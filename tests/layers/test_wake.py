from procman.layers.wake import WakePipe


def test_a_wake_up_before_the_wait_ends_it_and_is_used_up() -> None:
    pipe = WakePipe()
    pipe.set()
    assert pipe.wait(10) is True
    assert pipe.wait(0) is False


def test_any_number_of_wake_ups_is_one() -> None:
    pipe = WakePipe()
    for _ in range(100):
        pipe.set()
    pipe.clear()
    assert pipe.wait(0) is False
