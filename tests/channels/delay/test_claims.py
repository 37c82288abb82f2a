"""One server alone has a due message; ``test_rundelay.py`` has the real processes."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test import TestCase
from django.utils import timezone

from procman.channels.delay import claims
from procman.channels.delay.models import DelayedMessage


@pytest.mark.usefixtures("_migrated")
class ClaimTests(TestCase):
    def setUp(self) -> None:
        for number, delay in enumerate((-1, -2, 60_000)):
            DelayedMessage.objects.create(channel_name=f"c{number}", delay=delay * 1000, content="{}")

    def test_first_due_message_is_claimed_first_and_one_that_is_not_due_never(self) -> None:
        found = []
        for _ in range(3):
            with claims.next_due() as message:
                found.append(message and message.channel_name)
        self.assertEqual(found, ["c1", "c0", None])

    def test_claimed_message_comes_due_again_when_its_server_has_died(self) -> None:
        with claims.next_due() as claimed:
            assert claimed is not None
        with connection.cursor() as cursor:
            self.assertGreater(claimed.due_date, timezone.now() + timedelta(seconds=claims.LEASE / 2))
            cursor.execute("SELECT COUNT(*) FROM procman_channels_delay_delayedmessage")
            self.assertEqual(cursor.fetchone(), (3,))
        claimed.put_off(-5000)
        with claims.next_due() as again:
            self.assertEqual(again, claimed)

    def test_second_of_two_that_read_the_same_rows_gets_another_one(self) -> None:
        read = [list(DelayedMessage.objects.is_due().order_by("due_date")) for _ in range(3)]
        first, second, third = (claims._lease(messages, "default") for messages in read)
        assert first is not None and second is not None
        self.assertEqual((first.channel_name, second.channel_name, third), ("c1", "c0", None))

    def test_row_is_locked_where_the_database_passes_over_locked_rows(self) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(connection.features, "has_select_for_update_skip_locked", True)
            before = DelayedMessage.objects.get(channel_name="c1").due_date
            with claims.next_due() as message:
                assert message is not None
                self.assertEqual((message.channel_name, message.due_date), ("c1", before))
                message.delete()
            with self.assertRaises(RuntimeError), claims.next_due() as message:
                assert message is not None
                message.delete()
                raise RuntimeError
        self.assertEqual(DelayedMessage.objects.filter(channel_name="c0").count(), 1)
