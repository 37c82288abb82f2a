"""Database connections are looked after around each consumer."""

import pytest
from django.db import close_old_connections, connection
from django.test import override_settings

from procman.channels import signals


def connected(signal):
    return [receiver() for _, receiver, *_ in signal.receivers]


def test_connections_are_checked_before_and_after_each_consumer():
    assert {close_old_connections, signals.forget_queries} <= set(connected(signals.consumer_started))
    assert close_old_connections in connected(signals.consumer_finished)


@pytest.mark.parametrize("debug", [True, False])
def test_the_log_of_queries_is_emptied_where_it_is_kept(database, debug):
    with override_settings(DEBUG=debug):
        connection.cursor().execute("SELECT 1")
        assert bool(connection.queries) is debug
        signals.consumer_started.send(sender=object, environ={})
        assert not connection.queries
    signals.consumer_finished.send(sender=object)
