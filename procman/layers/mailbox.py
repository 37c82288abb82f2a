"""Bounded FIFO queues that forget: one per channel, each message with a deadline.

Pure. Callers pass ``now`` (monotonic seconds); nothing here reads a clock or locks. ``memory.py`` adds locks and
``ipc/hub.py`` adds clients; neither adds rules. All process-local channels below one ``prefix!`` share a queue.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from typing import Any, Generic, Protocol, TypeVar

from procman.layers import names

FOREVER = float("inf")
_METERED_NAMES = 1024
# Channels whose depth is told at a time: a project has dozens, and an answer is one frame.
DEPTHS = 100


class Waiting(Protocol):
    """What a queue holds: a deadline (monotonic seconds, ``FOREVER`` for none), a time of arrival, a size in bytes.

    None of them changes while it waits.
    """

    deadline: float
    since: float
    size: int


W = TypeVar("W", bound=Waiting)


class Meter:
    """A count, and how many of it the last full second saw."""

    __slots__ = ("_current", "_previous", "_second", "count")

    def __init__(self) -> None:
        self.count = self._current = self._previous = self._second = 0

    def add(self, now: float) -> None:
        """Count one at *now*."""
        self.count += 1
        second = int(now)
        if second != self._second:
            self._turn(second)
        self._current += 1

    def rate(self, now: float) -> int:
        """The count of the last full second before *now*."""
        if int(now) != self._second:
            self._turn(int(now))
        return self._previous

    def _turn(self, second: int) -> None:
        self._previous = self._current if second == self._second + 1 else 0
        self._current, self._second = 0, second


class Queue(deque[W]):
    """The messages of one channel, the bytes of them all, and a time before which none of them expires."""

    # Of the class: most queues hold one message for a moment, and setting these at each birth costs more.
    size = 0
    soonest = FOREVER

    def join(self, item: W) -> None:
        """Let *item* stand behind the others."""
        self.append(item)
        self.size += item.size
        if item.deadline < self.soonest:
            self.soonest = item.deadline

    def join_front(self, item: W) -> None:
        """Let *item* stand before the others."""
        self.appendleft(item)
        self.size += item.size
        if item.deadline < self.soonest:
            self.soonest = item.deadline


class Mailbox(Generic[W]):
    """The queues of one layer. *on_expired* hears of each message that was found past its deadline.

    *max_bytes* bounds what waits on each channel, beside its capacity; one message always fits an empty channel.
    """

    __slots__ = ("_channel_meters", "_fulls", "_messages", "_on_expired", "max_bytes", "queues")

    def __init__(self, on_expired: Callable[[W], None] | None = None, max_bytes: float = FOREVER) -> None:
        self.queues: dict[str, Queue[W]] = {}  # only channels on which something waits
        self.max_bytes = max_bytes
        self._on_expired = on_expired
        self._messages, self._fulls = Meter(), Meter()
        self._channel_meters: dict[str, tuple[Meter, Meter]] = {}

    def put(self, channel: str, item: W, now: float) -> None:
        """Queue *item* behind the others; capacity is the caller's question (``has_room``)."""
        self._messages.add(now)
        self._meters(channel)[0].add(now)
        self._queue(channel).join(item)

    def count(self, channel: str, now: float) -> None:
        """Count a message that passed through without waiting."""
        self._messages.add(now)
        self._meters(channel)[0].add(now)

    def put_front(self, channel: str, item: W) -> None:
        """Queue *item* before the others, past capacity: it had its turn already."""
        self._queue(channel).join_front(item)

    def put_back(self, channel: str, item: W) -> None:
        """Queue *item* behind the others without counting it again."""
        self._queue(channel).join(item)

    def has_room(self, channel: str, capacity: int, now: float, more: int = 1, size: int = 0) -> bool:
        """Whether *more* messages of *size* bytes together fit on *channel* under *capacity* and ``max_bytes``.

        What has expired does not take up room.
        """
        queue = self.queues.get(channel)
        if queue is None:
            return more <= capacity
        if len(queue) + more <= capacity and queue.size + size <= self.max_bytes:
            return True
        self._expire(channel, now)
        queue = self.queues.get(channel)
        if queue is None:
            return more <= capacity
        return len(queue) + more <= capacity and queue.size + size <= self.max_bytes

    def refused(self, channel: str, now: float) -> None:
        """Count a message that found *channel* full."""
        self._fulls.add(now)
        self._meters(channel)[1].add(now)

    def pop(self, channel: str, now: float) -> W | None:
        """The oldest message of *channel* that has not expired."""
        queue = self.queues.get(channel)
        if queue is None:
            return None
        found = None
        while queue:
            item = queue.popleft()
            queue.size -= item.size
            if item.deadline > now:
                found = item
                break
            self._report(item)
        if not queue:
            self.queues.pop(channel, None)
        return found

    def pop_any(self, channels: Collection[str], now: float) -> W | None:
        """A message of one of *channels*, chosen at random among those that have one, so that none starves."""
        queues = self.queues
        if not queues:
            return None
        waiting = [name for name in channels if name in queues]
        if len(waiting) > 1:
            random.shuffle(waiting)
        for name in waiting:
            item = self.pop(name, now)
            if item is not None:
                return item
        return None

    def remove(self, channel: str, item: W) -> bool:
        """Take *item* out of its queue; whether it was there."""
        queue = self.queues.get(channel)
        if queue is None:
            return False
        try:
            queue.remove(item)
        except ValueError:
            return False
        queue.size -= item.size
        if not queue:
            del self.queues[channel]
        return True

    def take_all(self, channel: str) -> list[W]:
        """Everything that waits on *channel*, in order; it is empty then."""
        return list(self.queues.pop(channel, ()))

    def sweep(self, now: float) -> None:
        """Drop everything that has expired, wherever it stands."""
        for channel in list(self.queues):
            self._expire(channel, now)

    def clear(self) -> None:
        """Drop everything, silently."""
        self.queues.clear()

    def statistics(self, now: float, channels: Iterable[str] | None = None) -> dict[str, Any]:
        """The numbers of the statistics extension, for one channel or all."""
        chosen = list(self.queues) if channels is None else list(channels)
        if channels is None:
            messages, fulls = self._messages, self._fulls
        else:
            messages, fulls = self._channel_meters.get(chosen[0]) or (Meter(), Meter())
        pending = [item for name in chosen for item in self.queues.get(name, ()) if item.deadline > now]
        return {
            "messages_count": messages.count,
            "messages_count_per_second": messages.rate(now),
            "messages_pending": len(pending),
            "bytes_pending": sum(item.size for item in pending),
            "messages_max_age": max((now - item.since for item in pending), default=0.0),
            "channel_full_count": fulls.count,
            "channel_full_count_per_second": fulls.rate(now),
        }

    def depths(self) -> dict[str, dict[str, int]]:
        """Messages and bytes that wait, per channel, of the ``DEPTHS`` with most; families of names count together.

        What has expired counts until it is swept.
        """
        messages: Counter[str] = Counter()
        size: Counter[str] = Counter()
        for name, queue in self.queues.items():
            name = names.family(name)
            messages[name] += len(queue)
            size[name] += queue.size
        deepest = dict(messages.most_common(DEPTHS))
        return {"channels_pending": deepest, "channels_bytes": {name: size[name] for name in deepest}}

    def _expire(self, channel: str, now: float) -> None:
        queue = self.queues.get(channel)
        # A look at each message is owed only when one may be due: a full channel asks at every send.
        if queue is None or now < queue.soonest:
            return
        expired, kept = [], Queue[W]()
        for item in queue:
            if item.deadline <= now:
                expired.append(item)
            else:
                kept.join(item)
        if kept:
            self.queues[channel] = kept
        else:
            del self.queues[channel]
        for item in expired:
            self._report(item)

    def _queue(self, channel: str) -> Queue[W]:
        queue = self.queues.get(channel)
        if queue is None:
            queue = self.queues[channel] = Queue()
        return queue

    def _report(self, item: W) -> None:
        if self._on_expired is not None:
            self._on_expired(item)

    def _meters(self, channel: str) -> tuple[Meter, Meter]:
        meters = self._channel_meters.get(channel)
        if meters is None:
            # Single-reader names come without end: the oldest names lose their counts.
            if len(self._channel_meters) >= _METERED_NAMES:
                del self._channel_meters[next(iter(self._channel_meters))]
            meters = self._channel_meters[channel] = (Meter(), Meter())
        return meters
