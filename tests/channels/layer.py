"""A channel layer in a list: what a worker test offers, and what the worker did with it."""

from collections import deque
from typing import Any

from procman.layers.base import ChannelLayer, Delivery, Send
from procman.layers.errors import ChannelFull, ReplyChannelGone


class RecordingLayer(ChannelLayer):
    """Queues in dicts; ``finished``, ``deferred`` and ``waited`` record the calls of those names, in order."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.queues: dict[str, deque[dict[str, Any]]] = {}
        self.groups: dict[str, list[str]] = {}
        self.deliveries: deque[Delivery | BaseException] = deque()
        self.finished: list[tuple[str, list[Send], bytes | None]] = []
        self.deferred: list[tuple[str, dict[str, Any]]] = []
        self.waited: list[tuple[str, dict[str, Any]]] = []
        self.log: list[tuple[str, str]] = []
        self.full: set[str] = set()
        self.gone_after: int | None = None
        self.woken = 0

    def deliver(self, channel: str, message: dict[str, Any], **facts: Any) -> Delivery:
        """Have the next ``take`` return *message*."""
        delivery = Delivery(channel, message, facts.pop("id", f"m{len(self.deliveries)}"), **facts)
        self.deliveries.append(delivery)
        return delivery

    def send(self, channel: str, message: Any) -> None:
        if channel in self.full:
            raise ChannelFull(channel, 0)
        self.log.append(("send", channel))
        self.queues.setdefault(channel, deque()).append(dict(message))

    def send_and_wait(self, channel: str, message: Any, timeout: float | None = None) -> None:
        if self.gone_after is not None and len(self.waited) >= self.gone_after:
            raise ReplyChannelGone(channel)
        self.log.append(("send_and_wait", channel))
        self.waited.append((channel, dict(message)))

    def send_group(self, group: str, message: Any) -> None:
        self.log.append(("send_group", group))
        for channel in self.groups.get(group, ()):
            self.queues.setdefault(channel, deque()).append(dict(message))

    def group_add(self, group: str, channel: str) -> None:
        self.groups.setdefault(group, []).append(channel)

    def group_discard(self, group: str, channel: str) -> None:
        self.groups[group].remove(channel)

    def receive_many(self, channels: Any, block: bool = False, timeout: float | None = None) -> Any:
        for channel in channels:
            if self.queues.get(channel):
                return channel, self.queues[channel].popleft()
        return None, None

    def take(self, channels: Any, timeout: float | None = None) -> Delivery | None:
        if self.deliveries:
            found = self.deliveries.popleft()
            if isinstance(found, BaseException):
                raise found
            return found
        channel, message = self.receive_many(channels)
        return Delivery(channel, message, "queued") if channel else None

    def finish(self, delivery: Delivery, sends: Any = (), session: bytes | None = None) -> None:
        self.finished.append((delivery.id, list(sends), session))

    def defer(self, delivery: Delivery, message: Any) -> None:
        self.deferred.append((delivery.id, dict(message)))

    def wake(self) -> None:
        self.woken += 1

    def sent(self) -> list[dict[str, Any]]:
        """The messages that left with finishes, in order."""
        return [send.message for _, sends, _ in self.finished for send in sends]


class BareLayer:
    """As little as a layer of 1.x may be."""

    class ChannelFull(Exception):
        """Full."""

    def __init__(self) -> None:
        self.queue: deque[tuple[str, dict[str, Any]]] = deque()

    def send(self, channel: str, message: dict[str, Any]) -> None:
        """Queue."""
        self.queue.append((channel, message))

    def receive_many(self, channels: Any, block: bool = False) -> Any:
        """Whatever is first."""
        return self.queue.popleft() if self.queue else (None, None)
