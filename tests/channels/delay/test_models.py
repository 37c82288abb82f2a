"""What is stored, when it is due, and what a send does to it."""

from datetime import timedelta
from unittest import mock

import pytest
from django.db import IntegrityError
from django.utils import timezone

from procman.channels import channel_layers
from procman.channels.delay.models import DelayedMessage
from procman.channels.test import ChannelTestCase
from procman.layers.errors import MessageTooLarge


def later(milliseconds: float) -> mock._patch:
    return mock.patch("django.utils.timezone.now", return_value=timezone.now() + timedelta(milliseconds=milliseconds))


@pytest.mark.usefixtures("_migrated")
class DelayedMessageTests(ChannelTestCase):
    def test_delay_sets_the_date(self) -> None:
        message = DelayedMessage(channel_name="test", delay=10_000, content="{}")
        self.assertAlmostEqual(message.delay, 10_000, delta=5_000)
        message.delay = 1000
        message.save()
        self.assertGreater(message.due_date, timezone.now())
        self.assertIn("test at 20", str(message))

    def test_message_is_due_when_its_date_has_passed_and_not_before(self) -> None:
        DelayedMessage.objects.create(channel_name="test", delay=1000, content="{}")
        self.assertEqual(DelayedMessage.objects.is_due().count(), 0)
        with later(1001):
            self.assertEqual(DelayedMessage.objects.is_due().count(), 1)
            self.assertEqual(DelayedMessage.objects.filter(channel_name="other").is_due().count(), 0)

    def test_send_leaves_a_message_and_no_row(self) -> None:
        DelayedMessage.objects.create(channel_name="test", delay=0, content='{"test": ["value", null]}').send()
        message = self.get_next_message("test", require=True)
        assert message is not None
        self.assertEqual(message.content, {"test": ["value", None]})
        self.assertFalse(DelayedMessage.objects.exists())

    def test_full_channel_puts_the_message_off(self) -> None:
        for number in range(11):
            DelayedMessage.objects.create(channel_name="test", delay=0, content=f'{{"n": {number}}}')
        for message in DelayedMessage.objects.all():
            message.send(channel_layer=channel_layers["default"], requeue_delay=5000)
        (left,) = DelayedMessage.objects.all()
        self.assertEqual(left.content, '{"n": 10}')
        self.assertAlmostEqual(left.delay, 5000, delta=4000)

    def test_message_that_cannot_be_sent_stays(self) -> None:
        for name, content, error in (
            ("test", "no JSON", ValueError),
            ("test", "[]", TypeError),
            ("no name", "{}", TypeError),
            ("test", '{"a": "%s"}' % ("x" * 17_000_000), MessageTooLarge),
        ):
            message = DelayedMessage.objects.create(channel_name=name, delay=0, content=content)
            with self.assertRaises(error):
                message.send()
        self.assertEqual(DelayedMessage.objects.count(), 4)

    def test_date_is_needed(self) -> None:
        with self.assertRaises(IntegrityError):
            DelayedMessage.objects.create(channel_name="test", content="{}")
