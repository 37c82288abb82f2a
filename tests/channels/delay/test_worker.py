"""The delay server over a layer and a database of the test, loop by loop as the tests of 1.x count them."""

import logging
import signal
import threading
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from django.db import OperationalError
from django.utils import timezone

from procman.channels import Channel, channel_layers
from procman.channels.asgi import ChannelLayerWrapper
from procman.channels.delay import worker as delay_worker
from procman.channels.delay.models import DelayedMessage
from procman.channels.delay.worker import Worker, read_request
from procman.channels.test import ChannelTestCase
from procman.clock import SystemClock
from procman.layers.errors import LayerUnavailable
from tests.channels.layer import BareLayer
from tests.support.waiting import wait_until

VALID = {"channel": "test", "delay": 1000, "content": {"test": "value"}}


class CountingWorker(Worker):
    """Runs as many loops as ``termed`` was set to, as in the tests of 1.x."""

    _loops = 0

    @property
    def termed(self) -> bool:
        self._loops -= 1
        return self._loops < 0

    @termed.setter
    def termed(self, value: Any) -> None:
        self._loops = int(value)


def loops(count: int, **options: Any) -> None:
    worker = CountingWorker(channel_layers["default"], **{"database_sleep_duration": 0.01, **options})
    worker.termed = count
    worker.run()


@pytest.mark.usefixtures("_migrated")
class WorkerTests(ChannelTestCase):
    def setUp(self) -> None:
        logger = logging.getLogger("django.channels")
        self.addCleanup(setattr, logger, "propagate", logger.propagate)
        logger.propagate = True

    def test_message_is_stored_and_sent_unchanged_when_it_is_due(self) -> None:
        Channel("asgi.delay").send(VALID)
        loops(1)
        self.assertEqual(DelayedMessage.objects.count(), 1)
        loops(2)
        self.assertIsNone(self.get_next_message("test"))
        with mock.patch("django.utils.timezone.now", return_value=timezone.now() + timedelta(milliseconds=1001)):
            loops(1)
        self.assertFalse(DelayedMessage.objects.exists())
        message = self.get_next_message("test", require=True)
        assert message is not None
        self.assertEqual(message.content, {"test": "value"})
        self.assertIsNone(channel_layers["default"].take(["asgi.delay"], 0))

    def test_invalid_message_is_logged_and_dropped_and_the_server_goes_on(self) -> None:
        Channel("asgi.delay").send({"test": "value\n"})
        Channel("asgi.delay").send(VALID | {"channel": "bad\nname"})
        Channel("asgi.delay").send(VALID)
        with self.assertLogs("django.channels", "ERROR") as logs:
            loops(3)
        self.assertEqual(len(logs.output), 2)
        self.assertIn("channel, delay, content missing", logs.output[0])
        self.assertNotIn("\n", logs.output[1])
        self.assertEqual(DelayedMessage.objects.count(), 1)

    def test_message_to_a_full_channel_is_put_off_not_lost(self) -> None:
        for number in range(11):
            DelayedMessage.objects.create(channel_name="test", delay=-1, content=f'{{"n": {number}}}')
        loops(1)
        self.assertEqual(DelayedMessage.objects.count(), 1)
        self.assertEqual(DelayedMessage.objects.is_due().count(), 0)

    def test_message_that_can_never_be_sent_is_dropped_and_the_next_one_is_sent(self) -> None:
        DelayedMessage.objects.create(channel_name="no\nname", delay=-2000, content="{}")
        DelayedMessage.objects.create(channel_name="test", delay=-2000, content="no JSON")
        DelayedMessage.objects.create(channel_name="test", delay=-1000, content='{"n": 1}')
        with self.assertLogs("django.channels", "ERROR") as logs:
            loops(1)
        self.assertEqual(len(logs.output), 2)
        self.assertIn("no\\nname", logs.output[0])
        self.assertIsNotNone(self.get_next_message("test"))
        self.assertFalse(DelayedMessage.objects.exists())

    def test_round_sends_a_bounded_batch_before_it_looks_at_the_layer_again(self) -> None:
        for number in range(5):
            DelayedMessage.objects.create(channel_name="test", delay=-1, content=f'{{"n": {number}}}')
        Channel("asgi.delay").send(VALID)
        with mock.patch.object(delay_worker, "BATCH", 2):
            loops(1)
            self.assertEqual(DelayedMessage.objects.count(), 5 - 2 + 1)
            loops(2)
        self.assertEqual(DelayedMessage.objects.count(), 1)

    def test_layer_that_is_away_loses_nothing(self) -> None:
        DelayedMessage.objects.create(channel_name="test", delay=-1, content="{}")
        layer = channel_layers["default"].channel_layer
        with mock.patch.object(layer, "send", side_effect=LayerUnavailable("away")):
            with self.assertLogs("django.channels", "ERROR") as logs:
                loops(2)
        self.assertEqual(len(logs.output), 1)
        self.assertIn("the channel layer does not answer; trying again: away", logs.output[0])
        DelayedMessage.objects.update(due_date=timezone.now())
        loops(1)
        self.assertIsNotNone(self.get_next_message("test"))

    def test_database_that_is_away_for_a_moment_loses_nothing(self) -> None:
        Channel("asgi.delay").send(VALID)
        save, failures = DelayedMessage.save, [OperationalError("locked"), OperationalError("locked")]

        def failing_save(message: DelayedMessage, **options: Any) -> None:
            if failures:
                raise failures.pop()
            save(message, **options)

        with mock.patch.object(DelayedMessage, "save", failing_save):
            with self.assertLogs("django.channels", "INFO") as logs:
                loops(9)
        texts = [record.getMessage() for record in logs.records]
        self.assertEqual(len([text for text in texts if "the database does not answer" in text]), 1)
        self.assertIn("the delay server goes on", texts)
        self.assertEqual(DelayedMessage.objects.count(), 1)

    def test_message_goes_back_when_the_server_is_stopped_while_the_database_is_away(self) -> None:
        Channel("asgi.delay").send(VALID)
        with mock.patch.object(DelayedMessage, "save", side_effect=OperationalError("away")):
            with self.assertLogs("django.channels", "ERROR"):
                loops(1)
        delivery = channel_layers["default"].take(["asgi.delay"], 10)
        self.assertEqual(delivery.message, VALID)

    def test_layer_of_1x_will_do(self) -> None:
        bare = BareLayer()
        channel_layers.set("default", ChannelLayerWrapper(bare, "default", []))
        bare.send("asgi.delay", VALID)
        loops(2)
        self.assertEqual(DelayedMessage.objects.count(), 1)


@pytest.mark.usefixtures("database", "layer")
def test_signal_ends_the_wait_and_the_handlers_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from procman.layers.memory import InMemoryChannelLayer

    monkeypatch.setattr(delay_worker, "_LONGEST_WAIT", 60)
    layer = InMemoryChannelLayer()
    worker = Worker(ChannelLayerWrapper(layer, "default", []), database_sleep_duration=60)
    before = signal.getsignal(signal.SIGTERM)
    main = threading.get_ident()

    def send_signal() -> None:
        wait_until(lambda: layer.local._waiting)
        signal.pthread_kill(main, signal.SIGTERM)

    sender = threading.Thread(target=send_signal)
    sender.start()
    started = SystemClock.monotonic()
    worker.run()
    sender.join()
    assert SystemClock.monotonic() - started < 30
    assert worker.termed and not worker.in_job
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.usefixtures("database", "layer")
def test_worker_in_a_thread_leaves_signals_alone_and_stops() -> None:
    from procman.layers.memory import InMemoryChannelLayer

    wrapper = ChannelLayerWrapper(InMemoryChannelLayer(), "default", [])
    worker = Worker(wrapper, signal_handlers=False)
    worker.step = lambda: wrapper.take(["asgi.delay"], 60)  # type: ignore[method-assign]
    thread = threading.Thread(target=worker.run)
    before = signal.getsignal(signal.SIGTERM)
    thread.start()
    wait_until(lambda: wrapper.channel_layer._takers)
    worker.stop()
    thread.join(10)
    assert not thread.is_alive()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"channel": None}, "None"),
        ({"channel": "with space"}, "with space"),
        ({"channel": "x" * 100}, "x"),
        ({"delay": "1000"}, "'1000', which is no number"),
        ({"delay": True}, "no number"),
        ({"delay": -1}, "no number"),
        ({"delay": float("nan")}, "no number"),
        ({"delay": float("inf")}, "no number"),
        ({"delay": 10**15}, "beyond the calendar"),
        ({"delay": 10**40}, "beyond the calendar"),
        ({"content": "text"}, "str, not a dict"),
        ({"content": {"a": b"bytes"}}, "cannot be stored"),
    ],
)
def test_request_that_makes_no_sense_is_refused_in_words(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_request({**VALID, **change})


@pytest.mark.parametrize("key", ["channel", "delay", "content"])
def test_request_needs_every_key(key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key} missing"):
        read_request({name: value for name, value in VALID.items() if name != key})


def test_request_becomes_a_message_that_is_not_stored_yet() -> None:
    message = read_request({"channel": "test", "delay": 2500.5, "content": {"a": [1, "ü"]}})
    assert (message.pk, message.channel_name, message.content) == (None, "test", '{"a": [1, "\\u00fc"]}')
    assert 0 < message.delay <= 2500.5
