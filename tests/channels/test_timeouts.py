"""When a consumer has run for too long."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from procman.channels import timeouts
from procman.channels.exceptions import DenyConnection
from procman.channels.generic.base import BaseConsumer
from procman.channels.timeouts import Watchdog, consumer_timeout
from procman.channels.worker import Worker

SHORT, LONG = 0.05, 600.0


class Heard:
    """What a watchdog gave up, and when it has."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, float, str]] = []
        self.event = threading.Event()

    def __call__(self, running: Any, limit: float, stack: str) -> None:
        self.calls.append((running, limit, stack))
        self.event.set()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def watchdog(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watchdog]:
    """The watchdog of decorated consumers, for this test."""
    made = Watchdog()
    monkeypatch.setattr(timeouts, "watchdog", made)
    yield made


def run(watchdog: Watchdog, heard: Heard, function: Callable[[], Any], channel: str = "http.request") -> Any:
    watchdog.begin(channel, "it", heard)
    try:
        return function()
    finally:
        watchdog.end()


def has_waited_in_vain_for(heard: Heard) -> bool:
    """Whether nothing is given up in four times the short limit."""
    return not heard.event.wait(4 * SHORT)


def test_a_consumer_over_the_limit_is_given_up_with_its_stack(watchdog: Watchdog, heard: Heard) -> None:
    watchdog.default = SHORT

    def stuck_in_here() -> None:
        assert heard.event.wait(10)

    run(watchdog, heard, stuck_in_here)
    ((running, limit, stack),) = heard.calls
    assert (running, limit) == ("it", SHORT)
    assert "stuck_in_here" in stack


@pytest.mark.parametrize("channel", ["websocket.receive", "websocket.connect", "websocket.disconnect", "http.request"])
def test_messages_that_a_client_waits_for_have_a_limit(watchdog: Watchdog, heard: Heard, channel: str) -> None:
    watchdog.default = SHORT
    assert run(watchdog, heard, lambda: heard.event.wait(10), channel)


def test_other_messages_have_none(watchdog: Watchdog, heard: Heard) -> None:
    watchdog.default = SHORT
    assert run(watchdog, heard, lambda: has_waited_in_vain_for(heard), "thumbnails.make")


def test_a_consumer_that_ends_in_time_is_left_alone(watchdog: Watchdog, heard: Heard) -> None:
    watchdog.default = SHORT
    for _ in range(100):
        run(watchdog, heard, lambda: None)
    assert has_waited_in_vain_for(heard)


def test_a_short_limit_is_noticed_while_the_watchdog_waits_for_a_long_one(watchdog: Watchdog, heard: Heard) -> None:
    watchdog.default = LONG
    run(watchdog, heard, lambda: None)

    @consumer_timeout(SHORT)
    def consumer() -> bool:
        return heard.event.wait(10)

    assert run(watchdog, heard, consumer)
    assert heard.calls[0][1] == SHORT


@pytest.mark.parametrize("seconds", [LONG, None])
def test_a_decorated_consumer_may_take_longer_than_others(
    watchdog: Watchdog, heard: Heard, seconds: float | None
) -> None:
    watchdog.default = SHORT
    decorated = consumer_timeout(seconds)(lambda: has_waited_in_vain_for(heard))
    assert run(watchdog, heard, decorated)


def test_the_limit_from_before_goes_on_behind_a_decorated_part(watchdog: Watchdog, heard: Heard) -> None:
    watchdog.default = SHORT

    def consumer() -> bool:
        consumer_timeout(LONG)(lambda: None)()
        return heard.event.wait(10)

    assert run(watchdog, heard, consumer)


def test_a_message_without_a_default_may_be_given_a_limit(watchdog: Watchdog, heard: Heard) -> None:
    assert run(watchdog, heard, consumer_timeout(SHORT)(lambda: heard.event.wait(10)), "thumbnails.make")


def test_time_spent_waiting_for_the_client_does_not_count(watchdog: Watchdog, heard: Heard) -> None:
    watchdog.default = SHORT

    def consumer() -> bool:
        with watchdog.paused():
            assert has_waited_in_vain_for(heard)
        return heard.event.wait(10)

    assert run(watchdog, heard, consumer)


def test_threads_have_limits_of_their_own(watchdog: Watchdog, heard: Heard) -> None:
    watchdog.default = LONG
    other = Heard()
    done = threading.Event()
    thread = threading.Thread(target=lambda: run(watchdog, other, lambda: done.wait(10)))
    thread.start()
    assert run(watchdog, heard, consumer_timeout(SHORT)(lambda: heard.event.wait(10)))
    done.set()
    thread.join(10)
    assert other.calls == []


def test_short_messages_do_not_wake_the_watchdog_each(
    watchdog: Watchdog, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    wakes: list[None] = []
    notify = watchdog._condition.notify
    monkeypatch.setattr(watchdog._condition, "notify", lambda: (wakes.append(None), notify()))
    watchdog.default = LONG
    for _ in range(200):
        run(watchdog, heard, lambda: None)
        threading.Event().wait(0.001)  # the watchdog has its turn while nothing runs
    assert len(wakes) < 10


def test_what_ends_the_process_without_the_interpreter_is_set_only_while_it_is_needed(
    watchdog: Watchdog, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []
    cancelled = threading.Event()
    monkeypatch.setattr(
        timeouts.faulthandler, "dump_traceback_later", lambda seconds, **options: limits.append(round(seconds, 1))
    )
    monkeypatch.setattr(timeouts.faulthandler, "cancel_dump_traceback_later", cancelled.set)
    watchdog.ends_process = True
    run(watchdog, heard, consumer_timeout(SHORT)(cancelled.clear))
    assert round(SHORT + timeouts.GRACE, 1) in limits
    # Not at once: the watchdog may be due for what has ended, and is watched until it has seen that.
    assert cancelled.wait(10)


def test_outside_of_a_worker_the_decorator_only_calls(watchdog: Watchdog) -> None:
    @consumer_timeout(1)
    def consumer(message: str, **kwargs: Any) -> Any:
        """Its documentation."""
        return message, kwargs

    assert consumer("m", room="x") == ("m", {"room": "x"})
    assert (consumer.__name__, consumer.__doc__) == ("consumer", "Its documentation.")


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), "5", True])
def test_a_limit_must_be_a_number_of_seconds(seconds: Any) -> None:
    with pytest.raises(ValueError, match="seconds above 0"):
        consumer_timeout(seconds)


def test_a_class_based_consumer_stays_a_class(layer: Any, wrapper: Any, watchdog: Watchdog, heard: Heard) -> None:
    @consumer_timeout(SHORT)
    class Slow(BaseConsumer):
        method_mapping = {"slow": "consume"}

        def consume(self, message: Any, **kwargs: Any) -> None:
            self.was_given_up = heard.event.wait(10)

    assert Slow.channel_names() == {"slow"}
    from procman.channels.message import Message

    made = run(watchdog, heard, lambda: Slow(Message({}, "slow", None)), "slow")
    assert made.was_given_up


def test_the_client_is_told_and_the_message_ended_where_a_thread_cannot_be(
    layer: Any, wrapper: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from procman.channels.routing import Router, route

    ended = threading.Event()
    finish = layer.finish

    def noted(*args: Any) -> None:
        finish(*args)
        ended.set()

    layer.finish = noted

    @consumer_timeout(SHORT)
    def stuck(message: Any) -> None:
        assert ended.wait(10)
        raise DenyConnection

    wrapper.router = Router([route("http.request", stuck)])
    delivery = layer.deliver("http.request", {"reply_channel": "i!1", "method": "POST", "path": "/slow/\n"})
    Worker(wrapper, signal_handlers=False).handle(delivery)
    (first, *_) = layer.finished
    assert (first[1][0].name, first[1][0].message["status"]) == ("i!1", 504)
    (record,) = [record for record in caplog.records if "ran for more than" in record.message]
    assert record.levelname == "ERROR"
    assert "stuck ran for more than 0.05 s on http.request path /slow/\\x0a reply channel i!1" in record.message
    assert "in stuck" in record.message


HOLDS_THE_INTERPRETER = """
import math, re, sys, time
from procman.channels import timeouts
timeouts.GRACE = 0.2
watchdog = timeouts.watchdog
watchdog.default, watchdog.ends_process = 0.2, True
def is_idle():
    with watchdog._condition:
        return watchdog._wakes_at == math.inf
watchdog.begin("http.request", None, print)
while is_idle():
    time.sleep(0.001)
watchdog.end()
while not is_idle():
    time.sleep(0.001)
sys.setswitchinterval(60)  # as if it got no turn before the consumer goes on
watchdog.begin("http.request", None, print)
re.match(r"(a+)+$", "a" * 60 + "b")
"""


def test_a_watchdog_that_gets_no_turn_after_it_was_idle_ends_the_process_all_the_same():
    done = subprocess.run(
        [sys.executable, "-c", HOLDS_THE_INTERPRETER], check=False, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 1
    assert "Timeout" in done.stderr
    assert " in match" in done.stderr
