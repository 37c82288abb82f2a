"""Signals around consumers and workers. Database connections are looked after as around Django's requests."""

from collections.abc import Iterator
from contextlib import contextmanager
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


_OF_DATABASES = (
    (consumer_started, forget_queries, "procman.reset_queries"),
    (consumer_started, close_old_connections, "procman.close_before"),
    (consumer_finished, close_old_connections, "procman.close_after"),
)


def _look_after_databases() -> None:
    for each, receiver, uid in _OF_DATABASES:
        each.connect(receiver, dispatch_uid=uid)


@contextmanager
def databases_left_alone() -> Iterator[None]:
    """Within, consumers close no connection and empty no log of queries: those of a test are its own."""
    for each, _, uid in _OF_DATABASES:
        each.disconnect(dispatch_uid=uid)
    try:
        yield
    finally:
        _look_after_databases()


_look_after_databases()
