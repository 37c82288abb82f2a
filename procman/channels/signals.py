"""Signals around consumers and workers. Database connections are looked after as around Django's requests."""

from typing import Any

from django.conf import settings
from django.db import close_old_connections, reset_queries
from django.dispatch import Signal

#: Sent before a consumer is called, in its thread.
consumer_started = Signal(use_caching=True)
#: Sent after a consumer, whatever it raised, in its thread.
consumer_finished = Signal(use_caching=True)
#: Sent once per thread of a worker, before it takes messages.
worker_ready = Signal()
#: Sent once per worker process, before ``worker_ready``.
worker_process_ready = Signal()


def forget_queries(**kwargs: Any) -> None:
    """Empty the logs of queries, which Django keeps with ``DEBUG`` on only; looking at each takes time."""
    if settings.DEBUG:
        reset_queries()


consumer_started.connect(forget_queries, dispatch_uid="procman.reset_queries")
consumer_started.connect(close_old_connections, dispatch_uid="procman.close_before")
consumer_finished.connect(close_old_connections, dispatch_uid="procman.close_after")
