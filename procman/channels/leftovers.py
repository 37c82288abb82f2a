"""What a consumer may leave behind in its thread and process, and how it is put right before the next message.

A recursion limit that is too low for the worker, a transaction that was begun and never ended, a forked child that
comes out of the consumer as if it were the worker. Not looked after: the working directory, the locale, the environment
and whatever else belongs to the process as a whole; consumers share these.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, NoReturn

from django.db import connections

from procman.channels.log import Unfailing
from procman.channels.utils import name_that_thing

logger = Unfailing("django.channels")
_fork_count = 0  # between this process and the one that imported this module


def _count_fork() -> None:
    global _fork_count
    _fork_count += 1


os.register_at_fork(after_in_child=_count_fork)


class Cleaner:
    """Puts right what the consumers of one worker thread leave behind. Made where that thread's worker is made."""

    __slots__ = ("_fork_count", "_known", "_recursion_limit")

    def __init__(self) -> None:
        # A test runs consumers within a transaction of its own.
        self._known = [c for c in connections.all(initialized_only=True) if c.in_atomic_block]
        self.begin()

    def begin(self) -> None:
        """A consumer is about to be called."""
        self._fork_count = _fork_count
        self._recursion_limit = sys.getrecursionlimit()

    def put_right(self, consumer: Any, error: BaseException | None = None) -> None:
        """*consumer* has returned, or raised *error*. In a child that it has forked this does not return."""
        low = sys.getrecursionlimit()
        if low < self._recursion_limit:  # a higher one does no harm
            sys.setrecursionlimit(self._recursion_limit)
            logger.warning(
                "consumer %s has left a recursion limit of %d; it is %d again",
                *(name_that_thing(consumer), low, self._recursion_limit),
            )
        if _fork_count != self._fork_count:
            _end_child(consumer, error)
        for connection in connections.all(initialized_only=True):
            if connection.in_atomic_block and connection not in self._known:
                logger.error(
                    "consumer %s has left a transaction open on database %r; it is rolled back",
                    *(name_that_thing(consumer), connection.alias),
                )
                _end_transaction(connection)


def close_connections() -> None:
    """Close the database connections of this thread, which ends."""
    connections.close_all()


def _end_child(consumer: Any, error: BaseException | None) -> NoReturn:
    """End this child of the worker: the message, its answer and the loop are the parent's."""
    status = 0
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        status = 1
        logger.error(
            "a child process that consumer %s has forked ends with an error", name_that_thing(consumer), exc_info=error
        )
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or not there
            stream.flush()
    os._exit(status & 0xFF)


def _end_transaction(connection: Any) -> None:
    """Roll back on *connection* as if ``atomic`` had ended with an error, and close it.

    Django does not: a connection that it closes within a block stays unusable until the end of that block.
    """
    connection.in_atomic_block = connection.needs_rollback = connection.closed_in_transaction = False
    connection.savepoint_ids, connection.atomic_blocks = [], []
    with contextlib.suppress(Exception):  # it may be broken already
        connection.rollback()
        connection.set_autocommit(connection.settings_dict["AUTOCOMMIT"])
    connection.close()
