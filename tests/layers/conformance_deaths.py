"""What every layer with workers must do when one of them dies: once more, marked, and then the end, told in the log.

Beside the fixtures of ``conformance.py`` a backend may replace ``die_with(*channels)``: a worker that takes one message
and dies before it has finished. The worker here is a thread that ends.
"""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from procman.layers.base import Delivery, Send
from tests.layers.conformance import Make, contents, rest
from tests.support.waiting import wait_until

DieWith = Callable[..., Delivery]


class DeathSuite:
    """Inherited together with the other suites."""

    @pytest.fixture
    def logged(self, caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
        return lambda: caplog.text

    @pytest.fixture
    def die_with(self, make: Make) -> DieWith:
        def die_with(*channels: str) -> Delivery:
            taken: list[Delivery] = []

            def work() -> None:
                layer = make()
                delivery = layer.take(list(channels), 10)
                taken.append(delivery)

            thread = threading.Thread(target=work)
            thread.start()
            thread.join(20)
            return taken[0]

        return die_with

    def test_the_message_of_a_dead_worker_goes_to_another_one_marked_and_before_the_others(
        self, layer: Any, die_with: DieWith
    ) -> None:
        layer.send("work", {"n": 1})
        first = die_with("work")
        assert not first.redelivered
        for number in (2, 3):
            layer.send("work", {"n": number})
        wait_until(lambda: layer.channel_statistics("work")["messages_pending"] == 3)
        taken = []
        for _ in range(3):
            delivery = layer.take(["work"], 10)
            taken.append((delivery.message["n"], delivery.redelivered))
            if delivery.redelivered:
                assert delivery.id == first.id
            layer.finish(delivery)
        assert taken == [(1, True), (2, False), (3, False)]

    def test_a_message_whose_second_worker_dies_is_dropped_with_an_error_that_names_it(
        self, make: Make, die_with: DieWith, logged: Callable[[], str]
    ) -> None:
        layer = make()
        before = layer.statistics()
        reply_channel = layer.new_channel("poison?")
        layer.send("work", {"n": 1, "reply_channel": reply_channel})
        assert not die_with("work").redelivered
        assert die_with("work").redelivered
        wait_until(lambda: layer.statistics()["dropped_count"] == before["dropped_count"] + 1)
        assert layer.statistics()["redelivered_count"] == before["redelivered_count"] + 1
        assert layer.take(["work"], 0.15) is None
        wait_until(
            lambda: any("work" in line for line in logged().splitlines() if "ERROR" in line and reply_channel in line),
            what=logged(),
        )

    def test_a_worker_that_ends_on_purpose_does_not_count_as_a_death(
        self, layer: Any, make: Make, die_with: DieWith
    ) -> None:
        layer.send("work", {"n": 1})
        seen: list[bool] = []

        def end_on_purpose() -> None:
            ending = make()
            seen.append(ending.take(["work"], 10).redelivered)
            ending.excuse()

        for _ in range(3):
            thread = threading.Thread(target=end_on_purpose)
            thread.start()
            thread.join(20)
        seen.append(die_with("work").redelivered)
        delivery = layer.take(["work"], 10)
        layer.finish(delivery)
        assert [*seen, delivery.redelivered] == [False, True, True, True, True]
        assert delivery.message == {"n": 1}

    def test_what_was_finished_by_another_thread_before_the_end_is_not_redelivered(
        self, layer: Any, make: Make
    ) -> None:
        layer.send("work", {"n": 1})

        def be_ended() -> None:
            ending = make()
            delivery = ending.take(["work"], 10)

            def end() -> None:
                ending.finish(delivery, [Send("told", {"n": 2})])
                ending.excuse()

            watchdog = threading.Thread(target=end)
            watchdog.start()
            watchdog.join(20)

        thread = threading.Thread(target=be_ended)
        thread.start()
        thread.join(20)
        assert layer.receive_many(["told"], block=True, timeout=10) == ("told", {"n": 2})
        assert layer.take(["work"], 0.3) is None

    def test_what_a_dead_worker_would_have_sent_at_its_end_is_not_sent(self, layer: Any, die_with: DieWith) -> None:
        layer.send("work", {"n": 1})
        die_with("work")
        delivery = layer.take(["work"], 10)
        layer.finish(delivery, [Send("done", {"n": 1})])
        layer.take(["work"], 0)
        assert contents(layer, "done") == [{"n": 1}]

    def test_a_redelivery_passes_the_capacity_and_has_its_time_again(self, make: Make, die_with: DieWith) -> None:
        layer = make(capacity=1)
        layer.send("work", {"n": 1})
        die_with("work")
        layer.send("work", {"n": 2})
        numbers = []
        for _ in range(2):
            delivery = layer.take(["work"], 10)
            numbers.append(delivery.message["n"])
            layer.finish(delivery)
        assert sorted(numbers) == [1, 2]

    def test_flush_ends_what_is_in_flight(self, layer: Any, make: Make) -> None:
        layer.send("work", {"n": 1})
        has_taken, is_flushed = threading.Event(), threading.Event()

        def work() -> None:
            make().take(["work"], 10)
            has_taken.set()
            is_flushed.wait(10)

        thread = threading.Thread(target=work)
        thread.start()
        assert has_taken.wait(10)
        layer.flush()
        is_flushed.set()
        thread.join(10)
        rest(layer, 0.2)  # longer than a redelivery waits
        assert contents(layer, "work") == []
        layer.send("work", {"n": 2})
        delivery = layer.take(["work"], 10)
        assert delivery.message == {"n": 2}
        layer.finish(delivery)
