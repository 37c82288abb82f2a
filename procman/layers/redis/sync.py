"""The blocking client over Redis: views, consumers, shells, cron, and the worker's side.

Opens nothing before it is first used, and again after a fork. A process has two connections: one for the commands of
all threads, one on which they wait. What a worker has in flight is under a lease that a thread of its process renews;
when the lease runs out, or the worker's successor below the same supervisor starts, the message goes to another worker,
once. Only time in which Redis answered counts.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from procman.clock import SystemClock
from procman.layers import codec, names
from procman.layers.base import ChannelLayer, Delivery, Message, Send
from procman.layers.errors import ChannelFull, LayerUnavailable, MessageTooLarge, ReplyChannelGone
from procman.layers.limits import CAPACITY, EXPIRY, GROUP_EXPIRY, MAX_MESSAGE_SIZE, Limits
from procman.layers.redis import entries
from procman.layers.redis.bells import LONGEST_WAIT, Bells
from procman.layers.redis.connect import make_client
from procman.layers.redis.entries import Entry
from procman.layers.redis.hosts import choose_hosts, one_host
from procman.layers.redis.keeper import Keeper, log_told
from procman.layers.redis.keys import PREFIX, check_prefix
from procman.layers.redis.session import Held, Sent, Session
from procman.layers.wake import WakePipe, Woken
from procman.log import escape
from procman.settings import ENV_NAME, ENV_RUN

logger = logging.getLogger("procman.layers")
CLAIM_AFTER = 30.0
FULL_RETRY = 2.0
_DEFER_FIRST, _DEFER_LONGEST = 0.01, 0.5
_layers: weakref.WeakSet[RedisChannelLayer] = weakref.WeakSet()


class RedisChannelLayer(names.NameRules, ChannelLayer):
    """The channel layer over the Redis server at *address*, or that ``hosts`` names (see ``address.py``, ``hosts.py``).

    *connection_kwargs* are options for the connections, as redis-py names them. Limits are the sender's; in groups, of
    who added the member. *claim_after* is how many seconds a silent worker without a supervisor keeps what it had in
    flight.

    A finish is applied once, with all of its sends. Other sends are sent again after a broken connection, and known
    when they come twice. A Redis that loses its data (restart without persistence, failover, ``FLUSHALL``) loses what
    waits on channels of your own; interfaces offer again what they hold, and a send made in that moment may arrive
    twice.
    """

    def __init__(
        self,
        address: str | None = None,
        expiry: float = EXPIRY,
        group_expiry: float = GROUP_EXPIRY,
        capacity: int = CAPACITY,
        channel_capacity: Mapping[Any, int] | None = None,
        max_message_size: int = MAX_MESSAGE_SIZE,
        prefix: str = PREFIX,
        claim_after: float = CLAIM_AFTER,
        hosts: Sequence[Any] | str | None = None,
        connection_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.limits = Limits(expiry, group_expiry, capacity, channel_capacity, max_message_size)
        self.expiry, self.group_expiry, self.capacity = expiry, group_expiry, capacity
        self.channel_capacity = dict(channel_capacity or {})
        self._host = one_host(choose_hosts(address, hosts, connection_kwargs, os.environ))
        self.address, self.claim_after = self._host.hidden, claim_after
        self._prefix = check_prefix(prefix)
        self._reset()
        _layers.add(self)

    def _reset(self) -> None:
        """Begin anew: at the start, after ``close``, and in a forked child (the parent goes on using what it has)."""
        self._client = make_client(self._host, name=f"procman-{os.environ.get(ENV_NAME) or 'client'}")
        self._session = Session(self._client, self.address, self._prefix, self._ended, log_told)
        self._session.lease = self.claim_after
        self._bells = Bells([self._client], [self._session])
        self._ids = itertools.count(1)
        self._state = threading.Lock()
        self._keeper: Keeper | None = None
        self._local = threading.local()
        self._wakes: weakref.WeakSet[WakePipe] = weakref.WeakSet()
        self._wake_count = 0

    def get_capacity(self, channel: str) -> int:
        """How many messages may wait on *channel*."""
        return self.limits.capacity_of(channel)

    def close(self) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.stop()
            try:
                self._session.settle(1.0)
            except LayerUnavailable as error:
                logger.warning("the end of a message may not have arrived, and it may be run once more: %s", error)
        self._bells.close()
        self._session.close()
        self._reset()

    # -- everybody ----------------------------------------------------------------------------------------------------

    def send(self, channel: str, message: Message) -> None:
        names.check_channel(channel)
        if self._session.run("send", *self._fields(channel, message)):
            raise ChannelFull(channel, self.limits.capacity_of(channel))

    def send_and_wait(self, channel: str, message: Message, timeout: float | None = None) -> None:
        names.check_channel(channel)
        interface = entries.interface_of(channel)
        if not interface:
            return self.send(channel, message)
        key = f"{self._session.id}.{next(self._ids)}"
        tail = entries.build_tail(self._encode(message))
        answer = self._session.run("part", interface, channel, key, tail)
        if answer == -1:
            raise ReplyChannelGone(channel)
        if answer == -2:
            raise ChannelFull(channel, 0)
        if answer == 0:
            return self.send(channel, message)
        deadline = None if timeout is None else SystemClock.monotonic() + timeout
        while True:
            left = LONGEST_WAIT if deadline is None else deadline - SystemClock.monotonic()
            if left <= 0:
                raise LayerUnavailable(f"the interface of {escape(channel)} did not answer for {timeout} s")
            found = self._bells.wait([(0, f"{self._prefix}a:{key}".encode())], left, None)
            if found:
                if found == b"0":
                    raise ReplyChannelGone(channel)
                return None
            # The server may have lost it, or the interface may be dead: the key tells whether it has come before.
            self._session.run("keep", "", self._session.id, 0, "", plain=True)
            if self._session.run("part", interface, channel, key, tail) == -1:
                raise ReplyChannelGone(channel)

    def receive_many(
        self, channels: Sequence[str], block: bool = False, timeout: float | None = None
    ) -> tuple[str | None, dict[str, Any] | None]:
        wanted = names.check_receive(channels)
        deadline = None if timeout is None else SystemClock.monotonic() + timeout
        owner = names.body_owner(wanted[0])
        while True:
            turn = next(self._ids) % len(wanted)
            found = self._session.run("receive", owner, *wanted[turn:], *wanted[:turn])
            if isinstance(found, list):
                return found[0].decode(), codec.decode(entries.split_tail(found[1])[1])
            if found == -2:
                return wanted[0], {"closed": True}
            left = found / 1000 if deadline is None else min(found / 1000, deadline - SystemClock.monotonic())
            if not block or left <= 0:
                return None, None
            self._bells.wait([(0, self._bell(name)) for name in wanted], left, None)

    def new_channel(self, pattern: str) -> str:
        return names.build_channel(pattern)

    def group_add(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        lifetime, capacity = int(self.limits.group_expiry * 1000), self.limits.capacity_of(channel)
        self._session.run("group_add", group, channel, entries.interface_of(channel), lifetime, capacity)

    def group_discard(self, group: str, channel: str) -> None:
        names.check_group(group)
        names.check_channel(channel)
        self._session.run("group_discard", group, channel, entries.interface_of(channel))

    def send_group(self, group: str, message: Message) -> None:
        names.check_group(group)
        tail = entries.build_tail(self._encode(message))
        refused, last = self._session.run("group_send", group, self._new_id(), int(self.limits.expiry * 1000), tail)
        if refused:
            log_refused(group, refused, last)

    def group_channels(self, group: str) -> list[str]:
        names.check_group(group)
        return [name.decode() for name in self._session.run("group_channels", group, plain=True)]

    def flush(self) -> None:
        self._session.run("flush")

    def statistics(self) -> dict[str, Any]:
        return build_statistics(self._session.run("statistics", plain=True), True)

    def channel_statistics(self, channel: str) -> dict[str, Any]:
        names.check_channel(channel)
        return build_statistics(self._session.run("statistics", names.local_prefix(channel), plain=True), False)

    # -- workers ------------------------------------------------------------------------------------------------------

    def take(self, channels: Sequence[str], timeout: float | None = None) -> Delivery | None:
        wanted = tuple(channels)
        local = self._local
        if getattr(local, "channels", None) != wanted:
            names.check_receive(wanted)
            local.channels = wanted
            local.bells = [(0, self._bell(name)) for name in wanted]
        wake = getattr(local, "wake", None)
        if wake is None:
            wake = self._start_thread()
        deadline = None if timeout is None else SystemClock.monotonic() + timeout
        was_rung = False
        while True:
            if local.wake_count != self._wake_count:
                local.wake_count = self._wake_count
                wake.clear()
                return None
            left = LONGEST_WAIT if deadline is None else deadline - SystemClock.monotonic()
            try:
                found = self._session.take(wanted, was_rung, max(0.0, left), wake)
            except Woken:
                continue
            except LayerUnavailable:
                if deadline is not None and SystemClock.monotonic() >= deadline - 0.02:
                    return None
                wake.wait(0.02)
                continue
            if isinstance(found, Entry):
                local.held.entry = found
                return Delivery(
                    found.channel, codec.decode(found.body), found.id, found.deaths > 0, found.session, found
                )
            if left <= 0:
                return None
            was_rung = bool(self._bells.wait(local.bells, min(found, left), wake))

    def finish(self, delivery: Delivery, sends: Sequence[Send] = (), session: bytes | None = None) -> None:
        entry: Entry = delivery.token
        inside: list[tuple[str, bytes, bool]] = []
        outside: list[Any] = []
        size = 0
        for name, message, is_group in sends:
            body = self._encode(message)
            size += len(body)
            if entry.interface and (is_group or entries.interface_of(name) == entry.interface):
                inside.append((name, body, is_group))
            if is_group:
                tail, lifetime = entries.build_tail(body), int(self.limits.expiry * 1000)
                outside += ("g", "", name, 0, self._new_id(), "", "", 0, lifetime, tail)
            elif not entry.interface or entries.interface_of(name) != entry.interface:
                outside += ("s", *self._fields(name, message, body))
        if size > 4 * self.limits.max_message_size:
            raise MessageTooLarge(size, 4 * self.limits.max_message_size)
        notice = codec.pack((int(entry.number), session, inside)) if entry.interface else b""
        kept = b"" if session is None or len(session) > entries.MAX_SESSION_BYTES else b"s" + session
        fields = (entry.interface, entry.number, notice, entry.reply_channel, kept, *outside)
        if not any(kind == "s" for kind in outside[::10]):
            self._session.finish("finish", entry, (entry.id, 1, *fields))
            return
        self._finish_with_room(entry, fields)

    def _finish_with_room(self, entry: Entry, fields: tuple[Any, ...]) -> None:
        """End *entry* when there is room for all its sends, after ``FULL_RETRY`` seconds with those that fit."""
        deadline = SystemClock.monotonic() + FULL_RETRY
        pause = threading.Event()
        while True:
            is_last = SystemClock.monotonic() >= deadline
            sent = self._session.finish("finish", entry, (entry.id, int(is_last), *fields))
            try:
                self._session.settle()
            except LayerUnavailable:
                return  # sent again as soon as Redis answers
            if sent.answer != 0:
                return
            pause.wait(0.02)

    def defer(self, delivery: Delivery, message: Message) -> None:
        entry: Entry = delivery.token
        pause = min(_DEFER_LONGEST, _DEFER_FIRST * 2 ** min(entry.deferrals, 10))
        tail = entries.build_tail(self._encode(message), entry.session)
        self._session.finish("defer", entry, (entry.id, int(pause * 1000), tail))

    def stop_taking(self) -> None:
        """What this process has finished is known to Redis when this returns, if Redis answers."""
        with contextlib.suppress(LayerUnavailable):
            self._session.settle(1.0)

    def wake(self) -> None:
        self._wake_count += 1
        for wake in list(self._wakes):
            wake.set()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _encode(self, message: Message) -> bytes:
        return codec.encode(message, self.limits.max_message_size)

    def _fields(self, channel: str, message: Message, body: bytes | None = None) -> tuple[Any, ...]:
        reply = message.get("reply_channel")
        known = reply if isinstance(reply, str) else ""
        return entries.send_fields(
            channel, self._encode(message) if body is None else body, known, self._new_id(), self.limits
        )

    def _new_id(self) -> str:
        return f"{self._session.id}.{next(self._ids)}"

    def _bell(self, channel: str) -> bytes:
        return f"{self._prefix}b:{names.local_prefix(channel)}".encode()

    def _start_thread(self) -> WakePipe:
        """This thread takes from now on."""
        with self._state:
            if self._keeper is None:
                self._start_worker()
        wake = self._local.wake = WakePipe()
        self._local.held = Held(self._session)
        self._local.wake_count = self._wake_count
        self._wakes.add(wake)
        return wake

    def _start_worker(self) -> None:
        name, run = os.environ.get(ENV_NAME), os.environ.get(ENV_RUN)
        session = self._session
        session.label = f"{name or 'a worker'} on {socket.gethostname()} (pid {os.getpid()})"
        session.slot = f"{run}.{name}" if name and run else ""
        session.close()
        session.is_worker = True  # says hello when it connects
        self._keeper = Keeper([session], self.claim_after)

    def _ended(self, sent: Sent, answer: Any) -> None:
        """The answer to a finish or defer."""
        channel = sent.entry.channel
        if answer == -1:
            logger.error("a message of %s was given to another worker: what this one sent is dropped", escape(channel))
        elif answer == -2:
            logger.warning("Redis has lost a message of %s that was run here: what it sent is dropped", escape(channel))
        elif isinstance(answer, list):
            for name, number in zip(answer[::2], answer[1::2], strict=True):
                if number < 0:
                    log_refused("of a finish", -number, name)
                    continue
                logger.error(
                    "channel %s was full for %.0f s: a message that a consumer of %s sent to it is dropped",
                    *(escape(name.decode()), FULL_RETRY, escape(channel)),
                )


def log_refused(group: str, number: int, last: bytes) -> None:
    """Log what a group send had to drop."""
    logger.warning(
        "group %s: %d messages to full channels were dropped, the last one to %s", group, number, escape(last.decode())
    )


def build_statistics(found: Sequence[int], has_all: bool) -> dict[str, Any]:
    """The statistics from the numbers that ``lua/statistics.lua`` returns."""
    messages, messages_rate, fulls, fulls_rate, dropped, _, redelivered, _, pending, age, *rest = found
    statistics: dict[str, Any] = {
        "messages_count": messages,
        "messages_count_per_second": messages_rate,
        "messages_pending": pending,
        "messages_max_age": age / 1000,
        "channel_full_count": fulls,
        "channel_full_count_per_second": fulls_rate,
    }
    if has_all:
        statistics |= dict(zip(("in_flight", "interfaces", "workers", "sockets", "groups"), rest, strict=True))
        statistics |= {"redelivered_count": redelivered, "dropped_count": dropped}
    return statistics


def _after_fork() -> None:
    for layer in list(_layers):
        layer._reset()


os.register_at_fork(after_in_child=_after_fork)
