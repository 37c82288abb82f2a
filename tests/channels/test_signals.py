"""Database connections are looked after around each consumer."""

from django.db import close_old_connections, reset_queries

from procman.channels import signals


def connected(signal):
    return [receiver() for _, receiver, *_ in signal.receivers]


def test_connections_are_checked_before_and_after_each_consumer():
    assert {close_old_connections, reset_queries} <= set(connected(signals.consumer_started))
    assert close_old_connections in connected(signals.consumer_finished)
