"""What is due when."""

from procman.layers.ipc.timers import Timers


def test_actions_run_in_the_order_in_which_they_are_due() -> None:
    timers, ran = Timers(), []
    for due in (3.0, 1.0, 2.0, 1.0):
        timers.add(due, lambda argument, now: ran.append((argument, now)), due)
    assert timers.next_due() == 1.0
    timers.run(2.0)
    assert ran == [(1.0, 2.0), (1.0, 2.0), (2.0, 2.0)]
    assert timers.next_due() == 3.0


def test_a_cancelled_action_does_not_run() -> None:
    timers, ran = Timers(), []
    timer = timers.add(1.0, lambda argument, now: ran.append(argument))
    timers.cancel(timer)
    timers.cancel(timer)
    timers.cancel(None)
    timers.run(5.0)
    assert ran == []
    assert timers.next_due() is None


def test_cancelled_timers_do_not_pile_up() -> None:
    timers = Timers()
    timers.add(9.0, lambda argument, now: None)
    for _ in range(5000):
        timers.cancel(timers.add(5.0, lambda argument, now: None))
    assert len(timers._heap) < 1100
