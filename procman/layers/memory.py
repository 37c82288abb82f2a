"""A channel layer inside one process, for tests and for trying things out: mailbox, groups and one Condition.

Nothing survives the process and no other process sees it; ``checks.py`` warns where several processes would need one
layer. A delivery is not given out again: its worker is a thread of this process and dies together with the layer.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from procman.clock import Clock, SystemClock
from procman.layers import codec, names
from procman.layers.base import ChannelLayer, Delivery, Message, Send
from procman.layers.errors import ChannelFull
from procman.layers.groups import Groups
from procman.layers.limits import CAPACITY, EXPIRY, GROUP_EXPIRY, MAX_MESSAGE_SIZE, Limits
from procman.layers.mailbox import Mailbox

logger = logging.getLogger("procman.layers")
FULL_RETRY = 2.0
_LONGEST_WAIT = 0.25  # a wake-up that could not take the lock is noticed after this many seconds
_layers: weakref.WeakSet[InMemoryChannelLayer] = weakref.WeakSet()


@dataclass(slots=True, eq=False)
class _Item:
    channel: str
    body: bytes
    deadline: float
    since: float
    id: str
    size: int


class InMemoryChannelLayer(names.NameRules, ChannelLayer):
    """The contract without processes. Arguments as for every layer; *clock* is for tests that move the time."""

    def __init__(
        self,
        expiry: float = EXPIRY,
        group_expiry: float = GROUP_EXPIRY,
        capacity: int = CAPACITY,
        channel_capacity: Mapping[Any, int] | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
        prefix: str = "",
        clock: Clock | None = None,
    ) -> None:
        del prefix
        self.limits = Limits(expiry, group_expiry, capacity, channel_capacity, max_message_size)
        self.expiry, self.group_expiry, self.capacity = expiry, group_expiry, capacity
        self.channel_capacity = dict(channel_capacity or {})
        self._clock: Clock = SystemClock() if clock is None else clock
        self._mailbox: Mailbox[_Item] = Mailbox()
        self._groups = Groups()
        self._in_flight: dict[str, _Item] = {}
        self._id = secrets.token_hex(4)
        self._counter = 0
        self._dropped_count = 0
        self._taking: dict[int, bool] = {}  # thread -> whether it was woken
        self._reset_lock()
        _layers.add(self)

    def _reset_lock(self) -> None:
        self._changed = threading.Condition(threading.Lock())

    def get_capacity(self, channel: str) -> int:
        """How many messages may wait on *channel*."""
        return self.limits.capacity_of(channel)

    # -- everybody ----------------------------------------------------------------------------------------------------

    def send(self, channel: str, message: Message) -> None:
        names.check_channel(channel)
        body = self._encode(message)
        with self._changed:
            if not self._put(channel, body):
                raise ChannelFull(channel, self.limits.capacity_of(channel))

    def receive_many(
        self, channels: Sequence[str], block: bool = False, timeout: float | None = None
    ) -> tuple[str | None, dict[str, Any] | None]:
        wanted = names.check_receive(channels)
        with self._changed:
            item = self._next(wanted, timeout if block else 0.0, lambda: False)
        return (None, None) if item is None else (item.channel, codec.decode(item.body))

    def new_channel(self, pattern: str) -> str:
        return names.build_channel(pattern)

    def group_add(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        with self._changed:
            self._groups.add(group, channel, self._clock.monotonic() + self.limits.group_expiry)

    def group_discard(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        with self._changed:
            self._groups.discard(group, channel)

    def send_group(self, group: str, message: Message) -> None:
        names.check_group(group)
        body = self._encode(message)
        with self._changed:
            self._put_group(group, body)

    def group_channels(self, group: str) -> list[str]:
        names.check_group(group)
        with self._changed:
            return self._groups.channels(group, self._clock.monotonic())

    def flush(self) -> None:
        with self._changed:
            self._mailbox.clear()
            self._groups.clear()
            self._in_flight.clear()
            self._changed.notify_all()

    def statistics(self) -> dict[str, Any]:
        with self._changed:
            found = self._mailbox.statistics(self._clock.monotonic())
            own = {"groups": len(self._groups), "in_flight": len(self._in_flight), "dropped_count": self._dropped_count}
            return found | own

    def channel_statistics(self, channel: str) -> dict[str, Any]:
        names.check_channel(channel)
        with self._changed:
            return self._mailbox.statistics(self._clock.monotonic(), [names.local_prefix(channel)])

    # -- workers ------------------------------------------------------------------------------------------------------

    def take(self, channels: Sequence[str], timeout: float | None = None) -> Delivery | None:
        wanted = names.check_receive(channels)
        thread = threading.get_ident()
        with self._changed:
            self._taking.setdefault(thread, False)
            item = self._next(wanted, timeout, lambda: self._taking[thread])
            self._taking[thread] = False
            if item is None:
                return None
            self._in_flight[item.id] = item
        return Delivery(item.channel, codec.decode(item.body), item.id, token=item.id)

    def finish(self, delivery: Delivery, sends: Sequence[Send] = (), session: bytes | None = None) -> None:
        batch = [(name, self._encode(message), is_group) for name, message, is_group in sends]
        needed: dict[str, int] = {}
        for name, _, is_group in batch:
            if not is_group:
                needed[name] = needed.get(name, 0) + 1
        with self._changed:
            if needed:
                self._changed.wait_for(lambda: self._has_room(needed), FULL_RETRY)
            self._in_flight.pop(delivery.token, None)
            for name, body, is_group in batch:
                if is_group:
                    self._put_group(name, body)
                elif not self._put(name, body):
                    self._dropped_count += 1
                    logger.error(
                        "channel %s was full for %.0f s: a message that a consumer of %s sent to it is dropped",
                        *(name, FULL_RETRY, delivery.channel),
                    )

    def defer(self, delivery: Delivery, message: Message) -> None:
        body = self._encode(message)
        with self._changed:
            item = self._in_flight.pop(delivery.token, None)
            if item is not None:
                item.body, item.deadline = body, self._clock.monotonic() + self.limits.expiry
                self._mailbox.put_back(names.local_prefix(item.channel), item)
                self._changed.notify_all()

    def wake(self) -> None:
        # Callable from a signal handler, which may have interrupted a holder of the lock: no waiting for it.
        for thread in list(self._taking):
            self._taking[thread] = True
        if self._changed.acquire(blocking=False):
            try:
                self._changed.notify_all()
            finally:
                self._changed.release()

    # -- inside, under the lock ---------------------------------------------------------------------------------------

    def _encode(self, message: Message) -> bytes:
        return codec.encode(message, self.limits.max_message_size)

    def _next(self, channels: list[str], timeout: float | None, is_woken: Callable[[], bool]) -> _Item | None:
        deadline = None if timeout is None else SystemClock.monotonic() + timeout
        while True:
            item = self._mailbox.pop_any(channels, self._clock.monotonic())
            if item is not None:
                self._changed.notify_all()  # somebody may wait for the room
                return item
            left = _LONGEST_WAIT if deadline is None else deadline - SystemClock.monotonic()
            if left <= 0 or is_woken():
                return None
            self._changed.wait(min(left, _LONGEST_WAIT))

    def _has_room(self, needed: Mapping[str, int]) -> bool:
        now = self._clock.monotonic()
        for name, count in needed.items():
            capacity = self.limits.capacity_of(name)
            if not self._mailbox.has_room(names.local_prefix(name), capacity, now, min(count, capacity)):
                return False
        return True

    def _put(self, channel: str, body: bytes) -> bool:
        now = self._clock.monotonic()
        queue = names.local_prefix(channel)
        if not self._mailbox.has_room(queue, self.limits.capacity_of(channel), now):
            self._mailbox.refused(queue, now)
            return False
        self._counter += 1
        item = _Item(channel, body, now + self.limits.expiry, now, f"{self._id}:{self._counter}", len(body))
        self._mailbox.put(queue, item, now)
        self._changed.notify_all()
        return True

    def _put_group(self, group: str, body: bytes) -> None:
        fulls = [name for name in self._groups.channels(group, self._clock.monotonic()) if not self._put(name, body)]
        if fulls:
            self._dropped_count += len(fulls)
            logger.warning(
                "group %s: %d messages to full channels were dropped, the last one to %s", group, len(fulls), fulls[-1]
            )


def _after_fork() -> None:
    # Another thread may have held the lock: the child gets a lock of its own.
    for layer in list(_layers):
        layer._reset_lock()


os.register_at_fork(after_in_child=_after_fork)
