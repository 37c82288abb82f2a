"""The blocking client: views, consumers, shells, cron, and the worker's side.

Opens nothing before it is first used and again after a fork. Short requests of all threads share one connection; what
blocks (``receive_many``, ``take``, ``send_and_wait``) has one per thread. A hub that has gone is waited for, at most
``connect_timeout`` seconds; where there was none, a call fails at once.

The worker's side (``take``, ``finish``, ``defer``) is in ``taking.py``.
"""

from __future__ import annotations

import itertools
import os
import secrets
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from procman.clock import SystemClock
from procman.layers import codec, names
from procman.layers.base import ChannelLayer, Delivery, Message, Send
from procman.layers.errors import LayerUnavailable, LimitReached, MessageTooLarge
from procman.layers.ipc import address as addresses
from procman.layers.ipc import frames
from procman.layers.ipc.connection import Connection, ConnectionBroken, connect
from procman.layers.ipc.taking import ANSWER_TIMEOUT, Taking
from procman.layers.limits import CAPACITY, EXPIRY, GROUP_EXPIRY, MAX_MESSAGE_SIZE, Limits, check_positive
from procman.layers.wake import WakePipe

CONNECT_TIMEOUT = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.3
_layers: weakref.WeakSet[IPCChannelLayer] = weakref.WeakSet()


class _Breaks(Exception):
    """The connection broke at three attempts."""


class IPCChannelLayer(names.NameRules, ChannelLayer):
    """The channel layer of one machine, over a Unix socket to the hub process.

    *address* is an ``ipc://`` URL; without one it is ``PROCMAN_LAYER`` or follows from ``DJANGO_SETTINGS_MODULE``.
    The limits are the sender's: the hub applies them to what this process sends.

    ``send`` and ``send_group`` are sent a second time when the hub dies before it has answered. A message on a channel
    of workers is not queued twice by that: what the hub had taken was lost together with its queues. One to a socket,
    or to a group of sockets, may have been passed on already, and then arrives twice. What a consumer sends is held
    until its end, and applied once.
    """

    def __init__(
        self,
        address: str | None = None,
        expiry: float = EXPIRY,
        group_expiry: float = GROUP_EXPIRY,
        capacity: int = CAPACITY,
        channel_capacity: Mapping[Any, int] | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
        prefix: str = "",
        connect_timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        del prefix  # 1.x told sites apart by it; here each project has an address of its own
        self.limits = Limits(expiry, group_expiry, capacity, channel_capacity, max_message_size)
        self.expiry, self.group_expiry, self.capacity = expiry, group_expiry, capacity
        self.channel_capacity = dict(channel_capacity or {})
        self.connect_timeout = check_positive("connect_timeout", connect_timeout)
        if address is not None:
            addresses.parse(address)
        self._address = address
        self._reset()
        _layers.add(self)

    def _reset(self) -> None:
        """Forget all connections: at the start, and in a forked child (the parent goes on using them)."""
        self._lock = threading.Lock()
        self._shared: Connection | None = None
        self._local = threading.local()
        self._rid = 0
        self._sender, self._parts = secrets.token_hex(6), itertools.count(1)
        self._hub_id: str | None = None
        self._has_answered = False
        self._taking = Taking(self._open)

    @property
    def address(self) -> str:
        """Where the hub is. Raises ConfigurationError."""
        if self._address is None:
            self._address = addresses.default_address()
        return self._address

    def get_capacity(self, channel: str) -> int:
        """How many messages may wait on *channel*."""
        return self.limits.capacity_of(channel)

    # -- everybody ----------------------------------------------------------------------------------------------------

    def send(self, channel: str, message: Message) -> None:
        names.check_channel(channel)
        self._request(frames.SEND, channel, self._encode(message), frames.reply_channel_of(message))

    def send_and_wait(self, channel: str, message: Message, timeout: float | None = None) -> None:
        names.check_channel(channel)
        # A hub that dies may have passed it on: by the key the interface knows it when it comes again.
        key = f"{self._sender}:{next(self._parts)}"
        try:
            self._blocking_request(timeout, frames.SEND_AND_WAIT, channel, self._encode(message), key)
        except _Breaks as error:
            raise self._unavailable(error) from error

    def receive_many(
        self, channels: Sequence[str], block: bool = False, timeout: float | None = None
    ) -> tuple[str | None, dict[str, Any] | None]:
        wanted = names.check_receive(channels)
        found = self._receive(wanted, timeout) if block else self._request(frames.RECEIVE, wanted, False, None)
        return (None, None) if found is None else (found[0], codec.decode(found[1]))

    def new_channel(self, pattern: str) -> str:
        return names.build_channel(pattern)

    def group_add(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        self._request(frames.GROUP_ADD, group, channel)

    def group_discard(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        self._request(frames.GROUP_DISCARD, group, channel)

    def send_group(self, group: str, message: Message) -> None:
        names.check_group(group)
        self._request(frames.GROUP_SEND, group, self._encode(message))

    def group_channels(self, group: str) -> list[str]:
        names.check_group(group)
        channels: list[str] = codec.decode(self._request(frames.GROUP_CHANNELS, group))["channels"]
        return channels

    def group_count(self, group: str) -> int:
        names.check_group(group)
        count: int = self._request(frames.GROUP_COUNT, group)
        return count

    def flush(self) -> None:
        self._request(frames.FLUSH)

    def statistics(self) -> dict[str, Any]:
        return codec.decode(self._request(frames.STATISTICS, None))

    def channel_statistics(self, channel: str) -> dict[str, Any]:
        names.check_channel(channel)
        return codec.decode(self._request(frames.STATISTICS, channel))

    def close(self) -> None:
        with self._lock:
            self._drop_shared()
        self._taking.close()
        # Other threads' connections end with their threads.
        connection = self._local.__dict__.pop("requests", None)
        if connection is not None:
            connection.close()

    # -- workers ------------------------------------------------------------------------------------------------------

    def take(self, channels: Sequence[str], timeout: float | None = None) -> Delivery | None:
        return self._taking.take(channels, timeout)

    def finish(self, delivery: Delivery, sends: Sequence[Send] = (), session: bytes | None = None) -> None:
        batch = [(name, self._encode(message), is_group) for name, message, is_group in sends]
        if len(batch) > frames.MAX_SENDS:
            raise LimitReached(f"a consumer sent {len(batch)} messages; its end carries {frames.MAX_SENDS} at most")
        size = sum(len(name) + len(body) + frames.SEND_BYTES for name, body, _ in batch) + len(session or b"")
        if size > 4 * self.limits.max_message_size:
            raise MessageTooLarge(size, 4 * self.limits.max_message_size)
        frame = (frames.FINISH, delivery.token, batch, session)
        self._taking.end(codec.pack((*frame, False)), delivery.token, frame)

    def defer(self, delivery: Delivery, message: Message) -> None:
        packed = codec.pack((frames.DEFER, delivery.token, self._encode(message)))
        # Not kept: a hub that dies meanwhile gets the frame offered again by its interface.
        self._taking.end(packed, delivery.token, None)

    def excuse(self) -> None:
        self._taking.stop_taking()  # when this is answered, the hub has what this thread has finished
        self._request(frames.EXCUSE)

    def stop_taking(self) -> None:
        self._taking.stop_taking()

    def wake(self) -> None:
        self._taking.wake()

    # -- requests -----------------------------------------------------------------------------------------------------

    def _encode(self, message: Message) -> bytes:
        return codec.encode(message, self.limits.max_message_size)

    def _request(self, operation: int, *arguments: Any) -> Any:
        """The answer to a short request, over the connection that all threads share."""
        with self._lock:
            for attempt in (1, 2, 3):
                try:
                    connection = self._shared
                    if connection is None:
                        connection = self._shared = self._open(frames.CLIENT)
                    self._rid += 1
                    connection.write(codec.pack((operation, self._rid, *arguments)))
                    return connection.answer(self._rid, ANSWER_TIMEOUT)
                except ConnectionBroken as error:
                    self._drop_shared()
                    if attempt == 3:
                        raise self._unavailable(error) from error
                except BaseException as error:
                    if not isinstance(error, frames.ANSWERED):
                        self._drop_shared()  # an answer may still come; it must not meet the next request
                    raise
        raise AssertionError("not reached")

    def _receive(self, wanted: list[str], timeout: float | None) -> Any:
        """Wait for a message, however often the hub is started again meanwhile."""
        deadline = None if timeout is None else SystemClock.monotonic() + timeout
        breaks = 0
        while True:
            left = None if deadline is None else max(0.0, deadline - SystemClock.monotonic())
            # The hub ends the wait; the margin is for a hub that has stopped.
            patience = None if left is None else left + ANSWER_TIMEOUT
            try:
                return self._blocking_request(patience, frames.RECEIVE, wanted, True, left)
            except _Breaks as error:
                breaks += 1
                if deadline is not None and SystemClock.monotonic() >= deadline:
                    raise self._unavailable(error) from error
                time.sleep(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(breaks, 10)))

    def _blocking_request(self, timeout: float | None, operation: int, *arguments: Any) -> Any:
        """The answer to a request that may take long, over the thread's own connection."""
        connection = getattr(self._local, "requests", None)
        for attempt in (1, 2, 3):
            try:
                if connection is None:
                    connection = self._local.requests = self._open(frames.CLIENT)
                connection.write(codec.pack((operation, 1, *arguments)))
                return connection.answer(1, timeout)
            except ConnectionBroken as error:
                connection = self._local.requests = None
                if attempt == 3:
                    raise _Breaks(str(error)) from error
            except BaseException as error:
                if not isinstance(error, frames.ANSWERED):
                    self._local.requests = None
                    if connection is not None:
                        connection.close()
                raise
        raise AssertionError("not reached")

    def _open(self, role: str, wake: WakePipe | None = None) -> Connection:
        hello = frames.build_hello(role, self.limits, None, self._hub_id, self._sender)
        path = addresses.parse(self.address).path
        # Whoever sends where nothing runs hears it at once, each time; a hub that has been there is waited for once.
        is_patient = role != frames.CLIENT or self._has_answered
        limits = (self.limits.max_message_size, self.connect_timeout)
        try:
            found = connect(path, self.address, hello, *limits, wake, is_patient)
        except LayerUnavailable:
            self._has_answered = False
            raise
        self._hub_id, self._has_answered = found.hub_id, True
        return found

    def _drop_shared(self) -> None:
        if self._shared is not None:
            self._shared.close()
            self._shared = None

    def _unavailable(self, error: Exception) -> LayerUnavailable:
        return LayerUnavailable(f"the channel layer at {self.address} breaks the connection again and again: {error}")


def _after_fork() -> None:
    for layer in list(_layers):
        layer._reset()


os.register_at_fork(after_in_child=_after_fork)
