"""What an interface has to say to Redis: operations of one turn of its loop, put together to one command.

Pure. One command is under way at a time; what is said meanwhile waits and goes with the next one. Bounds: what waits is
at most what the interface holds (an offer, an opening and an end per client), a command takes ``MOST`` operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from procman.layers.base import OpenSocket, Snapshot

MOST = 500
MOST_BYTES = 1024 * 1024

Operation = tuple[Any, ...]


class Outbox:
    """Operations in their order, and what was read of the inbox since it was last told."""

    def __init__(self) -> None:
        self._waiting: list[Operation] = []
        self._under_way: list[Operation] = []
        self._numbers: list[int] = []
        self._cursor: bytes | None = None

    def add(self, operation: Operation) -> None:
        """Have *operation* sent after those before it."""
        self._waiting.append(operation)

    def read(self, cursor: bytes, numbers: Iterable[int]) -> None:
        """The inbox was read up to *cursor*; the ends of the offers *numbers* were in it."""
        self._cursor = cursor
        self._numbers += numbers

    def is_idle(self) -> bool:
        """Whether there is nothing to send, and nothing under way."""
        return not (self._waiting or self._under_way or self._numbers)

    def has_more(self) -> bool:
        """Whether there are operations that are not under way."""
        return bool(self._waiting)

    def next_arguments(self) -> list[Any] | None:
        """The arguments of the next command; None while one is under way, or if there is nothing to tell."""
        if self._under_way or not (self._waiting or self._cursor):
            return None
        size = count = 0
        for operation in self._waiting:
            if count == MOST or size > MOST_BYTES:
                break
            size += len(operation[-1]) if operation[0] == b"O" else 50
            count += 1
        self._under_way, self._waiting = self._waiting[:count], self._waiting[count:]
        arguments: list[Any] = []
        if self._cursor is not None:
            numbers, self._numbers = self._numbers[:MOST], self._numbers[MOST:]
            self._under_way.insert(0, (b"T", self._cursor, len(numbers), *numbers))
            if not self._numbers:
                self._cursor = None
        for operation in self._under_way:
            arguments += operation
        return arguments

    def done(self) -> None:
        """The command that was under way has been applied."""
        self._under_way = []

    def again(self, without: Iterable[int]) -> None:
        """It was refused as a whole: its operations wait once more, except the offers *without*."""
        dropped = set(without)
        kept = [each for each in self._under_way if not (each[0] == b"O" and each[1] in dropped)]
        self._waiting[:0] = kept
        self._under_way = []

    def under_way(self) -> list[Operation]:
        """The operations of the command that is under way."""
        return self._under_way

    def clear(self) -> None:
        """Forget everything: what is held will be reported."""
        self._waiting, self._under_way, self._numbers, self._cursor = [], [], [], None

    def withdraw(self, number: int) -> bool:
        """Take the offer *number* back; whether it had not been sent yet."""
        for position, operation in enumerate(self._waiting):
            if operation[0] == b"O" and operation[1] == number:
                del self._waiting[position]
                return True
        return False


def opened(socket: OpenSocket, session: bytes | None, session_limit: int) -> Operation:
    """The operation for an accepted socket, whose *session* is as it may be stored."""
    kept = b"" if session is None or len(session) > session_limit else b"s" + session
    return (b"S", socket.reply_channel, socket.path, socket.order, kept)


def report(snapshot: Snapshot, build_opened: Callable[[OpenSocket], Operation]) -> list[Operation]:
    """Sockets and memberships of *snapshot*, and that this is all; its offers come later."""
    found: list[Operation] = [build_opened(socket) for socket in snapshot.sockets]
    found += ((b"M", group, channel) for group, channel in snapshot.memberships)
    return [*found, (b"R",)]
