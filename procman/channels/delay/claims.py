"""Which of several delay servers sends a due message: one alone.

Where the database can pass over locked rows, a server locks the row while it sends; if it dies, the lock goes with its
connection, and the clocks of the hosts do not matter. Elsewhere (SQLite) a server puts the row off for the time of a
lease, by an update that finds the row only as it was read: the second one to try changes nothing. No transaction is
open during the send then, which would keep every writer of the site away; a server that dies leaves its row to the
others for when the lease ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.db import connections, router, transaction
from django.utils import timezone

from procman.channels.delay.models import DelayedMessage

LEASE = 60.0  # seconds; a send takes milliseconds, and gives up long before this
# Rows looked at for one that nobody else has claimed in the meantime.
_CANDIDATES = 10


@contextmanager
def next_due() -> Iterator[DelayedMessage | None]:
    """The first due message, which no other server sends while the block lasts; None without one."""
    using = router.db_for_write(DelayedMessage)
    due = DelayedMessage.objects.using(using).is_due().order_by("due_date", "pk")
    if connections[using].features.has_select_for_update_skip_locked:
        with transaction.atomic(using=using):
            yield due.select_for_update(skip_locked=True).first()
    else:
        yield _lease(list(due[:_CANDIDATES]), using)


def _lease(messages: list[DelayedMessage], using: str) -> DelayedMessage | None:
    for message in messages:
        until = timezone.now() + timedelta(seconds=LEASE)
        as_read = DelayedMessage.objects.using(using).filter(pk=message.pk, due_date=message.due_date)
        if as_read.update(due_date=until):
            message.due_date = until
            return message
    return None
