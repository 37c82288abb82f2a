"""Signals around consumers and workers. Database connections are looked after as around Django's requests."""

from django.db import close_old_connections, reset_queries
from django.dispatch import Signal

consumer_started = Signal(use_caching=True)
consumer_finished = Signal(use_caching=True)
worker_ready = Signal()  # per thread
worker_process_ready = Signal()  # per process

consumer_started.connect(reset_queries, dispatch_uid="procman.reset_queries")
consumer_started.connect(close_old_connections, dispatch_uid="procman.close_before")
consumer_finished.connect(close_old_connections, dispatch_uid="procman.close_after")
